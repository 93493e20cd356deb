"""Two models side by side: sizes, the shapes of their weights, their outputs."""

from __future__ import annotations

from typing import Any

from ..opened import Opened
from ..words import count, less, size
from .model import overview

SIZES = (("parameters", "parameters"), ("macs", "MACs"), ("bytes", "bytes"), ("nodes", "nodes"))


def sizes(a: Opened, b: Opened) -> list[dict[str, str]]:
    """Parameters, MACs, bytes and nodes of both."""
    before, after = overview(a), overview(b)
    rows = []
    for key, name in SIZES:
        form = size if key == "bytes" else count
        rows.append({"": name, "before": form(before[key]), "after": form(after[key]),
                     "less": less(before[key], after[key])})  # fmt: skip
    return rows


def widths(a: Opened, b: Opened) -> list[dict[str, Any]]:
    """The weights that both have and whose shapes differ, and those that only one has."""
    one, other = (_dims(model) for model in (a, b))
    rows = []
    for name in dict.fromkeys([*one, *other]):
        before, after = one.get(name, ""), other.get(name, "")
        if before != after:
            rows.append({"tensor": name, "before": before or "none", "after": after or "gone"})
    return rows


def _dims(model: Opened) -> dict[str, str]:
    weights = dict.fromkeys(name for item in model.net.items for name in item.weights)
    return {name: "×".join(map(str, model.graph.initializers[name].dims)) or "scalar" for name in weights}


def outputs(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """The outputs of a comparison by `zig.verify`, one row each."""
    return [
        {
            "output": output["name"],
            "shape": "×".join(map(str, output["shape"])) or "scalar",
            "largest difference": output["max_abs"],
            "share of the largest output": output["max_rel"],
            "moves between inputs by": output["sensitivity"],
            "verdict": "equal" if output["equal"] else "different",
        }
        for output in comparison["outputs"]
    ]
