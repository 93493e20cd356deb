"""Small charts as SVG text: lines and points over two axes, readable on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 44
HUES = ("#3b6fb6", "#c8553d", "#4f8a4c", "#8a5aa8", "#b07d2b", "#3a9a9a", "#a8456f", "#6b6b6b")
_TICKS = 5  # about as many on each axis


class Series(NamedTuple):
    """Points of one kind, (x, y), joined by a line or not; `labels` are shown when the pointer rests on a point."""

    name: str
    points: Sequence[tuple[float, float]]
    line: bool = True
    labels: Sequence[str] = ()


def chart(series: Sequence[Series], x: str, y: str, title: str) -> str:
    """The chart as an SVG element.

    Args:
        series: What is drawn; points that are no numbers are left out.
        x: What the horizontal axis shows.
        y: What the vertical axis shows.
        title: For those who can't see it.
    """
    shown = [s._replace(points=[p for p in s.points if all(map(math.isfinite, p))]) for s in series]
    points = [point for each in shown for point in each.points] or [(0.0, 0.0)]
    across = _Axis([p[0] for p in points], LEFT, WIDTH - RIGHT)
    up = _Axis([p[1] for p in points], HEIGHT - BOTTOM, TOP)
    body = [*_grid(across, up, x, y)]
    for i, each in enumerate(shown):
        body += _drawn(each, HUES[i % len(HUES)], across, up)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" '
        f'xmlns="http://www.w3.org/2000/svg" font-family="system-ui, sans-serif" font-size="11" fill="currentColor">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>"
    )


class _Axis:
    """Values from the least to the most, in pixels, with round numbers between."""

    def __init__(self, values: Sequence[float], first: float, last: float):
        low, high = min(values), max(values)
        if low == high:
            low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
        self.step = _round_step((high - low) / _TICKS)
        self.low = math.floor(low / self.step) * self.step
        self.high = math.ceil(high / self.step) * self.step
        self.first, self.last = first, last

    def place(self, value: float) -> float:
        return round(self.first + (value - self.low) / (self.high - self.low) * (self.last - self.first), 1)

    @property
    def ticks(self) -> list[float]:
        return [self.low + i * self.step for i in range(round((self.high - self.low) / self.step) + 1)]


def _round_step(step: float) -> float:
    """1, 2 or 5 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(step))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= step * (1 - 1e-9))


def _grid(across: _Axis, up: _Axis, x: str, y: str) -> list[str]:
    made = []
    for value in up.ticks:
        line = up.place(value)
        made.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{line}" y2="{line}" stroke="currentColor" opacity=".15"/>'
        )
        made.append(f'<text x="{LEFT - 6}" y="{line + 4}" text-anchor="end">{_short(value)}</text>')
    for value in across.ticks:
        made.append(
            f'<text x="{across.place(value)}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_short(value)}</text>'
        )
    middle = (HEIGHT - BOTTOM + TOP) / 2
    made.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x)}</text>')
    made.append(f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(y)}</text>')
    return made


def _drawn(series: Series, hue: str, across: _Axis, up: _Axis) -> list[str]:
    places = [(across.place(x), up.place(y)) for x, y in series.points]
    made = []
    if series.line and len(places) > 1:
        path = " ".join(f"{x},{y}" for x, y in places)
        made.append(
            f'<polyline points="{path}" fill="none" stroke="{hue}" stroke-width="1.5"><title>{escape(series.name)}'
            "</title></polyline>"
        )
    for i, (x, y) in enumerate(places):
        label = series.labels[i] if i < len(series.labels) else series.name
        made.append(f'<circle cx="{x}" cy="{y}" r="2.5" fill="{hue}"><title>{escape(label)}</title></circle>')
    return made


def _short(value: float) -> str:
    return "0" if abs(value) < 1e-12 else f"{value:.4g}"
