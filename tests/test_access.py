"""Accessibility: axe-core looks over what each notebook shows, in both themes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import notebook, photograph, run_all, serious, tutorial, wait_until_done

from tools.notebooks import NOTEBOOKS

pytestmark = pytest.mark.slow

#: What our cells put on the page; the Lab around it is not ours to mend.
OURS = ".jp-OutputArea-output"


@pytest.fixture(scope="module", params=["light", "dark"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tutorial(tmp_path_factory.mktemp(request.param), dark=request.param == "dark") as address:
        yield address


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_axe_finds_nothing_serious(lab: str, path: Path, request: pytest.FixtureRequest) -> None:
    with notebook(lab, path) as page:
        run_all(page)
        wait_until_done(page, path)
        theme = request.node.callspec.params["lab"]
        for width in (800, 1280):
            page.set_viewport_size({"width": width, "height": 4200})
            page.wait_for_timeout(300)  # for the picture only
            photograph(page, f"{path.stem}_{theme}_{width}")
        for details in page.locator(".jp-OutputArea-output details").all():  # what is folded is looked over, too
            details.evaluate("element => { element.open = true; }")
        assert serious(page, OURS) == []
        page.locator(".jp-OutputArea-output").first.evaluate(  # the control: axe-core sees what is wrong
            "element => element.insertAdjacentHTML('beforeend', '<img src=\"data:,\"><button></button>')"
        )
        assert [finding.split(" ")[0] for finding in serious(page, OURS)] == ["button-name", "image-alt"]
