"""Cutting zero groups out of a model, exact by construction and checked anyway.

1. `zig.removal` says which groups can go, by the actual values.
2. `zig.cut` cuts every axis of every initializer and lets attributes and shape operands follow by the dictionary.
3. The result is written beside the target, compared with the full model by onnxruntime, and only then renamed.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from zig.budget import Budget
from zig.cut import Surgeon
from zig.dims import Size
from zig.errors import PlanError, UnchangedError, VerifyError
from zig.files import file_bytes, has_external, publish, same_shape, save, workspace, write
from zig.flow import Flow
from zig.graph import Graph, load
from zig.partition import Mask, Partition, analyze
from zig.plan import Plan
from zig.removal import choices, removable, zeroed

if TYPE_CHECKING:
    from zig.verify import Comparison


@dataclass
class Report:
    """What `compress` did: sizes before and after, widths of node groups, and the comparison."""

    source: str
    target: str
    before: dict[str, int]
    after: dict[str, int]
    groups: int
    removed: int
    widths: list[tuple[str, int, int]] = field(default_factory=list)
    comparison: Comparison | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        plain = asdict(self)
        plain["comparison"] = self.comparison.to_dict() if self.comparison else None
        return plain


def compress(
    source: Any, target: str | os.PathLike[str], plan: Plan | None = None, *, tolerance: float = 0.0,
    check: bool = True, strict: bool = False, rewrite: bool = False,
    **verify_options: Any,
) -> Report:  # fmt: skip
    """Remove every group that is zero (and those of `plan`), verify, and write the smaller model.

    Args:
        source: a path, an `onnx.ModelProto`, an `onnx_ir.Model` or a `Graph`.
        target: where the compressed model goes; external data stay external (`<target>.data`).
        plan: groups to zero first; the comparison is then with the zeroed model.
        tolerance: weights up to this magnitude count as zero.
        strict: whether it is an error that nothing can be removed.
        rewrite: whether nodes may be written anew, see `zig.analyze`; a plan brings its own answer.
        check: whether onnxruntime compares full and compressed model before anything is written.
        verify_options: `samples`, `seed`, `rtol`, `atol`, `data`, `provider` of `zig.verify`.

    Raises:
        ModelError: the model can't be read, or the target can't be written.
        PlanError: the plan is of another model.
        UnchangedError: with `strict`.
        VerifyError: the outputs differ; nothing is written.
    """
    target = Path(target)
    partition = _match(plan, source) if plan else analyze(source, rewrite=rewrite)
    graph = partition.graph
    weights = zeroed(plan, graph.array, tolerance) if plan or tolerance else graph.array
    partitions = [partition] if plan else choices(partition)
    loose, remove, flow = min(
        (removable(p, weights) for p in partitions), key=lambda found: Budget(found[0]).price(found[1])
    )
    if strict and not remove.any():
        raise UnchangedError(
            f"{graph.name}: no group is zero, so nothing was removed; zero some with `zig prune` first"
        )
    cut = Surgeon(loose, remove, flow, weights).operate()
    with workspace(target) as folder:
        small = save(cut, folder / target.name, external=has_external(graph))
        comparison = None
        if check:
            full = graph.path
            if full is None or plan:
                (folder / "full").mkdir()
                full = save(
                    same_shape(graph, weights if plan else None), folder / "full" / target.name, has_external(graph)
                )
            comparison = _compare(full, small, graph, verify_options)
        sizes = file_bytes(graph), sum(f.stat().st_size for f in folder.iterdir() if f.is_file())
        publish(folder, target)
    return _report(loose, remove, target, cut, sizes, comparison)


def zero(plan: Plan, target: str | os.PathLike[str], source: Any = None) -> None:
    """Write the same-shaped model with the members of the plan's groups zeroed.

    Raises:
        ModelError: the target can't be written.
        PlanError: the plan is of another model than `source`.
    """
    partition = plan.partition if source is None else _match(plan, source)
    graph = partition.graph
    write(same_shape(graph, zeroed(plan, graph.array, 0.0)), Path(target), has_external(graph))


def _match(plan: Plan, source: Any) -> Partition:
    """The plan's partition, if it is of this source."""
    ours = plan.partition
    known = isinstance(source, str | os.PathLike) and ours.graph.path == Path(source)
    if source is ours.graph or known:
        return ours
    if _form(Flow(load(source), ours.flow.operators).run()) != _form(ours.flow):
        raise PlanError(f"the plan is for {ours.graph.name}, which has other groups than the model that was given")
    return ours


def _form(flow: Flow) -> tuple[int, list[tuple[str, tuple[Size, ...]]]]:
    """What two models share if a plan for the one fits the other, however their forks are decided."""
    return flow.count, [(name, tensor.sizes) for name, tensor in flow.weights.items()]


def _compare(full: Path, small: Path, graph: Graph, options: dict[str, Any]) -> Comparison:
    from zig.verify import verify  # noqa: PLC0415 - onnxruntime loads only where it is used

    complaint = _complaint(small)
    if complaint and not _complaint(full):  # a full model that is no valid ONNX itself is for onnxruntime to judge
        raise VerifyError(f"{graph.name}: the compressed model would not be valid ONNX ({complaint}); please report it")
    comparison = verify(full, small, **options)
    if not comparison.equal:
        raise VerifyError(
            f"{graph.name}: the compressed model would not give the same outputs (largest relative difference "
            f"{comparison.max_rel:.2g}); nothing was written. Please report the model"
        )
    return comparison


def _complaint(model: Path) -> str:
    """The first line of what onnx's checker says against a model."""
    try:
        onnx.checker.check_model(str(model))
    except onnx.checker.ValidationError as error:
        return str(error).splitlines()[0]
    return ""


def _report(
    partition: Partition, remove: Mask, target: Path, model: ir.Model, sizes: tuple[int, int],
    comparison: Comparison | None,
) -> Report:  # fmt: skip
    budget = Budget(partition)
    parameters, macs = budget.price(remove)
    before = {
        "parameters": budget.parameters,
        "macs": budget.macs,
        "bytes": sizes[0],
        "nodes": len(partition.graph.nodes),
    }
    constants = sum(node.op_type == "Constant" for node in model.graph)
    after = {"parameters": parameters, "macs": macs, "bytes": sizes[1], "nodes": len(model.graph) - constants}
    widths = [(g.name, g.size, int((~remove[g.groups]).sum())) for g in partition.node_groups]
    return Report(
        partition.graph.name, str(target), before, after, len(partition), int(remove.sum()), widths, comparison
    )
