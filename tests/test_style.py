"""Style and types are part of the tests, so that one command says whether a change is good."""

import subprocess
import sys

from conftest import ROOT


def test_lint_finds_nothing() -> None:
    done = subprocess.run([sys.executable, "-m", "tools.lint"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_package_loads_neither_pandas_nor_widgets() -> None:
    code = "import mciot_nb, sys; print(sorted({'pandas', 'ipywidgets', 'IPython'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
