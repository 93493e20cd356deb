"""What a plan would do, before anything is done."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import zig
from zig.atomic import write
from zig.importance import CRITERIA
from zig.plan import MEASURES, SCOPES, Plan

from ..opened import Opened
from ..words import count, less

CRITERION_NAMES = list(CRITERIA)
MEASURE_NAMES = {"params": "parameters", "macs": "MACs", "groups": "groups"}


@dataclass(frozen=True)
class Wish:
    """What the user asks for; the arguments of `zig.prune`."""

    ratio: float = 0.5
    of: str = MEASURES[0]
    criterion: str = CRITERION_NAMES[0]
    scope: str = SCOPES[0]
    round_to: int = 1
    seed: int = 0


def plan(model: Opened, wish: Wish) -> Plan:
    """The plan of a wish; scores are computed once for each criterion.

    Raises:
        PlanError: The wish can't be met.
    """
    scores = model.scores(wish.criterion, wish.seed)
    return zig.prune(
        model.partition, wish.ratio, of=wish.of, criterion=scores, scope=wish.scope, seed=wish.seed,
        round_to=wish.round_to,
    )  # fmt: skip


def effect(model: Opened, plan: Plan) -> list[dict[str, Any]]:
    """Parameters, MACs and groups before and after."""
    parameters, macs = model.budget.price(plan.remove)
    rows = (
        ("parameters", model.budget.parameters, parameters),
        ("MACs", model.budget.macs, macs),
        ("groups", len(model.partition), len(model.partition) - int(plan.remove.sum())),
    )
    return [
        {"name": name, "before": before, "after": after, "shown": count(after), "less": less(before, after)}
        for name, before, after in rows
    ]


def widths(model: Opened, plan: Plan) -> list[dict[str, Any]]:
    """The width of each node group before and after."""
    return [
        {"group": f"g{g.id}", "name": g.name, "before": g.size, "after": kept, "kept": kept / g.size}
        for g in model.groups
        for kept in [int((~plan.remove[g.groups]).sum())]
    ]


def removed_share(model: Opened, plan: Plan) -> dict[int, float]:
    """The share of each node group that goes: the overlay of a plan."""
    return {g.id: float(plan.remove[g.groups].mean()) for g in model.groups}


def shortfall(wish: Wish, plan: Plan) -> str:
    """A sentence where the wish is far from being met; empty where it is."""
    reached = plan.reached[wish.of]
    if reached >= wish.ratio - 0.05:
        return ""
    return (
        f"Only {100 * reached:.1f} % of the {MEASURE_NAMES[wish.of]} can go, not {100 * wish.ratio:.0f} %: the rest is "
        "fixed, or is the last group of its node group. The Model page says what is fixed, and why."
    )


def save_mask(plan: Plan, folder: Path) -> str:
    """The plan as a file for the worker."""
    target = folder / "mask.npy"
    content = io.BytesIO()
    np.save(content, plan.remove, allow_pickle=False)
    write(target, content.getvalue())
    return str(target)
