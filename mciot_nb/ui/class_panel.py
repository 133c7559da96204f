"""The trainer's view of a class: how far each tenant is, who is connected, and who was refused and why."""

from datetime import datetime
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]
import pandas as pd

from mciot_nb.errors import OnboardingError
from mciot_nb.local_platform import CLASS, LocalPlatform
from mciot_nb.ui.inputs import button, row, show_if
from mciot_nb.ui.markup import Rendered, card, paragraph, table
from mciot_nb.ui.panel import TablePanel

_COLUMNS = ("Tenant", "Last step", "Measurements", "Connected now", "Last refused")
_QUESTION = "Reset {}? Its trusted certificates, its devices and everything they sent are deleted. Its login stays."
#: Rows on a page, and attempts of the row that is open.
_ROWS, _ATTEMPTS = 40, 8


class ClassPanel(TablePanel):
    """Follow the class live; ``workspace`` is the folder of its platform, by default that of ``run.py class``.

    A row that is opened shows a tenant's last attempts, and can be reset. Example: ``ClassPanel()`` as a cell's last
    line.
    """

    def __init__(self, workspace: Any = CLASS) -> None:
        super().__init__("The class", "Tenants", (), widgets.HTML())
        self._workspace, self._rows, self._trouble = workspace, pd.DataFrame(), widgets.HTML()
        self._reset = button("Reset this tenant", self._press, "danger")
        self._opened.children = [self._details, row(self._reset)]
        self.table.page_size = _ROWS
        self.build(self._trouble, self.table, self._opened)
        self.poll()

    def poll(self) -> None:
        """Show the class as it is now; a platform that was restarted is found again."""
        try:
            self._platform = LocalPlatform.find(self._workspace)
        except OnboardingError as error:
            self._trouble.value = paragraph(f"✗ {error}").html
            return
        self._trouble.value, rows = "", self._platform.progress().drop(columns="reason")
        rows["code"] = _clock(rows.pop("refused")).fillna("") + rows["code"]
        names = rows["tenant"].where(rows["tenant"] != "", rows["step"])
        rows = rows.set_axis(list(_COLUMNS), axis=1).set_index(names).replace("", "-")
        if not rows.equals(self._rows):
            before = self._rows.to_dict("index")
            self._rows, now = rows, rows.to_dict("index")
            changed = [str(key) for key in now if before.get(key, now[key]) != now[key]]
            self.table.show(rows.astype(str), rows, changed)
            self.show_opened()

    def describe(self) -> str:
        """Return the last attempts of the tenant, or of an address without one, as they were when the row changed."""
        if not (key := self.table.opened):
            return ""
        log, host = self._platform.log(), key.removeprefix("from ")  # which can be read when the platform has ended
        is_tenant = host == key
        mine = log[log["tenant"] == (key if is_tenant else "")]
        mine = mine[is_tenant | mine["address"].str.startswith(f"{host}:")].tail(_ATTEMPTS)[::-1]
        lines = zip(_clock(mine["time"]), mine["code"], mine["reason"], strict=True)
        show_if(self._reset, is_tenant)
        return card(f"The last attempts of {key} to connect" if is_tenant else f"The last refusals {key}", lines).html

    def _press(self) -> None:
        tenant, reset = self.table.opened, self._platform.reset
        doing = f"Resetting {tenant}", lambda: reset(tenant), lambda _: f"✓ {tenant} starts afresh."
        self.ask(_QUESTION.format(tenant), "Reset", lambda: self.do(*doing))

    def picture(self) -> Rendered:
        """Return the rows, or that there are none."""
        lines = self._rows.astype(str).to_numpy().tolist()
        return table(self.title, _COLUMNS, lines) if lines else paragraph("The class: no platform is running.")


def _clock(times: "pd.Series[pd.Timestamp]") -> "pd.Series[str]":
    """Return the times as the trainer's clock shows them."""
    return times.dt.tz_convert(datetime.now().astimezone().tzinfo).dt.strftime("%H:%M:%S ")
