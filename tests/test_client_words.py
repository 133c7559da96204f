"""What clients say when they are refused: the table is what is measured, and `explain` knows what each of it means."""

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import examples, tool
from hypothesis import given
from hypothesis import strategies as st

from mciot_nb import OnboardingError, Workspace, explain
from mciot_nb.connect.explain import BETWEEN, kind_of
from mciot_nb.errors import POSSIBLE, Finding
from mciot_nb.failures import FailureCase
from mciot_nb.pki.files import data_table, meanings
from mciot_nb.ui.displays import render
from tools import measure_clients, words_page
from tools.measure_clients import HEADING, VERSIONS, Client

ROWS = data_table("client_words.csv")
KINDS = sorted(set(meanings("words").values()))


def codes(error: object) -> list[str]:
    return [one.code for one in explain(error).findings]


# The table ------------------------------------------------------------------------------------------------------------


def test_the_table_is_sorted_and_complete_and_names_no_machine() -> None:
    rows = [tuple(row.values()) for row in ROWS]
    assert tuple(ROWS[0]) == HEADING and rows == sorted(set(rows))
    for client in (
        "paho-mqtt 2.1",
        "paho-mqtt",
        "gmqtt",
        "aiomqtt",
        "MQTT.js",
        "mosquitto_pub",
        "Java",
        "openssl s_client",
    ):
        known = {(row["tls"], row["version"]) for row in ROWS if row["client"] == client}
        assert [tls for tls, _ in sorted(known)] == list(VERSIONS), f"{client}: of one version, on both of TLS"
        assert all(re.match(r"\d+\.\d+", version) for _, version in known)
    for row in ROWS:
        assert Finding(row["code"], "").why, row
        assert not re.search(
            r"\d+\.\d+\.\d+\.\d+|/tmp|/home|/work|localhost|:\d{4,5}\b|\d\d:\d\d:\d\d", row["words"]
        ), row


def test_each_row_is_explained_by_its_cause() -> None:
    for row in ROWS:
        said = OnboardingError("It went wrong.", row["words"]) if row["client"] == "mciot_nb" else row["words"]
        assert row["code"] in codes(said), row


def test_every_word_and_every_cause_is_needed() -> None:
    lines = {line for row in ROWS for line in row["words"].split(BETWEEN)}
    plain = {kind_of(line) for line in lines}
    assert set(KINDS) - plain == set(), "no client says anything of these kinds"
    causes = set(meanings("cause"))
    said = {row["code"] for row in ROWS}
    assert said - causes == set()
    assert {
        key for key in causes if key.partition(".")[0] not in said or key.partition(".")[2] not in ("", *KINDS)
    } == set()


def test_the_page_is_up_to_date() -> None:
    assert words_page.PAGE.read_text(encoding="utf-8") == words_page.page(), "run python -m tools.error_pages"


# Measured again -------------------------------------------------------------------------------------------------------

