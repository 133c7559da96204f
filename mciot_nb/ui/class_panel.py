"""The trainer's view of a class: how far each tenant is, who is connected, and who was refused and why."""

from datetime import datetime
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]

from mciot_nb.errors import OnboardingError
from mciot_nb.local_platform import CLASS, LocalPlatform
from mciot_nb.ui.markup import Rendered, grid, paragraph
from mciot_nb.ui.panel import Panel

_COLUMNS = ("Tenant", "Last step", "Measurements", "Connected now", "Last refused", "Why")


class ClassPanel(Panel):
    """Follow the class live; ``workspace`` is the folder of its platform, by default that of ``run.py class``.

    Example: ``ClassPanel()`` as a cell's last line.
    """

    def __init__(self, workspace: Any = CLASS) -> None:
        super().__init__("The class")
        self._workspace, self._table = workspace, widgets.HTML()
        self.build(self._table)
        self.poll()

    def poll(self) -> None:
        """Show the class as it is now; a platform that was started anew is found again."""
        self._table.value = self.picture().html

    def picture(self) -> Rendered:
        """Return a row for each tenant, and one for each address whose device no tenant knows."""
        try:
            rows = LocalPlatform.find(self._workspace).progress()
        except OnboardingError as error:
            return paragraph(str(error))
        here = datetime.now().astimezone().tzinfo
        at = rows.pop("refused").dt.tz_convert(here).dt.strftime("%H:%M:%S ")
        rows["code"] = at.fillna("") + rows["code"] + (" " + rows.pop("client_id")).str.rstrip()
        lines = rows.astype(str).to_numpy().tolist()
        return Rendered("\n".join(" ".join(line) for line in lines), grid(self.title, _COLUMNS, lines))
