"""What 10,000 rows cost in the live table: beside pandas in the kernel, and beside 100 rows in the real Lab."""

import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import pandas as pd
from authority import PASSPHRASE, Line, alternate, fill

from mciot_nb import CertificateAuthority, DistinguishedName
from mciot_nb.pki.keys import KeyType
from mciot_nb.ui.signing_panel import SigningPanel, signing_texts

FEW, MANY = 100, 10_000
RUNS, LAB_RUNS = 9, 7
WORD = "device-000042"  # of one row, however many there are

OPEN = """import os, pathlib
from mciot_nb import CertificateAuthority
from mciot_nb.ui.signing_panel import SigningPanel
cas = [CertificateAuthority.open(pathlib.Path(n).absolute(), os.environ["BENCH"]) for n in ("few", "many")]
runs = [0, 0]"""
SHOW = """runs[{0}] += 1
SigningPanel(cas[{0}]).add_class(f"try-{0}-{{runs[{0}]}}")"""
#: Takes the time from the key by which a person asks to the moment when the answer is on the page.
WATCH = """([key, selector, wanted]) => {
  window.taken = new Promise((resolve) => {
    let begin;
    addEventListener("keydown", (event) => { if (event.key === key) begin = performance.now(); }, { capture: true });
    const look = () => {
      if (begin === undefined || !document.querySelector(selector)?.textContent.includes(wanted)) return;
      observer.disconnect();
      requestAnimationFrame(() => setTimeout(() => resolve((performance.now() - begin) / 1000)));  // once it is painted
    };
    const observer = new MutationObserver(look);
    observer.observe(document.body, { childList: true, subtree: true, characterData: true });
  });
}"""


def filled(folder: Path, rows: int) -> CertificateAuthority:
    """Make a CA that seems to have signed ``rows`` certificates."""
    ca = CertificateAuthority.create(
        folder, DistinguishedName(common_name="Bench CA"), PASSPHRASE, key_type=KeyType.RSA_2048
    )
    fill(ca.database.path, rows)
    return ca


def tables(folder: Path) -> Iterator[Line]:
    """Show, filter, sort and renew 10,000 rows, each beside pandas alone."""
    ca = filled(folder / "table", MANY)
    texts, panel = signing_texts(ca.database.to_frame(), datetime.now(UTC)), SigningPanel(ca)
    asked = iter(range(10**6))

    def paint() -> None:
        shown = SigningPanel(ca)
        shown._repr_mimebundle_()
        shown.table.get_state()

    def plain_filter() -> pd.DataFrame:
        found = texts.apply(lambda column: column.str.contains(WORD, case=False, regex=False)).any(axis=1)
        return texts[found]

    def first_filter() -> None:
        panel.table._searched = None  # as after a change
        warm_filter()

    def warm_filter() -> None:
        panel.table.set_state({"filter": f"{WORD} {' ' * (next(asked) % 2)}"})  # another each time, or nothing is done
        assert len(panel.table.rows) == 1

    def sort() -> None:
        panel.table.set_state({"filter": "", "sort": "Common name", "descending": next(asked) % 2 == 0})

    def poll() -> None:
        lines = ca.database.path.read_text("utf-8").splitlines(keepends=True)
        ca.database.path.write_text("".join(lines[1:] + lines[:1]), "utf-8")
        panel.poll()

    def read_and_paint() -> None:
        pd.read_csv(ca.database.path, sep="\t", header=None).to_html()

    rows = f"{MANY:,} rows"
    for peer, other in (("DataFrame.to_html", texts.to_html), ("Styler.to_html", texts.style.to_html)):
        yield f"SigningPanel, {rows}, as displayed", *_apart(alternate(paint, other, RUNS), peer)
    yield f"filter {rows}, the first time", *_apart(alternate(first_filter, plain_filter, RUNS), "str.contains")
    yield f"filter {rows}, again", *_apart(alternate(warm_filter, plain_filter, RUNS), "str.contains")
    yield f"sort {rows}", *_apart(alternate(sort, lambda: texts.sort_values("Common name"), RUNS), "sort_values")
    yield f"see a change in {rows}", *_apart(alternate(poll, read_and_paint, RUNS), "read_csv and to_html")


def _apart(times: tuple[float, float], peer: str) -> tuple[float, str, float]:
    return times[0], peer, times[1]


def in_the_lab(folder: Path) -> Iterator[Line]:
    """Take the time in the real Lab: from the key that runs the cell, or ends the filter, to the rows on the page."""
    if not shutil.which("chromium"):
        return
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import browser  # what the tests of the Lab use
    from playwright.sync_api import Page

    folder = folder / "lab"
    folder.mkdir()
    sizes = (FEW, MANY)
    for name, rows in zip(("few", "many"), sizes, strict=True):
        filled(folder / name, rows)
    browser.write_notebook(folder, [OPEN, SHOW.format(0), SHOW.format(1)])

    def run(page: Page, which: int, number: int) -> float:
        page.evaluate(WATCH, ["Enter", f".try-{which}-{number} tbody", "Open"])
        page.locator(".jp-CodeCell .jp-InputArea-editor").nth(1 + which).click()
        page.keyboard.press("Control+Enter")
        return float(page.evaluate("() => window.taken"))

    def type_filter(page: Page, which: int, number: int) -> float:
        status, last = f".try-{which}-{number} .mciot-table-status", WORD[-1]
        field = page.locator(f".try-{which}-{number} input[type=search]")
        field.press_sequentially(WORD[:-1], delay=20)
        page.wait_for_timeout(400)
        page.evaluate(WATCH, [last, status, f"1 of {sizes[which]:,}"])
        page.keyboard.press(last)
        taken = float(page.evaluate("() => window.taken"))
        field.fill("")
        return taken

    shown: tuple[list[float], list[float]] = ([], [])
    filtered: tuple[list[float], list[float]] = ([], [])
    with browser.lab(folder, BENCH=PASSPHRASE) as url, browser.page_of(url) as page:
        browser.run_all(page)
        page.locator(".try-1-1 tbody th").first.wait_for()
        for number in range(2, LAB_RUNS + 2):
            for which in range(2):
                shown[which].append(run(page, which, number))
                filtered[which].append(type_filter(page, which, number))
    yield f"the Lab: from the cell to {MANY:,} rows", median(shown[1]), f"{FEW} rows", median(shown[0])
    yield f"the Lab: from a key to {MANY:,} filtered", median(filtered[1]), f"{FEW} rows", median(filtered[0])
