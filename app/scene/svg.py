"""A scene as SVG, for reports: what the canvas shows, without colours of its own theme."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from .net import INPUT, OUTPUT
from .palette import PALETTE
from .view import CLOSED, FRAME, Box, Scene

LINE, GROUND, INK = "#777777", "#ffffff", "#000000"
DARK = ("#4477aa", "#aa3377")  # colours that want white ink
_WIDE = 6.8  # pixels of a letter


def svg(scene: Scene, hues: Sequence[int]) -> str:
    """Draw a scene.

    Args:
        scene: Boxes and arrows with their places.
        hues: The colour of each node group, as `zig.app.scene.palette.hues` gives them.
    """
    width, height = scene.placed.size
    frames = [number for number, box in enumerate(scene.boxes) if box.kind == FRAME]
    boxes = [number for number, box in enumerate(scene.boxes) if box.kind != FRAME]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="sans-serif" font-size="11">',
        f'<rect width="100%" height="100%" fill="{GROUND}"/>',
        *(line for number in frames for line in _frame(scene, number)),
        f'<path d="{"".join(_arrows(scene))}" fill="none" stroke="{LINE}"/>',
        *(line for number in boxes for line in _box(scene, number, hues)),
        "</svg>",
    ]
    return "\n".join(parts)


def _corner(scene: Scene, number: int) -> tuple[float, float, float, float]:
    """Left, top, width and height of a box."""
    placed = scene.placed
    w, h = float(placed.width[number]), float(placed.height[number])
    return float(placed.x[number]) - w / 2, float(placed.y[number]) - h / 2, w, h


def _frame(scene: Scene, number: int) -> Iterator[str]:
    x, y, w, h = _corner(scene, number)
    box = scene.boxes[number]
    yield _rect(x, y, w, h, fill=INK, radius=8, extra=' fill-opacity="0.04"')
    yield _text(x + 9, y + 16, f"{box.title} {box.sub}", w - 18, bold=True)


def _box(scene: Scene, number: int, hues: Sequence[int]) -> Iterator[str]:
    x, y, w, h = _corner(scene, number)
    box = scene.boxes[number]
    fill = PALETTE[hues[box.writes.most_common(1)[0][0]]] if box.writes and box.kind != CLOSED else GROUND
    ink = GROUND if fill in DARK else INK
    dash = ' stroke-dasharray="5 3"' if box.fixed else ""
    yield _rect(x, y, w, h, fill=fill, radius=h / 2 if box.kind in (INPUT, OUTPUT) else 4, extra=dash)
    if box.kind == CLOSED:
        yield _rect(x + 3, y + 3, w - 6, h - 6, fill="none", radius=3)
    yield from _stripe(box.reads.most_common(8), hues, x + 1, y + 1, w - 2, 5)
    if h < 40:
        yield _text(x + w / 2, y + h / 2 + 5, box.title, w - 8, ink, anchor="middle")
        return
    yield _text(x + 9, y + 21, box.title, w - 18, ink, bold=True)
    label = _label(box)
    yield _text(x + 9, y + 37, box.sub or f"{len(box.leaves)} nodes", w - 28 - _WIDE * len(label), ink)
    yield _text(x + w - 8, y + 37, label, w / 2, ink, bold=True, anchor="end")


def _label(box: Box) -> str:
    groups = [f"g{group}" for group, _ in box.writes.most_common()]
    if not groups:
        return "fixed" if box.fixed else ""
    return " ".join(groups[:3]) + (f" +{len(groups) - 3}" if len(groups) > 3 else "")


def _stripe(
    groups: list[tuple[int, int]], hues: Sequence[int], x: float, y: float, w: float, h: float
) -> Iterator[str]:
    total = sum(count for _, count in groups)
    for group, count in groups:
        wide = w * count / total
        yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{h}" fill="{PALETTE[hues[group]]}"/>'
        x += wide


def _arrows(scene: Scene) -> Iterator[str]:
    """One path for each arrow: straight, or along its lane."""
    p = scene.placed
    for x0, y0, x1, y1, lane, top, bottom in zip(
        p.x0, p.y0, p.x1, p.y1, p.lane, p.lane_top, p.lane_bottom, strict=True
    ):
        yield f"M{x0:.1f} {y0:.1f}"
        if np.isnan(lane):
            yield _bend(x0, y0, x1, y1)
        else:
            yield f"{_bend(x0, y0, lane, top)}L{lane:.1f} {bottom:.1f}{_bend(lane, bottom, x1, y1)}"


def _bend(x0: float, y0: float, x1: float, y1: float) -> str:
    half = (y1 - y0) / 2
    return f"C{x0:.1f} {y0 + half:.1f} {x1:.1f} {y1 - half:.1f} {x1:.1f} {y1:.1f}"


def _rect(x: float, y: float, w: float, h: float, *, fill: str, radius: float, extra: str = "") -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="{radius:.0f}" fill="{fill}" '
        f'stroke="{LINE}"{extra}/>'
    )


def _text(
    x: float, y: float, text: str, room: float, ink: str = INK, *, bold: bool = False, anchor: str = "start"
) -> str:
    fits = max(1, int(room / _WIDE))
    text = text.strip() if len(text) <= fits else f"…{text[len(text) - fits + 1 :]}"
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{ink}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
