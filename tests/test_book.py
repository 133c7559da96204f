"""The book, `run.py book`: pages to read without a network, in which every output is as run and nothing is secret."""

import base64
import getpass
import html
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import FLAGS, photograph, tab_to
from conftest import ROOT, Run, run, tool
from playwright.sync_api import Browser, Page, expect, sync_playwright

from mciot_nb import DistinguishedName, OnboardingError, Workspace
from mciot_nb.pki.names import read_subject, subject_option
from mciot_nb.secret import reveal
from mciot_nb.workspace import suggested
from tools import book, book_pages, book_scan, diagrams
from tools.notebooks import NOTEBOOKS

SUBJECT, TENANT = "/C=FR/O=Acme & Söhne", "https://acme.example.com"
#: What stands in the committed notebooks, and in no book with other values.
OURS = r"Example (Company|Root CA|Intermediate CA)|Bavaria|Munich|127\.0\.0\.1|localhost"


# Your company's names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [SUBJECT, "/O=A\\/B+C\\\\D=E", "/CN=x/emailAddress=a@b.example", "/", "/ST=É/L=x y"])
def test_a_subject_is_read_as_openssl_reads_it(text: str, openssl: Run, tmp_path: Path) -> None:
    if text == "/":
        assert read_subject(text) == DistinguishedName()
        return
    key = ("-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "k", "-utf8", "-subj", text.replace("+", "\\+"))
    said = openssl("req", "-new", *key, "-noout", "-subject", "-nameopt", "sep_comma_plus_space,utf8,sname").stdout
    assert said.strip().removeprefix("subject=") == str(read_subject(text))
    assert read_subject(subject_option(read_subject(text))) == read_subject(text)


@pytest.mark.parametrize("text", ["C=DE", "/C", "/X=1", "/C=DE/C=AT", "Acme", "/C=DEU"])
def test_a_subject_that_cannot_be_read_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(OnboardingError) as refusal:
        read_subject(text)
    assert refusal.value.code == "BAD_NAME"


def test_the_forms_offer_your_companys_names(quick_workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(quick_workspace.subject("ca")).endswith("CN=Example Root CA")  # the control
    monkeypatch.setenv("MCIOT_SUBJECT", SUBJECT)
    quick_workspace.catch_up("device")
    assert str(quick_workspace.subject("ca")) == "C=FR, O=Acme & Söhne, CN=Acme & Söhne Root CA"
    assert str(quick_workspace.subject("device")) == "C=FR, O=Acme & Söhne, CN=device-0001"
    monkeypatch.setenv("MCIOT_SUBJECT", f"/O={'ü' * 64}/emailAddress=a@b.example")
    name = suggested("intermediate")  # as long as a name may be
    assert name.common_name and len(name.common_name.encode()) == 64 and name.email is None
    monkeypatch.setenv("MCIOT_SUBJECT", "/C=FR")
    assert suggested("ca").common_name == "Root CA"


# What is asked for ----------------------------------------------------------------------------------------------------


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return what runs `run.py book` here, for the notebooks given as the sources of their cells."""
    for name in ("WORKSPACE", "SUBJECT", "URL", "PASSPHRASE"):
        monkeypatch.setenv(f"MCIOT_{name}", "")  # what the command sets goes after the test

    def made(*arguments: object, **cells: str) -> int:
        paths = []
        for name, source in cells.items():
            title = nbformat.v4.new_markdown_cell(f"# {name}")
            notebook = nbformat.v4.new_notebook(cells=[title, nbformat.v4.new_code_cell(source)])
            nbformat.write(notebook, tmp_path / f"{name}.ipynb")
            paths.append(tmp_path / f"{name}.ipynb")
        monkeypatch.setattr(book, "NOTEBOOKS", paths or NOTEBOOKS)
        monkeypatch.setattr(sys, "argv", ["book", *map(str, arguments)])
        return book.main()

    return made


def test_what_cannot_be_built_is_said_before_anything_is_run(
    make: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("mine")
    for asked, said in {
        ("--subject", "C=DE"): "can't be read at 'C=DE'",
        ("--tenant-url", "http://acme.example.com"): "--tenant-url is 'http://acme.example.com': write",
        ("--notebook", "99"): "There is no notebook '99': use one of 00, 01",
        ("--out", tmp_path / "letters"): "letters is or holds something other than a book",
        ("--out", tmp_path / "letters" / "mine.txt"): "mine.txt is or holds something other than a book",
    }.items():
        with pytest.raises((SystemExit, OnboardingError), match=re.escape(said)):
            make(*asked)
    assert (tmp_path / "letters" / "mine.txt").read_text() == "mine"
    monkeypatch.setenv("MCIOT_URL", TENANT)
    with pytest.raises(SystemExit, match="leave out --tenant-url"):
        make("--tenant-url", TENANT)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="none was found here"):
        make("--notebook", "03")


@pytest.mark.parametrize("source", diagrams.sources(), ids=lambda source: diagrams.drawing(source).stem)
def test_every_diagram_is_drawn_and_described(source: str) -> None:
    assert diagrams.drawing(source).exists(), "run python -m tools.diagrams"
    assert len(diagrams.description(source)) > 40, "write accDescr: what the diagram shows, for those who can't see it"
    drawn = diagrams.drawing(source).read_text(encoding="utf-8")
    assert "<foreignObject" not in drawn and "<script" not in drawn and not re.search(r"(?<!xmlns=\")https?:", drawn)


def test_every_public_name_has_its_place_in_the_pages() -> None:
    text = "\n".join(text for _, text in book_pages.api_pages())
    import mciot_nb

    assert re.findall(r":: mciot_nb\.(\w+)", text) == mciot_nb.__all__


# What must not be in it -----------------------------------------------------------------------------------------------

#: By what is found: what stands in a page, made from a workspace's secrets.
PLANTED: dict[str, Callable[[Workspace], str]] = {
    "the practice passphrase": lambda w: reveal(w.passphrase),
    "a line of the key in caKey.pem": lambda w: (w.ca_folder / "caKey.pem").read_text().splitlines()[2],
    "a password of the platform": lambda w: "Zug-um-Zug-1",
    "a login of the platform": lambda w: base64.b64encode(b"t100/ann:Zug-um-Zug-1").decode(),
    "a token": lambda w: f"eyJ{'a' * 20}.eyJ{'b' * 20}.{'c' * 20}",
    "a private key without a passphrase": lambda w: f"-----BEGIN PRIVATE KEY-----\n{'M' * 64}\n",
    "the folder": lambda w: str(w.folder / "caCertificate"),
    "the user's name": lambda w: f"/home/{getpass.getuser()}/notes",
    "the machine's name": lambda w: "on bellows-7 today",
}


@pytest.mark.parametrize("kind", PLANTED)
def test_the_search_finds_what_must_not_leave(
    kind: str, quick_workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "bellows-7")
    quick_workspace.catch_up("ca")
    credentials = quick_workspace.folder / "platform" / "credentials.json"
    credentials.parent.mkdir()
    credentials.write_text(json.dumps({"t100": {"user": "ann", "password": "Zug-um-Zug-1"}}))
    planted, pages = PLANTED[kind](quick_workspace), tmp_path / "pages"
    pages.mkdir()
    encrypted = (quick_workspace.ca_folder / "caKey.pem").read_text().splitlines()[:2]
    clean = "<p>" + "\n".join([*encrypted, "/home/user/tutorial/workspace"]) + "</p>"
    shapes = {
        "plain": html.escape(planted),
        "coloured": "<b>" + "</b><b>".join(map(html.escape, planted)) + "</b>",
        "picture": f'<img src="data:image/svg+xml;base64,{base64.b64encode(planted.encode()).decode()}">',
    }
    for name, shape in shapes.items():
        (pages / "page.html").write_text(clean)
        assert list(book_scan.findings(pages, quick_workspace, "")) == [], "the control"
        (pages / "page.html").write_text(clean + shape)
        found = list(book_scan.findings(pages, quick_workspace, ""))
        assert any(one.startswith(f"page.html holds {kind}") for one in found), name
    committed = "A computer named bellows-7 is found on the one page that all have."
    if kind == "the machine's name":  # which a word of the project's own texts does not betray
        assert list(book_scan.findings(pages, quick_workspace, committed)) == []


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def old_book(tmp_path: Path) -> Path:
    """Return a folder that the command takes for a book."""
    folder = tmp_path / "shelf" / "book"
    (folder / book.MARK).parent.mkdir(parents=True)
    (folder / book.MARK).write_text("")
    (folder / "index.html").write_text("the old one")
    return folder


@pytest.mark.slow
def test_a_notebook_that_fails_is_named_and_the_old_book_stays(
    make: Callable[..., int], old_book: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before, failing = files(old_book), "from mciot_nb import Workspace\nWorkspace().certificate('ca')"
    assert make("--out", old_book, good="1 + 1", bad=failing) == 1
    said = capfd.readouterr().out
    wanted = r"a notebook failed\. bad\.ipynb: cell \[1\], .*certificate\('ca'\).*: OnboardingError: There is no CA in "
    assert re.search(wanted, said), said
    assert files(old_book) == before and list(old_book.parent.iterdir()) == [old_book]


@pytest.mark.slow
def test_a_book_with_a_secret_is_not_published(
    make: Callable[..., int], old_book: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = files(old_book)
    secret = "from mciot_nb import Workspace\nfrom mciot_nb.secret import reveal\nprint(reveal(Workspace().passphrase))"
    place = "from pathlib import Path\nprint(Path.home() / 'x', end='')"
    assert make("--out", old_book, secret=secret, place=place, harmless="print('nothing')") == 1
    said = capfd.readouterr().out
    assert "notebooks/secret.html holds the practice passphrase" in said
    assert f"notebooks/place.html holds the folder {Path.home()}" in said and "harmless.html" not in said
    assert files(old_book) == before and list(old_book.parent.iterdir()) == [old_book]
    assert make("--out", old_book, harmless="print('nothing')") == 0  # the control
    assert "index.html" in files(old_book) != before and list(old_book.parent.iterdir()) == [old_book]


# The book -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book of all notebooks, with a company's own values."""
    folder = tmp_path_factory.mktemp("shelf") / "book"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MCIOT_")}
    command = [sys.executable, "-m", "tools.book", "--subject", SUBJECT, "--tenant-url", TENANT, "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "No warnings from Sphinx." in done.stdout, done.stdout + done.stderr
    return folder


class Links(HTMLParser):
    """What a page links to, loads and can be jumped to, and its images without a text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.loads, self.ids, self.silent = list[str](), list[str](), set[str](), list[str]()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attributes}
        self.ids |= {known["id"]} if "id" in known else set()
        self.links += [known["href"]] if tag == "a" and "href" in known else []
        self.loads += [known["href"]] if tag == "link" else [known["src"]] if "src" in known else []
        self.silent += [self.get_starttag_text() or ""] if tag == "img" and not known.get("alt", "").strip() else []


@pytest.mark.slow
def test_every_link_leads_somewhere_nothing_is_loaded_and_every_picture_has_a_text(pages: Path) -> None:
    known = {path: Links(path) for path in pages.rglob("*.html")}
    assert {f"notebooks/{path.stem}.html" for path in NOTEBOOKS} <= set(files(pages))
    lost = []
    for path, page in known.items():
        assert page.silent == [], path.name
        assert [load for load in page.loads if urlsplit(load).scheme not in ("", "data")] == [], path.name
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = known[target].ids if target in known else set()
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors):
                lost.append((path.name, link))
    assert lost == [] and sum(len(page.links) for page in known.values()) > 1000
    styles = "".join(path.read_text(encoding="utf-8") for path in pages.rglob("*.css"))
    assert not re.search(r"url\((?![\"']?(?:data:|#))|@import", styles)
    chapter = known[pages / "notebooks" / "03_device_certificate.html"]
    assert "04_certificate_chain.html" in chapter.links and not any(".ipynb" in link for link in chapter.links)


@pytest.mark.slow
def test_it_has_the_companys_names_the_date_and_the_versions(pages: Path) -> None:
    read = {path.name: path.read_text(encoding="utf-8") for path in (pages / "notebooks").iterdir()}
    known = {name: html.unescape(re.sub(r"<[^<>]*>", "", text)) for name, text in read.items()}
    committed = "".join(path.read_text(encoding="utf-8") for path in NOTEBOOKS)
    assert {found[0] for found in re.finditer(OURS, committed)} >= {
        "Example Company",
        "Munich",
        "localhost",
    }  # the control
    for path, text in known.items():
        assert not re.search(OURS, text), path
        today = f"run on {datetime.now(UTC):%Y-%m-}"
        assert today in text and "address is shown as acme.example.com" in text, path
    assert "Acme & Söhne Root CA" in known["01_ca_certificate.html"]
    assert "acme.example.com:8883" in known["07_connect_over_mqtt.html"]
    serial = re.compile(r"(?<![0-9A-F:])[0-9A-F]{38,40}(?![0-9A-F:])|(?:[0-9A-F]{2}:){19}[0-9A-F]{2}")
    fresh = set(serial.findall("".join(known.values())))
    assert fresh and not fresh & set(serial.findall(committed)), "each output is that of this run"
    about = re.sub(r"<[^<>]*>", " ", (pages / "about.html").read_text(encoding="utf-8"))
    for name in ("cryptography", "pandas", "sphinx", "furo"):
        assert re.search(rf"{name}\s+{re.escape(importlib.metadata.version(name))}", about), name


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tool("chromium"), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, pages: Path) -> Iterator[Page]:
    """A page in a browser that is cut off from the network, for which nothing may ask."""
    asked, broken = list[str](), list[str]()
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.on("request", lambda request: asked.append(request.url))
    context.on("weberror", lambda error: broken.append(str(error.error)))
    page = context.new_page()
    page.goto((pages / "index.html").as_uri())
    yield page
    context.close()
    assert asked and [url for url in asked if not url.startswith((pages.as_uri(), "data:"))] == [] == broken


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_shuts_anyone_out(page: Page, pages: Path, scheme: str) -> None:
    page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
    rules = {"resultTypes": ["violations"], **({} if scheme == "light" else {"runOnly": ["color-contrast"]})}
    for path in sorted(pages.rglob("*.html") if scheme == "light" else pages.glob("*/0*.html")):
        page.goto(path.as_uri())
        found = Axe().run(page, options=rules).response["violations"]
        assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == [], path.name
    page.locator("h1").evaluate("element => { element.style.color = '#888'; element.style.background = '#999' }")
    assert Axe().run(page, options=rules).response["violations"], "the control"


@pytest.mark.slow
def test_the_search_finds_pathlen(page: Page) -> None:
    for word, found in {"pathlen": "01 Create your own certificate authority", "xylophone": None}.items():
        page.get_by_placeholder("Search").first.fill(word)
        page.keyboard.press("Enter")
        if found:
            page.locator("#search-results").get_by_role("link", name=found).click()
            expect(page.locator("h1")).to_contain_text(found)
            expect(page.locator("article").get_by_text("pathlen").first).to_be_visible()
        else:
            expect(page.locator("#search-results")).to_contain_text("did not match any documents")


@pytest.mark.slow
def test_code_is_folded_and_opened_with_the_keyboard_and_stays_so(page: Page, pages: Path) -> None:
    page.goto((pages / "notebooks" / "01_ca_certificate.html").as_uri())
    code, switch = page.locator("div.cell_input"), page.locator(".book-switch")
    output = page.get_by_text("CA certificate of Acme & Söhne Root CA").first
    expect(code.first).to_be_visible()
    tab_to(page, switch)
    page.keyboard.press("Enter")
    expect(switch).to_have_text("Open all code")
    for cell in code.all():
        expect(cell).to_be_hidden()
    expect(output).to_be_visible()
    page.keyboard.press("Tab")  # to the next link or cell
    tab_to(page, page.locator(".book-code summary").first)
    page.keyboard.press("Enter")  # one cell by itself
    expect(code.first).to_be_visible()
    expect(code.nth(1)).to_be_hidden()
    page.goto((pages / "notebooks" / "04_certificate_chain.html").as_uri())
    expect(page.locator("div.cell_input").first).to_be_hidden()
    expect(page.locator(".book-switch")).to_have_text("Open all code")
    page.locator(".book-switch").press("Space")
    expect(page.locator("div.cell_input").first).to_be_visible()


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1280])
def test_it_fits_the_page_light_and_dark(page: Page, pages: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 1000})
    grounds = set()
    for theme in ("light", "dark"):
        page.goto((pages / "index.html").as_uri())
        page.evaluate("theme => localStorage.setItem('theme', theme)", theme)
        names = ("index", "notebooks/01_ca_certificate", "notebooks/07_connect_over_mqtt", "docs/troubleshooting")
        for name in names:
            page.goto((pages / f"{name}.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            grounds.add((theme, page.evaluate("getComputedStyle(document.body).backgroundColor")))
            photograph(page, f"book-{name.rpartition('/')[2]}-{theme}-{width}")
    assert len(grounds) == 2 == len({ground for _, ground in grounds})


@pytest.mark.slow
def test_one_chapter_is_a_pdf(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.book", "--notebook", "03", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    pdf = tmp_path / "03_device_certificate.pdf"
    information, text = run("pdfinfo", pdf).stdout, " ".join(run("pdftotext", pdf, "-").stdout.split())
    count = int(re.search(r"Pages: +(\d+)", information)[1])  # type: ignore[index]
    assert 5 <= count <= 15 and "A4" in information and re.search(rf"\b{count} ?/ ?{count}\b", text)
    for wanted in ("03 Sign a certificate for the device", "CN=device-0001", "openssl ca", "valid now", "Recap"):
        assert wanted in text, "what is folded on the page stands open on paper"
    assert "Skip to content" not in text
    links = run("pdfinfo", "-url", pdf).stdout
    assert "file:" not in links and str(tmp_path) not in pdf.read_bytes().decode("latin-1")
    assert [path.name for path in tmp_path.iterdir()] == [pdf.name]
