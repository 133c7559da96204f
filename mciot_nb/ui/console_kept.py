"""The part of the device console that shows what the tenant keeps of the device: measurements, and operations."""

import math
import threading
from typing import TYPE_CHECKING

import ipywidgets as widgets  # type: ignore[import-untyped]

from mciot_nb.connect.tenant import Tenant
from mciot_nb.errors import OnboardingError
from mciot_nb.ui.console_operations import Operations
from mciot_nb.ui.console_send import Sending
from mciot_nb.ui.markup import escape
from mciot_nb.ui.plot import Point, plot

if TYPE_CHECKING:
    import pandas as pd


class Kept(widgets.VBox):  # type: ignore[misc]
    """A plot of the series that was sent last, and what is wrong where the tenant can't be asked.

    `read` asks the tenant over REST for the device of this ``name``, as any application would, and shows what it says;
    the ``operations`` are shown in their own place.
    """

    def __init__(self, tenant: Tenant, name: str, sending: Sending, operations: Operations) -> None:
        super().__init__()
        self._tenant, self._name, self._sending, self._operations = tenant, name, sending, operations
        self._reading = threading.Lock()  # so that nothing older is shown after something newer
        self.plot, self.trouble = widgets.HTML(plot([], "")), widgets.HTML()
        self.children = [self.plot, self.trouble]

    def read(self) -> None:
        """Ask and show. What fails is said, and what was shown stays."""
        with self._reading:
            try:
                measured = self._tenant.devices.measurements(self._name)
                self._operations.show(self._tenant.devices.operations(self._name))
                self.plot.value = self._plotted(measured)
                self.trouble.value = ""
            except OnboardingError as error:
                self._say_why_not(error)

    def _say_why_not(self, error: OnboardingError) -> None:
        if error.code == "NO_DEVICE":
            self.plot.value = "Measurements: the tenant does not have this device yet. Connect it."
            self.trouble.value = ""
        else:
            old = "What the tenant keeps can't be shown as it is now"
            self.trouble.value = f'<span role="status">⚠ {old}: {escape(str(error))}</span>'

    def _plotted(self, measured: "pd.DataFrame") -> str:
        """Draw the series that was sent last: from here or, where nothing of that is kept, by anybody."""
        names = list(zip(measured["fragment"], measured["series"], strict=True))
        if not names:
            return plot([], "")
        shown = next((name for name in reversed(self._sending.sent) if name in names), names[-1])
        own = measured[[name == shown for name in names]]
        pairs = zip(own["time"], own["value"], strict=True)
        points = [Point(time, value) for time, value in pairs if math.isfinite(value)]
        return plot(points, " ".join(shown), own["unit"].iloc[-1])
