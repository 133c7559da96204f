"""`run.py` opens the Lab, and a person clicks Run All in every notebook, in both themes; axe-core looks over each.

Screenshots lie in test-artefacts/.
"""

from pathlib import Path

import pytest
from browser import notebook, photograph, run_all, serious, tutorial, wait_until_done
from playwright.sync_api import Page, expect

from mciot_nb import LocalPlatform
from tools.notebooks import NOTEBOOKS

pytestmark = pytest.mark.slow

#: What our cells put on the page; the Lab around it is not ours to mend.
OURS = ".jp-OutputArea-output"


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
        assert platform and len(platform.measurements()) == 2, "one by PEM files, one by the stores"


def look_over(page: Page, name: str) -> None:
    for width in (800, 1280):
        page.set_viewport_size({"width": width, "height": 4200})
        page.wait_for_timeout(300)  # for the picture only
        photograph(page, f"{name}_{width}")
    for details in page.locator(f"{OURS} details").all():  # what is folded is looked over, too
        details.evaluate("element => { element.open = true; }")
    assert serious(page, OURS) == []
    page.locator(OURS).first.evaluate(  # the control: axe-core sees what is wrong
        "element => element.insertAdjacentHTML('beforeend', '<img src=\"data:,\"><button></button>')"
    )
    assert [finding.split(" ")[0] for finding in serious(page, OURS)] == ["button-name", "image-alt"]
