"""Any calls in any order leave the platform's trusted certificates as a small model of them says.

hypothesis deals the calls, for two tenants and for people with and without the role. After each one both tenants' lists
are read and compared with the model, a plain dictionary: what was refused must have changed nothing.
"""

import base64
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from conftest import Run, examples
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from platform_tools import DAY, SECONDS, Entity, login, make, started

from mciot_nb.local_platform import LocalPlatform
from mciot_nb.pki.chain import to_pem

#: Games of 25 calls each.
SETTINGS = settings(examples(30), stateful_step_count=25, suppress_health_check=list(HealthCheck))
CRL, VERIFY = "/tenant/trusted-certificates/settings/crl", "/tenant/trusted-certificates/verify-cert-chain"
#: Who is refused, and how; "other" is the other tenant's administrator, whom the path of this tenant is not for.
#: To verify a chain no path names the tenant, but the form does: that is 403.
REFUSED = {"viewer": 403, "wrong password": 401, "nobody": 401, "other": 404}
#: Values that are refused; mostly_good below draws the place of one, or beyond the end, for none.
BAD_FIELDS: list[dict[str, Any]] = [{"status": "MAYBE"}, {"name": 7}, {"name": "x" * 257}, {"name": "\ud800"}]
BAD_FIELDS += [{"autoRegistrationEnabled": "perhaps"}]
BAD_ENTRIES = [("xyz", None), ("0", None), ("-1", None), ("F" * 41, None), ("1", "yesterday"), ("1", "2026-01-31")]
GOOD = 99


def mostly_good(count: int) -> st.SearchStrategy[int]:
    return st.sampled_from([GOOD] * 3 * count + list(range(count)))


who = st.sampled_from(["admin"] * 20 + list(REFUSED))
tenants, numbers = st.integers(0, 1), st.integers(0, 4)
#: A tenant and a certificate: below 10 any two, beyond that (more often) such as belong together at that moment.
which = st.integers(0, 34)
names = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
status = {"status": st.sampled_from(["ENABLED", "DISABLED"])}
optional = {"name": names | st.none(), "autoRegistrationEnabled": st.sampled_from([True, False, "true", "false"])}
fields = st.fixed_dictionaries(status, optional=optional)
changes = st.fixed_dictionaries({}, optional=status | optional)
moments = st.datetimes(datetime(1951, 1, 1), datetime(2024, 12, 31)).map(lambda at: at.replace(microsecond=0))
dates = st.none() | st.just("future") | moments.map(lambda at: f"{at:%Y-%m-%dT%H:%M:%S}.000Z")
entries = st.lists(st.tuples(st.integers(0, 3), dates), min_size=1, max_size=4)
pages, sizes = st.sampled_from([1, 1, 2, 2, 3, 6, 0]), st.sampled_from([1, 1, 1, 2, 2, 3, 4, 2000, 0, 2001, "x"])
ways = st.sampled_from(["right"] * 4 + ["old code", "newline", "other key", "no base64", "empty", "absent"])
kinds = st.sampled_from(["JSON", "CSV", "CSV without a heading"])


@dataclass(frozen=True)
class TenantData:
    """What the model knows of one trusted certificate."""

    tenant: str
    name: str = ""
    status: str = ""
    automatic: bool = False
    proven: bool = False
    code: str | None = None

    def changed(self, given: dict[str, Any]) -> "TenantData":
        return replace(
            self,
            name=self.name if given.get("name") is None else given["name"],
            status=given.get("status", self.status),
            automatic=given.get("autoRegistrationEnabled", self.automatic) in (True, "true"),
        )


@dataclass
class World:
    """What all games share: the platform, who may log in there, and certificates."""

    platform: LocalPlatform
    logins: dict[tuple[str, str], tuple[str, str] | None]
    cas: list[Entity]
    spellings: list[list[str]]
    bad_certificates: list[str]
    session: requests.Session
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    games: Iterator[int] = field(default_factory=lambda: itertools.count(1))


