"""Cutting zero groups out of the graph, exact by construction and checked anyway.

1. The flow of the analysis runs again with the *actual* values: a group can go when at every sum it reaches it adds
   nothing, or a constant that folds into the bias. What becomes dead once those are gone goes too.
2. Every axis of every initializer is cut by its kept indices; attributes and shape operands follow by the dictionary.
3. The result is written beside the target, compared with the full model by onnxruntime, and only then renamed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from zig import arithmetic
from zig.arithmetic import Array
from zig.budget import Budget
from zig.dims import Dim, Size, number, product
from zig.errors import ModelError, PlanError, RuleError, UnchangedError, UsageError, VerifyError
from zig.flow import Axis, Call, Flow, Part, Rest, Tensor, Units, size
from zig.graph import Graph
from zig.partition import FORKS, Labels, Mask, Partition, analyze, settle
from zig.plan import Plan

if TYPE_CHECKING:
    from zig.verify import Comparison

_PROTOBUF_LIMIT = 2**31 - 2**24  # bytes; larger models need external data
_INLINE = 1024  # bytes of a tensor that stays in the file beside external data
Weights = Callable[[str], Array]


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
    check: bool = True, strict: bool = False,
    **verify_options: Any,
) -> Report:  # fmt: skip
    """Remove every group that is zero (and those of `plan`), verify, and write the smaller model.

    Args:
        source: a path, an `onnx.ModelProto`, an `onnx_ir.Model` or a `Graph`.
        target: where the compressed model goes; external data stay external (`<target>.data`).
        plan: groups to zero first; the comparison is then with the zeroed model.
        tolerance: weights up to this magnitude count as zero.
        strict: whether it is an error that nothing can be removed.
        check: whether onnxruntime compares full and compressed model before anything is written.
        verify_options: `samples`, `seed`, `rtol`, `atol`, `data`, `provider` of `zig.verify`.

    Raises:
        ModelError: the model can't be read, or the target can't be written.
        PlanError: the plan is of another model.
        UnchangedError: with `strict`.
        VerifyError: the outputs differ; nothing is written.
    """
    target = Path(target)
    partition = _match(plan, source) if plan else analyze(source)
    graph = partition.graph
    weights = _zeroed(plan, graph.array, tolerance) if plan or tolerance else graph.array
    choices = [partition] if plan else list(_choices(partition))
    loose, remove, flow = min(
        (removable(p, weights) for p in choices), key=lambda found: Budget(found[0]).price(found[1])
    )
    if strict and not remove.any():
        raise UnchangedError(
            f"{graph.name}: no group is zero, so nothing can be removed; zero some with `zig prune` first"
        )
    cut = _Surgeon(loose, remove, flow, weights).operate()
    with _workspace(target) as folder:
        small = save(cut, folder / target.name, external=_has_external(graph))
        comparison = None
        if check:
            full = graph.path
            if full is None or plan:
                (folder / "full").mkdir()
                full = save(
                    _same_shape(graph, weights if plan else None), folder / "full" / target.name, _has_external(graph)
                )
            comparison = _compare(full, small, graph, verify_options)
        sizes = _file_bytes(graph), sum(f.stat().st_size for f in folder.iterdir() if f.is_file())
        _publish(folder, target)
    return _report(loose, remove, target, cut, sizes, comparison)


def zero(plan: Plan, target: str | os.PathLike[str], source: Any = None) -> None:
    """Write the same-shaped model with the members of the plan's groups zeroed.

    Raises:
        ModelError: the target can't be written.
        PlanError: the plan is of another model than `source`.
    """
    partition = plan.partition if source is None else _match(plan, source)
    target = Path(target)
    with _workspace(target) as folder:
        weights = _zeroed(plan, partition.graph.array, 0.0)
        save(_same_shape(partition.graph, weights), folder / target.name, _has_external(partition.graph))
        _publish(folder, target)


def _match(plan: Plan, source: Any) -> Partition:
    """The plan's partition, if it is of this source."""
    same = source is plan.partition.graph or plan.partition.graph.path == (
        Path(source) if isinstance(source, str | os.PathLike) else None
    )
    if not same:
        theirs = analyze(source)
        if len(theirs) != len(plan.partition):
            raise PlanError(f"the plan is for {plan.partition.graph.name}, not for {theirs.graph.name}")
    return plan.partition


