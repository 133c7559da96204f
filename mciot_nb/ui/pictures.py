"""Four pictures: a chain (who signed whom, where it is broken, what is trusted), how much of a validity has passed,
what expires next, and the steps of the tutorial with the files that each made.
"""

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise, starmap
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mciot_nb.pki.chain import Given, each_of, is_ca, is_issued_by
from mciot_nb.pki.names import common_name, name_of, readable, short_name
from mciot_nb.pki.parts import extension_of
from mciot_nb.steps import DONE, OPEN, UNKNOWN, WRONG, Progress, Step
from mciot_nb.ui.markup import OUTLINE, Rendered, boxed, counted, escape, image, paragraph, visible, width, words

Certificates = list[x509.Certificate]

_WIDTH, _BOX, _GAP, _MARGIN, _INDENT = 640, 72, 56, 16, 14
_ROOM = _WIDTH - 2 * (_MARGIN + _INDENT)  # for words inside a box


def chain_picture(certificates: Given, *, trusted: Given = (), at: datetime | None = None) -> Rendered:
    """Draw a chain as it is, the device's certificate at the top, with an arrow for each signature.

    A certificate that the next one did not sign is shown as a broken link. Marked are those that are not valid at a
    time, now by default, and those ``trusted``: what was uploaded, or is in a truststore. The picture holds no dates
    and no fingerprints, so it is the same in every run.

    Example: ``chain_picture(read_certificates(path), trusted=[ca.certificate])``.
    """
    certificates, trusted = each_of(certificates), each_of(trusted)
    if not certificates:
        return paragraph("An empty chain.")
    links = list(starmap(_why_broken, pairwise(certificates)))
    end = _end(certificates[-1], trusted)
    chain, last = _in_words(certificates, links, trusted, at), short_name(name_of(certificates[-1]))
    text = visible(f"{chain} {last} {' '.join(end)}.")
    height = len(certificates) * (_BOX + _GAP) - _GAP + 2 * _MARGIN + 24 * len(end)
    shapes = [f'<rect width="{_WIDTH}" height="{height}" rx="8" class="ground"/>']
    for position, certificate in enumerate(certificates):
        top = _MARGIN + position * (_BOX + _GAP)
        shapes += _box(certificate, top, trusted=certificate in trusted, state=trouble(certificate, at))
        if position < len(links):
            shapes += _arrow(top + _BOX, links[position])
    for line, said in enumerate(reversed(end)):
        shapes.append(words(_MARGIN + _INDENT, height - _MARGIN - 2 - 22 * line, said, 14, "muted", _ROOM))
    return Rendered(text, image(shapes, (_WIDTH, height), text))


def _why_broken(certificate: x509.Certificate, following: x509.Certificate) -> str:
    if is_issued_by(certificate, following, unchecked=True):
        return ""
    if name_of(certificate, "issuer") == name_of(following):
        return "the name fits, the signature does not"
    return f"the issuer is {short_name(name_of(certificate, 'issuer'))}"


def _in_words(certificates: Certificates, links: list[str], trusted: Certificates, at: datetime | None) -> str:
    parts: list[str] = []
    for certificate, broken in zip(certificates, ["", *links], strict=True):
        verb = "" if not parts else "NOT signed by " if broken else "signed by "
        marks = [f"✗ broken: {broken}"] if broken else []
        marks += ["✓ trusted"] if certificate in trusted else []
        marks += filter(None, [trouble(certificate, at)])
        parts.append(verb + short_name(name_of(certificate)) + (f" ({'; '.join(marks)})" if marks else ""))
    return f"Chain of {len(parts)} certificate{'s' if parts[1:] else ''}: {', '.join(parts)}."


def _end(last: x509.Certificate, trusted: Certificates) -> list[str]:
    """Return how the chain ends; a name that may be long is a line of its own."""
    if is_issued_by(last, last, unchecked=True):
        return ["is signed by itself: the chain ends here"]
    if last in trusted:
        return ["is trusted: the chain may end here"]
    trusts_issuer = any(is_issued_by(last, anchor) for anchor in trusted)
    names = "is signed by a trusted certificate" if trusts_issuer else "names an issuer"
    return [f"{names} that is not in this chain:", short_name(name_of(last, "issuer"))]


