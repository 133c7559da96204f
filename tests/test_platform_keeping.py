"""What the local platform has acknowledged outlives a kill under load."""

import contextlib
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import platform_tools as tools
import pytest
from raw_mqtt import PUBACK, PUBCOMP, PUBREC, PUBREL, Raw, acknowledged, connect, publish

from mciot_nb.errors import OnboardingError
from mciot_nb.local_platform import LocalPlatform
from mciot_nb.pki.chain import PROFILES
from mciot_platform.storage import LoggedAttempt, Storage, TrustAnchor
from mciot_platform.trust import ConnectionRejected, Trust

WINDOW = 20  # messages under way at once


@dataclass
class Sender:
    """A device that sends the numbers 0, 1, 2 … as fast as it can, and knows which were acknowledged.

    With clean session 0 it sends again what was not, as MQTT prescribes after a reconnection (3.1.1, section 4.4).
    """

    name: str
    chain: Path
    qos: int
    clean: bool
    sent: int = 0
    acknowledged: set[int] = field(default_factory=set)
    under_way: dict[int, int] = field(default_factory=dict)  # packet identifier: number
    unreleased: set[int] = field(default_factory=set)
    enough: threading.Event = field(default_factory=threading.Event)
    problem: str = ""

    def publish(self, identifier: int, *, again: bool = False) -> bytes:
        return publish(f"200,c8y_N,n,{self.under_way[identifier]}", self.qos, identifier, again)

    def run(self, platform: LocalPlatform) -> None:
        """Send until the connection breaks, or until told that it is enough, and then wait for what is open."""
        context = tools.client_context(platform)
        context.load_cert_chain(self.chain)
        with contextlib.suppress(OSError):
            raw = Raw(platform, context)
            answer = raw.ask(connect(self.name, self.clean))
            if answer[:2] + answer[3:] != b"\x20\x02\x00":
                self.problem = f"{self.name} was answered {answer!r}."
            if self.clean:
                self.under_way, self.unreleased = {}, set()
            raw.send(*(self.publish(identifier, again=True) for identifier in self.under_way))
            raw.send(*(acknowledged(PUBREL, identifier) for identifier in self.unreleased))
            while not (self.problem or (self.enough.is_set() and not (self.under_way or self.unreleased))):
                raw.send(*self._new_messages())
                if self.under_way or self.unreleased:
                    if not (received := raw.packet()):
                        return
                    raw.send(self._hear(received[0], int.from_bytes(received[2:4])))

    def _new_messages(self) -> Iterator[bytes]:
        while not self.enough.is_set() and len(self.under_way) + len(self.unreleased) < WINDOW:
            identifier = self.sent % 0xFFFF + 1
            self.under_way[identifier] = self.sent
            self.sent += 1
            yield self.publish(identifier)

    def _hear(self, kind: int, identifier: int) -> bytes:
        if kind in (PUBACK, PUBREC):
            self.acknowledged.add(self.under_way.pop(identifier))
        if kind == PUBREC:
            self.unreleased.add(identifier)
            return acknowledged(PUBREL, identifier)
        if kind == PUBCOMP:
            self.unreleased.discard(identifier)
        return b""


def numbers(platform: LocalPlatform) -> dict[str, Counter[int]]:
    """Return how often each number is there, by device."""
    frame = platform.measurements()
    return {name: Counter(map(int, group["value"])) for name, group in frame.groupby("device")}


