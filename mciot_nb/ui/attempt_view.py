"""Both ends of one attempt to connect: what the device met, and what the platform's log says of it."""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]
from pandas.errors import DatabaseError

from mciot_nb.connect.device import Device
from mciot_nb.errors import OnboardingError
from mciot_nb.local_platform import LocalPlatform
from mciot_nb.pki.names import readable
from mciot_nb.ui.displays import two_sides
from mciot_nb.ui.markup import Rendered, boxed, escape, visible

#: What paho notes of every connection; its other notes are news.
_USUAL = ("Sending ", "Received ")
CONNECTED = "CONNECTED"
#: Seconds that are given to the platform to write its record.
PATIENCE = 1.0


@dataclass(frozen=True)
class ConnectionAttempt:
    """One attempt to connect, as the device met it; ``since`` is the number of the log's last record before it.

    ``refusal`` is the sentence of why it failed; ``note`` what paho noted; ``ending`` how the connection ended;
    ``record`` what the platform's log says of it, as far as it was read.
    """

    client_id: str
    since: int
    refusal: OnboardingError | None = None
    note: str = ""
    ending: str = ""
    record: dict[str, Any] | None = None

    @property
    def is_on(self) -> bool:
        """Whether it succeeded, and has not ended as far as is known here."""
        return not self.refusal and not self.ending

    @property
    def is_settled(self) -> bool:
        """Whether the record says all that the log will ever say of the attempt as it stands."""
        record = self.record
        return record is not None and (self.is_on or record["code"] != CONNECTED or _has_ended(record))


class AttemptView(widgets.HTML):  # type: ignore[misc]
    """The device's last attempt to connect, and beside it what the log of the local ``platform`` says of it."""

    def __init__(self, device: Device, platform: LocalPlatform | None, is_local: bool) -> None:
        super().__init__()
        self._device, self._platform, self._is_local = device, platform, is_local
        self.attempt: ConnectionAttempt | None = None

    @property
    def is_on(self) -> bool:
        """Whether a connection is known that has not ended as far as is known here."""
        return self.attempt is not None and self.attempt.is_on

    def connect(self, client_id: str) -> bool:
        """Let the device connect under this ClientId, and note what comes of it; returns whether it is connected."""
        own, since, refusal = self._device.client_id, _last_record(self._log()), None
        try:
            self._device.client_id = client_id
            self._device.connect()
        except OnboardingError as error:
            refusal = error
        finally:
            self._device.client_id = own
        self._note(ConnectionAttempt(client_id, since, refusal, self._news() if refusal else ""))
        return refusal is None

    def adopt(self) -> None:
        """Note a connection that was not made by `connect`."""
        log, since = self._log(), 0
        if log is not None:
            own = log[(log["code"] == CONNECTED) & (log["subject"] == self._subject()) & log["ended"].isna()]
            since = int(own.index.max()) - 1 if len(own) else _last_record(log)
        self._note(ConnectionAttempt(self._device.client_id, since))

    def end(self, ending: str, how: Callable[[], None] = lambda: None) -> None:
        """Note how the connection ends, after ``how`` has ended it."""
        if not self.is_on:
            self.adopt()
        assert self.attempt
        self.attempt = attempt = replace(self.attempt, ending=ending)  # first, because of what polls meanwhile
        how()
        if self.attempt is attempt:  # else there is another by now
            self._note(replace(attempt, note=self._news()))

    def complete(self) -> None:
        """Read once more what the log did not say yet."""
        attempt = self.attempt
        if attempt and not attempt.refusal and not attempt.is_settled:
            found = self._with_record(attempt)
            if self.attempt is attempt:  # else a press of Connect came while the log was read
                self.attempt = found

    def state(self) -> str:
        """Say in words how the connection stands."""
        where = f"{self._device.host}:{self._device.port}"
        if self._device.is_connected:
            return f"✓ Connected to {where}"
        if self.attempt is None:
            return f"○ Not connected to {where}"
        return f"✗ Not connected to {where}: {'the attempt failed' if self.attempt.refusal else 'the connection ended'}"

    def draw(self) -> None:
        """Show the two sides."""
        device = platform = _box("plain", ["Nothing yet: press Connect."])
        if attempt := self.attempt:
            device = _device_side(attempt)
            if attempt.record:
                platform = _platform_side(attempt.record, attempt)
            else:
                platform = _box("plain", [self._why_no_record()])
        self.value = two_sides("What the device saw", device, "What the platform's log says", platform).html

    def _why_no_record(self) -> str:
        running = LocalPlatform.running(self._platform.folder.parent) if self._platform else None
        if self._platform and running is None:
            return "The local platform does not run: workspace.tenant() starts it, and then connect again."
        if running and running.mqtt[1] != self._device.port:
            return (
                f"The local platform has started anew and listens on port {running.mqtt[1]} now: run the cells again "
                "that make the tenant, the device and this console."
            )
        if self._platform:
            return "There is no record of this attempt: it has not reached the platform, or the platform hangs."
        if self._is_local:
            return "Give the console the platform too: DeviceConsole(device, tenant, workspace.platform())."
        return "Only the platform's operator sees it: you get the left side alone. The local platform shows you both."

    def _note(self, attempt: ConnectionAttempt) -> None:
        """Note an attempt, and what the log says of it: that may be about to be written, so some time is given."""
        self.attempt, give_up = attempt, time.monotonic() + PATIENCE
        while self._platform is not None:
            found = self._with_record(attempt)
            if found.is_settled or time.monotonic() > give_up:
                self.attempt = found
                return
            time.sleep(0.1)

    def _with_record(self, attempt: ConnectionAttempt) -> ConnectionAttempt:
        return replace(attempt, record=_find(self._log(), attempt, self._subject()))

    def _log(self) -> Any:
        """Return the platform's log as a table, None where there is none to read."""
        if self._platform is None:
            return None
        try:
            return self._platform.log()
        except (DatabaseError, sqlite3.Error):  # its folder was moved
            return None

    def _subject(self) -> str:
        return readable(self._device.certificate.subject) if self._device.certificate else ""

    def _news(self) -> str:
        """Return what paho has noted beyond what it notes of every connection: an alert of TLS 1.3, for one."""
        return "; ".join(note for note in list(self._device.notes) if not note.startswith(_USUAL))


