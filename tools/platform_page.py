"""Write docs/platform.md from the platform's own tables, by ``python -m tools.platform_page``: each call and message.

Which clients a call was tested with is in tests/client_calls.json; tests/test_vendor_clients.py keeps that true.
"""

import inspect
import json
import re
from pathlib import Path

from mciot_platform.messages import MESSAGES
from mciot_platform.rest.application import CALLS
from mciot_platform.rest.handler import Call
from mciot_platform.rest.inventory import INVENTORY, OPERATIONS, UNSUPPORTED
from mciot_platform.rest.query import OPERATORS
from mciot_platform.rest.records import KINDS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "platform.md"
INTRODUCTION = """# What the local platform has

*Made by `python -m tools.platform_page` from the code's own tables; do not edit it by hand.*

The local platform has these calls and messages of the real one, and no others. What each does follows the vendor's
documentation and what clients of others do; [unverified.md](unverified.md) lists what no real tenant has confirmed.
"Tested with" names the clients that use a call in the tests on CI.
"""
FILTERS = """## Filters of the lists

All lists have `pageSize`, `currentPage`, `withTotalElements` and `withTotalPages`; those of records and operations have
`revert` too. A parameter that is not documented does nothing, as on the real platform. A documented one that is not
done here is refused with 422: {unsupported}.
`q` and `query` support {operators}, `and`, `or`, `not`, `has(…)`, `*` in texts, `$filter=` and `$orderby=`; anything
else in them is refused as well.

| List | Filters |
|---|---|
"""


MESSAGES_HEAD = """## MQTT messages

On `s/us` for the device itself, on `s/us/NAME` for a child or a service below it; `t/us`, `q/us`, `c/us` do the same.
JSON on `event/events/create`, `alarm/alarms/create`, `measurement/measurements/create` and their `createBulk`, and on
`inventory/managedObjects/update/NAME`, is read as far as these messages can say it. Answers come on `s/ds`, errors on
`s/e` (of JSON on `error`), tokens (an empty message to `s/uat`) on `s/dat`, operations on `s/ds` and in JSON on
`devicecontrol/notifications`. A device's own templates (`s/uc`, `s/ut`) are answered with an error. What is in
brackets may be left out, what is before … may be repeated. Tested with what thin-edge.io and the
vendor's agent c8ydm send first.

| Number | Values |
|---|---|"""


def _row(call: Call, clients: dict[str, list[str]]) -> str:
    description = re.split(r"\.(?:\s|$)", inspect.getdoc(call.run) or "")[0]
    tested = ", ".join(clients.get(f"{call.method} {call.path}", ["our tests"]))
    profile = "current" if call.after_guide else "both"
    return f"| `{call.method} {call.path}` | {description} | {call.who} | {profile} | {tested} |"


def _filter_rows() -> list[str]:
    lists = {"/inventory/managedObjects": {*INVENTORY, "query"}, "/devicecontrol/operations": set(OPERATIONS)}
    lists |= {f"/{name}/{kind.table}": set(kind.filters) for name, kind in KINDS.items()}
    lists["/tenant/tenants/{tenant}/trusted-certificates"] = {"certificateAuthority"}
    return [f"| `{path}` | {', '.join(f'`{name}`' for name in sorted(names))} |" for path, names in lists.items()]


def message_rows() -> list[str]:
    """Return a row for each message by its number, for the page's second table."""

    def named(fields: str) -> str:
        names = ((name.strip("!#@"), "!" in name) for name in fields.split())
        return ", ".join(name if needed else f"[{name}]" for name, needed in names)

    parts = {number: fields.partition("*") for number, (fields, *_) in sorted(MESSAGES.items())}
    rows = {
        number: ", ".join(filter(None, map(named, (once, several)))) for number, (once, _, several) in parts.items()
    }
    return [f"| `{number}` | {row}{' …' * bool(parts[number][1])} |" for number, row in rows.items()]


def page() -> str:
    """Return the page."""
    clients = json.loads((ROOT / "tests" / "client_calls.json").read_text(encoding="utf-8"))
    unsupported = ", ".join(f"`{name}`" for name in sorted(UNSUPPORTED))
    operators = ", ".join(f"`{name}`" for name in OPERATORS)
    calls = [_row(call, clients) for own in CALLS.values() for call in own]
    head = ["| Call | What it does | Who may | Profile | Tested with |", "|---|---|---|---|---|"]
    filters = FILTERS.format(unsupported=unsupported, operators=operators) + "\n".join(_filter_rows())
    messages = [MESSAGES_HEAD, *message_rows()]
    return "\n".join([INTRODUCTION, "## REST calls", "", *head, *calls, "", filters, "", *messages, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