def _zeroed(plan: Plan | None, array: Weights, tolerance: float) -> Weights:
    """The weights with a plan's members and all tiny values set to zero."""
    rows: dict[str, list[tuple[int, Mask]]] = {}
    for row in plan.partition.rows if plan else ():
        gone = row.member & np.append(plan.remove, False)[row.groups] if plan else row.member
        if gone.any():
            rows.setdefault(row.tensor, []).append((row.axis, gone))

    def weights(name: str) -> Array:
        value = array(name)
        if tolerance and np.issubdtype(value.dtype, np.floating):
            value = np.where(np.abs(value) <= tolerance, np.zeros((), value.dtype), value)
        if name in rows:
            value = np.array(value)
            for axis, gone in rows[name]:
                value[(slice(None),) * axis + (gone,)] = 0
        return value

    return weights


# -- what can go -----------------------------------------------------------------------------------------------------


def removable(partition: Partition, weights: Weights) -> tuple[Partition, Mask, Flow]:
    """Groups that can go without changing the outputs, judged by the actual values.

    Returns:
        The partition with reasons that lie in values alone lifted, bool[G] over its groups, and the last flow.
    """
    labels = partition.labels
    loose = Partition(
        partition.graph, partition.flow, Labels(labels.component, labels.bare, labels.bare), partition.member
    )
    remove = np.zeros(len(loose), bool)
    resting = Resting(loose, weights)
    while True:
        flow = Flow(partition.graph, partition.flow.operators, resting.without(remove)).run()
        able = np.ones(len(loose), bool)
        for units, _ in flow.leaks:
            zigs = loose.zigs(units)
            able[zigs[zigs >= 0]] = False
        able |= remove
        _keep_one(able, loose.node_group)
        if (able == remove).all():
            return loose, remove, flow
        remove = able


def _choices(partition: Partition) -> Iterator[Partition]:
    """The partition under every choice at its forks that differs: a file does not say by which one it was pruned."""
    seen: list[Partition] = []
    for forks in FORKS:
        labels = settle(partition.flow, forks)
        if not any(np.array_equal(labels.bare > 0, other.labels.bare > 0) for other in seen):
            seen.append(Partition(partition.graph, partition.flow, labels, partition.member))
            yield seen[-1]


def _keep_one(able: Mask, family: Any) -> None:
    """An axis can't become empty: where a whole node group could go, its first group stays."""
    if len(able):
        kept = np.bincount(family[~able], minlength=int(family.max()) + 1)
        first = np.unique(family, return_index=True)[1]
        able[first[kept == 0]] = False