def _last_record(log: Any) -> int:
    return 0 if log is None or log.empty else int(log.index.max())


def _find(log: Any, attempt: ConnectionAttempt, subject: str) -> dict[str, Any] | None:
    """Find the record of an attempt by a device of this subject.

    A handshake that fails early leaves a record without subject and ClientId: it is taken where none bears them.
    """
    if log is None:
        return None
    later = log[(log.index > attempt.since) & log["client_id"].isin(["", attempt.client_id])]
    for name in (subject, ""):
        if len(own := later[later["subject"] == name]):
            return dict(own.iloc[0])  # the first: later ones are those of a twin
    return None


def _has_ended(record: dict[str, Any]) -> bool:
    return bool(record["ended"] == record["ended"])  # NaT, where it has not, differs from itself


def _device_side(attempt: ConnectionAttempt) -> Rendered:
    if attempt.refusal:
        lines = [f"✗ {attempt.refusal.code}", str(attempt.refusal)]
    else:
        lines = ["✓ CONNACK 0", f"The platform lets the device in, as ClientId {attempt.client_id!r}."]
    lines += [f"Then: {attempt.ending}"] if attempt.ending else []
    lines += [f"paho's note: {attempt.note}"] if attempt.note else []
    return _box("good" if attempt.is_on else "bad", lines)


def _platform_side(record: dict[str, Any], attempt: ConnectionAttempt) -> Rendered:
    let_in, ended = record["code"] == CONNECTED, _has_ended(record)
    lines = [f"{'✓' if let_in else '✗'} {record['code']}", record["reason"]]
    if ended:
        lines.append(f"Then: {record['ending']} ({record['ended']:%H:%M:%S} UTC)")
    elif let_in and attempt.ending:
        lines.append("Then: it holds no end of the connection. The platform was killed, or can't write any more.")
    if chain := record["chain"]:
        over = f" over {record['tls']}" if record["tls"] else ""
        lines += [f"Presented{over}, in this order:", *(f"{place}. {name}" for place, name in enumerate(chain, 1))]
    return _box("good" if let_in and not ended else "bad", lines)


def _box(kind: str, lines: list[str]) -> Rendered:
    """Set lines apart, the first one in bold."""
    first, *rest = map(escape, lines)
    return Rendered("\n".join(map(visible, lines)), boxed(kind, "<br>".join([f"<strong>{first}</strong>", *rest])))
