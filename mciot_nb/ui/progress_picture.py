"""The steps of the tutorial as a picture: which of them this workspace has done, and the files that each made."""

import re
from collections.abc import Iterator

from mciot_nb.steps import DONE, OPEN, UNKNOWN, WRONG, Progress, Step
from mciot_nb.ui.markup import OUTLINE, Rendered, boxed, escape, image, visible, words

_WIDTH, _ROW, _LEFT = 560, 46, 58
#: By its state, the colour of a step and the shape in its circle of radius 10.
_LOOKS = {
    DONE: ("good", "M-5 0l4 4l7 -8"),
    OPEN: ("muted", ""),
    WRONG: ("bad", "M-4 -4l8 8m0 -8l-8 8"),
    UNKNOWN: ("muted", "M-4 0h8"),
}


def progress_picture(progress: Progress) -> Rendered:
    """Draw the steps one below the other, each with its state, and its files or else a sentence."""
    steps, height = progress.steps, _ROW * len(progress.steps) + 16
    done = f"{sum(step.state == DONE for step in steps)} of {len(steps)} steps done"
    title = f"{done}." if progress.left else f"{done}, all that a connected device needs."
    lines = [visible(f"{step.state} {step.title}: {_about(step)}") for step in steps]
    line = f'<path d="M32 {_ROW // 2 + 8}V{height - _ROW // 2 - 8}" {OUTLINE} class="muted"/>'
    shapes = [f'<rect width="{_WIDTH}" height="{height}" rx="8" class="ground"/>', line]
    for number, step in enumerate(steps):
        shapes += _row(step, _ROW * number + _ROW // 2 + 8)
    wrong = "".join(boxed("bad", escape(f"{s.state} {s.title}: {s.said}")) for s in steps if s.state == WRONG)
    alt = " · ".join(one.removesuffix(".") for one in (title, *lines))
    return Rendered("\n  ".join([title, *lines]), image(shapes, (_WIDTH, height), f"{alt}.") + wrong)


def _about(step: Step) -> str:
    files = re.sub(r"(\w+)\.pkcs12, \1\.jks", r"\1.pkcs12 and .jks", ", ".join(step.files))
    return files if step.state == DONE and files else step.said


def _row(step: Step, y: int) -> Iterator[str]:
    colour, mark = _LOOKS[step.state]
    yield f'<circle cx="32" cy="{y}" r="11" class="paper"/><circle cx="32" cy="{y}" r="11" {OUTLINE} class="{colour}"/>'
    yield f'<path transform="translate(32 {y})" d="{mark}" {OUTLINE} class="{colour}"/>' if mark else ""
    yield words(_LEFT, y - 3, step.title, 15, "ink", _WIDTH - _LEFT - 16)
    yield words(_LEFT, y + 14, _about(step), 12, "bad" if step.state == WRONG else "muted", _WIDTH - _LEFT - 16)
