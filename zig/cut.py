"""Carries out a plan: axes are cut, constants fold into biases, and shapes, attributes and operands follow.

`Surgeon` walks the calls that the plan touches; `Cut` is what an operator's row in the dictionary gets, to adjust its
node.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from zig import arithmetic
from zig.arithmetic import Array
from zig.dims import Dim, Size, number, product
from zig.errors import RuleError
from zig.files import Streamed, initializers, makers, replace
from zig.flow import Flow
from zig.graph import unlist
from zig.partition import Mask, Partition
from zig.removal import WHOLE, Zeroed
from zig.shared import rejoin
from zig.units import Axis, Call, Part, Rest, Tensor, Units


class Surgeon:
    """Carries out one plan on a fresh copy of the model."""

    def __init__(self, partition: Partition, remove: Mask, flow: Flow, weights: Zeroed):
        """Take a fresh copy of the partition's model; `flow` is the run with the actual values."""
        self.partition, self.flow, self.weights = partition, flow, weights
        self.graph = partition.graph
        self.kept = np.append(~remove, True)
        self.model = self.graph.editable()
        self.nodes = makers(self.model)
        self.stored = initializers(self.model)
        self.values: dict[str, Array] = {}
        self.inputs = {value.name: value for graph in self.model.graphs() for value in graph.inputs}
        self.taken = self.stored.keys() | self.nodes.keys() | self.inputs.keys()

    def operate(self) -> ir.Model:
        """Cut the weights, fold constants, and let shapes, attributes and operands follow."""
        touched = [call for call in self.flow.calls if any(self._touches(t) for t in (*call.inputs, *call.outputs))]
        self.values = arithmetic.evaluate(self.graph, self._new_shapes(touched))
        stored = {id(call): call for call, axis in self.flow.stored if self.touches(axis)}
        self._store(stored.values())
        for call, i in self.flow.lent:
            if not call.node.is_entry and self._touches(call.inputs[i]):
                Cut(self, call).borrow(i)
        known = {id(call) for call in touched}
        misled = [call for call in self.flow.calls if id(call) not in known and self._is_misled(call)]
        for call in (call for call in [*touched, *misled] if id(call) not in stored):
            operator = self.flow.operators[call.node.op]
            if not operator.sizes and not operator.repair:
                continue
            cut = Cut(self, call)
            for attribute, letter in operator.sizes.items():
                if call.letters.get(letter) and isinstance(self.size(call.letters[letter]), int):
                    cut.set_attribute(attribute, self.size(call.letters[letter]))
            if operator.repair:
                operator.repair(cut)
        self._freeze({id(call) for call in touched})
        self._freeze_outputs()
        for call in {id(c.call): c.call for c in self.flow.contractions if self._leaves_constant(c.part)}.values():
            fold = self.flow.operators[call.node.op].fold
            if fold and fold(call):  # elsewhere only zeros read the constant
                with np.errstate(all="ignore"):  # the comparison speaks of infinite weights
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
            own = self.kept_of(part.units) if part.live else np.ones(number(part.size), bool)
            mask = (mask[:, None] & own[None, :]).reshape(-1)
        return mask

    def kept_of(self, units: Units) -> Mask:
        """bool[n]: which of these units stay."""
        first, *others = (self.kept[own] for own in self.partition.owners(units))
        return np.logical_and.reduce([first, *others]) if others else first

    def size(self, axis: Axis) -> Size:
        """The size of an axis after the cut."""
        return product(int(self.keep((part,)).sum()) if part.live else part.size for part in axis)

    def touches(self, axis: Axis) -> bool:
        """Whether anything along an axis goes."""
        return any(part.live and not self.keep((part,)).all() for part in axis)

    def _is_misled(self, call: Call) -> bool:
        """Whether a node that is cut nowhere itself goes by sizes of something that is."""
        operator = self.flow.operators.get(call.node.op)
        for name in (call.node.inputs[i] for i in (operator.repairs if operator else ()) if call.has(i)):
            old, new = self.graph.values.get(name), self.values.get(name)
            if old is not None and new is not None and not np.array_equal(old, new):
                return True
        return False

    def _touches(self, tensor: Tensor | None) -> bool:
        return tensor is not None and any(self.touches(axis) for axis in tensor.axes)

    def sizes(self, tensor: Tensor) -> tuple[Size, ...]:
        """The sizes of a tensor after the cut."""
        return tuple(self.size(axis) for axis in tensor.axes)

    def _new_shapes(self, touched: list[Call]) -> arithmetic.Shapes:
        shapes, lent = dict(self.graph.shapes), {call.node.inputs[i] for call, i in self.flow.lent}
        for call in touched:
            for names, tensors in ((call.node.inputs, call.inputs), (call.node.outputs, call.outputs)):
                both = zip(names, tensors, strict=False)
                shapes.update({n: self.sizes(t) for n, t in both if n and t is not None and n not in lent})
        return shapes

    def _write_shapes(self, touched: list[Call]) -> None:
        for call in touched:
            for name, tensor in zip(call.node.outputs, call.outputs, strict=False):
                if (
                    name
                    and tensor is not None
                    and self._touches(tensor)
                    and (name in self.nodes or name in self.inputs)
                ):
                    value = self.inputs[name] if name in self.inputs else self._result(name)
                    if value.shape is not None and value.type is not None:
                        value.shape = ir.Shape([None if isinstance(n, Dim) else n for n in self.sizes(tensor)])

    # operands

    def _result(self, name: str) -> ir.Value:
        """The result of this name, of the node that has it now."""
        return next(out for out in self.nodes[name].outputs if out.name == name)

    def value(self, name: str) -> ir.Value | None:
        """The tensor of this name as it is made now; None for an operand that is left out."""
        if not name:
            return None
        return self.inputs.get(name) or self.stored.get(name) or self._result(name)

    def stand_in(self, result: ir.Value, node: ir.Node) -> None:
        """Let a node's only result stand for another one wherever that is read, under its name."""
        fresh, name = node.outputs[0], str(result.name)
        result.name = self.free_name(f"{name}.before")
        fresh.name, fresh.type, fresh.shape = name, result.type, result.shape
        ir.convenience.replace_all_uses_with(result, fresh, replace_graph_outputs=True)
        self.nodes[name] = node

    def _freeze(self, touched: set[int]) -> None:
        """A size that is used as a number (the root of a head's size) must stay the number that it was.

        What sets the sizes of a result is left to the rows that look after it, where the cut touches their node.
        """
        for call in self.flow.calls:
            operator = self.flow.operators.get(call.node.op)
            repaired = operator.repairs if operator and id(call) in touched else ()
            for i in range(len(call.node.inputs)):
                if i not in repaired and not call.node.is_entry:  # that reads what its node reads
                    self.freeze(call, i)

    def freeze(self, call: Call, index: int) -> None:
        """Give a node the number that an operand was, if the cut changes it.

        Raises:
            RuleError: a part of it is known only when the model runs, and changes too.
        """
        name = call.node.inputs[index]
        if self._moves(name):
            if index >= len(call.node.proto.input):
                raise RuleError(f"{call.node} computes with a size that the cut changes; keep its weights with --keep")
            Cut(self, call).connect(index, self._frozen(name, self.nodes[str(next(filter(None, call.node.outputs)))]))

    def _freeze_outputs(self) -> None:
        """A size that is an output of the model is what it was."""
        for place, result in enumerate(self.model.graph.outputs):
            name = str(result.name)
            if self._moves(name):
                maker = self.nodes[name]
                same = ir.node("Identity", [self._frozen(name, None)], name=name)
                graph_of(maker).append(same)
                fresh, result.name = same.outputs[0], self.free_name(f"{name}.before")
                fresh.name, fresh.type, fresh.shape = name, result.type, result.shape
                self.model.graph.outputs[place], self.nodes[name] = fresh, same

    def _moves(self, name: str) -> bool:
        """Whether the cut changes a tensor that is known before the model runs."""
        old, new = self.graph.values.get(name), self.values.get(name)
        unlike = old is not None and (new is None or not np.array_equal(old, new))
        return unlike and name not in self.graph.initializers

    def _frozen(self, name: str, reader: ir.Node | None) -> ir.Value:
        """What a known tensor was: a constant, but for what only the run tells, which is taken from what it is now."""
        old, new, kind = self.graph.values[name], self.values.get(name), self.graph.types.get(name)
        dtype = ir.DataType(kind).numpy() if kind else np.int64 if old.dtype == object else old.dtype
        open_ = np.array([isinstance(n, Dim) for n in old.reshape(-1).tolist()], bool).reshape(old.shape)
        was = self.add_initializer(f"{name}.was", np.where(open_, 0, old).astype(dtype))
        if not open_.any():
            return was
        if new is None or new.shape != old.shape or (new[open_] != old[open_]).any():
            raise RuleError(f"'{name}' is a size that the cut changes in a way that only the run tells; use --keep")
        runs = self.add_initializer(f"{name}.runs", open_)
        node = ir.node("Where", [runs, self._result(name), was], name=self.free_name(f"{name}.frozen"))
        node.outputs[0].name = node.name
        graph_of(self.nodes[name]).append(node) if reader is None else graph_of(reader).insert_before(reader, node)
        return node.outputs[0]

    def cut_weight(self, name: str, rows: slice = WHOLE) -> Array:
        """What is left of an initializer, or of some of its rows."""
        return self._cut(self.weights(name, rows), self.flow.weights[name], rows)

    def _cut(self, value: Array, tensor: Tensor | None, rows: slice = WHOLE) -> Array:
        for axis, mask in enumerate(map(self.keep, tensor.axes if tensor else ())):
            chosen = mask[rows] if axis == 0 else mask
            value = value if chosen.all() else np.compress(chosen, value, axis=axis)
        return value

    def _cut_weights(self) -> None:
        changed = {name for name, t in self.flow.weights.items() if self._touches(t) or self.weights.changes(name)}
        made = self.graph.copies.keys() - self.graph.readings.keys()  # by nodes, of what is cut
        changed |= {copy for copy in made if self.graph.copies[copy] in changed}
        for name, tensor in self.flow.weights.items():
            if name in changed:
                dims = [int(self.keep(axis).sum()) for axis in tensor.axes]
                cut = Streamed(self.graph, name, dims, self.cut_weight)
                replace(self.stored.get(name), self.nodes.get(name), cut)
        rejoin(self.model, self.graph, changed)

    def free_name(self, name: str) -> str:
        """The name, with a number where it is taken."""
        free = next(n for i in range(len(self.taken) + 1) if (n := f"{name}_{i}" if i else name) not in self.taken)
        self.taken.add(free)
        return free

    def add_initializer(self, name: str, value: Array) -> ir.Value:
        """A new initializer under a name that is free."""
        free = self.free_name(name)
        tensor = ir.tensor(value, name=free)
        fresh = ir.Value(name=free, shape=ir.Shape(value.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.model.graph.register_initializer(fresh)
        if self.model.ir_version < 4:  # before, every initializer had to be an input as well; now it would be a default
            unlist(self.model, self.stored)
            self.model.ir_version = 4
        return fresh

    # constants

    def _store(self, calls: Iterable[Call]) -> None:
        """Keep what calls on weights alone compute over axes that are cut: the value they had with the whole axis."""
        results = [pair for call in calls for pair in zip(call.node.outputs, call.outputs, strict=False)]
        wanted = {name: tensor for name, tensor in results if name}
        for name, whole in self.graph.compute(list(wanted), self.weights).items() if wanted else ():
            value = self.add_initializer(f"{name}.stored", self._cut(whole, wanted[name]))
            same = ir.node("Identity", [value], name=name)  # an output of the model may be no initializer
            graph_of(self.nodes[name]).insert_after(self.nodes[name], same)
            self.stand_in(self._result(name), same)

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
            added = added[..., None, :] if added.ndim > 1 else added  # batches of weights: one row for all rows
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
            cut.append("Add", added.astype(dtype))
            return
        if call.has(2):
            bias = self.weights(call.node.inputs[2]).astype(np.float64) + np.zeros(len(keep))
            added = added + call.attribute("beta", 1.0) * bias[..., keep]
        if call.node.op == "Gemm" and call.attribute("beta", 1.0) != 1:  # it is in the sum already, or had no bias
            cut.set_attribute("beta", 1.0)
        cut.set_operand(2, added.astype(dtype))


class Cut:
    """What an operator's row may look at and adjust at one node."""

    def __init__(self, surgeon: Surgeon, call: Call):
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
        known = self.surgeon.values.get(name)
        return known if known is not None or name in self.surgeon.graph.values else self.surgeon.graph.constant(name)

    def set_attribute(self, name: str, value: Any) -> None:
        """Write an attribute; None removes it."""
        self.node.attributes.pop(name, None)
        if value is not None:
            self.node.attributes.add(ir.convenience.convert_attribute(name, value))

    def set_operand(self, index: int, value: Array) -> None:
        """Give the node its own constant operand."""
        self.connect(
            index, self.surgeon.add_initializer(f"{self.call.node.outputs[0]}.operand{index}", np.asarray(value))
        )

    def set_sizes(self, index: int, entries: list[Any], want: tuple[Any, ...]) -> None:
        """Write a list of sizes, of the type that it had; an entry None is what the model computes at run time.

        Raises:
            RuleError: an entry that must be computed would come out wrong.
        """
        kind = self.surgeon.graph.types.get(self.call.node.inputs[index]) if self.call.has(index) else None
        dtype = ir.DataType(kind).numpy() if kind else np.int64
        if None not in entries:
            self.set_operand(index, np.array([int(e) for e in entries], dtype))
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
            value = np.array([i], np.int64) if entry is None else np.array([entry], dtype)
            part = self.surgeon.add_initializer(f"{name}.part{i}", value)
            if entry is None:
                gather = ir.node("Gather", [old, part], attributes={"axis": 0}, name=f"{name}.part{i}.gather")
                graph_of(self.node).insert_before(self.node, gather)
                part = gather.outputs[0]
                part.name = self.surgeon.free_name(f"{name}.part{i}.value")
            pieces.append(part)
        concat = ir.node("Concat", pieces, attributes={"axis": 0}, name=f"{name}.concat")
        concat.outputs[0].name = self.surgeon.free_name(f"{name}.sizes")
        graph_of(self.node).insert_before(self.node, concat)
        self.connect(index, concat.outputs[0])

    def gather(self, axis: int, indices: Array) -> None:
        """Pick the wanted indices of the data operand first; what is left is one run from the first to the last."""
        name = f"{self.call.node.outputs[0]}.gather{axis}"
        picked = self.surgeon.add_initializer(f"{name}.indices", np.asarray(indices, np.int64))
        node = ir.node("Gather", [self.node.inputs[0], picked], attributes={"axis": axis}, name=name)
        node.outputs[0].name = self.surgeon.free_name(f"{name}.value")
        graph_of(self.node).insert_before(self.node, node)
        self.connect(0, node.outputs[0])

    def borrow(self, index: int) -> None:
        """Read only the beginning of a constant that is the same number all over."""
        tensor, value = self.call.tensor(index), self.surgeon.value(self.call.node.inputs[index])
        shorter = {axis: self.size(parts) for axis, parts in enumerate(tensor.axes) if self.touches(parts)}
        axes, ends = list(shorter), [number(n) for n in shorter.values()]
        if self.surgeon.graph.opsets.get("", 1) < _SLICE_BY_OPERANDS:
            part = self.insert("Slice", value, axes=axes, starts=[0] * len(axes), ends=ends)
        else:
            part = self.insert("Slice", value, *map(self.integers, ([0] * len(axes), ends, axes)))
        self.connect(index, part)

    def append(self, operator: str, value: Array) -> None:
        """Add a constant to the node's result, or multiply it by one, under the result's own name."""
        result = self.node.outputs[0]
        name = f"{result.name}.{operator.lower()}"
        constant = self.surgeon.add_initializer(f"{name}.operand", value)
        node = ir.node(operator, [result, constant], name=name)
        graph_of(self.node).insert_after(self.node, node)
        self.surgeon.stand_in(result, node)
        node.replace_input_with(0, result)

    def constant(self, value: float) -> ir.Value:
        """A number of the result's type."""
        return self.surgeon.add_initializer(f"{self._name}.constant", np.array(value, self.dtype))

    def integers(self, values: list[int]) -> ir.Value:
        """A list of whole numbers."""
        return self.surgeon.add_initializer(f"{self._name}.integers", np.array(values, np.int64))

    def insert(self, operator: str, *operands: ir.Value | None, **attributes: Any) -> ir.Value:
        """The result of a new node that stands before this one."""
        node = ir.node(operator, operands, attributes=attributes)
        node.name = node.outputs[0].name = self.surgeon.free_name(f"{self._name}.{operator.lower()}")
        graph_of(self.node).insert_before(self.node, node)
        return node.outputs[0]

    def replace(self, value: ir.Value, index: int = 0) -> None:
        """Let the result of an inserted node stand for one of the node's own, under its name, if there is that one."""
        inserted = value.producer()
        assert inserted is not None
        if index < len(self.node.outputs) and self.node.outputs[index].name:
            self.surgeon.stand_in(self.node.outputs[index], inserted)

    def output(self, index: int) -> ir.Value:
        """A result that the node may not have had yet."""
        if index >= len(self.node.outputs):
            self.node.resize_outputs(index + 1)
        result = self.node.outputs[index]
        result.name = result.name or self.surgeon.free_name(f"{self._name}.output{index}")
        return result

    @property
    def _name(self) -> str:
        return str(next(name for name in self.call.node.outputs if name))

    def share(self, axes: Iterable[Axis]) -> float:
        """Which share of these axes stays: the product of what is left of each part."""
        live = [part for axis in axes for part in axis if part.live]
        return float(np.prod([self.keep((part,)).mean() for part in live]))

    @property
    def dtype(self) -> Any:
        """The element type of the node's result.

        Raises:
            RuleError: it is not known.
        """
        if not self.surgeon.graph.types.get(self._name):
            raise RuleError(f"the type of '{self._name}' is not known; run onnx's shape inference on the model first")
        return ir.DataType(self.surgeon.graph.types[self._name]).numpy()

    def weight(self, index: int) -> Array | None:
        """An operand that is an initializer, as it will be after the cut."""
        name = self.call.node.inputs[index] if self.call.has(index) else ""
        return self.surgeon.cut_weight(name) if name in self.surgeon.flow.weights else None

    def freeze(self, *indices: int) -> None:
        """Operands that the cut would change stay what they were."""
        for index in indices:
            if self.call.has(index):
                self.surgeon.freeze(self.call, index)

    def connect(self, index: int, value: ir.Value) -> None:
        """Give the node an operand."""
        if index >= len(self.node.inputs):
            self.node.resize_inputs(index + 1)
        self.node.replace_input_with(index, value)


_SLICE_BY_OPERANDS = 10  # the opset in which its bounds became operands


def graph_of(node: ir.Node) -> ir.Graph:
    """The graph that a node stands in: the model's, or a body."""
    assert isinstance(node.graph, ir.Graph)
    return node.graph


def _flat_rest(axis: Axis) -> Rest:
    """The rest value of each index of an axis: that of whichever live part it is removed with."""
    rest = np.full(1, np.nan)
    for part in axis:
        own = part.rest if part.live else np.full(number(part.size), np.nan)
        rest = np.where(np.isnan(rest[:, None]), own[None, :], rest[:, None]).reshape(-1)
    return rest
