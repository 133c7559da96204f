"""How verdicts, problems and sentences look in a notebook: what is wrong, and apart from it what to do next."""

from mciot_nb.pki.chain import Diagnosis, Finding
from mciot_nb.ui.markup import Shown, boxed, escape, visible

#: Its sentence ends with the rule that was broken, not with what to do.
_WITHOUT_ADVICE = ("INVALID",)


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """Show a verdict as plain text: whether all is well, and then each finding with what to do about it."""
    if diagnosis.ok:
        return "✓ OK: nothing wrong was found."
    lines = [_not_ok(diagnosis)]
    for finding in diagnosis.findings:
        wrong, advice = what_to_do(finding)
        lines.append(f"  {visible(finding.code)}: {visible(wrong)}")
        lines += [f"    What to do: {visible(advice)}"] if advice else []
    return "\n".join(lines)


def diagnosis_html(diagnosis: Diagnosis) -> str:
    """Show a verdict as a list; a sign and a word say good or bad, not the colour alone."""
    if diagnosis.ok:
        return boxed("good", "<strong>✓ OK</strong>: nothing wrong was found.")
    items = []
    for finding in diagnosis.findings:
        wrong, advice = what_to_do(finding)
        more = f"<br><strong>What to do:</strong> {escape(advice)}" if advice else ""
        items.append(f'<li style="margin:6px 0"><code>{escape(finding.code)}</code>: {escape(wrong)}{more}</li>')
    findings = f'<ul style="margin:0;padding-left:1.5em">{"".join(items)}</ul>'
    return boxed("bad", f"<strong>{_not_ok(diagnosis)}</strong>{findings}")


def _not_ok(diagnosis: Diagnosis) -> str:
    number = len(diagnosis.findings)
    return f"✗ Not OK: {number} {'finding' if number == 1 else 'findings'}."


def what_to_do(finding: Finding) -> tuple[str, str]:
    """Split a finding's sentence, "what is wrong: what to do", in two; the second is empty where it gives no advice."""
    ends = max(finding.sentence.rfind(mark) for mark in (": ", "; "))
    if ends < 0 or finding.code in _WITHOUT_ADVICE:
        return finding.sentence, ""
    return f"{finding.sentence[:ends]}.", finding.sentence[ends + 2 :]


def problem_html(problem: Exception) -> str:
    """Show what went wrong as its sentence."""
    return boxed("bad", f"✗ {escape(str(problem))}")


def problem_text(problem: Exception) -> str:
    """Show what went wrong as its sentence, in plain text."""
    return f"✗ {visible(str(problem))}"


def sentence(text: str) -> Shown:
    """Show a plain sentence that wraps between words; what is printed the Lab breaks at any character."""
    return Shown(visible(text), f'<p style="overflow-wrap:anywhere">{escape(text)}</p>')
