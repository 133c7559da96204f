"""The panel of trusted certificates in the real Lab: by mouse, by keyboard alone, and with a key dropped by mistake."""

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from browser import Notebooks, notebooks, photograph, run_last_cell, save, serious, tab_to
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from platform_tools import Entity, make, wait_for
from playwright.sync_api import Locator, Page, TimeoutError, expect
from test_ui_secret_browser import files_with

from mciot_nb import DistinguishedName, Workspace
from mciot_nb.pki.chain import to_pem

pytestmark = pytest.mark.slow
__all__ = ["notebooks"]  # the fixture

OVERFLOW = "element => element.scrollWidth - element.clientWidth"

CELLS = [
    """import pathlib, ipywidgets
from mciot_nb import TrustedCertificatesPanel, Workspace
workspace = Workspace({workspace!r})
workspace.use_profile("current")
tenant = workspace.tenant()
panel = TrustedCertificatesPanel(workspace).add_class("try-panel")
panel""",
    """found = [f"{{one.name}} {{one.status}} {{one.auto_registration}}" for one in tenant.trusted_certificates.list()]
pathlib.Path({result!r}).write_text("; ".join(found) or "none")""",
]


@contextmanager
def opened(notebooks: Notebooks, workspace: Workspace, *more: str, dark: bool = False) -> Iterator[Page]:
    """Open a notebook with the panel of the workspace's own platform in it."""
    workspace.create_ca(DistinguishedName(common_name="Our CA"))
    names = {"workspace": str(workspace.folder), "result": str(result(workspace))}
    first, last = (cell.format(**names) for cell in CELLS)
    with notebooks.run([first, *more, last], height=1500, dark=dark) as page:
        expect(page.locator(".try-panel .mciot-file")).to_be_visible()
        expect(page.locator(".try-panel .mciot-message")).to_have_text("")  # the list has been read
        yield page


def result(workspace: Workspace) -> Path:
    return workspace.folder.parent / "result.txt"


def panel(page: Page) -> Locator:
    return page.locator(".try-panel")


def press(page: Page, name: str) -> None:
    panel(page).get_by_role("button", name=name, exact=True).click()


def expect_said(page: Page, sentence: str) -> None:
    expect(panel(page).locator(".mciot-message")).to_contain_text(sentence)


def drop(page: Page, *files: tuple[str, bytes]) -> None:
    """Drop files on the field, as the browser tells a page of it."""
    given = [{"name": name, "text": base64.b64encode(data).decode()} for name, data in files]
    transfer = page.evaluate_handle(
        """(files) => {
          const transfer = new DataTransfer();
          for (const { name, text } of files) {
            const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
            transfer.items.add(new File([bytes], name));
          }
          return transfer;
        }""",
        given,
    )
    field = panel(page).locator(".mciot-file")
    field.dispatch_event("dragover", {"dataTransfer": transfer})
    expect(field).to_have_class(re.compile("mciot-over"))
    field.dispatch_event("drop", {"dataTransfer": transfer})


def drop_path(page: Page, path: Path) -> None:
    """Drop a file or a folder from the desktop, as the mouse does it."""
    field = panel(page).locator(".mciot-file")
    field.scroll_into_view_if_needed()
    box = field.bounding_box()
    assert box
    devtools = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": box["x"] + 20, "y": box["y"] + 8, "data": data}
        devtools.send("Input.dispatchDragEvent", event)


def expect_file(page: Page, sentence: str) -> None:
    expect(panel(page).locator(".mciot-file .mciot-note")).to_contain_text(sentence)


def trusted(page: Page, workspace: Workspace) -> str:
    """What the tenant itself trusts."""
    return run_last_cell(page, result(workspace))