def _box(certificate: x509.Certificate, top: int, *, trusted: bool, state: str) -> Iterator[str]:
    purposes, subject = extension_of(certificate, x509.ExtendedKeyUsage) or (), name_of(certificate)
    kind = "CA" if is_ca(certificate) else "server" if ExtendedKeyUsageOID.SERVER_AUTH in purposes else "device"
    is_titled = common_name(subject) is not None  # else the title is the whole subject
    rest = readable(x509.Name([a for a in subject if a.oid != NameOID.COMMON_NAME])) if is_titled else ""
    colour, left = ("ca" if kind == "CA" else "end"), _MARGIN + _INDENT
    frame = f'<rect x="{_MARGIN}" y="{top}" width="{_WIDTH - 2 * _MARGIN}" height="{_BOX}" rx="6"'
    yield f'{frame} class="paper"/>{frame} {OUTLINE} class="{"bad" if state else colour}"/>'
    # At the right of its name, what a certificate is; below that, what is wrong with it.
    for y, size, text, ink, mark, sign in (
        (top + 30, 18, short_name(subject), "ink", f"✓ trusted {kind}" if trusted else kind, colour),
        (top + 54, 13, rest, "muted", state, "bad"),
    ):
        beside = int(width(mark) * 13) + 12 if mark else 0
        yield words(left, y, text, size, ink, _ROOM - beside)
        yield words(_WIDTH - left, y, mark, 13, sign, _ROOM, "end") if mark else ""


def _arrow(top: int, broken: str) -> Iterator[str]:
    """Yield an arrow to the issuer, or two loose ends with a cross between them."""
    x, middle, end = _MARGIN + 40, top + _GAP // 2, top + _GAP - 4
    if broken:
        cross = f"M{x - 7} {middle - 7}l14 14m0 -14l-14 14"
        yield f'<path d="M{x} {top + 2}V{middle - 12}M{x} {middle + 12}V{end + 2}{cross}" {OUTLINE} class="bad"/>'
        yield words(x + 20, middle - 4, "✗ broken: not signed by the next one", 14, "bad", _ROOM - 60)
        yield words(x + 20, middle + 14, broken, 14, "bad", _ROOM - 60)
    else:
        yield f'<path d="M{x} {top + 4}V{end - 8}" {OUTLINE} class="good"/>'
        yield f'<path d="M{x - 6} {end - 10}h12l-6 10z" class="good"/>'
        yield words(x + 20, middle + 5, "signed by", 14, "good", _ROOM - 60)


_DAY = timedelta(days=1)
_BAR_WIDTH, _BAR_HEIGHT, _BEGIN, _END = 400, 52, 48, 352  # pixels; the bar goes from the third to the fourth


def trouble(certificate: x509.Certificate, at: datetime | None = None) -> str:
    """Return that a certificate is not valid at a time, now by default; empty where it is."""
    at = (at or datetime.now(UTC)).astimezone(UTC)
    if at > certificate.not_valid_after_utc:
        return "✗ expired"
    return "✗ not valid yet" if at < certificate.not_valid_before_utc else ""