class Resting:
    """The constant of each slice of each initializer, over what is still kept of its other axes."""

    def __init__(self, partition: Partition, weights: Weights):
        """Remember which axes can shrink; patterns of zeros are read once and kept small."""
        self.partition, self.weights = partition, weights
        self.kept = np.ones(len(partition) + 1, bool)
        self._patterns: dict[str, Array] = {}

    def without(self, remove: Mask) -> Resting:
        """The same, with more groups gone."""
        self.kept = np.append(~remove, True)
        return self

    def __call__(self, name: str, axis: int) -> Rest:
        """float64[n]: the value of each slice along an axis, nan where it is not constant."""
        pattern = self._pattern(name)
        others = tuple(i for i in range(pattern.ndim) if i != axis)
        if product(pattern.shape[i] for i in others) == 1 and pattern.dtype != bool:
            return pattern.reshape(-1)
        for i in others:
            pattern = np.compress(self._kept(name, i, pattern.shape[i]), pattern, axis=i)
        return np.where(pattern.any(axis=others), np.nan, 0.0)

    def is_frozen(self, units: Units) -> bool:
        """Whether none of these units can go."""
        return bool((self.partition.zigs(units) < 0).all())

    def _kept(self, name: str, axis: int, length: int) -> Mask:
        parts = self.partition.flow.weights[name].axes[axis]
        whole = len(parts) == 1 and parts[0].size == length
        return self.kept[self.partition.zigs(parts[0].units)] if whole else np.ones(length, bool)

    def _pattern(self, name: str) -> Array:
        """Where a tensor is not zero, with axes that can't shrink reduced to one; its values if it is one long axis."""
        if name not in self._patterns:
            value = self.weights(name)
            if max(value.shape, default=1) == value.size:
                self._patterns[name] = value.astype(np.float64)
            else:
                axes = self.partition.flow.weights[name].axes
                rigid = tuple(
                    i
                    for i, parts in enumerate(axes)
                    if not any((self.partition.zigs(p.units) >= 0).any() for p in parts)
                )
                pattern = value != 0
                self._patterns[name] = pattern.any(axis=rigid, keepdims=True) if rigid else pattern
        return self._patterns[name]


# -- the cut ---------------------------------------------------------------------------------------------------------


