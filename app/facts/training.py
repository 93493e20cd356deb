"""Training logs: JSON lines, one object a step; docs/app.md describes them.

    {"step": 120, "epoch": 3, "loss": 0.41, "accuracy": 0.87, "sparsity": {"blocks.0.first": 0.25}}

`step` is needed, all else optional. `sparsity` is the share of zero groups of each node group, by the node group's name
or its number; `gates` (of ATO) the mean probability that they stay. Further numbers (`lr`, `penalty`) become curves of
their own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zig.errors import UsageError
from zig.groups.partition import NodeGroup

LONGEST = 100_000  # lines that are read of a log
DRAWN = 400  # points of a curve

SHARES = ("sparsity", "gates")  # what a log tells of node groups

Log = list[dict[str, Any]]


def read(folder: Path) -> Log:
    """The steps of all `*.jsonl` files of a folder, in order.

    Raises:
        UsageError: There is no log, or a line is not what docs/app.md says.
    """
    files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else [folder]
    if not files:
        raise UsageError(f"{folder} holds no .jsonl file; a training log has one JSON object a line, see docs/app.md")
    steps = [step for file in files for step in _lines(file)]
    if not steps:
        raise UsageError(f"{files[0]} holds no step yet; wait for the training to write one")
    return sorted(steps, key=lambda step: float(step["step"]))


def _lines(file: Path) -> Log:
    steps: Log = []
    text = file.read_text(encoding="utf-8", errors="replace")
    lines = text.split("\n")[:-1]  # what follows the last line break is still being written
    for number, line in enumerate(lines[:LONGEST], 1):
        if line.strip():
            steps.append(_step(line, f"{file}, line {number}"))
    return steps


def _step(line: str, where: str) -> dict[str, Any]:
    try:
        step = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        raise UsageError(f"{where} is not JSON; a training log has one JSON object a line") from None
    if not isinstance(step, dict) or not _is_number(step.get("step")):
        raise UsageError(f"{where} has no number 'step'; see docs/app.md for what a log holds")
    for field in SHARES:
        shares = step.get(field, {})
        if not isinstance(shares, dict) or not all(map(_is_number, shares.values())):
            raise UsageError(f"{where}: '{field}' must give a number for each node group")
    return step


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def curves(log: Log) -> dict[str, list[dict[str, float]]]:
    """For each number of the log its points, thinned out evenly; those that are not finite are left out."""
    names = dict.fromkeys(name for step in log for name in step if name not in ("step", "epoch", *SHARES))
    found = {}
    for name in names:
        points = [{"step": float(step["step"]), "value": float(step[name])} for step in log
                  if _is_number(step.get(name)) and math.isfinite(step[name])]  # fmt: skip
        if points:
            found[name] = points[:: max(1, math.ceil(len(points) / DRAWN))]
    return found


def shares(log: Log, field: str = "sparsity") -> list[dict[str, Any]]:
    """One of `SHARES` as rows of step, node group and share, thinned out evenly."""
    steps = [step for step in log if step.get(field)]
    kept = steps[:: max(1, math.ceil(len(steps) / 60))]
    return [
        {"step": float(step["step"]), "node group": str(name), field: float(share)}
        for step in kept
        for name, share in step[field].items()
    ]


def last_sparsity(log: Log, groups: Sequence[NodeGroup]) -> dict[int, float]:
    """The sparsity that each node group of a model had last; names that the model lacks are left out."""
    number = {group.name: group.id for group in groups} | {str(group.id): group.id for group in groups}
    final: dict[str, Any] = next((step["sparsity"] for step in reversed(log) if step.get("sparsity")), {})
    return {number[name]: float(share) for name, share in final.items() if name in number}


def last(log: Log) -> dict[str, float]:
    """The last value of each number."""
    found: dict[str, float] = {}
    for step in log:
        found.update({name: float(value) for name, value in step.items() if _is_number(value)})
    return found
