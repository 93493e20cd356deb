"""Numbers laid over a scene: a share from 0 to 1 and a label for each box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..words import count, percent
from .view import FRAME, Box, Scene

Overlay = dict[str, Any]


def amounts(scene: Scene, measure: str) -> Overlay:
    """Parameters or MACs of each box.

    Args:
        scene: The boxes.
        measure: `parameters` or `macs`.
    """
    values = [0 if box.kind == FRAME else getattr(box, measure) for box in scene.boxes]
    most = max(values, default=0)
    name = {"parameters": "parameters", "macs": "MACs"}[measure]
    return {
        "name": name,
        "most": count(most),
        "shares": [value / most if value else None for value in values] if most else [None] * len(values),
        "labels": [count(value) if value else "" for value in values],
    }


def of_groups(scene: Scene, name: str, values: Mapping[int, float], *, top: float | None = None) -> Overlay:
    """A number of each node group, shown on the boxes that write the group: their mean where there are several.

    Args:
        scene: The boxes.
        name: What the number is, in a word.
        values: The number of each node group, not negative; groups without one are left white.
        top: What counts as the full colour; by default the largest number.
    """
    top = top if top is not None else max(values.values(), default=0.0)
    found = [_mean(box, values) for box in scene.boxes]
    return {
        "name": name,
        "most": percent(top),
        "shares": [None if value is None else min(1.0, value / top if top else 0.0) for value in found],
        "labels": ["" if value is None else percent(value) for value in found],
    }


def _mean(box: Box, values: Mapping[int, float]) -> float | None:
    known = {group: slices for group, slices in box.writes.items() if group in values}
    total = sum(known.values())
    return sum(values[group] * slices for group, slices in known.items()) / total if total else None
