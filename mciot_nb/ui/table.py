"""A table of any length: filter, sort, page by page; a row can be opened, and rows may be added meanwhile."""

import threading
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Dict, Int, List, Unicode

from mciot_nb.ui.inputs import BrowserWidget
from mciot_nb.ui.markup import visible

if TYPE_CHECKING:
    import pandas as pd

#: Rows on a page.
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
    first = Int().tag(sync=True)  # how many rows stand before this page
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

    def show(self, texts: "pd.DataFrame", values: "pd.DataFrame", changed: Collection[str] = ()) -> None:
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
    def _sentence(texts: "pd.DataFrame", news: dict[str, str]) -> str:
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

    def _matching(self, texts: "pd.DataFrame") -> list[int]:
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
