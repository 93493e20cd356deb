"""Node groups as tables: their slices, norms, and what removing them saves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zig.partition import Slice

from ..opened import Opened
from ..words import indices

BINS = 24


def table(model: Opened, sensitivity: Mapping[str, float] | None = None) -> list[dict[str, Any]]:
    """One row for each node group: width, slices, what one of its groups costs and what all but one cost."""
    saved = model.savings
    sensitivity = sensitivity or {}
    return [
        {
            "group": f"g{group.id}",
            "name": group.name,
            "width": group.size,
            "zero": int(model.zero[group.groups].sum()),
            "params of one": saved.one[group.id][0],
            "MACs of one": saved.one[group.id][1],
            "params": saved.most[group.id][0],
            "MACs": saved.most[group.id][1],
            **({"sensitivity": sensitivity.get(str(group.id))} if sensitivity else {}),
        }
        for group in model.groups
    ]


def slices(model: Opened, group: int) -> list[dict[str, Any]]:
    """The slices of a whole node group: tensor, axis, role, indices."""
    wanted = np.zeros(len(model.groups) + 1, bool)  # the last entry stands for what is fixed
    wanted[group] = True
    rows = []
    for row in model.partition.rows:
        mine = wanted[np.where(row.groups >= 0, model.partition.node_group[row.groups], -1)]
        for role, mask in (("member", mine & row.member), ("dependent", mine & ~row.member)):
            if mask.any():
                rows.append({"tensor": row.tensor, "axis": row.axis, "role": role, "slices": int(mask.sum()),
                             "indices": indices(np.flatnonzero(mask))})  # fmt: skip
    return sorted(rows, key=lambda row: row["role"] != "member")


def unit(model: Opened, group: int, position: int) -> dict[str, Any]:
    """One group (ZIG) of a node group: each of its slices with its norm, and what removing it saves.

    Args:
        model: The model.
        group: The node group.
        position: Which of its groups, from 0.
    """
    number = int(model.groups[group].groups[position])
    zig = model.partition[number]
    rows = [_slice(model, part, "member") for part in zig.members]
    rows += [_slice(model, part, "dependent") for part in zig.dependents]
    remove = model.remove_nothing()
    remove[number] = True
    parameters, macs = model.budget.price(remove)
    return {
        "number": number, "slices": rows, "score": float(model.scores("magnitude")[number]),
        "parameters": model.budget.parameters - parameters, "macs": model.budget.macs - macs,
    }  # fmt: skip


def _slice(model: Opened, part: Slice, role: str) -> dict[str, Any]:
    values = np.take(model.graph.array(part.tensor), part.indices, part.axis).astype(np.float64)
    return {"tensor": part.tensor, "axis": part.axis, "role": role, "indices": indices(part.indices),
            "norm": float(np.linalg.norm(values))}  # fmt: skip


def norms(model: Opened, group: int) -> list[dict[str, float]]:
    """A histogram of the L2 norms of a node group's members, relative to their mean: `from`, `to`, `groups`."""
    values = model.scores("magnitude")[model.groups[group].groups]
    counts, edges = np.histogram(values, bins=min(BINS, max(4, len(values) // 2)))
    return [{"from": float(a), "to": float(b), "groups": int(n)} for a, b, n in
            zip(edges[:-1], edges[1:], counts, strict=True)]  # fmt: skip
