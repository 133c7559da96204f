"""Draw each mermaid diagram of the documents and notebooks as docs/diagrams/….svg, for where no mermaid runs: the book.

``python -m tools.diagrams``, after a change to a diagram. It needs chromium, and npm for mermaid itself.
"""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "diagrams"
FENCE = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MERMAID = "mermaid@11.17.2"
#: Text as text, because a picture shows no HTML inside SVG.
SETTINGS = {"startOnLoad": False, "theme": "neutral", "htmlLabels": False, "flowchart": {"htmlLabels": False}}
PAGE = """<!doctype html><meta charset="utf-8"><script src="node_modules/mermaid/dist/mermaid.min.js"></script>
<body><script>mermaid.initialize(%s);
mermaid.render("diagram", %s).then(drawn => {
  const svg = new DOMParser().parseFromString(drawn.svg, "text/html").querySelector("svg");
  document.body.dataset.svg = new XMLSerializer().serializeToString(svg); });</script>"""


def sources() -> list[str]:
    """Return each diagram that there is, as mermaid's text."""
    texts = [path.read_text(encoding="utf-8") for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]]
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    return [source for text in texts for source in FENCE.findall(text)]


def drawing(source: str) -> Path:
    """Return where the drawing of a diagram is: another text has another."""
    return FOLDER / f"{hashlib.sha256(source.encode()).hexdigest()[:12]}.svg"


def description(source: str) -> str:
    """Return what a diagram says of itself in ``accDescr``: the text for those who can't see it."""
    found = re.search(r"^\s*accDescr: *(.+)$", source, re.MULTILINE)
    return found[1] if found else ""


def draw(source: str, folder: Path) -> str:
    """Return a diagram as SVG, drawn in chromium by the mermaid that is in ``folder``."""
    (folder / "page.html").write_text(PAGE % (json.dumps(SETTINGS), json.dumps(source)), encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    page = subprocess.run([*command, (folder / "page.html").as_uri()], capture_output=True, check=True, text=True)
    shown = re.search(r'data-svg="([^"]*)"', page.stdout)
    if not shown:
        sys.exit(f"mermaid could not draw this:\n{source}")
    text = shown[1].replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")
    width, height = re.search(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+) ([\d.]+)"', text).groups()  # type: ignore[union-attr]
    return re.sub(r'width="100%"', f'width="{float(width):.0f}" height="{float(height):.0f}"', text, count=1) + "\n"


def main() -> None:
    """Draw what is not drawn yet, and remove drawings of diagrams that are gone."""
    wanted = {drawing(source): source for source in sources()}
    for path in set(FOLDER.glob("*.svg")) - set(wanted):
        path.unlink()
    with tempfile.TemporaryDirectory() as folder:
        if missing := {path: source for path, source in wanted.items() if not path.exists()}:
            subprocess.run(["npm", "install", "--silent", "--prefix", folder, MERMAID], check=True)
        for path, source in missing.items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(draw(source, Path(folder)), encoding="utf-8")
            print(path.relative_to(ROOT).as_posix())


if __name__ == "__main__":
    main()
