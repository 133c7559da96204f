"""What all panels share: buttons, a table, a line that says what came of the last press, and a question before what
can't be undone.

What a button does runs in a thread of its own, so that a server that does not answer stops neither the kernel nor the
other widgets. pandas is imported here, in the main thread: two threads that import it at once can meet it half made
("cannot import name 'get_option' from partially initialized module"; seen on a loaded machine with pandas 3.0).
"""

import threading
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, TypeVar

import ipywidgets as widgets  # type: ignore[import-untyped]
import pandas as pd
from traitlets import Bool, Dict, Int, List, Unicode

from mciot_nb.ui.inputs import BrowserWidget, Poller, button, outcome, row, show_if, style
from mciot_nb.ui.markup import StaticPicture, escape, visible

T = TypeVar("T")


class _Task(NamedTuple):
    """Something that a press asks for; two presses ask for the same where ``doing`` and ``about`` are equal."""

    doing: str
    about: tuple[object, ...]
    work: Callable[[], Any]
    then: Callable[[Any], str]


class Panel(StaticPicture, widgets.VBox):  # type: ignore[misc]
    """A heading, parts of a panel's own, and a line for what is going on; one thing is done at a time.

    A subclass gives its parts to `build`, and overrides `poll` where other programs may change what it shows.
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title
        self._heading = widgets.HTML(f'<span class="mciot-title">{escape(title)}</span>')
        self._message = widgets.HTML().add_class("mciot-message")
        self._question = row().add_class("mciot-question").add_class("mciot-hidden")
        self._lock = threading.Lock()  # for the two that follow
        self._tasks: deque[_Task] = deque()  # what is being done, and what was pressed meanwhile
        self._said: list[str] = []  # what came of those that are done, while others wait
        self._worker: threading.Thread | None = None
        self._poller = Poller(None if type(self).poll is Panel.poll else self._poll)
        self.add_class("mciot-form")

    def build(self, *parts: Any, below: tuple[Any, ...] = ()) -> None:
        """Show the heading, the parts, the question while there is one, the message, and what is ``below``."""
        bottom = (self._question, self._message, self._poller)
        self.children = [widgets.HTML(style()), self._heading, *parts, *bottom, *below]

    def say(self, sentence: str) -> None:
        """Write what came of the last press; a screen reader speaks it."""
        self._message.value = f'<span role="status">{escape(sentence)}</span>' if sentence else ""

    @property
    def busy(self) -> bool:
        """Whether something is being done."""
        return bool(self._tasks)

    def do(self, doing: str, work: Callable[[], T], then: Callable[[T], str], *about: object) -> None:
        """Do ``work`` in a thread, saying ``doing`` meanwhile; ``then`` shows its result and returns the last sentence.

        An error that we can name is said in its sentence. What is pressed while something is being done is done next.
        The same press again (the same ``doing`` and ``about``), which may be impatience, is answered by a sentence.
        """
        self.ask_nothing()
        task = _Task(doing, about, work, then)
        with self._lock:
            if any(task[:2] == other[:2] for other in self._tasks):
                self._say_progress("Pressed twice: it is done once.")
                return
            self._tasks.append(task)
            self._say_progress()
            if len(self._tasks) == 1:
                self._message.add_class("mciot-busy")
                self._worker = threading.Thread(target=self._work_off, daemon=True)
                self._worker.start()

    def _say_progress(self, remark: str = "") -> None:
        """Say what was done, what is being done and what is next. Caller must hold the lock."""
        now, *waiting = [task.doing for task in self._tasks] or [""]
        after = f"Next: {', '.join(waiting)}." if waiting else ""
        self.say(" ".join(filter(None, [*self._said, now and f"{now} …", after, remark])))

    def _work_off(self) -> None:
        while True:
            task = self._tasks[0]
            said = outcome(lambda task=task: task.then(task.work())) or ""  # type: ignore[misc]
            with self._lock:
                self._tasks.popleft()
                self._said.append(said)
                self._say_progress()
                if not self._tasks:
                    self._said = []
                    self._message.remove_class("mciot-busy")
                    return

    def wait(self, seconds: float = 60) -> None:
        """Wait until all that was begun is done: for programs, not for people."""
        if self._worker:
            self._worker.join(seconds)

    def ask(self, question: str, yes: str, action: Callable[[], None], *parts: Any) -> None:
        """Ask before what can't be undone; ``yes`` is the word on the button that does it, ``parts`` are its fields."""

        def answer(action: Callable[[], None] = lambda: None) -> None:
            if no not in self._question.children:
                return  # it was answered already
            self.ask_nothing()
            action()

        agree = button(yes, lambda: answer(action), "danger").add_class("mciot-yes")
        no = button("Cancel", answer).add_class("mciot-no")
        self._question.children = [widgets.HTML(f'<span role="alert">{escape(question)}</span>'), *parts, agree, no]
        self._question.remove_class("mciot-hidden")
        no.focus()  # what a hasty Enter presses

    def ask_nothing(self) -> None:
        """Take the question away."""
        self._question.children = []
        self._question.add_class("mciot-hidden")

    def poll(self) -> None:
        """Show what other programs have changed; called twice a second while the panel is on a screen."""

    def _poll(self) -> None:
        try:
            self.poll()
        except Exception:  # no thread may write its traceback into a notebook, twice a second
            self.say("✗ What others change may be missing here, because of an unexpected error: run the cell again.")


#: Rows on a page of a table.
PAGE = 10