@contextlib.contextmanager
def under_load(platform: LocalPlatform, *workers: Sender) -> Iterator[None]:
    """Let the workers run until the platform is killed, or until they were told that it is enough."""
    threads = [threading.Thread(target=worker.run, args=(platform,)) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join(tools.SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    assert not [worker.problem for worker in workers if worker.problem]


def senders(folder: Path, root: tools.Entity) -> list[Sender]:
    kinds = [(f"qos-{qos}-{'clean' if clean else 'kept'}", qos, clean) for qos in (1, 2) for clean in (True, False)]
    return [
        Sender(name, tools.write_chain(tools.make(name, root), folder / f"{name}.pem"), *kind) for name, *kind in kinds
    ]


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_by_kills_under_load(tmp_path: Path) -> None:
    """What is uploaded or deleted goes through the same transactions: see test_platform.py."""
    devices = senders(tmp_path, root := tools.make("Root", ca=True))
    for number in range(4):
        wanted = [(sender, len(sender.acknowledged) + WINDOW) for sender in devices]
        with tools.start_in_foreground(tmp_path) as (process, _):
            platform = tools.running(tmp_path)
            assert tools.upload(platform, root).status_code == (409 if number else 201)
            with under_load(platform, *devices):
                try:
                    for sender, least in wanted:  # a kill is of no interest before
                        tools.wait_for(lambda s=sender, n=least: len(s.acknowledged) > n or s.problem)
                    time.sleep(random.uniform(0, 0.5))
                finally:
                    process.kill()
                    process.wait()
        stored = numbers(platform)  # read from the file, without the process
        assert not [sender for sender in devices if sender.acknowledged - stored[sender.name].keys()]
    with tools.start_in_foreground(tmp_path):
        platform = tools.running(tmp_path)
        for sender in devices:
            sender.enough.set()
        with under_load(platform, *devices):
            pass
        stored = numbers(platform)
        for sender in devices:
            twice = [number for number, times in stored[sender.name].items() if times > 1]
            assert sender.acknowledged <= stored[sender.name].keys()
            assert not twice or (sender.qos == 1 and not sender.clean)  # what is sent again, at least once
            assert sender.clean or sender.acknowledged == set(range(sender.sent)) == stored[sender.name].keys()


@pytest.mark.slow
def test_the_control_a_platform_that_acknowledges_too_early_is_caught(tmp_path: Path) -> None:
    first = (
        "import contextlib, mciot_platform.storage as d;"
        "d.Storage.transaction = contextlib.contextmanager("
        "lambda self: (yield None if self._db.in_transaction else self._db.execute('BEGIN')))"
    )
    (sender, *_) = senders(tmp_path, root := tools.make("Root", ca=True))
    with tools.start_in_foreground(tmp_path):
        assert tools.upload(tools.running(tmp_path), root).status_code == 201
    with tools.start_in_foreground(tmp_path, first=first) as (process, _):
        platform = tools.running(tmp_path)
        with under_load(platform, sender):
            tools.wait_for(lambda: len(sender.acknowledged) > 3 * WINDOW or sender.problem)
            process.kill()
            process.wait()
    assert sender.acknowledged - numbers(platform).get(sender.name, Counter()).keys()


def test_connections_cut_off_by_a_kill_have_an_end_in_the_log(tmp_path: Path) -> None:
    root = tools.make("Root", ca=True)
    with tools.start_in_foreground(tmp_path) as (process, _):
        platform = tools.running(tmp_path)
        assert tools.upload(platform, root).status_code == 201
        with tools.device(platform, tmp_path, tools.make("gone", root), client_id="gone"):
            pass
        tools.wait_for(lambda: platform.log()["ended"].notna().all())
        with tools.device(platform, tmp_path, tools.make("dev", root)) as (_, seen):
            assert seen.connack == 0
            process.kill()
            process.wait()
            assert tools.connected(platform)["ended"].isna().tolist() == [False, True]
    with tools.start_in_foreground(tmp_path):
        log = platform.log().set_index("client_id")
        assert log.loc["gone", "ending"] == "The client disconnected."  # the control
        assert log.loc["dev", "ending"] == "The platform was killed."
        assert log.loc["dev", "ended"] >= log.loc["dev", "time"]
        assert not tools.connected(platform)["ended"].isna().any()


def test_the_file_of_an_earlier_version_opens_and_keeps_its_rows(tmp_path: Path) -> None:
    root, file = tools.make("Root", ca=True), tmp_path / "platform.sqlite"
    storage = Storage(file)
    anchor = TrustAnchor(root.certificate, "t1001", "ENABLED", False, fingerprint=root.fingerprint, name="old one")
    storage.put_trusted_certificate(anchor)
    storage.log(LoggedAttempt("127.0.0.1:5", "t1001"), "CONNECTED", "It is.")
    storage.close()
    with contextlib.closing(sqlite3.connect(file)) as database:
        for later in ("trusted_certificates proven", "trusted_certificates code", "devices parent", "log tls"):
            database.execute("ALTER TABLE {} DROP COLUMN {}".format(*later.split()))
    for name in ("old one", "renamed"):  # what was added is there at the second start, and is not added again
        storage = Storage(file)
        (known,) = storage.trusted_certificates()
        assert (known.fingerprint, known.name, known.proven) == (root.fingerprint, name, False)
        storage.put_trusted_certificate(replace(known, name="renamed", code="1"))
        storage.log(LoggedAttempt("127.0.0.1:6", tls="TLSv1.3"), "CONNECTED", "It is.")
        storage.close()


def test_what_an_earlier_version_still_runs_is_one_sentence(tmp_path: Path) -> None:
    with tools.started(tmp_path) as platform:
        assert platform.issued().empty, "the control"
        with contextlib.closing(sqlite3.connect(platform.folder / "platform.sqlite")) as database:
            database.execute("DROP TABLE issued")  # as a platform of the time before it has the file
        with pytest.raises(OnboardingError, match="earlier version") as refused:
            platform.issued()
        assert refused.value.code == "BAD_FILE"
    with tools.started(tmp_path) as platform:
        assert platform.issued().empty, "started anew"


def test_a_good_chain_is_remembered_until_trust_or_a_date_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(tmp_path / "platform.sqlite")
    ca = tools.make("CA", ca=True)
    kept = TrustAnchor(ca.certificate, "t1001", "ENABLED", True, fingerprint=ca.fingerprint, name="")
    storage.put_trusted_certificate(kept)
    decided, asked = Trust(storage, PROFILES["current"]), list[str | None]()
    enabled = decided.enabled
    monkeypatch.setattr(decided, "enabled", lambda tenant=None: asked.append(tenant) or enabled(tenant))
    chain = tools.make("dev", ca, ends=2 * tools.DAY).chain
    for changed, times in ((None, 1), (None, 1), (replace(kept, name="renamed"), 2), (None, 2)):
        if changed:
            storage.put_trusted_certificate(changed)
        assert decided.verify_chain(chain).fingerprint == ca.fingerprint and len(asked) == times
    with pytest.raises(RuntimeError), storage.transaction():  # what is not kept is not remembered either
        storage.put_trusted_certificate(replace(kept, status="DISABLED"))
        assert not storage.trusted_certificates()[0].enabled
        raise RuntimeError
    assert decided.verify_chain(chain).enabled and len(asked) == 3

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Later":
            return cls.fromtimestamp(datetime.now(UTC).timestamp() + 3 * 86400, tz)

    monkeypatch.setattr("mciot_platform.trust.datetime", Later)
    with contextlib.suppress(ConnectionRejected):
        decided.verify_chain(chain)
    assert len(asked) == 4
    storage.put_trusted_certificate(replace(kept, status="DISABLED"))
    with pytest.raises(ConnectionRejected, match="disabled"):
        decided.verify_chain(chain)
    storage.close()


def test_all_but_the_log_is_on_the_disk_when_it_is_acknowledged(tmp_path: Path) -> None:
    storage, statements = Storage(tmp_path / "platform.sqlite"), list[str]()
    storage._db.set_trace_callback(statements.append)
    storage.log_end(storage.log(LoggedAttempt(""), "CONNECTED", "x"), "y")
    storage._db.set_trace_callback(None)
    assert [each.split()[-1] if "PRAGMA" in each else each.split()[0] for each in statements] == [
        *("NORMAL", "INSERT", "FULL"),
        *("NORMAL", "UPDATE", "FULL"),
    ]
    assert storage._db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    storage.close()