def spelled(ca: Entity, openssl: Run) -> list[str]:
    """Write a certificate in every way that is accepted."""
    body = ca.pem.splitlines()[1:-1]
    lines, bare = [ca.pem, ca.pem.replace("\n", "\r\n"), ca.pem.replace("\n", "")], ["".join(body), "\n".join(body)]
    return [*lines, *bare, openssl("x509", "-text", input=ca.pem).stdout]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, openssl: Run) -> Iterator[World]:
    cas = [make(f"CA {number}", ca=True) for number in range(5)]
    bad = [make("Leaf", cas[0]).pem, make("Old", ca=True, begins=-9 * DAY, ends=-DAY).pem]
    bad += ["", "rubbish", cas[0].pem + cas[1].pem, cas[0].pem.replace("-----", "–––––")]  # noqa: RUF001 - the guide's
    logins: dict[tuple[str, str], tuple[str, str] | None] = {}
    with (
        started(tmp_path_factory.mktemp("workspace"), "current", tenants=2) as platform,
        requests.Session() as session,  # one connection for thousands of calls
    ):
        for number, tenant in enumerate(platform.tenant_ids):
            admin, viewer = login(platform, number), login(platform, number, viewer=True)
            logins[tenant, "admin"] = logins[platform.tenant_ids[1 - number], "other"] = admin
            logins[tenant, "viewer"], logins[tenant, "nobody"] = viewer, None
            logins[tenant, "wrong password"] = admin[0], viewer[1]
        session.trust_env, session.verify = False, str(platform.server_certificate)
        yield World(platform, logins, cas, [spelled(ca, openssl) for ca in cas], bad, session)


