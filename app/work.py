"""The tasks that run in a process of their own: `python -m zig.app.work FOLDER`, see `zig.app.jobs`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import zig
from zig.errors import ZigError
from zig.process import ending

from .jobs import ORDER

Result = dict[str, Any]


def tell(**event: Any) -> None:
    """Tell the app something: `progress`, `say`, `result` or `error`."""
    print(json.dumps(event, allow_nan=False), flush=True)


def prune(folder: Path, *, model: str, mask: str, samples: int, seed: int) -> Result:
    """Zero the groups of a plan, compress, verify.

    Args:
        folder: Where `zeroed.onnx` and `small.onnx` go.
        model: The file.
        mask: An `.npy` file, bool[G]; empty to remove only what is zero already.
        samples: How many random inputs to compare on.
        seed: Seed of these.
    """
    tell(progress=0.05, say=f"analysing {Path(model).name}")
    partition = zig.analyze(model)
    plan, source = None, model
    if mask:
        plan = zig.Plan(partition, np.load(mask, allow_pickle=False))
        tell(progress=0.25, say=f"zeroing {int(plan.remove.sum())} of {len(partition)} groups")
        source = str(folder / "zeroed.onnx")
        zig.zero(plan, source)
    tell(progress=0.5, say="removing what is zero, and comparing the outputs with onnxruntime")
    report = zig.compress(source, folder / "small.onnx", samples=samples, seed=seed)
    found = report.to_dict()
    comparison = found["comparison"]
    verdict = "equal" if comparison["equal"] else "different"
    removed = f"{report.removed} of {report.groups} groups removed"
    difference = f"largest difference {comparison['max_abs']:.2g}"
    tell(progress=1.0, say=f"{removed}; outputs {verdict} on {comparison['samples']} inputs, {difference}")
    return {"report": found, "zeroed": source if mask else "", "small": str(folder / "small.onnx")}


def verify(folder: Path, *, a: str, b: str, samples: int, seed: int) -> Result:
    """Compare the outputs of two models."""
    del folder
    tell(progress=0.2, say="running both models on the same random inputs")
    return zig.verify(a, b, samples=samples, seed=seed).to_dict()


def sensitivity(folder: Path, *, model: str, share: float, seed: int) -> Result:
    """How far the outputs move when a share of one node group is zeroed, one node group after the other.

    Args:
        folder: Where the zeroed models go for a moment.
        model: The file.
        share: Which share of each node group, those of least magnitude first.
        seed: Seed of the random input.
    """
    from zig.importance import magnitude  # noqa: PLC0415 - as heavy as the weights are

    partition = zig.analyze(model)
    scores = magnitude(partition)
    found: dict[str, float] = {}
    for number, group in enumerate(partition.node_groups):
        remove = np.zeros(len(partition), bool)
        least = group.groups[np.argsort(scores[group.groups], kind="stable")]
        remove[least[: max(1, round(share * group.size))]] = True
        target = folder / "zeroed.onnx"
        zig.zero(zig.Plan(partition, remove), target)
        comparison = zig.verify(model, target, samples=1, seed=seed)
        found[str(group.id)] = float(min(comparison.max_rel, 1e6))
        tell(progress=(number + 1) / len(partition.node_groups),
             say=f"g{group.id} {group.name}: outputs move by {100 * found[str(group.id)]:.2g} %")  # fmt: skip
    return {"share": share, "sensitivity": found}


TASKS: dict[str, Callable[..., Result]] = {"prune": prune, "verify": verify, "sensitivity": sensitivity}


def main(folder: Path) -> int:
    """Do what the folder's order says; the exit code. Whoever cancels it leaves nothing half-written."""
    with ending():
        return _do(folder)


def _do(folder: Path) -> int:
    order = json.loads((folder / ORDER).read_text())
    try:
        tell(result=TASKS[order.pop("task")](folder, **order))
    except (ZigError, OSError, MemoryError) as error:
        tell(error=" ".join(str(error).split()) or "not enough memory for this model on this machine")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
