"""Write docs/troubleshooting.md: for each code what a learner sees, why, what to do, and the notebook that explains it.

``python -m tools.error_pages`` calls it. What has no code, and the procedures, come from data/troubleshooting.md; why
and what to do from data/codes.toml; what is seen, from the code.
"""

import re
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

from mciot_nb.connect.mqtt import ALERTS, CONNACK
from mciot_nb.errors import Finding
from tools.error_pages import ROOT, Entry

HEAD, TABLE = ROOT / "data" / "troubleshooting.md", ROOT / "data" / "codes.toml"
PAGE = ROOT / "docs" / "troubleshooting.md"
MOST_SENTENCES = 3  # of one code; errors.md has them all
BY_NUMBER = {path.stem[:2]: path for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}


def groups() -> dict[str, dict[str, Any]]:
    """Return the table: by group its title, its text, and by code what is known of it."""
    return {name: group for name, group in tomllib.loads(TABLE.read_text("utf-8")).items() if "title" in group}


def known_codes() -> dict[str, dict[str, str]]:
    """Return what the table knows, by code."""
    return {code: row for group in groups().values() for code, row in group.items() if isinstance(row, dict)}


def numbered() -> dict[str, str]:
    """Return, by code, the sentences that are made of a number or an alert's name."""
    connack = {f"CONNACK_{n}": f"{{platform}} answered CONNACK {n}: {text}." for n, text in CONNACK.items()}
    alerts = {f"ALERT_{n}": f"{{platform}} sent the TLS alert {n.lower()}: {text}." for n, text in ALERTS.items()}
    return connack | alerts


def page(entries: list[Entry]) -> str:
    """Return the page for the coded errors that there are."""
    said: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        if entry.sentence and entry.sentence not in said[entry.code]:
            said[entry.code].append(entry.sentence)
    said |= {code: [sentence] for code, sentence in numbered().items()}
    parts = [HEAD.read_text(encoding="utf-8")]
    for group in groups().values():
        parts.append(f"## {group['title']}\n\n{group['text']}\n")
        parts += [_entry(code, row, said[code]) for code, row in group.items() if isinstance(row, dict)]
    return "\n".join(parts)


def _entry(code: str, row: dict[str, str], sentences: list[str]) -> str:
    seen = [row["see"]] if "see" in row else [f"“{_shown(text)}”" for text in sentences[:MOST_SENTENCES]]
    more = len(sentences) - MOST_SENTENCES if "see" not in row else 0
    rest = [f"[{more} more](errors.md)"] if more > 0 else []
    number, _, heading = row["read"].partition(" ")
    link = f"[{number} {heading}](../notebooks/{BY_NUMBER[number].name})"
    command = Finding(code, "").command
    lines = {
        "You see": " · ".join([*seen, *rest]),
        "Why": row["why"],
        "Look": f"`{command}`" if command else "",
        "Fix": row["fix"],
    }
    lines["Explained in"] = link
    title = re.sub(r"\{.*\}", "…", code)  # another number, or another alert
    return f"### {title}\n\n" + "".join(f"- **{label}:** {text}\n" for label, text in lines.items() if text)


def _shown(sentence: str) -> str:
    """Return a sentence as Markdown, its values in italics."""
    text = re.sub(r"([\\`*_<>|\[\]])", r"\\\1", sentence.replace("\n", " "))
    text = re.sub(r"(?<=\w)\{[^{}]*\}|\{[^{}]*\}(\{[^{}]*\})+|\{…\}", "…", text)  # part of a word, or several
    return re.sub(r"\{([^{}]*)\}", r"*\1*", text)


def write(entries: list[Entry], path: Path = PAGE) -> None:
    """Write the page."""
    path.write_text(page(entries), encoding="utf-8", newline="\n")
