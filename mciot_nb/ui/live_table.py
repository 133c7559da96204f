"""A table of any length to look around in: filter, sort, page by page; a row can be opened, and others may add rows."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
from traitlets import Bool, Int, List, Unicode

if TYPE_CHECKING:
    import pandas as pd

_HERE = Path(__file__).parent
#: Rows on a page.
PAGE = 10


class LiveTable(anywidget.AnyWidget):
    """A table whose rows stay in the kernel; the browser, and the widget's state, hold one page of them.

    ``label`` names the table to those who hear it. ``opened`` is the key of the row that somebody has opened, empty for
    none: observe it. ``wide`` names the columns whose texts may wrap.
    """

    _esm = _HERE / "live_table.js"
    _css = _HERE / "ui.css"
    label = Unicode().tag(sync=True)
    columns = List(Unicode()).tag(sync=True)
    wide = List(Unicode()).tag(sync=True)
    rows = List(List(Unicode())).tag(sync=True)  # of this page: key, and the texts of the row
    news = List(Unicode()).tag(sync=True)  # keys of rows that came since the last look
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
        super().__init__(label=label, wide=list(wide))
        self._lock = threading.RLock()  # rows come from a thread, and people click meanwhile
        self._texts: pd.DataFrame | None = None
        self.observe(self._asked, ["filter", "sort", "descending", "first"])

    def show(self, texts: "pd.DataFrame", values: "pd.DataFrame") -> None:
        """Show other rows: ``texts`` as they are read, ``values`` of the same shape by which each column is sorted.

        Their index holds each row's key, as text, once. Keys that were not there before are marked as new.
        """
        with self._lock:
            before = self._texts
            new = [] if before is None else [str(key) for key in texts.index.difference(before.index, sort=False)]
            self._texts, self._values = texts, values
            self._haystack = texts.agg("\n".join, axis=1).str.casefold() if len(texts) else None
            with self.hold_sync():
                self.columns, self.total = [str(name) for name in texts.columns], len(texts)
                self.news = new[:PAGE]
                if new:
                    self.status = f"{len(new)} new: {', '.join(new[:3])}{' …' if new[3:] else ''}."
                if self.opened not in texts.index:
                    self.opened = ""
                self._turn()

    def _asked(self, change: Any) -> None:
        if change["name"] in ("filter", "sort", "descending"):
            self.first = 0
        with self._lock, self.hold_sync():
            self._turn()

    def _turn(self) -> None:
        """Put the rows of the page that is asked for into the state."""
        if self._texts is None:
            return
        texts = self._texts
        if self.filter.strip() and self._haystack is not None:
            for word in self.filter.casefold().split():
                texts = texts[self._haystack.loc[texts.index].str.contains(word, regex=False)]
        if self.sort in self.columns:
            order = self._values.loc[texts.index, self.sort]
            texts = texts.loc[order.sort_values(ascending=not self.descending, kind="stable").index]
        self.found = len(texts)
        last_page = max(0, len(texts) - 1) // PAGE * PAGE
        self.first = min(max(0, self.first) // PAGE * PAGE, last_page)
        page = texts.iloc[self.first : self.first + PAGE]
        self.rows = [[str(key), *map(str, row)] for key, row in zip(page.index, page.to_numpy().tolist(), strict=True)]
