"""The laboratory, where things go wrong on purpose and are put right; and a quiz on what a client sees of it."""

import random
import ssl
from functools import partial
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]
import pandas as pd

from mciot_nb.errors import Diagnosis, OnboardingError
from mciot_nb.failures import CASES, FailureCase
from mciot_nb.pki.files import meanings
from mciot_nb.ui.console_parts import Attempt, box, platform_side
from mciot_nb.ui.displays import two_sides
from mciot_nb.ui.inputs import button, row, show_if
from mciot_nb.ui.markup import Rendered, card, copyable, escape, grid, paragraph
from mciot_nb.ui.panel import Panel, TablePanel
from mciot_nb.workspace import Workspace

_TLS = {"the newest": None, "1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_SEEN = meanings("what the client would see", "words.csv")
_BESIDE = "You have chosen a real tenant: the local platform is used beside it, and nothing is sent to that tenant."


def case_table() -> Rendered:
    """Show all cases: what is wrong, what the client says of it, and what the platform's log does.

    Example: ``case_table()`` as a cell's last line.
    """
    columns, title = ("Case", "The client", "The platform's log"), f"What can go wrong: {len(CASES)} cases"
    lines = [[case["title"], case["client"] or "connects", case["log"] or "nothing"] for case in CASES.values()]
    return Rendered("\n".join([title, *map(" | ".join, lines)]), grid(title, columns, lines).replace("_", "_<wbr>"))


class Laboratory(TablePanel):
    """Choose a case: it is made for real, predicted, and tried; then it is put right, and tried again.

    All of it happens on the local platform, by the profile with which that runs. Where the case's row is closed, or
    another case is made, the case is taken out of the tenant.

    Example: ``Laboratory(workspace)`` as a cell's last line.
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("Laboratory: what can go wrong", "Cases", (), widgets.HTML())
        self.workspace, self.profile, self._refused = workspace, workspace.platform().profile, False
        self.case: FailureCase | None = None
        wide = {"layout": widgets.Layout(width="12em"), "style": {"description_width": "initial"}}
        self._tls = widgets.Dropdown(description="TLS", options=list(_TLS), **wide)
        self._result, self._begin = widgets.HTML(), button("Make it, and try", self._make, "primary")
        self._again = button("Put it right, and try again", self._remedy, "primary")
        self._opened.children = [self._details, row(self._tls, self._begin), self._result, row(self._again)]
        chosen = {name: case for name, case in CASES.items() if self.profile in case["profiles"]}
        texts = pd.DataFrame.from_dict(chosen, orient="index")[["title", "group"]]
        texts.columns = pd.Index(["Case", "About"])
        self.table.show(texts, texts)
        others = len(CASES) - len(chosen)
        other = f"The local platform follows the rules of {self.profile}; the other rules have {others} more cases."
        lines = [other] if workspace.tenant_settings.local else [_BESIDE, other]
        self.build(widgets.HTML("<br>".join(map(escape, lines))), self.table, self._opened)

    def describe(self) -> str:
        """Return the title of the open case, and show what came of it if it has been made."""
        name, case = self.table.opened, self.case
        is_made = case is not None and CASES.get(name) is case.row
        show_if(self._result, is_made)
        show_if(self._again, is_made and self._refused)
        if case and not is_made:
            self.case = None
            self.do("Clearing up", case.leave, lambda _: "The previous case was removed from the tenant.", case)
        return f"<strong>{escape(CASES[name]['title'])}</strong>" if name else ""

    def _make(self) -> None:
        self._do("Making the case", partial(FailureCase, self.workspace, self.table.opened))

    def _remedy(self) -> None:
        if case := self.case:
            self._do("Putting it right", case.remedy)

    def _do(self, doing: str, make: Any) -> None:
        tls = _TLS[self._tls.value]

        def work() -> tuple[FailureCase, Diagnosis, OnboardingError | None, Any]:
            case = make()
            return case, case.diagnose(tls), *case.attempt(tls)

        self.do(doing, work, lambda found: self._show(*found), self.table.opened)

    def _show(self, case: FailureCase, prediction: Diagnosis, refusal: OnboardingError | None, record: Any) -> str:
        client = refusal or box("good", "✓ CONNACK 0", f"The device is connected as {case.client_id}.")
        log = platform_side(record, Attempt("", 0)) if record else box("plain", "Nothing: no connection arrived.")
        shown = "".join(f"<p>{copyable(one.command).html}</p>" for one in prediction.refusals if one.command)
        terminal = f"<p>To look for yourself, in a terminal in {escape(str(case.folder))}:</p>{shown}" if shown else ""
        how = Rendered("", paragraph(case.row["remedy"]).html + terminal)
        above = two_sides("What was predicted", prediction, "What the client saw", client)
        below = two_sides("What the platform's log says", log, "How it is put right", how)
        self.case, self._refused, self._result.value = case, bool(refusal), above.html + below.html
        self.show_opened()
        (self._again if refusal else self._begin).focus()
        return f"✗ Not connected: {refusal.code}." if refusal else "✓ Connected."

    def picture(self) -> Rendered:
        """Name the cases."""
        titles: dict[str, list[str]] = {}
        for case in CASES.values():
            titles.setdefault(case["group"], []).append(case["title"])
        return card(self.title, [(group, "; ".join(each), "") for group, each in titles.items()])


class Quiz(Panel):
    """A case that is made for real, and what its client saw: which of four is it? Everything stays on this machine.

    Example: ``Quiz(workspace)`` as a cell's last line.
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("Quiz: what is wrong here?")
        self.workspace, self._right, self._reason = workspace, "", ""
        self._seen, self._choices = widgets.HTML("The client's view alone, and four cases."), widgets.VBox()
        self._next = button("Ask me", lambda: self.do("Making something go wrong", self._make, self._show), "primary")
        self.build(self._seen, self._choices, row(self._next))

    def _make(self) -> tuple[list[str], OnboardingError | None]:
        profile = self.workspace.platform().profile
        cases = {name: case for name, case in CASES.items() if profile in case["profiles"] and case["client"]}
        seen = [name for name, case in cases.items() if case["log"] not in ("", "CONNECTED") and name != self._right]
        right = random.choice(seen)
        views = {cases[name]["client"]: name for name in random.sample(list(cases), len(cases))}  # no two look alike
        del views[cases[right]["client"]]
        made = FailureCase(self.workspace, right)
        refusal, record = made.attempt()
        made.leave()
        self._right, self._reason = right, record["reason"] if record else ""
        return random.sample([right, *random.sample(list(views.values()), 3)], 4), refusal

    def _show(self, found: tuple[list[str], OnboardingError | None]) -> str:
        names, refusal = found
        self._seen.value = box("bad", "What the client saw", str(refusal).partition(": ")[0]).html
        self._choices.children = [button(CASES[name]["title"], partial(self._answer, name)) for name in names]
        self._choices.children[0].focus()
        self._next.description = "Next question"
        return "Which of these is it?"

    def _answer(self, name: str) -> None:
        if name == self._right:
            self.say(f"✓ Right. The platform's log says: {self._reason}")
        else:
            self.say(f"✗ Not “{CASES[name]['title']}”: then {_SEEN[CASES[name]['client']]}.")

    def picture(self) -> Rendered:
        """Say what is asked here."""
        return paragraph("Quiz: from what a client saw, which of four cases is it? Run this notebook to be asked.")
