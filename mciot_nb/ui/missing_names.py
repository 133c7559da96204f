"""What a notebook says where a name is used whose cell has not run: which cell makes it, in place of a traceback."""

import ast
import json
import os
import re
import symtable
import sys
import traceback
from contextlib import redirect_stderr, suppress
from io import StringIO
from pathlib import Path
from typing import Any


def explain_missing_name(ip: Any, kind: Any, error: NameError, trace: Any, tb_offset: int | None = None) -> None:
    """Show which cell makes the name if one does, else what IPython shows: a handler for ``set_custom_exc``."""
    *_, (innermost, _line) = traceback.walk_tb(trace)
    if kind is NameError and error.name and innermost.f_globals is ip.user_global_ns:  # not one of a library's
        with redirect_stderr(StringIO()) as said:  # with what Python suggests, and IPython leaves out
            sys.__excepthook__(kind, error, trace)
        plain = re.sub(r"\x1b\[[\d;]*m", "", said.getvalue())  # Python 3.13 colours it in a kernel
        error.args = (plain.rpartition("NameError: ")[2].strip(),)
        with suppress(OSError, ValueError, LookupError, TypeError):  # no notebook, or none that can be read
            sentence = _who_makes(error.name, ip)
            error._render_traceback_ = lambda: [sentence]  # type: ignore[attr-defined]
    ip.showtraceback((kind, error, trace), tb_offset=tb_offset, running_compiled_code=True)


def _who_makes(name: str, ip: Any) -> str:
    """Say where in the notebook's file, which the server names, ``name`` is made; LookupError: if nowhere."""
    cells = json.loads(Path(os.environ["JPY_SESSION_NAME"]).read_text("utf-8"))["cells"]
    this = ip.get_parent()["metadata"]["cellId"]
    where = "further up" if any(cell["id"] == this for cell in cells) else "elsewhere in this notebook"
    for cell in cells:
        source = "".join(cell["source"])
        if cell["id"] == this:
            where = "further down"
        elif cell["cell_type"] == "code" and _makes(name, ip.transform_cell(source)):
            above = "the cells above (Run > Run All Above Selected Cell)"
            run = above if where == "further up" else "that cell and those above it"
            begins = next(line for line in source.splitlines() if line)
            return f"`{name}` is made {where}, in the cell that begins `{begins}`: run {run}, then this one again."
    raise LookupError(name)


def _makes(name: str, source: str) -> bool:
    """Whether a cell assigns, defines or imports ``name``; what its functions keep to themselves does not count."""
    with suppress(KeyError, SyntaxError):
        tree = ast.parse(source)
        for node in ast.walk(tree):  # neither a name that is deleted is made, nor one that ends with its `except`
            if isinstance(node, ast.ExceptHandler):
                node.name = None
            elif isinstance(node, ast.Delete):
                node.targets = [ast.Tuple([], ast.Del())]
            elif isinstance(node, ast.comprehension):
                node.target = ast.Tuple([], ast.Store())  # its own, though Python 3.12 counts it as the cell's
        symbol = symtable.symtable(ast.unparse(tree), "", "exec").lookup(name)
        return symbol.is_assigned() or symbol.is_imported()
    return False
