"""Build the book (`run.py book`): run the notebooks in a fresh workspace, and make pages or a PDF of what came out."""

import argparse
import asyncio
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat
from cryptography.hazmat.backends.openssl import backend

from mciot_nb.errors import OnboardingError
from mciot_nb.pki.names import read_subject
from mciot_nb.workspace import DEFAULTS, Workspace, suggested
from tools import book_pages, book_scan
from tools.notebooks import NOTEBOOKS, ROOT, as_shown, canonical, kernels_work_in, prepare, run_each

#: What ran the notebooks, or made the pages.
PACKAGES = (
    *("mciot-nb", "cryptography", "pyopenssl", "paho-mqtt", "requests", "pandas", "ipykernel", "nbclient"),
    *("sphinx", "myst-nb", "furo"),
)
#: A folder with it is a book, and may be replaced.
MARK = Path("_static/book.css")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
INSTALLED = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)


def main() -> int:
    """Build what was asked for; returns the exit code."""
    asked = arguments()
    if asked.subject:
        read_subject(asked.subject)  # before anything is run
        os.environ["MCIOT_SUBJECT"] = asked.subject
    if asked.tenant_url and os.environ.get("MCIOT_URL"):
        sys.exit("MCIOT_URL names the tenant already, on which the notebooks will run: leave out --tenant-url.")
    if asked.tenant_url and not re.fullmatch(r"https://[\w.-]+(:\d+)?/?", asked.tenant_url):
        sys.exit(f"--tenant-url is {asked.tenant_url!r}: write an address such as https://acme.example.com.")
    chosen = [path for path in NOTEBOOKS if path.stem.startswith(asked.notebook)] if asked.notebook else NOTEBOOKS
    if not chosen:
        sys.exit(f"There is no notebook {asked.notebook!r}: use one of {', '.join(p.stem[:2] for p in NOTEBOOKS)}.")
    out = Path(asked.out or ("." if asked.notebook else "book")).expanduser().absolute()
    if not asked.notebook and out.exists() and not (out / MARK).exists() and (out.is_file() or any(out.iterdir())):
        sys.exit(
            f"{out} is or holds something other than a book, and would be replaced: name another folder with --out."
        )
    browser = find_browser() if asked.notebook else ""
    parent = out if asked.notebook else out.parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".book-", dir=parent) as made, tempfile.TemporaryDirectory() as folder:
        return make(chosen, asked.tenant_url, out, Path(made), Path(folder), browser)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("run.py book", description=__doc__)
    parser.add_argument("--subject", help="your company's fields, such as /C=DE/O=Acme, for the guide's own")
    parser.add_argument("--tenant-url", help="your tenant's address, shown where the local platform's would be")
    parser.add_argument("--notebook", help="one chapter, such as 03, as a PDF")
    parser.add_argument("--out", help="the folder of the book (book/), or for a PDF")
    return parser.parse_args()


def make(paths: list[Path], tenant_url: str, out: Path, made: Path, folder: Path, browser: str) -> int:
    """Run the notebooks and publish what they became; ``made`` is empty, beside ``out``, and goes afterwards."""
    workspace, begin = Workspace(folder / "workspace"), time.monotonic()
    notebooks = {path: nbformat.read(path, as_version=4) for path in paths}
    places = folder / "source", made / "book", folder / "state"
    titles = {path: nbformat.v4.new_notebook(cells=one.cells[:1]) for path, one in notebooks.items()}
    book_pages.write_sources(places[0], titles, about_page(tenant_url))
    with making_pages(*places) as pages, kernels_work_in(workspace):
        if browser:
            prepare(workspace, paths[0])
        if failure := asyncio.run(run_each(notebooks)):
            print(f"failed\nThe book was not made, because a notebook failed. {failure}")
            return 1
        notebooks = {path: with_names(as_run(one, workspace), tenant_url) for path, one in notebooks.items()}
        book_pages.write_notebooks(places[0], notebooks)
        said, _ = pages.communicate(run_line(tenant_url))
    print(said.replace(str(places[0]), "").strip() or "  No warnings from Sphinx.")
    if pages.returncode:
        return 1
    ours = [*ROOT.glob("*.md"), *book_pages.documents(), *NOTEBOOKS, *(ROOT / "mciot_nb").rglob("*.py")]
    committed = " ".join(path.read_text(encoding="utf-8") for path in ours)
    if found := list(book_scan.findings(made / "book", workspace, committed, folder, made)):
        print("\n".join(["The book was not published, because of what stands in it:", *found]))
        return 1
    if browser:
        out = out / f"{paths[0].stem}.pdf"
        print_page(browser, made / "book" / "notebooks" / f"{paths[0].stem}.html", made / out.name)
        (made / out.name).replace(out)
    else:
        replace(out, made / "book", made / "old")
    print(f"Done in {time.monotonic() - begin:.1f} s: {out if browser else out / 'index.html'}")
    return 0


