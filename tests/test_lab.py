"""`run.py` opens the Lab, and a person clicks Run All in every notebook, in both themes; axe-core looks over each.

Pictures of each notebook, whole, in both themes and at two widths, lie in test-artefacts/ afterwards:
look at them when you have changed how something looks (``pytest --all tests/test_lab.py``).
"""

from pathlib import Path

import pytest
from browser import notebook, photograph, run_all, serious, tutorial, wait_until_done, whole
from platform_tools import wait_for
from playwright.sync_api import Page, expect

from mciot_nb import LocalPlatform
from tools.notebooks import NOTEBOOKS

pytestmark = pytest.mark.slow

#: What our cells put on the page; the Lab around it is not ours to mend.
OURS = ".jp-OutputArea-output"
#: Whatever is wider than the place it has.
CUT = (
    "all => all.filter(one => one.scrollWidth > one.clientWidth + 1 && one.innerText.trim()).map(one => one.innerText)"
)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_run_all_goes_through_every_notebook_and_axe_finds_nothing_serious(tmp_path: Path, theme: str) -> None:
    with tutorial(tmp_path, dark=theme == "dark") as lab:
        for path in NOTEBOOKS:
            with notebook(lab, path) as page:
                run_all(page)
                wait_until_done(page, path)
                if path == NOTEBOOKS[7]:  # both ends of the refusal
                    expect(page.locator(".jp-Notebook")).to_contain_text("CLIENT_ID_MISMATCH")
                    expect(page.locator(".jp-Notebook")).to_contain_text("CONNACK 5")
                look_over(page, f"{path.stem}_{theme}")
        platform = LocalPlatform.running(tmp_path / "workspace")
        assert platform
        senders = platform.measurements()["device"]
        assert senders.str.startswith("device-").sum() > 4, "one by PEM files, one by the stores; more in 09 and 11"
        assert senders[~senders.str.startswith("device-")].nunique() == 40, "the fleet of 10"


def look_over(page: Page, name: str) -> None:
    for width in (1280, 800):
        whole(page, width)
        photograph(page, f"{name}_{width}")
    images = page.locator(".jp-Notebook img")
    wait_for(lambda: images.evaluate_all("all => all.every((one) => one.naturalWidth && one.alt)"))
    assert images.count() or not name.startswith("00")
    for details in page.locator(f"{OURS} details").all():  # what is folded is looked over, too
        details.evaluate("element => { element.open = true; }")
    assert serious(page, OURS) == []
    cut = page.locator(".jp-Notebook :is(pre, .cm-scroller)").evaluate_all(CUT)
    assert cut == [], "code wraps at 800 pixels"
    page.locator(OURS).first.evaluate(  # the control: axe-core sees what is wrong
        "element => element.insertAdjacentHTML('beforeend', '<img src=\"data:,\"><button></button>')"
    )
    assert [finding.split(" ")[0] for finding in serious(page, OURS)] == ["button-name", "image-alt"]