#: Cases of the laboratory, and the versions of TLS on which a client's words don't depend on who is faster.
SAMPLE = {
    **dict.fromkeys(("wrong-client-id", "no-certificate", "mqtt-5"), VERSIONS),
    **dict.fromkeys(("key-of-another", "server-not-trusted", "wrong-host", "port-closed", "no-file"), VERSIONS),
    **dict.fromkeys(("unknown-ca", "expired", "not-yet-valid", "ca-disabled"), VERSIONS[:1]),
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    made = Workspace(tmp_path_factory.mktemp("clients") / "workspace")
    yield made
    made.platform().stop()


def measure_again(
    name: str, version: str, client: Client, workspace: Workspace, *, handshake_only: bool = False
) -> None:
    """Let a client meet the sample: each time it says what stands in the table, and that is explained by its cause."""
    right = measure_clients.of_case(FailureCase(workspace, "good"))
    noise = {line for tls in VERSIONS for line in measure_clients.said_by(client, replace(right, tls=tls))} | {
        "CONNECTED"
    }
    assert measure_clients.words_of(client, right, noise) == "", "the control: it is let in"
    table = {(row["code"], row["version"], row["tls"], row["words"]) for row in ROWS if row["client"] == name}
    assert version in {row[1] for row in table} or name in ("openssl s_client", "mosquitto_pub", "MQTT.js"), (
        "measure anew"
    )
    for case_name, versions in SAMPLE.items():
        case = FailureCase(workspace, case_name)
        attempt, code = measure_clients.of_case(case), case.row["code"]
        for tls in versions:
            if handshake_only and case.row["client"].startswith("CONNACK"):
                continue
            words = measure_clients.words_of(client, replace(attempt, tls=tls), noise)
            assert code in codes(words), (case_name, words)
            telling = {line for line in words.split(BETWEEN) if kind_of(line) == kind_of(words)}
            if version in {row[1] for row in table}:  # else another version may say it in other words
                assert telling <= {
                    line for *row, said in table if row == [code, version, tls] for line in said.split(BETWEEN)
                }
        case.leave()


@pytest.mark.parametrize("name", ["paho-mqtt", pytest.param("gmqtt", marks=pytest.mark.slow)])
def test_python_clients_say_it_again(workspace: Workspace, name: str) -> None:
    version, client = measure_clients.python_driver(sys.executable, name)
    measure_again(name, version, client, workspace)
    client.process.kill()


def test_mosquitto_says_it_again(workspace: Workspace, tmp_path: Path) -> None:
    tool("mosquitto_pub")
    measure_again("mosquitto_pub", *measure_clients.program("mosquitto_pub", tmp_path), workspace)


@pytest.mark.slow  # it waits where it is let in
def test_openssl_says_it_again(workspace: Workspace, tmp_path: Path) -> None:
    name = "openssl s_client"
    measure_again(name, *measure_clients.program(name, tmp_path), workspace, handshake_only=True)


@pytest.mark.slow
def test_mqttjs_says_it_again(workspace: Workspace, tmp_path: Path) -> None:
    tool("node")
    try:
        version, client = measure_clients.node_driver(tmp_path)
    except OSError:
        pytest.skip("npm reaches no registry")
    measure_again("MQTT.js", version, client, workspace)
    client.process.kill()


# What is pasted -------------------------------------------------------------------------------------------------------

NOT_AUTHORISED = [
    *("CLIENT_ID_MISMATCH", "NOT_REGISTERED", "INCOMPLETE_CHAIN", "NO_CREDENTIALS", "UNKNOWN_CA"),
    *("CHAIN_TOO_LONG", "CHAIN_ORDER", "REVOKED", "NO_ROLE"),
]
OURS = [one for one in NOT_AUTHORISED if one not in ("UNKNOWN_CA", "NO_ROLE")]  # it sends its certificate, or no login
UNTRUSTED = ["UNKNOWN_CA", "CA_DISABLED", "CA_DELETED", "BAD_SIGNATURE", "INVALID"]
MQTT_FX = """\
2026-11-28 14:02:11,508  ERROR --- MqttFX ClientModel            : Error when connecting
org.eclipse.paho.client.mqttv3.MqttException: MqttException
\tat org.eclipse.paho.client.mqttv3.internal.ExceptionHelper.createMqttException(ExceptionHelper.java:38)
Caused by: javax.net.ssl.SSLHandshakeException: Received fatal alert: certificate_unknown
\tat java.base/sun.security.ssl.Alert.createSSLException(Alert.java:131)
"""
PASTED = {
    "2026-11-28 14:02:11,508 WARNING dev[42] [SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca (_ssl.c)": UNTRUSTED,
    "\x1b[31merror\x1b[0m: 40E7:error:0A000418:SSL routines:ssl3_read_bytes:tlsv1 alert unknown\n  ca:ssl.c": UNTRUSTED,
    MQTT_FX: ["UNKNOWN_CA", "EXPIRED", "NOT_YET_VALID"],
    "Nov 28 14:02:11 gw mosquitto_pub[7]: Connection error: Connection Refused: not authorised.": NOT_AUTHORISED,
    '[2026-11-28 14:02:11] [ERROR] Connection "dev" failed: Error: Connection refused: Not authorized': NOT_AUTHORISED,
    "MqttSecurityException: Not authorized to connect (5)": NOT_AUTHORISED,
    "device.example.com:8883 answered CONNACK 5 to ClientId 'x': look. (CONNACK_5)": OURS,
    "<pre>ssl.SSLError: sslv3 alert certificate expired<br></pre><script>alert(1)</script>": ["EXPIRED"],
    "Error [ERR_TLS_CERT_ALTNAME_INVALID]: Hostname/IP does not match certificate's altnames": ["SERVER_NOT_TRUSTED"],
    "depth=0 CN = dev\nverify error:num=18:self-signed certificate\nverify return:1": ["SERVER_NOT_TRUSTED"],
    "The sentence is cut off … (KEY_MISMATCH)": ["KEY_MISMATCH"],
}
UNKNOWN = [
    *(
        "",
        "\0\x07\x1b[",
        "Hello, world",
        "unknown caretaker",
        "Client dev received CONNACK (0)",
        "the certificate",
        "5",
    ),
    *(None, 5, ..., b"\xff\xfe\0", [], "(NO_SUCH_CODE)", ValueError(), KeyError("x")),
]


@pytest.mark.parametrize("text", PASTED, ids=lambda text: text[:40])
def test_a_line_is_known_with_what_stands_around_it(text: str) -> None:
    assert codes(text) == PASTED[text]
    assert codes(text.encode()) == codes(f"{'x' * 500_000}\n{text}\n{'y ' * 250_000}") == PASTED[text]
    sentences = [one.sentence for one in explain(text).findings]
    assert len(set(sentences)) == len(sentences) and all(one.endswith(".") and ": " in one for one in sentences)


@pytest.mark.parametrize("thing", UNKNOWN, ids=repr)
def test_what_is_not_known_is_said_to_be_so(thing: object) -> None:
    (one,) = explain(thing).findings
    assert one.code == "UNKNOWN_MESSAGE" and "platform().log()" in one.sentence and not explain(thing).ok


def test_the_same_alert_means_two_things_by_who_refuses() -> None:
    assert codes("certificate verify failed: certificate has expired") == ["SERVER_NOT_TRUSTED"]
    assert codes("sslv3 alert certificate expired") == ["EXPIRED"]
    server, clock, host = (explain(f"certificate verify failed: {why}").findings[0].sentence for why in WHY)
    assert "has expired" in server and "clock is behind" in clock and "name or address" in host


WHY = ("certificate has expired", "certificate is not yet valid", "Hostname mismatch, certificate is not valid for 'x'")


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_an_exception_is_read_with_those_that_it_came_from() -> None:
    def raised(error: BaseException, cause: BaseException | None) -> BaseException:
        try:
            raise error from cause
        except BaseException as caught:
            return caught

    alert = OSError("[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired (_ssl.c:1006)")
    assert codes(raised(RuntimeError("It does not work."), alert)) == ["EXPIRED"]
    assert codes(ExceptionGroup("unhandled errors", [ValueError("x"), raised(Odd(), alert)])) == ["EXPIRED"]
    assert codes(Odd()) == ["UNKNOWN_MESSAGE"]
    circle = ValueError("x")
    circle.__cause__ = circle
    assert codes(circle) == ["UNKNOWN_MESSAGE"]


def test_causes_are_shown_as_such_each_with_how_to_tell_it() -> None:
    found = explain("sslv3 alert unknown ca")
    assert not found.ok and len(found.findings) > 1 and {one.severity for one in found.findings} == {POSSIBLE}
    title, first, how, *_ = render(found).text.split("\n")
    assert title == f"✗ {len(found.findings)} possible causes, the most frequent first."
    assert first.startswith("  UNKNOWN_CA: ") and first.endswith("is not uploaded to this tenant.")
    assert how.startswith("    How to tell: look for its fingerprint in ") and how.endswith("in another tenant).")
    assert "What to do" not in render(found).text + render(found).html
    own = render(explain(OnboardingError("It is so: do that.", "BAD_TOKEN"))).text
    assert "Not OK: 1 finding." in own and "What to do: do that." in own
    assert render(explain("sslv3 alert certificate expired")).text.startswith("✗ 1 possible cause.")


def test_our_own_errors_keep_their_sentences(tmp_path: Path) -> None:
    for code in ("KEY_MISMATCH", "SERVER_NOT_TRUSTED", "HTTP_403", "BAD_TOKEN", "CONNACK_3"):
        (one,) = explain(OnboardingError("It is so: do that.", code)).findings
        assert (one.code, one.sentence) == (code, "It is so: do that.")
    assert codes(OnboardingError("It is so.", "CONNACK_5")) == OURS
    assert codes(OnboardingError("It is so.", "ALERT_UNKNOWN_CA")) == UNTRUSTED
    assert codes(OnboardingError("It is so.")) == ["UNKNOWN_MESSAGE"]


@pytest.mark.parametrize("text", [*PASTED, "nothing that is known"])
def test_no_secret_is_repeated(text: str) -> None:
    secret = "hunter-2-Geheimnis"
    for shown in (text + f"\n-P {secret}", f"MQTT_PASSWORD={secret} {text}"):
        found = explain(shown)
        assert secret not in f"{found} {found!r} {[(one.why, one.fix, one.command) for one in found.findings]}"


LINES = st.sampled_from([line for row in ROWS for line in row["words"].split(BETWEEN)])


@given(st.lists(st.one_of(st.text(max_size=60), LINES), max_size=6), st.sampled_from([" ", "\n", "\0", "(", "_"]))
@examples(300)
def test_no_text_is_too_odd(parts: list[str], between: str) -> None:
    found = explain(between.join(parts)).findings
    assert found and all(one.why and one.sentence for one in found)