def test_files_are_chosen_and_dropped(tmp_path: Path, quick_workspace: Workspace, notebooks: Notebooks) -> None:
    root = make("Dropped <b>Root</b>", ca=True)
    middle = make("Dropped Middle", root, ca=True)
    leaf = make("leaf", middle)
    (folder := tmp_path / "files").mkdir()
    (folder / "real.crt").write_bytes(root.certificate.public_bytes(Encoding.DER))
    counting = (
        "sizes = []\npanel.upload_part.file.on_msg(lambda _, head, buffers: sizes.append(sum(map(len, buffers))))"
    )
    with opened(notebooks, quick_workspace, counting) as page:
        drop(page, ("chain.pem", to_pem(leaf.chain)))
        expect_file(page, "✓ chain.pem holds 2 CA certificates: choose one above")
        card = panel(page).locator(".widget-html-content:has(.mciot-card)").last
        expect(card).to_contain_text("Dropped Middle")
        panel(page).get_by_label("Certificate", exact=True).select_option(label="Dropped <b>Root</b> (from chain.pem)")
        expect(card).to_contain_text(root.fingerprint)
        photograph(page, "trusted-certificates-dropped")
        press(page, "Upload")
        expect_said(page, "✓ Uploaded “Dropped <b>Root</b>”")
        chosen = panel(page).get_by_label("Or from a file")
        for name, data, sentence in (
            ("leaf.pem", leaf.pem.encode(), "✗ leaf.pem holds the certificate of CN=leaf, which is not a CA's"),
            ("middle.pem", middle.pem.encode(), "✓ middle.pem holds a CA certificate"),
            ("middle.pem", b"", "✗ middle.pem is empty"),  # the same name once more
        ):
            chosen.set_input_files({"name": name, "mimeType": "", "buffer": data})
            expect_file(page, sentence)
        press(page, "Upload")
        expect_said(page, "✓ Uploaded “Dropped Middle”")
        for files, sentence in (
            ([("huge.pem", bytes(600_000))], "✗ huge.pem has 600,000 bytes"),
            ([("a.pem", b"a" * 400_000)], "✗ a.pem: This is not a certificate in PEM form"),
            ([("a.pem", b"a"), ("b.pem", b"b")], "✗ Those were several files"),
            ([], "✗ That was not a file"),
        ):
            drop(page, *files)
            expect_file(page, sentence)
        drop_path(page, folder)
        expect_file(page, "✗ files is a folder")
        drop_path(page, folder / "real.crt")
        expect_file(page, "✓ real.crt holds a CA certificate")
        press(page, "Upload")
        expect_said(page, "It is already in the list, as “Dropped <b>Root</b>”: nothing was sent.")
        assert trusted(page, quick_workspace) == "Dropped <b>Root</b> ENABLED True; Dropped Middle ENABLED True"
        assert panel(page).locator("b", has_text="Root").count() == 0
        page.locator(".jp-CodeCell .jp-InputArea-editor").last.click()
        page.keyboard.press("Control+a")
        page.keyboard.insert_text(f"pathlib.Path({str(result(quick_workspace))!r}).write_text(str(max(sizes)))")
        assert trusted(page, quick_workspace) == "400000"  # what is too big does not even leave the browser


def test_everything_is_done_by_keyboard_alone(quick_workspace: Workspace, notebooks: Notebooks) -> None:
    quick_workspace.create_ca(DistinguishedName(common_name="Our CA"))
    quick_workspace.create_intermediate(DistinguishedName(common_name="Middle"))
    own = make("From a file", ca=True)

    def button(name: str) -> Locator:
        return panel(page).get_by_role("button", name=name, exact=True)

    def go(target: Locator, *keys: str) -> None:
        tab_to(page, target)
        for key in keys:
            page.keyboard.press(key)

    def agree(yes: bool) -> None:
        expect(panel(page).locator(".mciot-no")).to_be_focused()  # a hasty Enter does nothing
        for key in ("Shift+Tab", "Enter") if yes else ("Enter",):
            page.keyboard.press(key)

    with opened(notebooks, quick_workspace) as page:
        field, search = panel(page).get_by_label, panel(page).get_by_role("searchbox", name="Filter")
        # From here on, and not only while one is awaited: a press may be faster than playwright's asking for it.
        page.on("filechooser", lambda _: None)
        button("Refresh").focus()
        page.keyboard.press("Enter")
        expect_said(page, "✓ Read: 0 certificates.")
        go(field("Certificate", exact=True), "ArrowDown")
        expect(panel(page).locator(".widget-html-content:has(.mciot-card)").last).to_contain_text("Middle")
        tab_to(page, field("Or from a file"))
        for _ in range(3):  # headless chromium now and then opens none at the first press
            with suppress(TimeoutError), page.expect_file_chooser(timeout=5000) as choosing:
                page.keyboard.press("Enter")
            if choosing.is_done():
                break
        choosing.value.set_files({"name": "own.pem", "mimeType": "", "buffer": own.pem.encode()})
        expect_file(page, "✓ own.pem holds a CA certificate")
        go(field("Auto-registration: let a new device in"), "Space")
        go(button("Upload"), "Enter")
        expect_said(page, "✓ Uploaded “From a file”, auto-registration off.")
        expect(button("Upload")).to_be_focused()
        button("Refresh").focus()
        go(search, *"from a")
        expect(panel(page).locator(".mciot-table-status")).to_contain_text("1 row")
        go(button("Name"), "Enter")
        expect(panel(page).get_by_role("columnheader", name="Name")).to_have_attribute("aria-sort", "ascending")
        go(button("Open From a file"), "Enter")
        go(button("Disable"), "Enter")
        photograph(page, "trusted-certificates-question")
        agree(False)
        expect(button("Disable").first).to_be_focused()  # where it was pressed
        page.keyboard.press("Enter")
        agree(True)
        expect_said(page, "✓ Disabled “From a file”")
        expect(button("Enable")).to_be_focused()
        page.keyboard.press("Enter")
        expect_said(page, "✓ Enabled")
        tab_to(page, field("New name"))
        page.keyboard.type("dd renamed aab")  # letters that are commands of the Lab
        go(button("Rename"), "Space")
        expect_said(page, "✓ “From a file” is now “dd renamed aab”.")
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Shift+Tab")
        expect(button("Delete")).to_be_focused()
        page.keyboard.press("Enter")
        agree(True)
        expect_said(page, "✓ Deleted “dd renamed aab”.")
        expect(button("Refresh")).to_be_focused()
        assert page.locator(".jp-CodeCell").count() == 2  # no key was a command of the Lab
        for target in (search, field("Or from a file")):
            tab_to(page, target)
            save(page, page.path)  # type: ignore[attr-defined]  # but for the one that saves
        assert trusted(page, quick_workspace) == "none"