def replace(out: Path, new: Path, old: Path) -> None:
    """Put ``new`` in the place of ``out``, which goes to ``old``, and comes back if that fails."""
    if out.exists():
        out.rename(old)
    try:
        new.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise


@contextmanager
def making_pages(*places: Path) -> Iterator["subprocess.Popen[str]"]:
    """Let a process read the sources while the block runs the notebooks; it ends with the block at the latest."""
    command = [sys.executable, "-m", "tools.book_pages", *map(str, places)]
    pages = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with pages:
        try:
            yield pages
        finally:
            pages.kill()


def as_run(notebook: Any, workspace: Workspace) -> Any:
    """Return a notebook with what its outputs share with no other run left out."""
    return nbformat.reads(canonical(as_shown(notebook, workspace)), as_version=4)


def with_names(notebook: Any, tenant_url: str) -> Any:
    """Return a notebook whose prose has your company's names, and your tenant in place of the local platform."""
    text = json.dumps(notebook, ensure_ascii=False)
    for owner, default in DEFAULTS.items():
        text = text.replace(json.dumps(default.common_name)[1:-1], json.dumps(suggested(owner).common_name)[1:-1])
    company = suggested("ca").organization or "Example Company"
    text = text.replace("Example Company", json.dumps(company, ensure_ascii=False)[1:-1])
    if tenant_url:
        host = urlsplit(tenant_url).hostname
        text = re.sub(r"https://(127\.0\.0\.1|localhost)(:\d+)?", tenant_url.rstrip("/"), text)
        text = re.sub(r"\b(127\.0\.0\.1|localhost)\b", str(host), text)
    return nbformat.from_dict(json.loads(text))


def versions() -> dict[str, str]:
    """Return the versions of what ran the notebooks and made the pages."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty= with changes"], cwd=ROOT, capture_output=True, text=True
    )
    known = {"Python": platform.python_version(), "System": f"{platform.system()} {platform.machine()}"}
    known |= {name: version(name) for name in PACKAGES}
    if commit.returncode == 0:
        known["mciot-nb"] += f" ({commit.stdout.strip()})"
    known["cryptography"] += f", {backend.openssl_version_text()}"
    return known


def where_it_ran(tenant_url: str) -> str:
    """Say which platform answered, in half a sentence."""
    if url := os.environ.get("MCIOT_URL"):
        return f"against the tenant {url}"
    shown = f", whose address is shown as {urlsplit(tenant_url).hostname}" if tenant_url else ""
    return f"against a local platform{shown}"


def run_line(tenant_url: str) -> str:
    """Return what stands at the foot of each page."""
    known, now = versions(), datetime.now(UTC)
    ours = f"mciot-nb {known['mciot-nb']} and Python {known['Python']}"
    return f"All notebooks were run on {now:%Y-%m-%d at %H:%M} UTC with {ours} {where_it_ran(tenant_url)}."


def about_page(tenant_url: str) -> str:
    """Return the page with the date and versions."""
    rows = "\n".join(f"| {name} | {number} |" for name, number in versions().items())
    return f"""# About this book

{run_line(tenant_url)} They ran from the first to the last in an empty workspace, and each output stands as it came; in
place of the workspace's folder and of the port, all books show the same.

Forms and panels are shown as pictures of what was submitted: to use them, run the notebooks in JupyterLab with
`python3 run.py`. This book was made by `python3 run.py book`, and needs no network.

| What ran it | Version |
|---|---|
{rows}
"""


def find_browser() -> str:
    """Return the browser that prints. Exits with a sentence where there is none."""
    known = [*(shutil.which(name) for name in BROWSERS), *(path for path in INSTALLED if Path(path).exists())]
    if found := next(filter(None, known), None):
        return found
    sys.exit("A PDF is printed by Chromium, Chrome or Edge, and none was found here: install one, or print the book.")


def print_page(browser: str, page: Path, pdf: Path) -> None:
    """Print a page as a PDF: all that is folded is open, and no link leads into a folder that readers don't have."""
    text = re.sub(r'(<a\b[^>]*?) href="(?!https?:|#)[^"]*"', r"\1", page.read_text(encoding="utf-8"))
    page.write_text(re.sub(r"<details(?! open)", "<details open", text), encoding="utf-8")
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--disable-gpu", f"--user-data-dir={profile}", "--no-pdf-header-footer"]
        command += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # in a container
        done = subprocess.run([*command, f"--print-to-pdf={pdf}", page.as_uri()], capture_output=True, text=True)
    if not pdf.exists():
        sys.exit(f"{browser} made no PDF: {done.stderr.strip().splitlines()[-1] if done.stderr else 'it said nothing'}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OnboardingError as problem:
        sys.exit(str(problem))
    except OSError as problem:
        sys.exit(f"The book could not be written: {problem}.")
