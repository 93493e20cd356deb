"""Cutting zero groups out of a model, exact by construction and checked anyway.

1. `zig.groups.removable` says which groups can go, by the actual values.
2. `zig.surgery.surgeon` cuts every axis of every initializer; attributes and shape operands follow by the dictionary.
3. The result is written beside the target, compared with the full model by onnxruntime, and only then renamed.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from zig.errors import ModelError, PlanError, UnchangedError, VerifyError
from zig.flow.flow import Flow
from zig.groups.budget import Budget
from zig.groups.partition import Mask, Partition, analyze
from zig.groups.removable import choices, removable
from zig.groups.weights import Zeroed
from zig.model.bridge import to_graph
from zig.model.checks import blaming, complaint
from zig.model.dims import Size
from zig.model.graph import Graph, load
from zig.model.reading import check_target
from zig.plan import Plan
from zig.surgery.datafiles import publish
from zig.surgery.save import drafted, file_bytes, has_external, same_shape, save, write
from zig.surgery.surgeon import Surgeon

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from zig.proof.verify import Comparison


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
    unverified: str = ""  # why there was none, though it was asked for

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        plain = asdict(self)
        plain["comparison"] = self.comparison.to_dict() if self.comparison else None
        return plain


def compress(
    source: Any, target: str | os.PathLike[str], plan: Plan | None = None, *, tolerance: float = 0.0,
    check: bool = True, strict: bool = False, rewrite: bool = False, freeze_inputs: bool = False,
    **verify_options: Any,
) -> Report:  # fmt: skip
    """Remove every group that is zero (and those of `plan`), verify, and write the smaller model.

    Args:
        source: a path, an `onnx.ModelProto`, an `onnx_ir.Model` or a `Graph`.
        target: where the compressed model goes; external data stay external (`<target>.<digest>.data`).
        plan: groups to zero first; the comparison is then with the zeroed model.
        tolerance: weights up to this magnitude count as zero.
        strict: whether it is an error that nothing can be removed.
        rewrite: whether nodes may be written anew, see `zig.analyze`; a plan brings its own answer.
        freeze_inputs: whether nobody overrides initializers that are inputs, see `zig.analyze`; a plan brings its own
            answer here too.
        check: whether onnxruntime compares full and compressed model before anything is written; of models for which
            there is not enough memory here the report says so instead.
        verify_options: `samples`, `seed`, `rtol`, `atol`, `data`, `provider`, `alone` of `zig.verify`.

    Raises:
        ModelError: the model can't be read.
        UsageError: the target can't be written.
        PlanError: the plan is of another model.
        UnchangedError: with `strict`.
        UsageError: the target's name is not that of an ONNX file.
        VerifyError: the outputs differ; nothing is written.
    """
    check_target(target)
    partition = _match(plan, source) if plan else analyze(source, rewrite=rewrite, freeze_inputs=freeze_inputs)
    graph, target = partition.graph, Path(target)
    unverified = _obstacle(graph, verify_options) if check else ""
    with blaming(graph.name, graph.proto):
        loose, remove, cut = _smaller(partition, plan, tolerance, strict)
        options = verify_options if check and not unverified else None
        comparison, sizes = _write(cut, graph, target, plan, tolerance, options)
    report = _report(loose, remove, target, cut, sizes, comparison)
    report.unverified = unverified
    return report


def _smaller(
    partition: Partition, plan: Plan | None, tolerance: float, strict: bool
) -> tuple[Partition, Mask, ir.Model]:
    """The partition by which most goes, what goes, and the model without it."""
    graph = partition.graph
    weights = _zeroed(graph, plan, tolerance)
    partitions = [partition] if plan else choices(partition)
    loose, remove, flow = min(
        (removable(p, weights) for p in partitions), key=lambda found: Budget(found[0]).price(found[1])
    )
    if strict and not remove.any():
        raise UnchangedError(
            f"{graph.name}: no group is zero, so nothing was removed; zero some with `zig prune` first"
        )
    return loose, remove, Surgeon(loose, remove, flow, weights).operate()


def _write(
    cut: ir.Model, graph: Graph, target: Path, plan: Plan | None, tolerance: float, options: dict[str, Any] | None
) -> tuple[Comparison | None, tuple[int, int]]:
    """Write the smaller model once it has been compared with the full one; the sizes of both files come back too."""
    with drafted(target) as draft:
        small = save(cut, draft.file, has_external(graph), draft.target.parent)
        comparison = None
        if options is not None:
            full = graph.path
            if full is None or plan:
                folder = draft.folder / "full"
                folder.mkdir()
                wanted = _zeroed(graph, plan, tolerance if plan else 0.0)
                full = save(same_shape(graph, wanted), folder / target.name, has_external(graph))
            comparison = _compare(full, small, graph, options)
        sizes = file_bytes(graph), sum(f.stat().st_size for f in draft.file.parent.iterdir())
        publish(draft)
    return comparison, sizes


def zero(plan: Plan, target: str | os.PathLike[str], source: Any = None) -> None:
    """Write the same-shaped model with the members of the plan's groups zeroed.

    Raises:
        ModelError: the target can't be written.
        PlanError: the plan is of another model than `source`.
        UsageError: the target's name is not that of an ONNX file.
    """
    check_target(target)
    partition = plan.partition if source is None else _match(plan, source)
    graph = partition.graph
    with blaming(graph.name, graph.proto):
        write(same_shape(graph, _zeroed(graph, plan)), Path(target), has_external(graph))


def to_graphsurgeon(source: Any) -> gs.Graph:
    """A model as an `onnx_graphsurgeon.Graph`, to operate on by hand; `analyze` and `compress` take it back.

    Shapes, metadata and doc strings are kept both ways, and weights stay unread until their `values` are asked for.

    Args:
        source: whatever `zig.load` takes.

    Raises:
        ModelError: the model can't be read.
        UsageError: onnx-graphsurgeon is not installed.
    """
    graph = load(source)
    return to_graph(graph.proto, graph.folder)


def _zeroed(graph: Graph, plan: Plan | None, tolerance: float = 0.0) -> Zeroed:
    """The weights under a plan, if there is one."""
    return Zeroed(graph, plan.partition if plan else None, plan.remove if plan else None, tolerance)


def _match(plan: Plan, source: Any) -> Partition:
    """The plan's partition, if it is of this source."""
    ours = plan.partition
    known = isinstance(source, str | os.PathLike) and ours.graph.path == Path(source)
    if known or (isinstance(source, Graph) and source.proto is ours.graph.proto):
        return ours
    graph = load(source, freeze_inputs=bool(ours.graph.frozen))
    if _form(Flow(graph, ours.flow.operators).run()) != _form(ours.flow):
        raise PlanError(f"the plan is for {ours.graph.name}, which has other groups than the model that was given")
    return ours