def key_of(entity: Entity) -> bytes:
    return entity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def files_with_key(pem: bytes, folder: Path) -> set[Path]:
    """Give the files that hold the key or a part of it: as PEM or DER, on one line, in base64 once more, in UTF-16."""
    lines = pem.decode().splitlines()[1:-1]
    der = base64.b64decode("".join(lines))
    found = {path for text in (*lines, "".join(lines)) for path in files_with(text, folder)}
    return found | {path for path in folder.rglob("*") if path.is_file() and der[-60:] in path.read_bytes()}


def test_a_key_that_was_dropped_by_mistake_is_in_no_file(quick_workspace: Workspace, notebooks: Notebooks) -> None:
    dropped, chosen, control = (key_of(make("key", ca=True)) for _ in range(3))
    uploader = 'ipywidgets.FileUpload(description="control").add_class("try-control")'
    with opened(notebooks, quick_workspace, uploader) as page:
        drop(page, ("caKey.pem", dropped))
        expect_file(page, "✗ caKey.pem holds a private key, which only its owner ever needs. It was neither sent")
        panel(page).get_by_label("Or from a file").set_input_files(
            {"name": "again.pem", "mimeType": "", "buffer": chosen}
        )
        expect_file(page, "✗ again.pem holds a private key")
        with page.expect_file_chooser() as choosing:
            page.locator(".try-control").click()
        choosing.value.set_files({"name": "key.pem", "mimeType": "", "buffer": control})
        expect(page.locator(".try-control")).to_contain_text("(1)")
        path = page.path  # type: ignore[attr-defined]
        assert "again.pem" in save(page, path)
    folder = notebooks.folder
    assert path in files_with_key(control, folder)  # so the search works, and state was saved
    assert files_with_key(dropped, folder) == files_with_key(chosen, folder) == set()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_readable_in_both_themes_and_axe_finds_nothing_serious(
    quick_workspace: Workspace, notebooks: Notebooks, theme: str
) -> None:
    with opened(notebooks, quick_workspace, dark=theme == "dark") as page:
        press(page, "Upload")
        expect_said(page, "✓ Uploaded")
        drop(page, ("caKey.pem", key_of(make("key", ca=True))))
        expect_file(page, "✗ caKey.pem holds a private key")
        panel(page).get_by_role("button", name="Open Our CA").click()
        press(page, "Disable")
        panel(page).locator(".mciot-yes").click()
        expect_said(page, "✓ Disabled")
        press(page, "Delete")
        for width in (800, 1280):
            page.set_viewport_size({"width": width, "height": 2200})
            wait_for(lambda: panel(page).evaluate(OVERFLOW) <= 1)  # only a table may be wider, and it scrolls by itself
            photograph(page, f"trusted-certificates-{theme}-{width}")
            assert serious(page, ".try-panel") == []
