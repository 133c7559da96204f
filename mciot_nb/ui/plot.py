"""A plot of measured values over time, drawn as SVG in the page itself, so that it takes the Lab's colours."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from itertools import pairwise
from typing import NamedTuple

from mciot_nb.ui.markup import escape, fitted, visible

#: Pixels: how high the field is in which the points lie (across it percentages follow the width of the page), and what
#: the style sheet leaves at its left for the numbers.
_HIGH, _LABELS = 142, 84
_MOST_LINES = 5


class Point(NamedTuple):
    """One measured value and when it was measured, with a time zone."""

    time: datetime
    value: float


def plot(points: Sequence[Point], name: str, unit: str = "") -> str:
    """Draw the measured values of one series as HTML, the last one in words too; ``name`` says what is measured.

    The values are finite. What the picture shows is its alternative text.
    """
    if not points:
        return "Measurements: none yet."
    points = sorted(points)
    last = f"{_amount(points[-1].value, unit)} at {points[-1].time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    count = f"{len(points)} measurement{'s' if len(points) > 1 else ''}"
    title = escape(fitted(visible(f"{name} ({unit})" if unit else name), 40))
    return (
        f'<svg class="mciot-plot" role="img" aria-label="{escape(_alt(points, name, unit, count))}" height="{_HIGH}" '
        f'font-size="12" font-family="system-ui, sans-serif"><text class="title" x="-{_LABELS}" y="-18">{title}</text>'
        f"{_drawn(points, unit)}</svg><div>Last value: <strong>{escape(last)}</strong>. {count}.</div>"
    )


def _alt(points: Sequence[Point], name: str, unit: str, count: str) -> str:
    first, last = (f"{points[end].time.astimezone(UTC):%H:%M:%S}" for end in (0, -1))
    values = [point.value for point in points]
    return (
        f"Plot of {name}: {count} from {first} to {last} UTC, between {_amount(min(values), unit)} and "
        f"{_amount(max(values), unit)}; the last is {_amount(values[-1], unit)}."
    )


def _amount(value: float, unit: str) -> str:
    return f"{value:.10g} {unit}".rstrip()


def _drawn(points: Sequence[Point], unit: str) -> str:
    """Draw the axes, and the points with a line through them; who points at one reads its value."""
    values = _Axis(*_range([point.value for point in points], 1e-5), _HIGH, 0)
    times = _Axis(*_range([points[0].time.timestamp(), points[-1].time.timestamp()]), 0, 100)
    places = [(times.place(point.time.timestamp()), values.place(point.value)) for point in points]
    lines = "".join(_line("curve", *one, *other) for one, other in pairwise(places))
    dots = "".join(
        f'<circle cx="{x:.2f}%" cy="{y:.1f}" r="3.5"><title>{escape(_amount(point.value, unit))} at '
        f"{point.time.astimezone(UTC):%H:%M:%S} UTC</title></circle>"
        for (x, y), point in zip(places, points, strict=True)
    )
    return f"{_value_axis(values)}{_time_axis(points, times)}{lines}{dots}"


def _value_axis(axis: "_Axis") -> str:
    lines = []
    for tick in axis.ticks():
        y = axis.place(tick)
        lines.append(_line("grid", 0, y, 100, y))
        lines.append(f'<text x="-8" y="{y + 4:.1f}" text-anchor="end">{_label(tick)}</text>')
    return "".join(lines)


def _time_axis(points: Sequence[Point], axis: "_Axis") -> str:
    """Write the first and the last time, and below them the day on which the first one was."""
    first, last = points[0].time.astimezone(UTC), points[-1].time.astimezone(UTC)
    one_day = first.date() == last.date()
    form = "%H:%M:%S" if one_day else "%m-%d %H:%M"
    stamps = {f"{time:{form}}": axis.place(time.timestamp()) for time in (first, last)}  # once where they are the same
    lines = [_line("axis", 0, _HIGH, 100, _HIGH)]
    for text, x in stamps.items():
        lines.append(_line("axis", x, _HIGH, x, _HIGH + 5))
        lines.append(f'<text x="{x:.2f}%" y="{_HIGH + 19}" text-anchor="middle">{text}</text>')
    legend = f"Time{'' if one_day else ' since'} {first:%Y-%m-%d}, UTC"
    return "".join(lines) + f'<text x="50%" y="{_HIGH + 38}" text-anchor="middle">{legend}</text>'


def _line(name: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{name}" x1="{x1:.2f}%" y1="{y1:.1f}" x2="{x2:.2f}%" y2="{y2:.1f}"/>'


class _Axis(NamedTuple):
    """From a lowest to a highest value, drawn from one place to another; decimals, for no float overflows them."""

    low: Decimal
    high: Decimal
    start: int
    stop: int

    def place(self, value: "float | Decimal") -> float:
        part = (Decimal(value) - self.low) / (self.high - self.low)
        return self.start + float(part) * (self.stop - self.start)

    def ticks(self) -> list[Decimal]:
        """Give round values on the axis: multiples of 1, 2 or 5."""
        span = self.high - self.low
        step = Decimal(1).scaleb((span / _MOST_LINES).adjusted())
        step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= _MOST_LINES)
        tick, found = (self.low / step).to_integral_value(ROUND_CEILING) * step, []
        while tick <= self.high:
            found.append(tick)
            tick += step
        return found


def _range(values: Sequence[float], least: float = 0) -> tuple[Decimal, Decimal]:
    """Give the lowest and the highest value with some air around, at least so much of the larger one."""
    low, high = Decimal(min(values)), Decimal(max(values))
    largest = max(abs(low), abs(high))
    air = max((high - low) / 20, largest * Decimal(least)) if low != high else largest / 10 or Decimal(1)
    return low - air, high + air


def _label(tick: Decimal) -> str:
    text = f"{tick.normalize():f}" if tick else "0"
    return text if len(text) <= 10 else f"{tick.normalize():.7g}"