def validity(certificate: x509.Certificate, at: datetime | None = None) -> Rendered:
    """Return for how long a certificate is valid, and how much of that has passed at a time, now by default.

    What has passed is rounded down to whole percents and days, so a certificate that was just made always looks the
    same. The picture holds no dates: a test can't see them in it.
    """
    at = (at or datetime.now(UTC)).astimezone(UTC)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    total, state = counted(max((end - begin) // _DAY, 0), "day", "days"), trouble(certificate, at)
    text, colour = f"{total}, {state}", "bad"
    where, mark = ("after its end", (_END + _BAR_WIDTH) // 2) if at > end else ("before its beginning", _BEGIN // 2)
    if not state:
        percent = 100 * (at - begin) // max(end - begin, timedelta(seconds=1))
        left = counted(-((at - end) // _DAY), "day", "days") if end - at >= _DAY else "less than a day"
        text, where, colour = f"{total}, ✓ valid now: {percent} % passed, {left} left", f"at {percent} %", "good"
        mark = _BEGIN + (_END - _BEGIN) * percent // 100
    alt = f"Validity as a bar from its beginning to its end; today is {where}."
    return Rendered(text, f"{escape(text)}<br>{image(_bar(mark, colour), (_BAR_WIDTH, _BAR_HEIGHT), alt)}")


def _bar(mark: int, colour: str) -> Iterator[str]:
    """Yield what is over filled, what is left empty, and a pointer at today, which may be outside the bar."""
    over = min(max(mark, _BEGIN), _END) - _BEGIN
    yield f'<rect width="{_BAR_WIDTH}" height="{_BAR_HEIGHT}" rx="6" class="ground"/>'
    yield f'<rect x="{_BEGIN}" y="23" width="{over}" height="10" class="{colour}"/>'
    yield f'<rect x="{_BEGIN}" y="23" width="{_END - _BEGIN}" height="10" rx="2" {OUTLINE} class="{colour}"/>'
    yield f'<path d="M{mark - 6} 16h12l-6 8z M{mark - 1} 16h2v22h-2z" class="ink"/>'
    yield words(mark, 13, "today", 12, "ink", _BEGIN, "middle")
    yield words(_BEGIN, 47, "begin", 12, "muted", _BEGIN, "middle")
    yield words(_END, 47, "end", 12, "muted", _BEGIN, "middle")


_LINE, _FROM, _TO, _MOST, _SOON = 28, 250, 520, 12, 30  # pixels, rows, days
_SCALE = {1: "a day", 30: "a month", 365: "a year", 3650: "ten years"}


def expiry_picture(frame: Any) -> Rendered:
    """Draw what `expiring` found, on a logarithmic scale. Example: ``expiry_picture(expiring(workspace))``."""
    alt, height = list[str](), 60 + _LINE * min(len(frame), _MOST)
    at = {days: _FROM + int((_TO - _FROM) * math.log(max(1, days), 7300)) for days in (*_SCALE, *frame["days"])}
    shapes = [f'<rect width="{_WIDTH}" height="{height}" rx="8" class="ground"/>']
    shapes += [words(at[days], 22, said, 12, "muted", 90, "middle") for days, said in _SCALE.items()]
    shapes += [f'<path d="M{at[days]} 30V{height - 12}" {OUTLINE} class="muted"/>' for days in _SCALE]
    for number, row in enumerate(frame.head(_MOST).to_dict("records"), 2):
        days, y, colour = row["days"], _LINE * number, "good" if row["days"] > _SOON else "bad"
        said = f"{'✓' if days > _SOON else '⚠'} {counted(days, 'day', 'days')}" if days > 0 else "✗ expired"
        name, long = visible(f"{row['name']} ({row['kind']})"), max(at[days] - _FROM, 3)
        shapes += words(_MARGIN, y, name, 13, "ink", _FROM - 28), words(_TO + 16, y, said, 13, colour, 100)
        shapes.append(f'<rect x="{_FROM}" y="{y - 10}" width="{long}" height="10" class="{colour}"/>')
        alt.append(f"{name}: {said}")
    more = f"; and {len(frame) - _MOST} more, later" if len(frame) > _MOST else ""
    text = f"What expires next: {'; '.join(alt) or 'nothing'}{more}."
    return Rendered(text, image(shapes, (_WIDTH, height), text))


_STEPS_WIDTH, _STEP, _LEFT = 560, 46, 58  # pixels
#: By its state, the colour of a step and the shape in its circle of radius 10.
_LOOKS = {
    DONE: ("good", "M-5 0l4 4l7 -8"),
    OPEN: ("muted", ""),
    WRONG: ("bad", "M-4 -4l8 8m0 -8l-8 8"),
    UNKNOWN: ("muted", "M-4 0h8"),
}


def progress_picture(progress: Progress) -> Rendered:
    """Draw the steps one below the other, each with its state, and its files or else a sentence."""
    steps, height = progress.steps, _STEP * len(progress.steps) + 16
    done = f"{sum(step.state == DONE for step in steps)} of {len(steps)} steps done"
    title = f"{done}." if progress.left else f"{done}, all that a connected device needs."
    lines = [visible(f"{step.state} {step.title}: {_about(step)}") for step in steps]
    line = f'<path d="M32 {_STEP // 2 + 8}V{height - _STEP // 2 - 8}" {OUTLINE} class="muted"/>'
    shapes = [f'<rect width="{_STEPS_WIDTH}" height="{height}" rx="8" class="ground"/>', line]
    for number, step in enumerate(steps):
        shapes += _step(step, _STEP * number + _STEP // 2 + 8)
    wrong = "".join(boxed("bad", escape(f"{s.state} {s.title}: {s.said}")) for s in steps if s.state == WRONG)
    alt = " · ".join(one.removesuffix(".") for one in (title, *lines))
    return Rendered("\n  ".join([title, *lines]), image(shapes, (_STEPS_WIDTH, height), f"{alt}.") + wrong)


def _about(step: Step) -> str:
    files = re.sub(r"(\w+)\.pkcs12, \1\.jks", r"\1.pkcs12 and .jks", ", ".join(step.files))
    return files if step.state == DONE and files else step.said


def _step(step: Step, y: int) -> Iterator[str]:
    colour, mark = _LOOKS[step.state]
    yield f'<circle cx="32" cy="{y}" r="11" class="paper"/><circle cx="32" cy="{y}" r="11" {OUTLINE} class="{colour}"/>'
    yield f'<path transform="translate(32 {y})" d="{mark}" {OUTLINE} class="{colour}"/>' if mark else ""
    yield words(_LEFT, y - 3, step.title, 15, "ink", _STEPS_WIDTH - _LEFT - 16)
    yield words(_LEFT, y + 14, _about(step), 12, "bad" if step.state == WRONG else "muted", _STEPS_WIDTH - _LEFT - 16)