def _form(flow: Flow) -> tuple[int, list[tuple[str, tuple[Size, ...]]]]:
    """What two models share if a plan for the one fits the other, however their forks are decided."""
    return flow.count, [(name, tensor.sizes) for name, tensor in flow.weights.items()]


def _obstacle(graph: Graph, options: dict[str, Any]) -> str:
    """Why the model can't be run here beside one that is hardly smaller; empty where it can."""
    from zig.proof.verify import obstacle  # noqa: PLC0415 - as below

    return obstacle(graph.path, graph.path, provider=options.get("provider", "cpu")) if graph.path else ""


def _compare(full: Path, small: Path, graph: Graph, options: dict[str, Any]) -> Comparison:
    from zig.proof.verify import verify  # noqa: PLC0415 - onnxruntime loads only where it is used

    said = _complaint(small)
    if said and not _complaint(full) and not complaint(graph.proto):  # else it is for onnxruntime to judge
        raise VerifyError(f"{graph.name}: the compressed model would not be valid ONNX ({said}); please report it")
    comparison = verify(full, small, **options)
    if not comparison.equal:
        why = next(iter(comparison.differences), f"largest relative difference {comparison.max_rel:.2g}")
        what = f"the compressed model would not give the same outputs ({why}), so nothing was written"
        said = complaint(graph.proto, shapeless=True)
        if said and not said.startswith("No Op registered"):  # which onnxruntime's optimizer makes
            raise ModelError(f"{graph.name}: {what}; the model is no valid ONNX ({said}), so export it again")
        if comparison.nothing:
            raise VerifyError(f"{graph.name}: {comparison.nothing}; nothing was written, give real inputs by --data")
        raise VerifyError(
            f"{graph.name}: {what}; please report the model, and prune it without what is before that (--keep)"
        )
    return comparison


def _complaint(model: Path) -> str:
    """The first line of what onnx's checker says against a model."""
    try:
        onnx.checker.check_model(str(model))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        return next(iter(str(error).splitlines()), type(error).__name__)
    return ""


def _report(
    partition: Partition, remove: Mask, target: Path, model: ir.Model, sizes: tuple[int, int],
    comparison: Comparison | None,
) -> Report:  # fmt: skip
    budget = Budget(partition)
    parameters, macs = budget.price(remove)
    copies = {name for name in partition.graph.readings if partition.graph.is_float(name)}
    parameters += sum(v.const_value.size for n, v in model.graph.initializers.items() if n in copies and v.const_value)
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
