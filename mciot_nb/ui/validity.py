"""When a certificate is valid: in words, and as a bar with today on it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from cryptography import x509

from mciot_nb.ui.markup import Shown, escape
from mciot_nb.ui.svg import image, words

_DAY = timedelta(days=1)
_WIDTH, _HEIGHT, _BEGIN, _END = 400, 52, 48, 352  # pixels; the bar lies between the last two


def trouble(certificate: x509.Certificate, at: datetime | None = None) -> str:
    """Say that a certificate is not valid at a time, now by default; empty where it is."""
    at = at or datetime.now(UTC)
    if at > certificate.not_valid_after_utc:
        return "✗ expired"
    return "✗ not valid yet" if at < certificate.not_valid_before_utc else ""


def validity(certificate: x509.Certificate, at: datetime | None = None) -> Shown:
    """Show for how long a certificate is valid, and how much of that has passed at a time, now by default.

    What has passed is rounded down to whole percents and days, so a certificate that was just made always looks the
    same. The dates are left to the words around the picture: a test can't see them in it.
    """
    at = at or datetime.now(UTC)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    total = _days(max((end - begin) // _DAY, 0))
    if state := trouble(certificate, at):
        where = "after its end" if at > end else "before its begin"
        mark = (_END + _WIDTH) // 2 if at > end else _BEGIN // 2
        return _shown(f"{total}, {state}", f"today lies {where}", mark, bad=True)
    percent = 100 * (at - begin) // max(end - begin, timedelta(seconds=1))
    left = _days(-((at - end) // _DAY)) if end - at >= _DAY else "less than a day"  # a day that has begun counts
    mark = _BEGIN + (_END - _BEGIN) * percent // 100
    return _shown(f"{total}, ✓ valid now: {percent} % passed, {left} left", f"today lies at {percent} %", mark)


def _days(number: int) -> str:
    return "1 day" if number == 1 else f"{number} days"


def _shown(text: str, where: str, mark: int, *, bad: bool = False) -> Shown:
    alt = f"Validity as a bar from its begin to its end; {where}."
    return Shown(text, f"{escape(text)}<br>{image(_bar(mark, bad=bad), (_WIDTH, _HEIGHT), alt)}")


def _bar(mark: int, *, bad: bool) -> Iterator[str]:
    """Draw what is over filled, what is left empty, and a pointer at today, which may lie beside the bar."""
    over = min(max(mark, _BEGIN), _END) - _BEGIN
    colour = "bad" if bad else "good"
    yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="6" class="ground"/>'
    yield f'<rect x="{_BEGIN}" y="23" width="{over}" height="10" class="{colour}"/>'
    yield (
        f'<rect x="{_BEGIN}" y="23" width="{_END - _BEGIN}" height="10" rx="2" fill="none" stroke="currentColor" '
        f'class="{colour}"/>'
    )
    yield f'<path d="M{mark - 6} 16h12l-6 8z M{mark - 1} 16h2v22h-2z" class="ink"/>'
    yield words(mark, 13, "today", 12, "ink", _BEGIN, "middle")
    yield words(_BEGIN, 47, "begin", 12, "muted", _BEGIN, "middle")
    yield words(_END, 47, "end", 12, "muted", _BEGIN, "middle")
