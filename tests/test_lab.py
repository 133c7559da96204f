"""`run.py` opens the Lab, and a person clicks Run All in every notebook. Screenshots lie in test-artefacts/."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import RUN_TIMEOUT, notebook, photograph, run_all, tutorial, wait_until_done
from playwright.sync_api import expect

from mciot_nb import LocalPlatform, Workspace
from tools.notebooks import NOTEBOOKS

pytestmark = pytest.mark.slow


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    with tutorial(tmp_path) as address:
        yield address


def run_to_the_end(lab: str, path: Path, picture: str) -> str:
    with notebook(lab, path) as page:
        run_all(page)
        wait_until_done(page, path)
        photograph(page, picture)
        return page.locator(".jp-Notebook").inner_text()


def test_run_all_goes_through_every_notebook(lab: str, tmp_path: Path) -> None:
    for path in NOTEBOOKS:
        text = run_to_the_end(lab, path, path.stem)
    assert "CLIENT_ID_MISMATCH" in text and "CONNACK 5" in text, "both ends of the refusal in 07"
    platform = LocalPlatform.running(tmp_path / "workspace")
    assert platform and len(platform.measurements()) == 2, "one by PEM files, one by the stores"


def test_another_subject_typed_in_the_browser_is_followed_everywhere(lab: str, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    first, rest = NOTEBOOKS[1], NOTEBOOKS[2:]
    workspace.catch_up("device")
    with notebook(lab, first) as page:
        run_all(page)
        wait_until_done(page, first)
        name = page.get_by_label("Common Name")
        name.fill("Browser CA")
        page.locator(".mciot-submit").first.click()
        expect(page.locator(".mciot-message").first).to_contain_text("Submitted")
        page.locator(".jp-CodeCell .jp-InputArea-editor", has_text="workspace.create_ca(").click()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run Selected Cell and All Below").click()
        expect(page.get_by_text("Moved the CA that was here")).to_be_visible(timeout=RUN_TIMEOUT)
        expect(page.get_by_text("CA certificate of Browser CA")).to_be_visible(timeout=RUN_TIMEOUT)
        photograph(page, "01_another_subject")
    assert (workspace.folder / "earlier" / "1" / "caCertificate" / "deviceCertificates" / "deviceCert.pem").exists()
    texts = [run_to_the_end(lab, path, f"{path.stem}_another_subject") for path in rest]
    assert all("Browser CA" in text for text in texts[:5]), "signed, chained, stored and uploaded"
    platform = LocalPlatform.running(workspace.folder)
    assert platform
    reasons = platform.log().query("code == 'CONNECTED'")["reason"].tolist()
    assert len(reasons) == 2 and all("under the trusted certificate Browser CA" in reason for reason in reasons)