class LiveTable(BrowserWidget):
    """A table whose rows stay in the kernel; the browser, and the widget's state, hold one page of them.

    ``label`` names the table for screen readers. ``opened`` is the key of the row that is open, empty for none:
    observe it. ``wide`` names the columns whose texts may wrap. Rows may be shown from any thread; ``lock`` is held
    while the table changes, and while its observers are called.
    """

    view = Unicode("table").tag(sync=True)
    label = Unicode().tag(sync=True)
    columns = List(Unicode()).tag(sync=True)
    wide = List(Unicode()).tag(sync=True)
    rows = List(List(Unicode())).tag(sync=True)  # of this page: key, and the texts of the row
    news = Dict().tag(sync=True)  # of this page: the keys of rows that are "new" or "changed"
    found = Int().tag(sync=True)
    total = Int().tag(sync=True)
    first = Int().tag(sync=True)  # how many rows are before this page
    page_size = Int(PAGE).tag(sync=True)
    status = Unicode().tag(sync=True)
    filter = Unicode().tag(sync=True)
    sort = Unicode().tag(sync=True)  # a column's name, empty for the order in which the rows were given
    descending = Bool().tag(sync=True)
    opened = Unicode().tag(sync=True)

    def __init__(self, label: str, wide: tuple[str, ...] = ()) -> None:
        self.lock = threading.RLock()  # first: the state is asked for while the widget is being made
        super().__init__(label=label, wide=list(wide))
        self._texts: pd.DataFrame | None = None
        self._marks: dict[str, str] = {}
        self._searched: list[str] | None = None  # each row's texts without case, made when a filter needs them
        self.observe(self._on_request, ["filter", "sort", "descending", "first"])

    def show(self, texts: pd.DataFrame, values: pd.DataFrame, changed: Collection[str] = ()) -> None:
        """Show other rows: ``texts`` as they are read, ``values`` of the same shape by which each column is sorted.

        Their index holds each row's key, as text, once. Keys that were not there before are marked as new, and those of
        ``changed`` as changed; a mark stays until there is other news.
        """
        with self.lock, self.hold_sync():
            before = None if self._texts is None else set(self._texts.index)
            news = {} if before is None else {key: "new" for key in texts.index if key not in before}
            news |= {key: "changed" for key in changed if key in texts.index}
            self._texts, self._values, self._searched = texts, values, None
            self.columns, self.total = [str(name) for name in texts.columns], len(texts)
            if news:
                self._marks, self.status = news, self._sentence(texts, news)
            if self.opened not in texts.index:
                self.opened = ""
            self._turn()

    @staticmethod
    def _sentence(texts: pd.DataFrame, news: dict[str, str]) -> str:
        """Name what is new, and what has changed, by the first words of its row."""
        parts = []
        for mark in ("new", "changed"):
            keys = [key for key, word in news.items() if word == mark]
            names = [visible(str(texts.at[key, texts.columns[0]])) for key in keys[:3]]
            parts += [f"{len(keys)} {mark}: {', '.join(names)}{' …' if keys[3:] else ''}."] if keys else []
        return " ".join(parts)

    def set_state(self, sync_data: Any) -> None:
        """Take what the browser asks for; not while rows are being shown."""
        with self.lock:
            super().set_state(sync_data)

    def _on_request(self, change: Any) -> None:
        with self.lock, self.hold_sync():
            if change["name"] != "first" and self.first:
                self.first = 0  # which asks for that page
            else:
                self._turn()

    def _turn(self) -> None:
        """Put the rows of the page that is asked for into the state. Caller must hold the lock."""
        if self._texts is None:
            return
        found = self._matching(self._texts)
        self.found = len(found)
        self.first = min(max(0, self.first), max(0, len(found) - 1)) // self.page_size * self.page_size
        page = self._texts.iloc[found[self.first : self.first + self.page_size]]
        texts = zip(page.index, page.to_numpy().tolist(), strict=True)
        self.rows = [[key, *(visible(str(text)) for text in row)] for key, row in texts]
        self.news = {key: self._marks[key] for key in page.index if key in self._marks}

    def _matching(self, texts: pd.DataFrame) -> list[int]:
        """Return the positions of the rows that have every word of the filter, in the order that is asked for."""
        order = list(range(len(texts)))
        if self.sort in self.columns:
            values = self._values[self.sort].reset_index(drop=True)
            order = values.sort_values(ascending=not self.descending, kind="stable").index.tolist()
        words = self.filter.casefold().split()
        if words and self._searched is None:
            columns = [texts[name].tolist() for name in self.columns]
            self._searched = ["\n".join(row).casefold() for row in zip(*columns, strict=True)]
        for word in words:
            order = [position for position in order if word in self._searched[position]]  # type: ignore[index]
        return order


class TablePanel(Panel):
    """A panel with a table, and a part that is shown while a row is open; a subclass says in `describe` what of it.

    ``label`` names the table, ``wide`` the columns whose texts may wrap; ``typed`` is a field for something about the
    row that is open: it is empty again for the next.
    """

    def __init__(self, title: str, label: str, wide: tuple[str, ...], typed: Any) -> None:
        super().__init__(title)
        self.table, self._typed, self._details = LiveTable(label, wide), typed, widgets.HTML()
        self._opened = widgets.VBox().add_class("mciot-opened").add_class("mciot-hidden")
        self.table.observe(self._on_opened, "opened")

    def describe(self) -> str:
        """Return what is known of the open row, as HTML; empty where there is none."""
        raise NotImplementedError

    def _on_opened(self, _change: object) -> None:
        self.ask_nothing()  # the question was about the row before, and so was what is typed
        self._typed.value = ""
        self.show_opened()

    def show_opened(self) -> None:
        """Show the row that is open as it is now; it may be gone by the time that a press arrives."""
        with self.table.lock:
            self._details.value = self.describe()
            show_if(self._opened, bool(self._details.value))
