"""A fleet that is connected and sends measurements, on one picture that is drawn again in place."""

import math
import random
import threading
import time
from collections import Counter, deque
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets  # type: ignore[import-untyped]

from mciot_nb.connect.device import Device
from mciot_nb.connect.tenant import Tenant
from mciot_nb.errors import OnboardingError
from mciot_nb.secret import Secret
from mciot_nb.ui.console_parts import drawn_svg
from mciot_nb.ui.markup import COLOURS, Rendered, StaticPicture, counted, listed, table, themed

if TYPE_CHECKING:
    import pandas as pd

#: Seconds between a device's measurements or attempts, and between drawings; on the picture; and to wait at most.
EVERY, DRAW_EVERY, SHOWN, PATIENCE = 2.0, 1.0, 60.0, 60.0
_SIZE, _WIDE = (7.2, 4.8), 720
_KEY = "A row for each device, a stroke for each measurement, a cross where it is refused."
_live: dict[Path, "LiveFleet"] = {}  # two connections with one ClientId would throw each other out


class LiveFleet(StaticPicture, widgets.HTML):  # type: ignore[misc]
    """Let the devices of a fleet connect, each in a thread of its own, and send measurements, until `stop`.

    ``folder`` is where `make_fleet` made them. A device that is refused tries again. The picture has a row for each
    device, a stroke for each measurement, and a cross where it is refused. A second one of the folder ends the first.

    Example: ``LiveFleet(fleet, workspace.folder / "fleet", workspace.tenant(), workspace.passphrase)``
    """

    def __init__(self, fleet: "pd.DataFrame", folder: Path, tenant: Tenant, passphrase: Secret, by: str = "site"):
        super().__init__()
        self._folder, self._tenant, self._passphrase, self._over = folder, tenant, passphrase, False
        made = (fleet if by in fleet else fleet.assign(**{by: "all"})).query("state in ('made', 'kept')")
        made, self._by = made.sort_values(by, kind="stable"), by
        self._groups: dict[str, str] = dict(zip(made["common_name"], made[by], strict=True))
        self._outcomes: dict[str, str] = {}  # of each device since the last `reconnect`: empty for a measurement
        self._sent: deque[tuple[float, int]] = deque(maxlen=100 * len(self._groups))
        self._changed, self._wake = threading.Condition(), threading.Event()
        if earlier := _live.get(folder):
            earlier.stop()
        _live[folder] = self
        self._threads = [threading.Thread(target=self._be, args=one, daemon=True) for one in enumerate(self._groups)]
        for thread in (*self._threads, threading.Thread(target=self._keep_drawing, daemon=True)):
            thread.start()

    def _be(self, number: int, name: str) -> None:
        """Be one device."""
        chain, key = (self._folder / name / file for file in ("deviceCertChain.pem", "deviceKey.pem"))
        while not self._over:
            wake = self._wake
            try:
                trusted, where = self._tenant.now.trusted, self._tenant.now.mqtt
                with Device(*where, chain=chain, key=key, passphrase=self._passphrase, trusted=trusted) as device:
                    device.create(name)
                    while not wake.is_set():
                        value = round(20 + 5 * math.sin(number + time.time() / 20), 1)
                        device.measure("c8y_Temperature", "T", value, "C")
                        self._sent.append((time.time(), number))
                        self._note(name, "", wake)
                        wake.wait(EVERY * random.uniform(0.5, 1.5))
            except OnboardingError as error:
                self._note(name, error.code, wake)
                wake.wait(EVERY)

    def _note(self, name: str, outcome: str, wake: threading.Event) -> None:
        with self._changed:
            if wake is self._wake:
                self._outcomes[name] = outcome
                self._changed.notify_all()

    def reconnect(self) -> Rendered:
        """Let all devices read their files and connect anew, as after a power cut; return what came of it."""
        with self._changed:
            before, self._wake = self._wake, threading.Event()
            self._outcomes.clear()
        before.set()
        return self.picture()

    def stop(self) -> None:
        """Let all devices disconnect; the picture stays as it is."""
        self._over = True
        self._wake.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _lines(self) -> list[tuple[str, int, int, str]]:
        """Return for each group its name, its devices, how many of them send, and why others don't."""
        sizes, outcomes = Counter(self._groups.values()), dict(self._outcomes)
        lines = []
        for group, size in sizes.items():
            said = Counter(outcomes[name] for name, its in self._groups.items() if its == group and name in outcomes)
            send = said.pop("", 0)
            lines.append((group, size, send, listed([f"{number} {code}" for code, number in said.items()])))
        return lines

    def picture(self) -> Rendered:
        """Wait until each device has tried, and say how many send."""
        with self._changed:
            self._changed.wait_for(lambda: self._over or len(self._outcomes) == len(self._groups), PATIENCE)
        rows = [(group, str(size), str(send), why) for group, size, send, why in self._lines()]
        return table("The fleet", (self._by.capitalize(), "Devices", "Send measurements", "Refused"), rows)

    def _keep_drawing(self) -> None:
        while not self._over:
            self.value = self._draw()
            self._wake.wait(DRAW_EVERY)
        self.value = self._draw()

    def _draw(self) -> str:
        now, sent, refused = time.time(), list(self._sent), {n for n, code in dict(self._outcomes).items() if code}
        recent, half = [(when - now, row) for when, row in sent if when > now - SHOWN], (-0.4, 0.4, math.nan)
        strokes = [(when, row + end) for when, row in recent for end in half]
        crosses = [row for row, name in enumerate(self._groups) if name in refused]
        lines, ends = self._lines(), [-0.5]
        for _, size, *_ in lines:
            ends.append(ends[-1] + size)

        def draw(axes: Any) -> None:
            axes.plot(*zip(*strokes or [(0, math.nan)], strict=True), color=COLOURS["ca"][0], linewidth=1.4)
            axes.plot([1.2] * len(crosses), crosses, "x", color=COLOURS["bad"][0], markersize=4)
            for begin, end in list(pairwise(ends))[::2]:
                axes.axhspan(begin, end, color=COLOURS["muted"][0], alpha=0.1)
            axes.set(xlim=(-SHOWN, 2.4), ylim=(ends[-1], ends[0]), xlabel="Seconds ago")
            axes.set_xticks([-60, -45, -30, -15, 0], ["60", "45", "30", "15", "now"])
            middle = [(begin + end) / 2 for begin, end in pairwise(ends)]
            axes.set_yticks(middle, [f"{group}\n{send} of {size}" for group, size, send, _ in lines])

        said = [f"{group}: {send} of {size} send{', ' + why if why else ''}" for group, size, send, why in lines]
        devices = counted(len(self._groups), "device", "devices")
        alt = f"Measurements of {devices} in the last minute. {'; '.join(said)}."
        return f"<div>{_KEY}</div>{themed(drawn_svg(draw, _SIZE), _WIDE, alt)}"
