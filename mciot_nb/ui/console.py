"""The device console: connect a device, send, see what arrives, and read both ends of a refusal."""

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]

from mciot_nb.connect.device import OPERATIONS, Device
from mciot_nb.connect.tenant import Tenant
from mciot_nb.errors import OnboardingError
from mciot_nb.pki.files import meanings
from mciot_nb.pki.names import common_name, name_of
from mciot_nb.ui.console_parts import BothEnds, Messages, Operations, PendingOperation, Sending, field, plot
from mciot_nb.ui.inputs import button, row
from mciot_nb.ui.markup import Rendered, card, escape
from mciot_nb.ui.panel import Panel
from mciot_nb.workspace import Workspace

#: Seconds between two questions to the local tenant and the log; and in which operations that wait arrive after a 500.
READ_EVERY, FIRST_OPERATIONS = 1.5, 0.3
_WORDS = meanings("device console", "words.csv")
#: The console of each device in this kernel: two connections with one ClientId would throw each other out.
_consoles: dict[tuple[object, ...], "DeviceConsole"] = {}


class DeviceConsole(Panel):
    """Connect a device, send and receive, and see both ends: the device's, and the platform's.

    ``device`` is the tutorial's by default, ``tenant`` the one that was chosen; it is asked for what it keeps of the
    device. The local platform's log is beside what the device saw. Nothing is connected before a press of Connect.
    A second console of the same device ends the first one with its connection, so that the cell can be run again.

    Example: ``DeviceConsole(workspace)`` as a cell's last line.
    """

    def __init__(self, workspace: Workspace, device: Device | None = None, tenant: Tenant | None = None) -> None:
        tenant = tenant or workspace.tenant()
        device = device or workspace.device(tenant)
        self.name = (common_name(name_of(device.certificate)) if device.certificate else None) or device.client_id
        super().__init__(f"Device console: {self.name}")
        self.device, self.tenant = device, tenant
        self._over, self._next_read = False, 0.0
        self._reading = threading.Lock()  # so that nothing older is shown after something newer
        self._measured: Any = None  # what is drawn
        self.client_id, self.reason = field("ClientId", device.client_id, 24), field("Reason", "the valve is stuck", 24)
        self.sending, self.messages = Sending(self._transmit), Messages()
        self.ends = BothEnds(device, workspace.platform() if tenant.is_local else None)
        begin = partial(self._answer, what="begun (501)")
        done = partial(self._answer, what="done (503)", say=device.done)
        self.operations = Operations(self._ask_for, {"Begin": begin, "Done": done, "Failed…": self._ask_why})
        self.plot, self.trouble = widgets.HTML("Measurements: none yet."), widgets.HTML()
        self.state = widgets.HTML().add_class("mciot-state")
        buttons = [button("Connect", self.connect, "primary"), button("Disconnect", self.disconnect)]
        if not tenant.is_local:
            buttons.append(button("Refresh", self.refresh))
        hint = widgets.HTML("Try somebody-else, to be refused.").add_class("mciot-note")
        connection = row(self.client_id, *buttons, hint)
        below = (self.plot, self.trouble, self.messages)
        self.build(self.state, connection, self.ends, self.sending, self.operations, below=below)
        self.add_class("mciot-console")
        key = (workspace.folder, tenant.tenant_id, self.name)
        if earlier := _consoles.get(key):
            earlier.end()
        _consoles[key] = self
        device.on_traffic = self.messages.note
        self._draw()

    def end(self) -> None:
        """End the connection in MQTT's way, and all polling; the console does nothing from now on."""
        self._over = True
        # Listed no more before it is closed: a page that is loaded again would wait for it, with all that is on it.
        self.children = [part for part in self.children if part is not self._poller]
        self._poller.close()
        self.device.on_traffic = lambda message, sent: None
        self.device.disconnect()
        self.state.value = "<strong>✗ This console has ended: go on in the newer one, or run the cell again.</strong>"

    def do(
        self, doing: str, work: Callable[[], Any], then: Callable[[Any], str], *about: object, reads: bool = True
    ) -> None:
        """Do something as `Panel.do` does, ask the tenant if ``reads``, and show the new state; until the end."""

        def work_and_draw() -> Any:
            try:
                result = None if self._over else work()
                if reads and not self._over:
                    self.read()
                return result
            finally:
                self._draw()

        if not self._over:  # the last word is the platform's, if it has answered an error meanwhile
            super().do(doing, work_and_draw, lambda it: "" if self._over else self.messages.error() or then(it), *about)

    def connect(self) -> None:
        """Connect under the ClientId that is typed, and show both ends of what comes of it."""
        self.client_id.value = client_id = self.client_id.value.strip() or self.name  # as `Device` has it
        self.do("Connecting", lambda: self._connect(client_id), str, client_id)

    def _connect(self, client_id: str) -> str:
        if self.device.is_connected:
            if client_id == self.ends.client_id:
                return "The device is already connected: disconnect it first."
            self.device.disconnect()  # a second name is tried with the first one's connection closed
        self._draw("… Connecting")
        if not self.ends.connect(client_id):
            raise OnboardingError("Not connected: what each side saw is above.")
        if self._over:  # the cell was run again meanwhile
            self.device.disconnect()
            return ""
        return self._greet("✓ Connected.")

    def _greet(self, done: str) -> str:
        """Say that the device is there (100) and what it can do (114), and ask for what waits for it (500)."""
        self.device.create(self.name)
        self.device.supported_operations(*OPERATIONS.values())
        waiting = self.device.operations(FIRST_OPERATIONS)  # with what came before, and was not begun
        self.operations.arrive(waiting, [asked for asked in self.operations.arrived if asked.begun])
        return done

    def disconnect(self) -> None:
        """End the connection in MQTT's way."""

        def disconnect() -> str:
            if not self.device.is_connected:
                return "The device is not connected."
            self.ends.end("You disconnected, in the way that MQTT provides for.", self.device.disconnect)
            return "✓ Disconnected."

        self.do("Disconnecting", disconnect, str, reads=False)

    def read(self) -> None:
        """Ask the tenant over REST, as any application would, and show what it says; what fails is said beside it."""
        with self._reading:
            try:
                measured = self.tenant.devices.measurements(self.name)
                self.operations.show(self.tenant.devices.operations(self.name))
                self._draw_measured(measured)
                self.trouble.value = ""
            except OnboardingError as error:
                if error.code == "NO_DEVICE":
                    self.plot.value = "Measurements: the tenant does not have this device yet. Connect it."
                    self._measured, self.trouble.value = None, ""
                    return
                old = "What the tenant has now can't be shown"
                self.trouble.value = f'<span role="status">⚠ {old}: {escape(str(error))}</span>'

    def _draw_measured(self, measured: Any) -> None:
        """Draw the series that is named in the fields or, where nothing of that is kept, the one measured last."""
        names = list(zip(measured["fragment"], measured["series"], strict=True))
        typed = self.sending.fields["Fragment"].value, self.sending.fields["Series"].value
        shown = typed if typed in names else names[-1] if names else ("", "")
        pairs = zip(names, measured["value"], strict=True)
        own = measured.loc[[name == shown and math.isfinite(value) for name, value in pairs]]
        if self._measured is None or not own.equals(self._measured):
            self._measured, unit = own, "".join(own["unit"][-1:])
            self.plot.value = plot(own.set_index("time")["value"], " ".join(shown), unit)

    def refresh(self) -> None:
        """Ask the tenant what it keeps of the device."""
        self.do("Asking the tenant", lambda: None, lambda _: "" if self.trouble.value else "✓ Refreshed.")

    def _transmit(self, doing: str, how: Callable[..., None], *values: str) -> None:
        done = "✓ The platform has acknowledged it. The line that was sent is below."
        self.do(doing, lambda: how(self.device, *values), lambda _: done, *values)

    def _ask_for(self, command: str | None) -> None:
        devices, asked = self.tenant.devices, (self.name,) if command is None else (self.name, command)
        ask: Any = partial(devices.restart if command is None else devices.command, *asked)
        self.do("Asking the platform", ask, lambda _: "✓ The platform has accepted the operation.", command)

    def _ask_why(self, asked: PendingOperation) -> None:
        def report() -> None:
            reason = self.reason.value
            self._answer(asked, "failed (502)", lambda operation: self.device.failed(operation, reason))

        self.ask(f"Why has {asked.name} failed?", "Report the failure", report, self.reason)
        self.reason.focus()

    def _answer(self, asked: PendingOperation, what: str, say: Callable[[Any], None] | None = None) -> None:
        """Say once that the device has begun (501), and then what has become of it."""

        def answer() -> None:
            if not asked.begun:
                self.device.executing(asked.operation)
                asked.begun, asked.label.value = True, asked.label.value.replace("has arrived", "has begun")
            if say:
                self.read()  # so that the tenant is seen to know that it has begun
                say(asked.operation)
                self.operations.answered(asked)

        self.do("Answering" if say else "Saying so", answer, lambda _: f"✓ {asked.name}: {what}.", asked)

    def poll(self) -> None:
        """Show what has come, and whether the connection has ended; from time to time ask the platform too."""
        if self._over:
            return
        there, known = self.device.is_connected, self.ends.is_on
        if self.busy:
            pass  # what is being done shows the state
        elif there and not known:
            self.do("Following the connection", self._adopt, str)
        elif known and not there:
            self.ends.end("The connection has ended, and nobody told the device why: MQTT 3.1.1 has no way to say so.")
            self._draw()
            if not self.ends.is_on:  # no press of Connect meanwhile
                self.say("✗ The connection has ended on its own: what each side knows is above.")
        elif there:
            with suppress(OnboardingError):  # the connection has just ended: the next poll says so
                if arrived := self.device.operations(0):
                    self.operations.arrive(arrived, self.operations.arrived)
                    self.say(f"An operation has arrived at the device: {self.operations.arrived[-1].name}.")
        if not self.busy and (error := self.messages.error()):
            self.say(error)
        self.messages.draw()
        if self.tenant.is_local and time.monotonic() >= self._next_read:
            self._next_read = time.monotonic() + READ_EVERY
            self.read()
            (self.ends.draw if self.busy else self._draw)()

    def _adopt(self) -> str:  # a connection that a cell has made
        if self.ends.is_on or not self.device.is_connected:
            return ""  # a press was quicker
        self.ends.adopt()
        return self._greet("✓ Connected by a cell of the notebook.")

    def _draw(self, state: str = "") -> None:
        if not self._over:
            self.state.value = f"<strong>{escape(state or self.ends.state())}</strong>"
            self.ends.draw()
            self.messages.draw()

    def picture(self) -> Rendered:
        """Say which device it is, and what can be done here."""
        tenant = "the local platform" if self.tenant.is_local else f"{self.tenant.tenant_id} at {self.tenant.url}"
        where = f"{self.device.host}:{self.device.port}"
        rows = [("ClientId", self.name, _WORDS["ClientId"]), ("MQTT", where, _WORDS["MQTT"]), ("Tenant", tenant, "")]
        rows += [("Here you can", _WORDS["first"], ""), ("", _WORDS["then"], ""), ("", _WORDS["at last"], "")]
        return card(self.title, rows)
