"""Write docs/client_words.md from data/client_words.csv: what clients say, and what it means, to be found by searching.

``python -m tools.error_pages`` calls it.
"""

from collections import defaultdict
from pathlib import Path

from mciot_nb.connect.explain import explain, kind_of
from mciot_nb.pki.files import data_table
from tools.error_pages import ROOT

PAGE = ROOT / "docs" / "client_words.md"
HEAD = """# What clients say when they are refused

<!-- Made by `python -m tools.error_pages` from `data/client_words.csv` and `data/answers.csv`; do not edit it. -->

Search this page (Ctrl+F) for a few words of your client's message, without addresses, times and file names. Above the
messages is what they can mean, the most frequent cause first. `explain("…")` in a notebook says the same of a message,
a whole log or an exception, and so does `python -m mciot_nb explain` in a terminal. Every message was measured, by
`python -m tools.measure_clients`: each client met each refusal of the local platform, and of a server written in Java,
as the real platform is, on TLS 1.2 and 1.3. An attempt's lines are separated by ` / `; `HOST`, `PORT`, `CLIENTID`,
`URL` and `TIME` stand for values.
"""


def page() -> str:
    """Return the page: by the kind of refusal its causes, and by the message the clients that say it."""
    rows = [
        row for row in data_table("client_words.csv") if row["client"] != "mciot_nb"
    ]  # whose sentences are in errors.md
    kinds = defaultdict[str, dict[str, set[tuple[str, str]]]](dict)
    for row in rows:
        said = kinds[kind_of(row["words"])].setdefault(row["words"], set())
        said.add((row["client"], row["tls"].removeprefix("TLSv")))
    versions = sorted({(row["client"], row["version"]) for row in rows}, key=lambda one: (one[0].lower(), one))
    listed = [f"| {client} | {version} |" for client, version in versions]
    parts = [HEAD, "| Client | Version |\n|---|---|\n" + "\n".join(listed) + "\n"]
    for kind in sorted(kinds):
        parts.append(f"## {kind[:1].upper()}{kind[1:]}\n")
        for number, cause in enumerate(explain(min(kinds[kind])).findings, 1):
            parts.append(f"{number}. [{cause.code}](troubleshooting.md#{cause.code.lower()}): {cause.sentence}")
        parts.append("\n| Message | Said by |\n|---|---|")
        for words, clients in sorted(kinds[kind].items()):
            parts.append(f"| {_code(words)} | {_who(clients)} |")
        parts.append("")
    return "\n".join(parts)


def _who(clients: set[tuple[str, str]]) -> str:
    """Return the clients, with the version of TLS where they say it on one of the two only."""
    versions = defaultdict[str, set[str]](set)
    for client, tls in clients:
        versions[client].add(tls)
    shown = {client: "" if len(tls) > 1 else f" (TLS {min(tls)})" for client, tls in versions.items()}
    return ", ".join(client + shown[client] for client in sorted(shown, key=str.lower))


def _code(words: str) -> str:
    """Return words as code in a cell of a table."""
    ticks = "``" if "`" in words else "`"
    return f"{ticks}{words.replace('|', chr(92) + '|')}{ticks}"


def write(path: Path = PAGE) -> None:
    """Write the page."""
    path.write_text(page(), encoding="utf-8", newline="\n")
