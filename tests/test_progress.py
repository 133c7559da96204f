"""The bar over what takes long: seen while it lasts, cancelled by its button in the real Lab, and never in a file."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser import lab, page_of, photograph, run_all, write_notebook
from conftest import tool
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from playwright.sync_api import expect

from mciot_nb import CertificateAuthority, DistinguishedName, OnboardingError, working
from tools.notebooks import canonical, execute

NOTEBOOK = [
    """%load_ext mciot_nb
import pathlib, time
from mciot_nb import working
with working("A moment"):
    time.sleep(0.1)""",
    """with working("Five steps", of=5) as step:
    for number in range(5):
        time.sleep(0.6)
        step.count(number + 1)""",
    """with working("Waiting"):
    pathlib.Path("began.txt").touch()
    time.sleep(60)""",
    """pathlib.Path("after.txt").touch()""",
]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was displayed, as nothing is outside a notebook."""
    shown: list[Any] = []
    monkeypatch.setattr("mciot_nb.ui.progress.display", lambda data, raw: shown.append(data))
    return shown


def test_progress_is_counted_and_ends_in_its_state(shown: list[Any]) -> None:
    with working("Three", of=3) as step:
        assert (step.state, step.of) == ("running", 3)
        step.count(3)
    assert (step.done, step.state) == (3, "done")
    with pytest.raises(OnboardingError, match="no name"), working("Names") as step:
        raise OnboardingError("There is no name: type one.")
    assert step.state == "failed"
    with pytest.raises(OnboardingError, match=r"^Cancelled: Keys\. ") as error, working("Keys") as step:
        raise KeyboardInterrupt
    assert (step.state, error.value.code) == ("cancelled", "CANCELLED")
    assert [list(data) for data in shown] == [["application/vnd.jupyter.widget-view+json"]] * 3


def requests(count: int) -> list[x509.CertificateSigningRequest]:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [DistinguishedName(common_name=f"device-{number}").to_x509() for number in range(count)]
    return [x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, SHA256()) for name in names]


def test_a_batch_is_counted_and_a_cancelled_one_leaves_nothing(ca: CertificateAuthority, shown: list[Any]) -> None:
    def files() -> set[Path]:
        return {path for path in ca.folder.rglob("*") if path.is_file()}

    before = files()

    def cancel(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(OnboardingError, match="Cancelled"), working("Signing", of=5):
        ca.sign_many(requests(5), counted=cancel)
    assert files() == before and ca.database.rows() == []
    with working("Signing", of=5) as step:
        assert len(ca.sign_many(requests(5), counted=step.count)) == step.done == 5
    assert len(ca.database.rows()) == 5 and len(files() - before) == 5


def test_a_ca_that_was_cancelled_is_not_there_and_can_be_made(tmp_path: Path) -> None:
    made = "from mciot_nb import DistinguishedName, Workspace, working\nfrom mciot_nb.ui import progress\n"
    made += "progress.display = lambda *_, **__: print('begun', flush=True)\n"
    made += "workspace = Workspace()\nwith working('The CA'):\n"
    made += "    workspace.create_ca(DistinguishedName(common_name='CA'))\n"
    environment = {**os.environ, "MCIOT_WORKSPACE": str(tmp_path / "workspace")}
    process = subprocess.Popen(
        [sys.executable, "-c", made], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "begun\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "OnboardingError: Cancelled: The CA." in errors
    left = {path.name for path in (tmp_path / "workspace").iterdir()}
    assert left <= {"passphrase", ".caCertificate.lock"}, "no half of a CA"
    assert subprocess.run([sys.executable, "-c", made], env=environment, capture_output=True).returncode == 0
    assert (tmp_path / "workspace" / "caCertificate" / "caCert.pem").exists()


def test_a_notebook_keeps_nothing_of_it(tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in (*NOTEBOOK[:1], "print(1)")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    assert execute(notebook, tmp_path / "try.ipynb") == ""
    assert notebook.cells[0].outputs, "the control: it was shown"
    kept = json.loads(canonical(notebook))["cells"]
    assert kept[0]["outputs"] == [] and kept[1]["outputs"]


def test_a_long_cell_shows_a_bar_and_is_cancelled_by_its_button(tmp_path: Path) -> None:
    tool("chromium")
    write_notebook(tmp_path, NOTEBOOK)
    with lab(tmp_path) as url, page_of(url) as page:
        run_all(page)
        bar = page.get_by_role("progressbar", name="Five steps")
        expect(bar).to_be_visible(timeout=30_000)
        photograph(page, "progress")
        expect(page.get_by_text("✓ Five steps")).to_be_visible()
        expect(bar).to_be_hidden()
        expect(page.get_by_text("A moment", exact=True)).to_be_hidden()  # over before it was worth a bar
        expect(page.get_by_role("progressbar", name="Waiting")).to_be_visible()
        assert (tmp_path / "began.txt").exists()
        page.get_by_role("button", name="Cancel", exact=True).last.press("Enter")
        expect(page.get_by_text("Cancelled: Waiting. What was not finished is not there")).to_be_visible()
        expect(page.get_by_text("✗ cancelled: Waiting")).to_be_visible()
        assert page.get_by_text("Traceback").count() == 0
        page.wait_for_timeout(500)
        assert not (tmp_path / "after.txt").exists(), "Run All stops there"