class Calls(RuleBasedStateMachine):
    """One game: both tenants begin without certificates."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world, self.tenants = world, world.platform.tenant_ids
        self.known: dict[str, TenantData] = {}
        self.codes: dict[str, list[str]] = {ca.fingerprint: [] for ca in world.cas}
        #: By tenant and serial number: between which moments the revocation must lie.
        self.revoked: dict[str, dict[int, tuple[datetime, datetime]]] = {tenant: {} for tenant in self.tenants}
        self.checked: set[str] = set()  # the tenants whose option says that the list counts
        self.game = next(world.games)  # a list of revoked numbers only grows, so each game has numbers of its own
        self.order: dict[str, list[str]] = {tenant: [] for tenant in self.tenants}
        self.seen: Counter[tuple[str, int]] = Counter()
        for number, tenant in enumerate(self.tenants):
            self.heed(number, "admin", False)
            for shown in self.everything(tenant):
                self.ask("cleared", tenant, "admin", "DELETE", shown["fingerprint"], {204})

    # --- asking, and comparing with the model ---

    def ask(
        self, name: str, tenant: str, who: str, method: str, path: str, wanted: set[int], **options: Any
    ) -> requests.Response | None:
        """Call, and give the answer if it is a success. Who has no right must be told so, else ``wanted`` holds."""
        if not path.startswith("/"):
            path = f"/tenant/tenants/{tenant}/trusted-certificates{'/' if path else ''}{path}"
        if who != "admin":
            wanted = {403 if who == "other" and path == VERIFY else REFUSED[who]}
        given = self.world.logins[tenant, who]
        url, options = self.world.platform.https + path, {"auth": given, "timeout": SECONDS, **options}
        answer = self.world.session.request(method, url, **options)
        assert answer.status_code in wanted, (name, wanted, answer.status_code, answer.text)
        self.seen[name, answer.status_code] += 1
        assert answer.ok or set(answer.json()) == {"error", "message", "info"}
        return answer if answer.ok else None

    def everything(self, tenant: str) -> list[dict[str, Any]]:
        answer = self.ask("list", tenant, "admin", "GET", "", {200}, params={"pageSize": 2000})
        assert answer is not None
        return list(answer.json()["certificates"])

    def compare(self, shown: dict[str, Any]) -> None:
        """What is shown of a certificate must be what the model knows of it."""
        kept, base = self.known[shown["fingerprint"]], f"{self.world.platform.https}/tenant/tenants"
        fields = [shown[name] for name in ("name", "status", "autoRegistrationEnabled", "proofOfPossessionValid")]
        assert TenantData(kept.tenant, *fields, shown.get("proofOfPossessionUnsignedVerificationCode")) == kept
        assert shown["self"] == f"{base}/{kept.tenant}/trusted-certificates/{shown['fingerprint']}"

    @invariant()
    def both_lists_are_as_the_model_says(self) -> None:
        for tenant in self.tenants:
            shown = self.everything(tenant)
            order = [certificate["fingerprint"] for certificate in shown]
            assert sorted(order) == sorted(f for f, kept in self.known.items() if kept.tenant == tenant)
            for certificate in shown:
                self.compare(certificate)
            before, self.order[tenant] = self.order[tenant], order  # one call moves no other certificate in the list
            assert [f for f in order if f in before] == [f for f in before if f in order]

    def compare_revoked(self) -> None:
        for tenant in self.tenants:
            answer = self.ask("revoked", tenant, "admin", "GET", CRL, {200})
            assert answer is not None
            listed = [e for e in x509.load_der_x509_crl(answer.content) if e.serial_number >> 8 == self.game]
            assert sorted(entry.serial_number for entry in listed) == sorted(self.revoked[tenant])
            for entry in listed:
                earliest, latest = self.revoked[tenant][entry.serial_number]
                assert earliest <= entry.revocation_date_utc <= latest

    teardown = compare_revoked  # whatever came after the last revocation

    def pick(self, which: int) -> tuple[str, Entity, TenantData | None]:
        """Return a tenant, a certificate, and what is kept of it there."""
        if which >= 10 and self.known:
            identifier, kept = list(self.known.items())[which % len(self.known)]
            return kept.tenant, next(ca for ca in self.world.cas if ca.fingerprint == identifier), kept
        tenant, ca = self.tenants[which % 2], self.world.cas[which // 2 % 5]
        found = self.known.get(ca.fingerprint)
        return tenant, ca, found if found and found.tenant == tenant else None

    # --- the calls ---

    @initialize(owners=st.lists(st.sampled_from([0, 1, None]), min_size=5, max_size=5), fields=fields)
    def begin(self, owners: list[int | None], fields: dict[str, Any]) -> None:
        for number, owner in enumerate(owners):
            if owner is not None:
                self.upload(owner, "admin", number, number, fields)

    @rule(to=tenants, who=who, number=numbers, spelling=st.integers(0, 5), fields=fields, bad=mostly_good(12))
    def upload(self, to: int, who: str, number: int, spelling: int, fields: dict[str, Any], bad: int = GOOD) -> None:
        ca = self.world.cas[number]
        body = {"certInPemFormat": self.world.spellings[number][spelling], **fields}
        flaws: list[dict[str, Any]] = BAD_FIELDS + [{"certInPemFormat": text} for text in self.world.bad_certificates]
        if bad < len(flaws):
            body |= flaws[bad]
        elif bad == len(flaws):
            del body["status"]
        wanted = ({422} if bad <= len(flaws) else set()) | ({409} if ca.fingerprint in self.known else set())
        if answer := self.ask("upload", self.tenants[to], who, "POST", "", wanted or {201}, data=json.dumps(body)):
            self.known[ca.fingerprint] = TenantData(self.tenants[to]).changed(fields)
            self.compare(answer.json())

    @rule(to=tenants, who=who, given=st.lists(st.tuples(numbers, fields), min_size=1, max_size=3), bad=mostly_good(5))
    def bulk(self, to: int, who: str, given: list[tuple[int, dict[str, Any]]], bad: int = GOOD) -> None:
        cas = [self.world.cas[number] for number, _ in given]
        bodies = [{"certInPemFormat": ca.pem, **fields} for ca, (_, fields) in zip(cas, given, strict=True)]
        wanted, prints = set(), [ca.fingerprint for ca in cas]
        if bad < len(BAD_FIELDS):
            bodies[-1] |= BAD_FIELDS[bad]  # the last one: those before it must not be added either
            wanted.add(422)
        if len(set(prints)) < len(prints) or set(prints) & set(self.known):
            wanted.add(409)
        body = json.dumps({"certificates": bodies})
        if answer := self.ask("bulk", self.tenants[to], who, "POST", "bulk", wanted or {201}, data=body):
            for identifier, (_, fields) in zip(prints, given, strict=True):
                self.known[identifier] = TenantData(self.tenants[to]).changed(fields)
            assert [shown["fingerprint"] for shown in answer.json()["certificates"]] == prints

    @rule(which=which, who=who)
    def get(self, which: int, who: str) -> None:
        tenant, ca, kept = self.pick(which)
        if answer := self.ask("get", tenant, who, "GET", ca.fingerprint, {200} if kept else {404}):
            assert answer.json()["certInPemFormat"] == "\n".join(ca.pem.splitlines()[1:-1])
            self.compare(answer.json())

    @rule(of=tenants, who=who, page=pages, size=sizes)
    def list_a_page(self, of: int, who: str, page: int, size: Any) -> None:
        everything = self.everything(tenant := self.tenants[of])
        count, wanted = len(everything), {200} if page and size in range(1, 2001) else {422}
        question = {"currentPage": page, "pageSize": size, "withTotalElements": "true", "withTotalPages": "true"}
        if not (answer := self.ask("page", tenant, who, "GET", "", wanted, params=question)):
            return
        shown, first = answer.json(), (page - 1) * size
        totals = {"totalElements": count, "totalPages": -(-count // size)}
        assert shown["statistics"] == {"currentPage": page, "pageSize": size, **totals}
        assert shown["certificates"] == everything[first : first + size]
        assert ("next" in shown, "prev" in shown) == (first + size < count, page > 1)
        for link, start in (("next", first + size), ("prev", first - size)):
            if link in shown:
                path = shown[link].removeprefix(self.world.platform.https)
                followed = self.ask(link, tenant, "admin", "GET", path, {200})
                assert followed and followed.json()["certificates"] == everything[start : start + size]

    @rule(which=which, who=who, fields=changes, bad=mostly_good(5))
    def change(self, which: int, who: str, fields: dict[str, Any], bad: int = GOOD) -> None:
        tenant, ca, kept = self.pick(which)
        body = json.dumps(fields | dict(*BAD_FIELDS[bad : bad + 1]))
        wanted = ({422} if bad < len(BAD_FIELDS) else set()) | (set() if kept else {404})
        answer = self.ask("change", tenant, who, "PUT", ca.fingerprint, wanted or {200}, data=body)
        if answer and kept:
            self.known[ca.fingerprint] = kept.changed(fields)
            self.compare(answer.json())

    @rule(which=which, who=who)
    def delete(self, which: int, who: str) -> None:
        tenant, ca, kept = self.pick(which)
        if self.ask("delete", tenant, who, "DELETE", ca.fingerprint, {204} if kept else {404}):
            del self.known[ca.fingerprint]

    @rule(which=which, who=who)
    def ask_for_a_code(self, which: int, who: str) -> None:
        tenant, ca, kept = self.pick(which)
        path = f"/tenant/tenants/{tenant}/trusted-certificates-pop/{ca.fingerprint}/verification-code"
        if (answer := self.ask("code", tenant, who, "POST", path, {200} if kept else {404})) and kept:
            code = answer.json()["proofOfPossessionUnsignedVerificationCode"]
            assert code and code not in self.codes[ca.fingerprint]
            self.codes[ca.fingerprint].append(code)
            self.known[ca.fingerprint] = replace(kept, code=code)
            self.compare(answer.json())

    @rule(which=which, who=who, how=ways, anew=st.sampled_from([True, True, False]))
    def prove(self, which: int, who: str, how: str, anew: bool) -> None:
        if anew:
            self.ask_for_a_code(which, "admin")
        tenant, ca, kept = self.pick(which)
        old = ["never given", *(code for code in self.codes[ca.fingerprint] if not kept or code != kept.code)]
        signer = next(other for other in self.world.cas if other != ca) if how == "other key" else ca
        code = (old[-1] if how == "old code" else kept and kept.code) or "no code"
        signed = code + "\n" if how == "newline" else code
        signature = signer.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
        text = {"no base64": "?", "empty": ""}.get(how, base64.b64encode(signature).decode())
        body = {} if how == "absent" else {"proofOfPossessionSignedVerificationCode": text}
        wanted = 200 if how == "right" else 422 if how in ("no base64", "empty", "absent") else 400
        wanted = 404 if kept is None else 422 if kept.code is None else wanted
        path = f"/tenant/tenants/{tenant}/trusted-certificates-pop/{ca.fingerprint}/pop"
        if (answer := self.ask("prove", tenant, who, "POST", path, {wanted}, json=body)) and kept:
            self.known[ca.fingerprint] = replace(kept, proven=True, code=None)
            self.compare(answer.json())

    @rule(of=tenants, who=who.filter(lambda who: who != "other"), entries=entries, kind=kinds, bad=mostly_good(6))
    def revoke(self, of: int, who: str, entries: list[tuple[int, Any]], kind: str, bad: int = GOOD) -> None:
        tenant, before = self.tenants[of], datetime.now(UTC).replace(microsecond=0)
        later = f"{before + timedelta(days=365):%Y-%m-%dT%H:%M:%S}.000Z"
        written = [(f"{self.game << 8 | low:0{low + 3}X}", later if d == "future" else d) for low, d in entries]
        written += BAD_ENTRIES[bad : bad + 1]  # the last one: those before it must not be added either
        rows = [{"serialNumberInHex": serial, **({"revocationDate": d} if d else {})} for serial, d in written]
        options: dict[str, Any] = {"json": {"crls": rows}}
        if kind != "JSON":
            lines = ["SERIAL NO.,REVOCATION DATE"] * (kind == "CSV") + [f"{s},{d or ''}" for s, d in written]
            options = {"files": {"file": ("crl.csv", "\r\n".join(lines))}}
        wanted = {400} if bad < len(BAD_ENTRIES) else {204}
        if self.ask("revoke", tenant, who, "PUT", CRL, wanted, **options) is not None:
            model, now = self.revoked[tenant], (before, datetime.now(UTC))
            for low, date in entries:
                at = datetime.fromisoformat(date) if date not in (None, "future") else None
                period = (at, at) if at else now
                if kind == "JSON":
                    model.setdefault(self.game << 8 | low, period)  # what is there stays
                elif date != "future":  # in a file those are passed over, and the later one counts
                    model[self.game << 8 | low] = period
        self.compare_revoked()

    @rule(of=tenants, who=who.filter(lambda who: who != "other"), on=st.booleans())
    def heed(self, of: int, who: str, on: bool) -> None:
        """Say whether the list of what is revoked counts; as long as nobody has, it does not."""
        tenant, path = self.tenants[of], "/tenant/options/configuration/crl.offline.check.enabled"
        if self.ask("heed", tenant, who, "PUT", path, {200}, json={"value": str(on).lower()}):
            (self.checked.add if on else self.checked.discard)(tenant)

    @rule(which=which, who=who, low=st.integers(0, 3), alone=st.booleans())
    def judge_a_device(self, which: int, who: str, low: int, alone: bool) -> None:
        """A device of that CA is let in where its CA is trusted now, and its serial number is not revoked."""
        (tenant, ca, kept), now = self.pick(which), datetime.now(UTC)
        name, key = x509.Name.from_rfc4514_string("CN=dev"), self.world.key.public_key()
        serial = self.game << 8 | low
        builder = x509.CertificateBuilder(ca.certificate.subject, name, key, serial, now - DAY, now + DAY)
        chain = [builder.sign(ca.key, hashes.SHA256()), ca.certificate][: 1 if alone else 2]
        good = kept and kept.status == "ENABLED" and (tenant not in self.checked or serial not in self.revoked[tenant])
        files, form = {"file": ("chain.pem", to_pem(chain))}, {"tenantId": tenant}
        answer = self.ask("judge", tenant, who, "POST", VERIFY, {200} if good else {401}, files=files, data=form)
        assert answer is None or answer.json()["tenantId"] == tenant


def test_any_calls_leave_what_the_model_says(world: World) -> None:
    run_state_machine_as_test(lambda: Calls(world), settings=SETTINGS)


def test_a_game_in_which_every_call_has_every_outcome(world: World) -> None:
    """What chance may leave out in a short run."""
    game = Calls(world)
    fields, status = {"status": "ENABLED", "name": "Ünal"}, {"status": "DISABLED", "autoRegistrationEnabled": "true"}
    first, absent = 0, 1  # the first certificate at the first tenant, which has it, and at the second
    turns: list[tuple[Any, list[Any]]] = [
        (game.upload, [(0, "admin", number, number, fields) for number in (0, 0, 1, 2)]),
        (game.upload, [(1, "admin", 0, 5, fields), *((1, "admin", 3, 0, fields, bad) for bad in range(12))]),
        (game.bulk, [(1, "admin", [(3, fields), (4, fields)], 0), (1, "admin", [(3, fields), (0, fields)])]),
        (game.bulk, [(1, "admin", [(3, fields), (3, fields)]), (1, "admin", [(3, fields), (4, status)])]),
        (game.list_a_page, [(0, "admin", page, size) for page in range(4) for size in (1, 2, 2001)]),
        (game.get, [(first, "admin"), (absent, "admin")]),
        (game.judge_a_device, [(first, "admin", 1, True), (absent, "admin", 1, False)]),
        (game.change, [(first, "admin", status), (absent, "admin", status), (first, "admin", {}, 0)]),
        (game.judge_a_device, [(first, "admin", 1, True)]),
        (game.change, [(first, "admin", {"status": "ENABLED", "name": None, "autoRegistrationEnabled": "false"})]),
        (game.prove, [(first, "admin", "right", False), (absent, "admin", "right", True)]),
        (game.prove, [(first, "admin", how, True) for how in ("old code", "newline", "other key", "empty", "right")]),
        (game.revoke, [(0, "admin", [(1, None), (2, "2001-02-03T04:05:06.000Z")], "JSON")]),
        (game.revoke, [(0, "admin", [(2, None), (2, "future")], "JSON"), (1, "admin", [(0, "future")], "CSV")]),
        (game.revoke, [(1, "admin", [(3, None), (3, "2001-02-03T04:05:06.000Z")], "CSV without a heading")]),
        (game.revoke, [(0, "admin", [(3, None)], kind, bad) for bad in range(6) for kind in ("JSON", "CSV")]),
        (game.judge_a_device, [(first, "admin", 1, True), (first, "admin", 3, False)]),
        (game.heed, [(0, "admin", True)]),
        (game.judge_a_device, [(first, "admin", 1, True), (first, "admin", 0, False)]),
    ]
    for who in REFUSED:
        turns += [(game.upload, [(1, who, 4, 0, fields)]), (game.bulk, [(1, who, [(4, fields)])])]
        turns += [(game.list_a_page, [(0, who, 1, 5)]), (game.judge_a_device, [(first, who, 0, True)])]
        turns += [(game.change, [(first, who, status)]), (game.prove, [(first, who, "right", True)])]
        turns += [(call, [(first, who)]) for call in (game.get, game.ask_for_a_code, game.delete)]
        turns += [(game.revoke, [(0, who, [(0, None)], "JSON")]), (game.heed, [(0, who, 0)])] if who != "other" else []
    turns += [(game.delete, [(first, "admin"), (absent, "admin")]), (game.upload, [(1, "admin", 0, 0, fields)])]
    game.both_lists_are_as_the_model_says()
    for call, times in turns:
        for given in times:
            call(*given)
            game.both_lists_are_as_the_model_says()
    game.teardown()
    assert not game.known[world.cas[0].fingerprint].proven  # its second life began anew, at the other tenant
    expected = {"upload": {201, 404, 409, 422}, "get": {200, 404}, "page": {200, 404, 422}, "change": {200, 404, 422}}
    expected |= {"delete": {204, 404}, "code": {200, 404}, "prove": {200, 400, 404, 422}, "revoke": {204, 400}}
    expected |= {"bulk": expected["upload"], "judge": {200}, "heed": {200}}
    for name, statuses in expected.items():
        assert {status for call, status in game.seen if call == name} == statuses | {401, 403}, name
