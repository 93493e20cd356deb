"""Charts as Vega-Lite specifications: plain data, drawn by the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BLUE = "#4477aa"
Rows = Sequence[dict[str, Any]]


def histogram(rows: Rows) -> dict[str, Any]:
    """Bars from `from` to `to` of height `groups`."""
    return {
        "data": {"values": list(rows)},
        "height": 300,
        "mark": {"type": "bar", "color": BLUE},
        "encoding": {
            "x": {"field": "from", "type": "quantitative", "bin": "binned", "title": "norm / mean"},
            "x2": {"field": "to"},
            "y": {"field": "groups", "type": "quantitative", "title": "groups"},
            "tooltip": [{"field": name, "type": "quantitative", "format": ".3g"} for name in ("from", "to", "groups")],
        },
    }


def curve(name: str, points: Rows) -> dict[str, Any]:
    """A line of `value` over `step`."""
    return {
        "data": {"values": list(points)},
        "height": 260,
        "title": name,
        "mark": {"type": "line", "color": BLUE},
        "encoding": {
            "x": {"field": "step", "type": "quantitative", "title": "step"},
            "y": {"field": "value", "type": "quantitative", "title": None, "scale": {"zero": False}},
            "tooltip": [{"field": "step", "type": "quantitative"}, {"field": "value", "type": "quantitative"}],
        },
    }


HEATS = {  # what a share of a node group is, and the word beside its colours
    "sparsity": ("Share of zero groups in each node group", "zero"),
    "gates": ("Mean probability that a group stays, in each node group", "stays"),
}


def heat(rows: Rows, field: str = "sparsity") -> dict[str, Any]:
    """Shares by `step` and `node group`, in the order in which the groups come."""
    title, word = HEATS[field]
    groups = list(dict.fromkeys(row["node group"] for row in rows))
    return {
        "data": {"values": list(rows)},
        "height": 130 + 20 * len(groups),
        "title": title,
        "mark": "rect",
        "encoding": {
            "x": {
                "field": "step", "type": "ordinal", "title": "step",
                "axis": {"labelOverlap": "greedy", "labelAngle": 0, "grid": False, "ticks": False},
            },
            "y": {"field": "node group", "type": "nominal", "sort": groups, "title": None, "axis": {"grid": False}},
            "color": {
                "field": field, "type": "quantitative", "legend": {"format": "%", "title": word},
                "scale": {"domain": [0, 1], "scheme": "blues"},
            },
            "tooltip": [
                {"field": "step", "type": "ordinal"}, {"field": "node group", "type": "nominal"},
                {"field": field, "type": "quantitative", "format": ".1%"},
            ],
        },
    }  # fmt: skip
