"""Small line charts as inline SVG: no script, no font, readable in light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 12, 30
_MOST_POINTS = 400  # more are not seen at this width


@dataclass(frozen=True)
class Point:
    """A value at a step; with `low` and `high`, its interval."""

    step: float
    value: float
    low: float | None = None
    high: float | None = None


def line_chart(points: Sequence[Point], label: str, *, percent: bool = False, beside: Sequence[Point] = ()) -> str:
    """An `<svg>` of one curve over steps; empty without points.

    Args:
        label: what it shows, in words, for those who do not see it.
        beside: a second curve, quiet, that it is to be compared with.
        percent: values are shares from 0 to 1; else the axis starts at the smallest, in powers of ten when values
            span more than a factor of 30.
    """
    points = [point for point in points if math.isfinite(point.value)]
    if not points:
        return ""
    points, beside = _thinned(points), _thinned(beside)
    x_high = max(point.step for point in points) or 1
    values = [point.value for point in (*points, *beside)]
    logarithmic = not percent and min(values) > 0 and max(values) / min(values) > 30
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0] if percent else _ticks(min(values), max(values), logarithmic)

    def level(value: float) -> float:
        return math.log10(value) if logarithmic else value

    low, high = level(min(ticks[0], *values)), level(max(ticks[-1], *values))

    def x(step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / x_high

    def y(value: float) -> float:
        share = (level(value) - low) / ((high - low) or 1)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    parts = []
    for tick in ticks:
        text = f"{100 * tick:.0f} %" if percent else f"{tick:g}"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{text}</text>')
    parts += [
        f'<text class="tick" x="{x(step):.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{step:g}</text>'
        for step in _ticks(0, x_high, False)[1:]
        if step <= x_high
    ]
    for style, curve in (("beside", beside), ("curve", points)):
        if curve:
            path = " ".join(f"{x(point.step):.1f},{y(point.value):.1f}" for point in curve)
            parts.append(f'<polyline class="{style}" points="{path}"/>')
    for point in points:
        if point.low is not None and point.high is not None:
            at = f"{x(point.step):.1f}"
            parts.append(
                f'<line class="whisker" x1="{at}" x2="{at}" y1="{y(point.low):.1f}" y2="{y(point.high):.1f}"/>'
            )
            parts.append(f'<circle class="dot" cx="{at}" cy="{y(point.value):.1f}" r="3.5"/>')
    body = "".join(parts)
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">{body}</svg>'


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    return points[:: math.ceil(len(points) / _MOST_POINTS)] if points else points


#: Told apart by those who do not see all colours, on white and on black (Okabe and Ito 2008).
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_CURVES_HEIGHT, _LEGEND, _NUMBER = 320, 190, 32
_STYLE = (
    "<style>.curves-chart text{font:13px system-ui,sans-serif;fill:#62666d}"
    ".curves-chart .grid{stroke:#8888;stroke-width:.6}"
    "@media (prefers-color-scheme: dark){.curves-chart text{fill:#9ba0a8}}</style>"
)


def rates_chart(curves: Mapping[str, Sequence[Point]], label: str, axis: str) -> str:
    """A whole `<svg>` file of several curves of shares from 0 to 1, with their intervals; looks the same in a page.

    Args:
        curves: name -> its points, in the order of the legend.
        label: what it shows, in words, for those who do not see it.
        axis: what the steps are, with their unit.
    """
    steps = sorted({point.step for points in curves.values() for point in points})
    bottom, right = _CURVES_HEIGHT - 48, _WIDTH - _RIGHT
    span = (steps[-1] - steps[0]) or 1 if steps else 1

    def x(step: float) -> float:
        return _LEFT + 12 + (right - _LEFT - 24) * (step - steps[0]) / span

    def y(value: float) -> float:
        return bottom - (bottom - _TOP) * value

    parts = [_STYLE]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y(share):.1f}" y2="{y(share):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(share) + 4:.1f}" text-anchor="end">{100 * share:.0f} %</text>')
    written = -math.inf  # where the last number stands, so that the next does not stand on it
    for step in steps:
        if x(step) - written >= _NUMBER:
            parts.append(f'<text x="{x(step):.1f}" y="{bottom + 18}" text-anchor="middle">{step:g}</text>')
            written = x(step)
    parts.append(f'<text x="{(_LEFT + right) / 2:.1f}" y="{bottom + 40}" text-anchor="middle">{escape(axis)}</text>')
    for number, (name, points) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        aside = 3.0 * (number - (len(curves) - 1) / 2)  # so that intervals do not hide each other
        parts += _rates_curve([(x(point.step) + aside, point) for point in points], y, colour)
        row = _TOP + 14 + 22 * number
        parts.append(f'<path d="M{_WIDTH} {row}h22" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{_WIDTH + 30}" y="{row + 4}">{escape(name)}</text>')
    size = f'viewBox="0 0 {_WIDTH + _LEGEND} {_CURVES_HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="curves-chart" {size} role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _rates_curve(points: Sequence[tuple[float, Point]], y: Callable[[float], float], colour: str) -> Iterator[str]:
    """A line through points, each given with its place along the axis, and of each its interval and a dot."""
    path = " ".join(f"{x:.1f},{y(point.value):.1f}" for x, point in points)
    yield f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>'
    for x, point in points:
        at, low, high = f"{x:.1f}", point.low, point.high
        if low is not None and high is not None:
            ends = f'y1="{y(low):.1f}" y2="{y(high):.1f}"'
            yield f'<line x1="{at}" x2="{at}" {ends} stroke="{colour}" stroke-width="1.5" opacity="0.5"/>'
        yield f'<circle cx="{at}" cy="{y(point.value):.1f}" r="3.5" fill="{colour}"/>'


def _ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    """Round numbers that enclose low … high."""
    if logarithmic:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        return [10.0**power for power in range(first, last + 1)]
    span = (high - low) or abs(high) or 1.0
    rough = span / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(step * number, 12) for number in range(first, last + 1)]