class _Surgeon:
    """Carries out one plan on a fresh copy of the model."""

    def __init__(self, partition: Partition, remove: Mask, flow: Flow, weights: Weights):
        self.partition, self.flow, self.weights = partition, flow, weights
        self.graph = partition.graph
        self.kept = np.append(~remove, True)
        self.model = self.graph.editable()
        self.nodes = {out.name: node for node in self.model.graph for out in node.outputs}
        self.values: dict[str, Array] = {}

    def operate(self) -> ir.Model:
        """Cut the weights, fold constants, and let shapes, attributes and operands follow."""
        touched = [call for call in self.flow.calls if any(self._touches(t) for t in (*call.inputs, *call.outputs))]
        self.values = arithmetic.evaluate(self.graph, self._new_shapes(touched))
        for call in touched:
            cut = Cut(self, call)
            operator = self.flow.operators[call.node.op]
            for attribute, letter in operator.sizes.items():
                if call.letters.get(letter):
                    cut.set_attribute(attribute, self.size(call.letters[letter]))
            if operator.repair:
                operator.repair(cut)
        self._freeze()
        for call in {id(c.call): c.call for c in self.flow.contractions if self._leaves_constant(c.part)}.values():
            self._fold(call)
        self._cut_weights()
        self._write_shapes(touched)
        RemoveUnusedNodesPass()(self.model)
        return self.model

    # sizes

    def keep(self, axis: Axis) -> Mask:
        """bool[n]: which indices of an axis stay."""
        mask = np.ones(1, bool)
        for part in axis:
            own = self.kept[self.partition.zigs(part.units)] if part.live else np.ones(number(part.size), bool)
            mask = (mask[:, None] & own[None, :]).reshape(-1)
        return mask

    def size(self, axis: Axis) -> Size:
        """The size of an axis after the cut."""
        return product(int(self.keep((part,)).sum()) if part.live else part.size for part in axis)

    def touches(self, axis: Axis) -> bool:
        """Whether anything along an axis goes."""
        return any(part.live and not self.keep((part,)).all() for part in axis)

    def _touches(self, tensor: Tensor | None) -> bool:
        return tensor is not None and any(self.touches(axis) for axis in tensor.axes)

    def sizes(self, tensor: Tensor) -> tuple[Size, ...]:
        """The sizes of a tensor after the cut."""
        return tuple(self.size(axis) for axis in tensor.axes)

    def _new_shapes(self, touched: list[Call]) -> arithmetic.Shapes:
        shapes = dict(self.graph.shapes)
        for call in touched:
            for names, tensors in ((call.node.inputs, call.inputs), (call.node.outputs, call.outputs)):
                shapes.update({n: self.sizes(t) for n, t in zip(names, tensors, strict=False) if n and t is not None})
        return shapes

    def _write_shapes(self, touched: list[Call]) -> None:
        for call in touched:
            for name, tensor in zip(call.node.outputs, call.outputs, strict=False):
                if name and tensor is not None and self._touches(tensor) and name in self.nodes:
                    value = next(out for out in self.nodes[name].outputs if out.name == name)
                    if value.shape is not None and value.type is not None:
                        value.shape = ir.Shape([None if isinstance(n, Dim) else n for n in self.sizes(tensor)])

    # operands

    def _freeze(self) -> None:
        """A size that is used as a number (the root of a head's size) must stay the number that it was."""
        for call in self.flow.calls:
            operator = self.flow.operators.get(call.node.op)
            parameters = (operator.data if operator and operator.repair else 0) or len(call.node.inputs)
            for i, name in enumerate(call.node.inputs[:parameters]):
                old, new = self.graph.values.get(name), self.values.get(name)
                if old is None or name in self.graph.initializers or (new is not None and np.array_equal(old, new)):
                    continue
                if old.dtype == object:
                    raise RuleError(
                        f"{call.node} computes with a size that the cut changes; keep its weights with --keep"
                    )
                Cut(self, call).set_operand(i, old)

    def _cut_weights(self) -> None:
        for name, tensor in self.flow.weights.items():
            masks = [self.keep(axis) for axis in tensor.axes]
            value = self.weights(name)
            for axis, mask in enumerate(masks):
                value = value if mask.all() else np.compress(mask, value, axis=axis)
            if value is not self.graph.array(name):
                _replace(self.model, self.nodes, self.graph, name, value)

    def add_initializer(self, name: str, value: Array) -> ir.Value:
        """A new initializer under a name that is free."""
        taken = self.model.graph.initializers.keys() | self.nodes.keys()
        free = next(n for i in range(len(taken) + 1) if (n := name if not i else f"{name}_{i}") not in taken)
        tensor = ir.tensor(value, name=free)
        fresh = ir.Value(name=free, shape=ir.Shape(value.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.model.graph.register_initializer(fresh)
        return fresh

    # constants

    def _leaves_constant(self, part: Part) -> bool:
        gone = ~self.keep((part,))
        return bool((gone & np.isfinite(part.rest) & (part.rest != 0)).any())

    def _fold(self, call: Call) -> None:
        """Add what the removed constant inputs contributed to the bias: W x for x at rest."""
        x, weight = call.tensor(0), self.weights(call.node.inputs[1]).astype(np.float64)
        convolves = call.node.op == "Conv"
        axis = x.axes[1 if convolves else (0 if call.attribute("transA", 0) else -1)]
        at_rest = np.where(self.keep(axis), 0.0, np.nan_to_num(_flat_rest(axis)))
        if convolves:
            table = weight.reshape(*weight.shape[:2], -1).sum(axis=2)
            groups = call.attribute("group", 1)
            inputs = at_rest.reshape(groups, 1, -1).repeat(len(table) // groups, axis=1).reshape(table.shape)
            added = (table * inputs).sum(axis=1)
        else:
            added = weight @ at_rest if call.attribute("transB", 0) else at_rest @ weight
        if call.node.op == "Gemm":
            added *= call.attribute("alpha", 1.0)
        out = call.outputs[0]
        assert out is not None
        self._add_to_bias(
            call, added[..., self.keep(out.axes[1 if convolves else -1])], self.keep(out.axes[1 if convolves else -1])
        )

    def _add_to_bias(self, call: Call, added: Array, keep: Mask) -> None:
        cut, dtype = Cut(self, call), self.graph.array(call.node.inputs[1]).dtype
        if call.node.op == "MatMul":
            cut.append_add(added.astype(dtype))
            return
        if call.has(2):
            bias = np.broadcast_to(self.weights(call.node.inputs[2]).astype(np.float64), (*added.shape[:-1], len(keep)))
            added = added + call.attribute("beta", 1.0) * bias[..., keep]
            cut.set_attribute("beta", 1.0) if call.node.op == "Gemm" else None
        cut.set_operand(2, added.astype(dtype))


class Cut:
    """What an operator's row may look at and adjust at one node."""

    def __init__(self, surgeon: _Surgeon, call: Call):
        """One call under one surgeon."""
        self.surgeon, self.call = surgeon, call
        self.keep, self.size, self.touches = surgeon.keep, surgeon.size, surgeon.touches
        self.node = surgeon.nodes[next(name for name in call.node.outputs if name)]

    def sizes(self, tensor: Tensor | None) -> tuple[Size, ...]:
        """The sizes of a tensor after the cut."""
        assert tensor is not None
        return self.surgeon.sizes(tensor)

    def operand(self, index: int) -> Array | None:
        """What an operand will hold after the cut, where that is known."""
        name = self.call.node.inputs[index] if self.call.has(index) else ""
        return self.surgeon.values.get(
            name, self.surgeon.graph.array(name) if name in self.surgeon.graph.initializers else None
        )

    def set_attribute(self, name: str, value: Any) -> None:
        """Write an attribute; None removes it."""
        self.node.attributes.pop(name, None)
        if value is not None:
            self.node.attributes.add(ir.convenience.convert_attribute(name, value))

    def set_operand(self, index: int, value: Array) -> None:
        """Give the node its own constant operand."""
        self._connect(
            index, self.surgeon.add_initializer(f"{self.call.node.outputs[0]}.operand{index}", np.asarray(value))
        )

    def set_sizes(self, index: int, entries: list[Any], want: tuple[Any, ...]) -> None:
        """Write a list of sizes; an entry None is taken from what the model computes at run time.

        Raises:
            RuleError: an entry that must be computed would come out wrong.
        """
        if None not in entries:
            self.set_operand(index, np.array([int(e) for e in entries], np.int64))
            return
        given = self.operand(index)
        wrong = [i for i, e in enumerate(entries) if e is None and (given is None or given.tolist()[i] != want[i])]
        if wrong:
            raise RuleError(
                f"{self.call.node} computes size {wrong[0]} of operand {index} in a way that the cut would change"
            )
        old = self.node.inputs[index]
        name = f"{self.call.node.outputs[0]}.operand{index}"
        pieces = []
        for i, entry in enumerate(entries):
            part = self.surgeon.add_initializer(f"{name}.part{i}", np.array([i if entry is None else entry], np.int64))
            if entry is None:
                gather = ir.node("Gather", [old, part], attributes={"axis": 0}, name=f"{name}.part{i}.gather")
                self.surgeon.model.graph.insert_before(self.node, gather)
                part = gather.outputs[0]
                part.name = f"{name}.part{i}.value"
            pieces.append(part)
        concat = ir.node("Concat", pieces, attributes={"axis": 0}, name=f"{name}.concat")
        concat.outputs[0].name = f"{name}.sizes"
        self.surgeon.model.graph.insert_before(self.node, concat)
        self._connect(index, concat.outputs[0])

    def gather(self, axis: int, indices: Array) -> None:
        """Pick the wanted indices of the data operand first; what is left is one run from the first to the last."""
        name = f"{self.call.node.outputs[0]}.gather{axis}"
        picked = self.surgeon.add_initializer(f"{name}.indices", np.asarray(indices, np.int64))
        node = ir.node("Gather", [self.node.inputs[0], picked], attributes={"axis": axis}, name=name)
        node.outputs[0].name = f"{name}.value"
        self.surgeon.model.graph.insert_before(self.node, node)
        self._connect(0, node.outputs[0])

    def append_add(self, value: Array) -> None:
        """Add a constant to the node's result, under the result's own name."""
        result = self.node.outputs[0]
        name = result.name
        result.name = f"{name}.before_bias"
        bias = self.surgeon.add_initializer(f"{name}.bias", value)
        add = ir.node("Add", [result, bias], name=f"{name}.add_bias")
        fresh = add.outputs[0]
        fresh.name, fresh.type, fresh.shape = name, result.type, result.shape
        ir.convenience.replace_all_uses_with(result, fresh, replace_graph_outputs=True)
        add.replace_input_with(0, result)
        self.surgeon.model.graph.insert_after(self.node, add)
        self.surgeon.nodes[str(name)] = add

    def _connect(self, index: int, value: ir.Value) -> None:
        if index >= len(self.node.inputs):
            self.node.resize_inputs(index + 1)
        self.node.replace_input_with(index, value)


def _flat_rest(axis: Axis) -> Rest:
    """The rest value of each index of an axis: that of whichever live part it is removed with."""
    rest = np.full(1, np.nan)
    for part in axis:
        own = part.rest if part.live else np.full(number(part.size), np.nan)
        rest = np.where(np.isnan(rest[:, None]), own[None, :], rest[:, None]).reshape(-1)
    return rest


# -- files -----------------------------------------------------------------------------------------------------------


def _same_shape(graph: Graph, weights: Weights | None) -> ir.Model:
    """The whole model, with other weights where they are given."""
    model = graph.editable()
    if weights is not None:
        nodes = {out.name: node for node in model.graph for out in node.outputs}
        for name in graph.initializers:
            value = weights(name)
            if value is not graph.array(name):
                _replace(model, nodes, graph, name, value)
    return model


def _replace(model: ir.Model, nodes: dict[str | None, ir.Node], graph: Graph, name: str, value: Array) -> None:
    """Give an initializer, or the Constant node that stands for one, another value."""
    dtype = ir.DataType(graph.initializers[name].data_type)
    tensor = ir.Tensor(np.ascontiguousarray(value), dtype=dtype, name=name)
    initializer = model.graph.initializers.get(name)
    if initializer is not None:
        initializer.const_value = tensor
        initializer.shape = ir.Shape(value.shape)
    elif name in nodes:
        nodes[name].attributes.clear()
        nodes[name].attributes.add(ir.AttrTensor("value", tensor))


def _has_external(graph: Graph) -> bool:
    return any(t.data_location == onnx.TensorProto.EXTERNAL for t in graph.initializers.values())


def save(model: ir.Model, target: Path, external: bool) -> Path:
    """Save a model; weights go to `<target>.data` where they were external or the file would pass protobuf's limit."""
    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    if external or weights > _PROTOBUF_LIMIT:
        ir.save(model, target, external_data=f"{target.name}.data", size_threshold_bytes=_INLINE)
    else:
        ir.save(model, target)
    return target


@contextmanager
def _workspace(target: Path) -> Iterator[Path]:
    """A folder beside the target for what is not finished; it is gone afterwards, whatever happens."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UsageError(f"{target}: can't be written ({error.strerror})") from error
    try:
        if target.is_dir():
            raise UsageError(f"{target}: is a folder; name a file to write")
        yield folder
    except OSError as error:
        raise UsageError(f"{target}: can't be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, target: Path) -> None:
    """Move the finished files to their place, data before the model that refers to them."""
    for file in sorted((f for f in folder.iterdir() if f.is_file()), key=lambda f: f.name == target.name):
        os.replace(file, target.parent / file.name)


def _file_bytes(graph: Graph) -> int:
    if graph.path is None:
        return int(graph.proto.ByteSize())
    entries = [{e.key: e.value for e in t.external_data} for t in graph.initializers.values() if t.external_data]
    files = {graph.path, *(graph.folder / e["location"] for e in entries)}
    return sum(file.stat().st_size for file in files)


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


__all__ = ["Cut", "ModelError", "Report", "compress", "removable", "save", "size", "zero"]
