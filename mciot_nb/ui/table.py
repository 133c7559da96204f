"""A table of any length to look around in: filter, sort, page by page; a row can be opened, and others may add rows."""

import threading
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
from traitlets import Bool, Dict, Int, List, Unicode

from mciot_nb.ui.markup import visible

if TYPE_CHECKING:
    import pandas as pd

_HERE = Path(__file__).parent
#: Rows on a page.
PAGE = 10


class LiveTable(anywidget.AnyWidget):
    """A table whose rows stay in the kernel; the browser, and the widget's state, hold one page of them.

    ``label`` names the table to those who hear it. ``opened`` is the key of the row that somebody has opened, empty for
    none: observe it. ``wide`` names the columns whose texts may wrap. Rows may be shown from any thread; ``lock`` is
    held while the table changes, and while those who observe it are told.
    """

    _esm = _HERE / "live_table.js"
    _css = _HERE / "ui.css"
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
        self._keys: set[str] = set()
        self._marks: dict[str, str] = {}
        self._turning = False
        self.observe(self._asked, ["filter", "sort", "descending", "first"])

    def show(self, texts: "pd.DataFrame", values: "pd.DataFrame", changed: Collection[str] = ()) -> None:
        """Show other rows: ``texts`` as they are read, ``values`` of the same shape by which each column is sorted.

        Their index holds each row's key, as text, once. Keys that were not there before are marked as new, and those of
        ``changed`` as changed; a mark stays until there is other news.
        """
        with self.lock, self.hold_sync():
            keys = texts.index.tolist()
            news = {} if self._texts is None else {key: "new" for key in keys if key not in self._keys}
            news |= {key: "changed" for key in changed if key in self._keys}
            self._texts, self._values, self._keys = texts, values, set(keys)
            self._haystack: list[str] | None = None
            self._orders: dict[tuple[str, bool], list[int]] = {}
            self.columns, self.total = [str(name) for name in texts.columns], len(texts)
            if news:
                self._marks, self.status = news, self._sentence(news)
            if self.opened not in self._keys:
                self.opened = ""
            self._turn()

    def _sentence(self, news: dict[str, str]) -> str:
        """Name what is new, and what has changed, by the first words of its row."""
        assert self._texts is not None
        parts = []
        for mark in ("new", "changed"):
            keys = [key for key, word in news.items() if word == mark]
            names = [visible(str(self._texts.at[key, self._texts.columns[0]])) for key in keys[:3]]
            parts += [f"{len(keys)} {mark}: {', '.join(names)}{' …' if keys[3:] else ''}."] if keys else []
        return " ".join(parts)

    def set_state(self, sync_data: Any) -> None:
        """Take what a person asks for in the browser; not while rows are being shown."""
        with self.lock:
            super().set_state(sync_data)

    def _asked(self, change: Any) -> None:
        with self.lock, self.hold_sync():
            if self._turning:
                return
            if change["name"] != "first":
                self._turning, self.first, self._turning = True, 0, False
            self._turn()

    def _turn(self) -> None:
        """Put the rows of the page that is asked for into the state."""
        if self._texts is None:
            return
        found = self._matching()
        last_page = max(0, len(found) - 1) // PAGE * PAGE
        first = min(max(0, self.first) // PAGE * PAGE, last_page)
        self._turning, self.first, self._turning = True, first, False
        self.found = len(found)
        page = self._texts.iloc[found[first : first + PAGE]]
        rows = zip(page.index, page.to_numpy().tolist(), strict=True)
        self.rows = [[key, *(visible(str(text)) for text in row)] for key, row in rows]
        self.news = {key: self._marks[key] for key in page.index if key in self._marks}

    def _matching(self) -> list[int]:
        """Give the positions of the rows that have every word of the filter, in the order that is asked for."""
        order, words = self._order(), self.filter.casefold().split()
        if not words:
            return order
        if self._haystack is None:  # not before somebody filters
            columns = [self._texts[name].tolist() for name in self.columns]  # type: ignore[index]
            self._haystack = ["\n".join(row).casefold() for row in zip(*columns, strict=True)]
        texts = self._haystack
        for word in words:
            order = [position for position in order if word in texts[position]]
        return order

    def _order(self) -> list[int]:
        """Give the positions of all rows in the order that is asked for."""
        asked = (self.sort, self.descending) if self.sort in self.columns else ("", False)
        if asked not in self._orders:
            order = list(range(self.total))
            if asked[0]:
                values = self._values[self.sort].reset_index(drop=True)
                order = values.sort_values(ascending=not self.descending, kind="stable").index.tolist()
            self._orders[asked] = order
        return self._orders[asked]
