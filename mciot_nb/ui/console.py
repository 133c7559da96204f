"""The device console: connect a device, send, see what arrives, and read both ends of a refusal."""

import time
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]

from mciot_nb.connect.device import OPERATIONS, Device
from mciot_nb.connect.tenant import Tenant
from mciot_nb.errors import OnboardingError
from mciot_nb.local_platform import LocalPlatform
from mciot_nb.pki.names import common_name
from mciot_nb.ui.attempt_view import AttemptView
from mciot_nb.ui.console_parts import Messages, Operations, PendingOperation, Sending, TenantData, field
from mciot_nb.ui.markup import Rendered, card, escape
from mciot_nb.ui.panel import Panel, button, row

#: Seconds between two questions to the local tenant and to the platform's log.
READ_EVERY = 1.5
#: Seconds in which operations that wait arrive after the device has asked for them.
FIRST_OPERATIONS = 0.3
_NO_REASON = "The connection has ended, and nobody told the device why: MQTT 3.1.1 has no way to."
#: The console of each device in this kernel: two connections with one ClientId would throw each other out.
_consoles: dict[tuple[str, int, str], "DeviceConsole"] = {}


class DeviceConsole(Panel):
    """Connect a device, send and receive, and see both ends: the device's, and the platform's.

    ``tenant`` is asked for what it keeps of the device. With the local ``platform`` its log stands beside what the
    device saw. Nothing is connected before a press of Connect. A second console of the same device ends the first one
    with its connection, so that the cell can be run again.

    Example: ``DeviceConsole(workspace.device(tenant), tenant)`` as a cell's last line.
    """

    def __init__(self, device: Device, tenant: Tenant, platform: LocalPlatform | None = None) -> None:
        self.name = (common_name(device.certificate.subject) if device.certificate else None) or device.client_id
        super().__init__(f"Device console: {self.name}")
        self.device, self.tenant = device, tenant
        self._over, self._next_read = False, 0.0
        self.client_id = field("ClientId", device.client_id, "24em")
        self.sending = Sending(self._transmit)
        self.ends = AttemptView(device, platform, tenant.is_local)
        self.operations = Operations(self._ask_for, {"Begin": self._begin, "Done": self._done, "Failed…": self._failed})
        self.reason = field("Reason", "the valve is stuck", "24em")
        self.kept = TenantData(tenant, self.name, self.sending, self.operations)
        self.messages = Messages()
        self.state = widgets.HTML().add_class("mciot-state")
        self.buttons = {
            "connect": button("Connect", self.connect, "primary"),
            "disconnect": button("Disconnect", self.disconnect),
        }
        if not tenant.is_local:
            self.buttons["refresh"] = button("Refresh", self.refresh)
        hint = widgets.HTML("Try somebody-else, to be refused.").add_class("mciot-note")
        connection = row(self.client_id, *self.buttons.values(), hint)
        parts = (self.state, connection, self.ends, self.sending, self.operations)
        self.build(*parts, below=(self.kept, self.messages))
        self.add_class("mciot-console")
        self._take_over()
        device.on_traffic = self.messages.note
        self._draw()

    def _take_over(self) -> None:
        key = (self.device.host, self.device.port, self.name)
        earlier = _consoles.pop(key, None)
        _consoles[key] = self
        if earlier:
            earlier.end()

    def end(self) -> None:
        """End the connection in MQTT's way, and all polling; the console does nothing from now on."""
        self._over = True
        self._poller.close()
        self.device.on_traffic = lambda message, sent: None
        self.device.disconnect()
        self._say_state("✗ This console has ended: go on in the newer one, or run the cell again.")

    def do(self, doing: str, work: Callable[[], Any], then: Callable[[Any], str], *about: object) -> None:
        """Do something as `Panel.do` does, and show how things stand afterwards; nothing once the console has ended.

        An error that the platform has answered meanwhile is the last word.
        """

        def work_and_draw() -> Any:
            try:
                return None if self._over else work()
            finally:
                self._draw()

        if not self._over:
            super().do(doing, work_and_draw, lambda result: "" if self._over else self._error() or then(result), *about)

    def _error(self) -> str:
        """Return the platform's last error as a sentence, once."""
        errors = self.messages.errors()
        return f"⚠ The platform answers with an error: {errors[-1]}" if errors else ""

    # The connection ---------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect under the ClientId that is typed, and show both ends of what comes of it."""
        self.client_id.value = client_id = self.client_id.value.strip() or self.name  # as `Device` has it
        self.do("Connecting", lambda: self._connect(client_id), str, client_id)

    def _connect(self, client_id: str) -> str:
        if self.device.is_connected:
            return "The device is connected already: disconnect it first."
        self._say_state("… Connecting")
        if not self.ends.connect(client_id):
            return "✗ Not connected: what each side saw stands above."
        if self._over:  # the cell was run again meanwhile
            self.device.disconnect()
            return ""
        self._greet()
        return "✓ Connected."

    def _greet(self) -> None:
        """Say that the device is there (100) and what it can do (114), and ask for what waits for it (500)."""
        self.device.create(self.name)
        self.device.supported_operations(*OPERATIONS.values())
        self.operations.forget_what_comes_again()
        self.operations.arrive(self.device.operations(FIRST_OPERATIONS))
        self.kept.read()

    def disconnect(self) -> None:
        """End the connection in MQTT's way."""
        self.do("Disconnecting", self._disconnect, str)

    def _disconnect(self) -> str:
        if not self.device.is_connected:
            return "The device is not connected."
        self.ends.end("You disconnected, in the way that MQTT asks for.", self.device.disconnect)
        return "✓ Disconnected."

    # What the buttons send --------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Ask the tenant what it keeps of the device."""
        self.do("Asking the tenant", self.kept.read, lambda _: "✓ Refreshed." if not self.kept.trouble.value else "")

    def _work_and_read(self, doing: str, work: Callable[[], object], done: str, *about: object) -> None:
        """Do something, and ask the tenant what it keeps afterwards."""

        def work_and_read() -> None:
            work()
            self.kept.read()

        self.do(doing, work_and_read, lambda _: done, *about)

    def _transmit(self, doing: str, say: Callable[[Device], None], *values: object) -> None:
        done = "✓ The platform has acknowledged it. The line that went out stands below."
        self._work_and_read(doing, lambda: say(self.device), done, *values)

    def _ask_for(self, command: str | None) -> None:
        def ask() -> object:
            devices = self.tenant.devices
            return devices.restart(self.name) if command is None else devices.command(self.name, command)

        self._work_and_read("Asking the platform", ask, "✓ The platform has taken the operation.", command)

    def _begin(self, asked: PendingOperation) -> None:
        self._work_and_read("Saying so", lambda: self._say_begun(asked), f"✓ {asked.name}: begun (501).", asked)

    def _done(self, asked: PendingOperation) -> None:
        self._answer(asked, lambda: self.device.done(asked.operation), "done (503)")

    def _failed(self, asked: PendingOperation) -> None:
        def report() -> None:
            reason = self.reason.value
            self._answer(asked, lambda: self.device.failed(asked.operation, reason), "failed (502)")

        self.ask(f"Why has {asked.name} failed?", "Report the failure", report, self.reason)
        self.reason.focus()

    def _answer(self, asked: PendingOperation, say: Callable[[], None], what: str) -> None:
        def answer() -> None:
            self._say_begun(asked)
            say()
            self.operations.answered(asked)

        self._work_and_read("Answering", answer, f"✓ {asked.name}: {what}.", asked)

    def _say_begun(self, asked: PendingOperation) -> None:
        if not asked.begun:
            self.device.executing(asked.operation)
            asked.has_begun()
            self.kept.read()

    # What comes without a press ---------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Show what has come, and whether the connection has ended; from time to time ask the platform too."""
        if self._over:
            return
        if not self.busy:
            self._compare_connection()
            if error := self._error():
                self.say(error)
        self.messages.draw()
        if self.tenant.is_local and time.monotonic() >= self._next_read:
            self._next_read = time.monotonic() + READ_EVERY
            self.kept.read()
            if not self.busy:
                self.ends.complete()
                self.ends.draw()

    def _compare_connection(self) -> None:
        """Compare the connection with what is known of it; one that is there and known may have brought operations."""
        there, known = self.device.is_connected, self.ends.is_on
        if there and known:
            self._take_operations()
        elif there:
            self.do("Listening to the connection that is there", self._adopt, str)
        elif known:
            self.ends.end(_NO_REASON)
            self._draw()
            if not self.ends.is_on:  # no press of Connect meanwhile
                self.say("✗ The connection has ended by itself: what each side knows stands above.")

    def _adopt(self) -> str:
        """Take up a connection that a cell has made."""
        if self.ends.is_on or not self.device.is_connected:
            return ""  # a press was quicker
        self.ends.adopt()
        self._greet()
        return "✓ Connected, by a cell of the notebook."

    def _take_operations(self) -> None:
        try:
            arrived = self.device.operations(0)
        except OnboardingError:
            return  # the connection has just ended: the next poll says so
        if arrived:
            self.operations.arrive(arrived)
            self.say(f"An operation has arrived at the device: {self.operations.arrived[-1].name}.")

    # What is shown ----------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        """Show how the connection stands, what each side knows of it, and the messages."""
        if not self._over:
            self._say_state(self.ends.state())
            self.ends.draw()
            self.messages.draw()

    def _say_state(self, words: str) -> None:
        self.state.value = f"<strong>{escape(words)}</strong>"

    def picture(self) -> Rendered:
        """Say which device it is, and what can be done here."""
        tenant = "the local platform" if self.tenant.is_local else f"{self.tenant.tenant_id} at {self.tenant.url}"
        where = f"{self.device.host}:{self.device.port}"
        rows = [
            ("ClientId", self.name, "the common name of its certificate"),
            ("MQTT", where, "mutual TLS; nothing is connected until you press Connect"),
            ("Tenant", tenant, ""),
            ("Here you can", "connect, also under another ClientId, and read both ends of a refusal", ""),
            ("", "send a measurement, an event or an alarm; see each line that goes out, and what arrives", ""),
            ("", "watch the measurements in a plot; send an operation, and answer it as the device", ""),
        ]
        return card(self.title, rows)
