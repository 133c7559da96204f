"""Presses in the real Lab, by mouse, Enter and Space: none is lost while a panel is busy; a double one counts once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import Notebooks, notebooks, photograph, retype
from platform_tools import wait_for
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.slow
__all__ = ["notebooks"]  # the fixture

#: A panel whose work waits for a file; what was done stands in another, with what stood in the field at the press.
CELL = """import pathlib, time, ipywidgets as widgets
from mciot_nb.ui.markup import paragraph
from mciot_nb.ui.panel import Panel, button, row
folder, done = pathlib.Path({folder!r}), []

class Try(Panel):
    def __init__(self):
        super().__init__("Try")
        self.field, self.above = widgets.Text(description="Field"), widgets.VBox()
        buttons = [button(word, lambda word=word: self.press(word)) for word in ("Slow", "First", "Second")]
        self.build(row(self.field, *buttons), self.above, row(button("Moves", lambda: self.press("Moves"))))

    def picture(self):
        return paragraph("Try")

    def poll(self):
        if (folder / "move").exists() and not self.above.children:
            self.above.children = [widgets.HTML("<div style='height: 200px'>Something is drawn.</div>")]

    def press(self, word):
        typed = self.field.value
        def work():
            while word == "Slow" and not (folder / "go").exists():
                time.sleep(0.02)
            done.append(f"{{word}} {{typed}}".strip())
            (folder / "done").write_text(", ".join(done))
        self.do(word, work, lambda _: f"✓ {{word}}.", word, typed)

Try().add_class("try-panel")"""


class Bench:
    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self.folder, self.panel = page, folder, page.locator(".try-panel")
        self.said = self.panel.locator(".mciot-message")

    def button(self, name: str) -> Locator:
        return self.panel.get_by_role("button", name=name, exact=True)

    def type(self, text: str) -> None:
        self.panel.get_by_label("Field").focus()
        retype(self.page, text)

    @property
    def done(self) -> str:
        path = self.folder / "done"
        return path.read_text() if path.exists() else ""

    def let_go(self) -> None:
        (self.folder / "go").touch()


@contextmanager
def opened(notebooks: Notebooks, folder: Path, **options: Any) -> Iterator[Bench]:
    with notebooks.run([CELL.format(folder=str(folder))], **options) as page:
        bench = Bench(page, folder)
        expect(bench.button("Slow")).to_be_visible()
        yield bench


def by_key(key: str) -> Callable[[Bench, str], None]:
    def press(bench: Bench, name: str) -> None:
        bench.button(name).focus()
        bench.page.keyboard.press(key)

    return press


WAYS: dict[str, Callable[[Bench, str], None]] = {
    "mouse": lambda bench, name: bench.button(name).click(),
    "Enter": by_key("Enter"),
    "Space": by_key("Space"),
}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_what_is_pressed_while_a_panel_is_busy_is_done_next_with_what_was_typed(
    notebooks: Notebooks, tmp_path: Path, dark: bool
) -> None:
    with opened(notebooks, tmp_path, dark=dark) as bench:
        look = "element => getComputedStyle(element).cursor + getComputedStyle(element).backgroundImage.slice(0, 9)"
        assert bench.button("First").evaluate(look) != "progressrepeating"
        bench.button("Slow").click()
        expect(bench.said).to_have_text("Slow …")
        for name in ("Slow", "First", "Second"):
            assert bench.button(name).evaluate(look) == "progressrepeating", "a busy panel's buttons show it"
        photograph(bench.page, f"busy_{'dark' if dark else 'light'}")
        wanted = ["Slow"]
        for number, press in enumerate([*WAYS.values()] * 3):
            for name in ("First", "Second"):
                bench.type(typed := f"{name} {number}")
                press(bench, name)
                wanted.append(f"{name} {typed}")
        expect(bench.said).to_have_text("Slow … Next: " + ", ".join(["First", "Second"] * 9) + ".")
        bench.let_go()
        wait_for(lambda: bench.done.count(",") == 18, 60)
        assert bench.done == ", ".join(wanted)
        expect(bench.said).to_have_text("✓ Slow. " + "✓ First. ✓ Second. " * 9)
        wait_for(lambda: bench.button("First").evaluate(look) != "progressrepeating", 60)


FORM = """import pathlib
from mciot_nb import CaForm, Workspace
form, done = CaForm(Workspace(pathlib.Path({folder!r}) / "workspace")), pathlib.Path({folder!r}) / "done"

def note(_):
    with done.open("a") as file:
        file.write(form.subject.common_name + "\\n")

form._button.on_click(note)
form.add_class("try-panel")"""


def test_a_form_takes_what_was_typed_right_before_the_press(notebooks: Notebooks, tmp_path: Path) -> None:
    with notebooks.run([FORM.format(folder=str(tmp_path))]) as page:
        bench, wanted = Bench(page, tmp_path), list[str]()
        expect(bench.button("Submit")).to_be_visible()
        for number, press in enumerate([*WAYS.values()] * 4):
            bench.panel.get_by_label("Common Name").focus()
            retype(page, f"A long name to type {number}")
            wanted.append(f"A long name to type {number}")
            press(bench, "Submit")
        wait_for(lambda: len(bench.done.splitlines()) == len(wanted), 60)
        assert bench.done.splitlines() == wanted


@pytest.mark.parametrize("way", ["mouse", "Enter", "Space", "held"])
def test_a_double_press_counts_once_and_a_later_one_again(notebooks: Notebooks, tmp_path: Path, way: str) -> None:
    with opened(notebooks, tmp_path) as bench:
        first, keys = bench.button("First"), bench.page.keyboard
        first.focus()
        if way == "mouse":
            first.dblclick()
        elif way == "held":
            for _ in range(5):  # a key that is down goes down again: it repeats itself
                keys.down("Enter")
            keys.up("Enter")
        else:
            for _ in range(2):
                keys.press(way)
        expect(bench.said).to_have_text("✓ First.")
        bench.button("Second").click()
        expect(bench.said).to_have_text("✓ Second.")  # it came behind whatever First was pressed
        assert bench.done == "First, Second"
        WAYS.get(way, WAYS["Enter"])(bench, "First")  # the control
        expect(bench.said).to_have_text("✓ First.")
        assert bench.done == "First, Second, First"


def test_a_button_that_is_drawn_elsewhere_under_the_mouse_is_pressed_and_a_drag_away_is_none(
    notebooks: Notebooks, tmp_path: Path
) -> None:
    with opened(notebooks, tmp_path) as bench:
        moves, mouse = bench.button("Moves"), bench.page.mouse

        def put_down() -> float:
            place = moves.bounding_box()
            assert place
            mouse.move(place["x"] + 5, place["y"] + 5)
            mouse.down()
            return place["y"]

        put_down()
        mouse.move(0, 0, steps=5)  # the control: a person may think better of it
        mouse.up()
        before = put_down()
        (tmp_path / "move").touch()
        wait_for(lambda: (moves.bounding_box() or {"y": 0})["y"] > before + 100, 60)
        mouse.up()
        expect(bench.said).to_have_text("✓ Moves.")
        assert bench.done == "Moves"
