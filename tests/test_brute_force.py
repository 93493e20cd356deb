"""The groups of small networks, found by brute force, are the groups that zig finds.

Nothing of zig's analysis is used for the ground truth. An index of an axis of a tensor is either kept or cut away.
**For each node**, all ways to cut its operands are tried: the node runs on the cut operands and on whole ones, where
what is cut holds zeros (in a weight) or what its own producer leaves there, and the first result must be a rectangle
of the second. Operators that only move data run on element numbers instead, and what is left must be a rectangle.
What passes is the node's table. **For the network**, a set of indices can go when it agrees with every node's table
and touches neither inputs nor outputs. The groups are the smallest such sets that hold a weight's index.

Where an axis is split into rows and columns, both are smallest sets, and zig has to choose: so each of zig's groups is
one of the smallest sets, and each of the smallest sets is one of zig's groups or shares a part with one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import graphs
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import zig

Array = np.ndarray[Any, Any]
Cut = tuple[tuple[int, ...], ...]  # for each axis the indices that are gone
Atom = tuple[str, int, int]  # tensor, axis, index
MOVES = {
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
AGREE = ("Conv", "ConvTranspose", "LayerNormalization", "MatMul")
NOTHING_FITS = (
    ValueError,
    RuntimeError,
    IndexError,
    AssertionError,
    TypeError,
)  # what onnx's reference raises on sizes


class State(NamedTuple):
    """One way to cut a tensor, with the constants that the cut slices hold in the whole tensor (nan: no constant)."""

    cut: Cut
    rest: tuple[tuple[float, ...], ...]


class Row(NamedTuple):
    """One way to cut everything around a node."""

    cuts: dict[str, Cut]
    outputs: dict[str, State]


def indices(sizes: Iterable[int], cut: Cut) -> list[list[int]]:
    """What is left along each axis."""
    return [[i for i in range(n) if i not in gone] for n, gone in zip(sizes, cut, strict=True)]


def subsets(size: int) -> Iterator[tuple[int, ...]]:
    """All that can be cut from an axis so that something is left: of three or more, two, as one has no spread."""
    return itertools.chain.from_iterable(itertools.combinations(range(size), k) for k in range(size - (size > 2)))


class BruteForce:
    """The smallest sets of indices that a model can lose."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Try all cuts at every node, from the inputs to the outputs."""
        self.random = np.random.default_rng(0)
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        graph = model.graph
        self.opsets = model.opset_import
        self.values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.weights = [name for name, value in self.values.items() if value.dtype == np.float32]
        self.outputs = {o.name for o in graph.output}
        self.states: dict[str, list[State]] = {}
        for info in (*graph.input, *graph.output, *graph.value_info):
            sizes = [d.dim_value for d in info.type.tensor_type.shape.dim]
            self.values.setdefault(info.name, self.sample(info.type.tensor_type.elem_type, sizes))
        for info in graph.input:
            self.states[info.name] = [whole(self.values[info.name])]
        for name in self.weights:
            cuts = itertools.product(*(subsets(n) for n in self.values[name].shape))
            self.states[name] = [State(cut, tuple((0.0,) * len(gone) for gone in cut)) for cut in cuts]
        self.tables = [self.table(node) for node in graph.node]

    def sample(self, kind: int, sizes: list[int]) -> Array:
        """Positive noise; of integers, all that there are."""
        if kind == onnx.TensorProto.FLOAT:
            return self.random.uniform(0.5, 1.5, sizes).astype(np.float32)
        return np.arange(np.prod(sizes, dtype=int)).reshape(sizes)

    def table(self, node: onnx.NodeProto) -> list[Row]:
        """All ways to cut the operands and results of a node that agree."""
        rows = []
        data = node.input if node.op_type == "Concat" or node.op_type not in MOVES else node.input[:1]
        names = list(dict.fromkeys(name for name in data if name in self.states))
        for states in itertools.product(*(self.states[name] for name in names)):
            operands = dict(zip(names, states, strict=True))
            results = self.moved(node, operands) if node.op_type in MOVES else self.computed(node, operands)
            if results is not None:
                rows.append(Row({n: s.cut for n, s in operands.items()}, dict(zip(node.output, results, strict=True))))
        rows = [row for row in rows if not any(any(row.outputs[n].cut) for n in row.outputs if n in self.outputs)]
        for name in node.output:
            states = {row.outputs[name].cut: row.outputs[name] for row in rows}
            self.states[name] = list(states.values())
        return rows

    def moved(self, node: onnx.NodeProto, operands: dict[str, State]) -> list[State] | None:
        """What is left of the results when numbers of elements are moved."""
        start, numbers, kept = 1, {}, [np.zeros(1, bool)]
        for name, state in operands.items():
            shape = self.values[name].shape
            count = int(np.prod(shape))
            numbers[name] = np.arange(start, start + count, dtype=np.float32).reshape(shape)
            mask = np.zeros(shape, bool)
            mask[np.ix_(*indices(shape, state.cut))] = True
            kept.append(mask.reshape(-1))
            start += count
        places = self.run(node, numbers)
        filled = self.run(node, {name: self.filled(name, state) for name, state in operands.items()})
        masks = [np.concatenate(kept)[place.astype(np.int64)] for place in places]
        cuts = [rectangle(mask) for mask in masks]
        if any(cut is None for cut in cuts):
            return None
        return [rested(value, cut) for value, cut in zip(filled, cuts, strict=True) if cut is not None]

    def computed(self, node: onnx.NodeProto, operands: dict[str, State]) -> list[State] | None:
        """What the cut operands give, found again in what the whole ones give."""
        small = {n: self.values[n][np.ix_(*indices(self.values[n].shape, s.cut))] for n, s in operands.items()}
        if not may_fit(node, small):
            return None
        wholes = [self.run(node, {n: self.filled(n, s) for n, s in operands.items()}) for _ in range(2)]
        for variant, factor in self.variants(node):
            try:
                results = [factor * result for result in self.run(variant, small)]
            except NOTHING_FITS:
                continue
            cuts = [found(part, [w[i] for w in wholes]) for i, part in enumerate(results)]
            if all(cut is not None for cut in cuts):
                return [rested(whole, cut) for whole, cut in zip(wholes[0], cuts, strict=True) if cut is not None]
        return None

    def variants(self, node: onnx.NodeProto) -> Iterator[tuple[onnx.NodeProto, float]]:
        """The node; the node with fewer groups; a mean as the sum over the original divisor."""
        yield node, 1.0
        other = onnx.NodeProto.FromString(node.SerializeToString())
        if node.op_type == "ReduceMean":
            other.op_type = "ReduceSum"
            yield other, self.values[node.output[0]].size / self.values[node.input[0]].size
        for attribute in other.attribute:
            if attribute.name in ("group", "num_groups"):
                for fewer in range(1, attribute.i):
                    attribute.i = fewer
                    yield other, 1.0

    def filled(self, name: str, state: State) -> Array:
        """The whole tensor, with its rests, or noise, where it is cut."""
        value = self.values[name].copy()
        for axis, (gone, rest) in enumerate(zip(state.cut, state.rest, strict=True)):
            for index, constant in zip(gone, rest, strict=True):
                slice_ = np.moveaxis(value, axis, 0)[index : index + 1]  # a view
                slice_[...] = self.random.uniform(0.5, 1.5, slice_.shape) if np.isnan(constant) else constant
        return value

    def run(self, node: onnx.NodeProto, operands: dict[str, Array]) -> list[Array]:
        """One node under onnx's reference."""
        feeds = {n: operands.get(n, self.values[n]) for n in node.input if n}
        inputs = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in feeds.items()
        ]
        results = [helper.make_empty_tensor_value_info(n) for n in node.output]
        with np.errstate(all="ignore"):
            model = helper.make_model(helper.make_graph([node], "g", inputs, results), opset_imports=self.opsets)
            return [np.asarray(result) for result in ReferenceEvaluator(model).run(None, feeds)]

    @cached_property
    def _bits(self) -> dict[Atom, int]:
        atoms = (
            (n, axis, i) for n in self.states for axis, size in enumerate(self.values[n].shape) for i in range(size)
        )
        return {atom: 1 << place for place, atom in enumerate(atoms)}

    def _mask(self, cuts: Iterable[tuple[str, Cut]]) -> int:
        return sum(self._bits[n, axis, i] for n, cut in cuts for axis, gone in enumerate(cut) for i in gone)

    def groups(self) -> set[frozenset[Atom]]:
        """The smallest sets of weight indices that can go together."""
        tables = []
        for table in self.tables:
            rows = {self._mask([*r.cuts.items(), *((n, s.cut) for n, s in r.outputs.items())]) for r in table}
            names = {name for r in table for name in (*r.cuts, *r.outputs)}
            scope = sum(bit for (name, _, _), bit in self._bits.items() if name in names)
            tables.append((scope, sorted(rows, key=int.bit_count)))
        weights = {atom: bit for atom, bit in self._bits.items() if atom[0] in self.weights}
        solutions = {s & sum(weights.values()) for bit in weights.values() for s in closed(bit, tables, set())}
        least = [s for s in solutions if not any(t != s and t & s == t for t in solutions)]
        return {frozenset(atom for atom, bit in weights.items() if s & bit) for s in least}


def whole(value: Array) -> State:
    return State(((),) * value.ndim, ((),) * value.ndim)


def closed(cut: int, tables: list[tuple[int, list[int]]], seen: set[int]) -> Iterator[int]:
    """All smallest sets above `cut` that agree with every table."""
    if cut in seen:
        return
    seen.add(cut)
    for scope, rows in tables:
        least: list[int] = []
        for row in rows:  # by size
            if row & cut & scope == cut & scope and not any(other & row == other for other in least):
                least.append(row)
        if least != [cut & scope]:
            for row in least:
                yield from closed(cut | row, tables, seen)
            return
    yield cut


def rectangle(kept: Array) -> Cut | None:
    """The cut that leaves just these elements, if there is one."""
    if not kept.any():
        return None
    lines = [kept.any(axis=tuple(a for a in range(kept.ndim) if a != axis)) for axis in range(kept.ndim)]
    full = np.ones(kept.shape, bool)
    for axis, line in enumerate(lines):
        full &= np.expand_dims(line, tuple(a for a in range(kept.ndim) if a != axis))
    return tuple(tuple(map(int, np.flatnonzero(~line))) for line in lines) if (full == kept).all() else None


def found(part: Array, wholes: list[Array]) -> Cut | None:
    """Where a small result lies in the whole ones."""
    sizes = wholes[0].shape
    if part.ndim != len(sizes) or any(m > n or (m == 0) != (n == 0) for m, n in zip(part.shape, sizes, strict=True)):
        return None
    choices = (itertools.combinations(range(n), n - m) for n, m in zip(sizes, part.shape, strict=True))
    for cut in itertools.product(*choices):
        place = np.ix_(*indices(sizes, cut))
        if all(np.allclose(whole[place], part, rtol=1e-4, atol=1e-5) for whole in wholes):
            return cut
    return None


def rested(value: Array, cut: Cut) -> State:
    """The cut of a tensor, with the constants of what is gone."""
    kept = indices(value.shape, cut)
    rests = []
    for axis, gone in enumerate(cut):
        slices = [value[np.ix_(*kept[:axis], [index], *kept[axis + 1 :])] for index in gone]
        rests.append(tuple(float(s.flat[0]) if np.allclose(s, s.flat[0], atol=1e-6) else float("nan") for s in slices))
    return State(cut, tuple(rests))


def may_fit(node: onnx.NodeProto, operands: dict[str, Array]) -> bool:
    """Whether the sizes of the operands agree, as far as onnx's reference does not look, or would look for long."""
    shapes = [operands[name].shape for name in node.input if name in operands]
    if len(shapes) < 2 or node.op_type not in AGREE:
        return True
    if node.op_type == "MatMul":
        return shapes[0][-1] == shapes[1][-2]
    if node.op_type == "LayerNormalization":
        return all(shape[-1] == shapes[0][-1] for shape in shapes)
    if node.op_type == "ConvTranspose":
        return shapes[0][1] == shapes[1][0] and all(shape == shapes[1][1:2] for shape in shapes[2:])
    return shapes[0][1] % shapes[1][1] == 0 and all(shape == shapes[1][:1] for shape in shapes[2:])


# --- the networks ------------------------------------------------------------------------------------------------

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "perceptron": ("h = MatMul (x, a)\n r = Relu (h)\n y = MatMul (r, b)", {"x": "2 2", "a": "2 3", "b": "3 2"}),
    "residual": (
        """s = Conv (x, w0, b0)
        h = Conv (s, w1)
        r = Relu (h)
        t = Conv (r, w2, b2)
        u = Add (s, t)
        y = Conv (u, w3)""",
        {"x": "1 2 2 2", "w0": "3 2 1 1", "b0": "3", "w1": "2 3 1 1", "w2": "3 2 1 1", "b2": "3", "w3": "2 3 1 1"},
    ),
    "batch norm": (
        """s = Conv (x, w0)
        t = BatchNormalization (s, g, b, m, v)
        y = Conv (t, w1)""",
        {"x": "1 2 2 2", "w0": "2 2 1 1", "g": "2", "b": "2", "m": "2", "v": "positive: 2", "w1": "2 2 1 1"},
    ),
    "depthwise": (
        """s = Conv (x, w0)
        t = Conv <group = 3> (s, w1)
        y = Conv (t, w2)""",
        {"x": "1 2 2 2", "w0": "3 2 1 1", "w1": "3 1 1 1", "w2": "2 3 1 1"},
    ),
    "grouped": (
        """s = Conv (x, w0)
        t = Conv <group = 2> (s, w1)
        y = Conv (t, w2)""",
        {"x": "1 1 2 2", "w0": "4 1 1 1", "w1": "4 2 1 1", "w2": "1 4 1 1"},
    ),
    "squeeze and excite": (
        """s = Conv (x, w0)
        p = GlobalAveragePool (s)
        h = Conv (p, w1)
        r = Relu (h)
        e = Conv (r, w2)
        g = Sigmoid (e)
        t = Mul (s, g)
        y = Conv (t, w3)""",
        {"x": "1 1 2 2", "w0": "3 1 1 1", "w1": "2 3 1 1", "w2": "3 2 1 1", "w3": "1 3 1 1"},
    ),
    "concatenation": (
        """a = Conv (x, w0)
        b = Conv (x, w1)
        c = Concat <axis = 1> (a, b, a)
        y = Conv (c, w2)""",
        {"x": "1 1 2 2", "w0": "2 1 1 1", "w1": "3 1 1 1", "w2": "1 7 1 1"},
    ),
    "dense": (
        """a = Conv (x, w0)
        b = Conv (a, w1)
        c = Concat <axis = 1> (a, b)
        d = Conv (c, w2)
        e = Concat <axis = 1> (c, d)
        y = Conv (e, w3)""",
        {"x": "1 1 2 2", "w0": "2 1 1 1", "w1": "2 2 1 1", "w2": "2 4 1 1", "w3": "1 6 1 1"},
    ),
    "gated": (
        """h = MatMul (x, a)
        u, v = Split <axis = 1, num_outputs = 2> (h)
        g = Sigmoid (v)
        t = Mul (u, g)
        y = MatMul (t, b)""",
        {"x": "2 2", "a": "2 6", "b": "3 2"},
    ),
    "shuffled": (
        """s = Conv (x, w0)
        a = Reshape (s, split)
        b = Transpose <perm = [0, 2, 1, 3, 4]> (a)
        c = Reshape (b, join)
        y = Conv <group = 2> (c, w1)""",
        {"x": "1 1 2 2", "w0": "6 1 1 1", "split": [1, 2, 3, 2, 2], "join": [1, 6, 2, 2], "w1": "2 3 1 1"},
    ),
    "flattened": (
        """s = Conv (x, w0)
        f = Flatten (s)
        y = Gemm (f, w1)""",
        {"x": "1 1 2 1", "w0": "3 1 1 1", "w1": "6 2"},
    ),
    "attention": (
        """q0 = MatMul (x, wq)
        q1 = Reshape (q0, split)
        q = Transpose <perm = [0, 2, 1, 3]> (q1)
        k0 = MatMul (x, wk)
        k1 = Reshape (k0, split)
        k = Transpose <perm = [0, 2, 3, 1]> (k1)
        v0 = MatMul (x, wv)
        v1 = Reshape (v0, split)
        v = Transpose <perm = [0, 2, 1, 3]> (v1)
        s = MatMul (q, k)
        p = Softmax <axis = -1> (s)
        o0 = MatMul (p, v)
        o1 = Transpose <perm = [0, 2, 1, 3]> (o0)
        o = Reshape (o1, join)
        y = MatMul (o, wo)""",
        {
            "x": "1 3 2", "wq": "2 4", "wk": "2 4", "wv": "2 4", "wo": "4 2",
            "split": [1, 3, 2, 2], "join": [1, 3, 4],
        },
    ),
    "shared keys and values": (
        """q0 = MatMul (x, wq)
        q1 = Reshape (q0, split)
        q = Transpose <perm = [1, 0, 2]> (q1)
        k0 = MatMul (x, wk)
        k1 = Reshape (k0, two)
        k2 = Expand (k1, four)
        k3 = Reshape (k2, split)
        k = Transpose <perm = [1, 2, 0]> (k3)
        v0 = MatMul (x, wv)
        v1 = Reshape (v0, two)
        v2 = Expand (v1, four)
        v3 = Reshape (v2, split)
        v = Transpose <perm = [1, 0, 2]> (v3)
        s = MatMul (q, k)
        p = Softmax <axis = -1> (s)
        o0 = MatMul (p, v)
        o1 = Transpose <perm = [1, 0, 2]> (o0)
        o = Reshape (o1, join)
        y = MatMul (o, wo)""",
        {
            "x": "2 1", "wq": "1 8", "wk": "1 4", "wv": "1 4", "wo": "8 1",
            "split": [2, 4, 2], "two": [2, 2, 1, 2], "four": [2, 2, 2, 2], "join": [2, 8],
        },
    ),
    "packed keys and values": (
        """q0 = MatMul (x, wq)
        q1 = Reshape (q0, one)
        q = Transpose <perm = [1, 0, 2]> (q1)
        a = MatMul (x, w)
        b = Reshape (a, split)
        c = Transpose <perm = [1, 2, 0, 3]> (b)
        k0, v0 = Split <axis = 0, num_outputs = 2> (c)
        k1 = Reshape (k0, heads)
        k = Transpose <perm = [0, 2, 1]> (k1)
        v = Reshape (v0, heads)
        s = MatMul (q, k)
        p = Softmax <axis = -1> (s)
        o0 = MatMul (p, v)
        o1 = Transpose <perm = [1, 0, 2]> (o0)
        o = Reshape (o1, join)
        y = MatMul (o, wo)""",
        {
            "x": "2 1", "wq": "1 4", "w": "1 8", "wo": "4 1",
            "one": [2, 2, 2], "split": [2, 2, 2, 2], "heads": [2, 2, 2], "join": [2, 4],
        },
    ),
    "U": (
        """a = Conv (x, w0)
        b = Conv <strides = [2, 2]> (a, w1)
        c = ConvTranspose <strides = [2, 2]> (b, w2)
        d = Concat <axis = 1> (a, c)
        y = Conv (d, w3)""",
        {"x": "1 1 2 2", "w0": "2 1 1 1", "w1": "3 2 1 1", "w2": "3 2 2 2", "w3": "1 4 1 1"},
    ),
    "layer scale": (
        """h = MatMul (x, a)
        r = Relu (h)
        s = MatMul (r, b)
        t = Mul (s, g)
        u = Add (h, t)
        y = MatMul (u, c)""",
        {"x": "2 2", "a": "2 3", "b": "3 3", "g": "3", "c": "3 2"},
    ),
    "shared head": (
        """a = Conv (x, w0)
        b = Conv (x, w1)
        c = Conv (a, w)
        d = Conv (b, w)
        e = Concat <axis = 2> (c, d)
        y = Conv (e, w2)""",
        {"x": "1 1 2 1", "w0": "3 1 1 1", "w1": "3 1 1 1", "w": "2 3 1 1", "w2": "1 2 1 1"},
    ),
    "normalised": (
        """h = MatMul (x, a)
        n = LayerNormalization <axis = -1, epsilon = 1.0> (h, g, b)
        y = MatMul (n, c)""",
        {"x": "2 2", "a": "2 3", "g": "3", "b": "3", "c": "3 2"},
    ),
    "token mixing": (
        """h = MatMul (x, a)
        t = Transpose <perm = [0, 2, 1]> (h)
        m = MatMul (t, b)
        r = Relu (m)
        n = MatMul (r, c)
        u = Transpose <perm = [0, 2, 1]> (n)
        v = Add (h, u)
        y = MatMul (v, d)""",
        {"x": "1 2 2", "a": "2 3", "b": "2 3", "c": "3 2", "d": "3 2"},
    ),
    "spatial gate": (
        """h = MatMul (x, a)
        u, v = Split <axis = 2, num_outputs = 2> (h)
        t = Transpose <perm = [0, 2, 1]> (v)
        m = MatMul (t, b)
        w = Transpose <perm = [0, 2, 1]> (m)
        g = Mul (u, w)
        y = MatMul (g, c)""",
        {"x": "1 2 2", "a": "2 6", "b": "2 2", "c": "3 2"},
    ),
    "sums of slices": (
        """s = Conv (x, w0)
        a, b, c = Split <axis = 1, num_outputs = 3> (s)
        d = Conv (a, w1)
        e = Add (d, b)
        f = Conv (e, w2)
        g = Concat <axis = 1> (d, f, c)
        y = Conv (g, w3)""",
        {"x": "1 1 2 2", "w0": "6 1 1 1", "w1": "2 2 1 1", "w2": "2 2 1 1", "w3": "1 6 1 1"},
    ),
    "selective kernel": (
        """a = Conv (x, w0)
        b = Conv (x, w1)
        s = Add (a, b)
        p = GlobalAveragePool (s)
        z = Conv (p, w2)
        e = Conv (z, w3)
        r = Reshape (e, split)
        m = Softmax <axis = 1> (r)
        i, j = Split <axis = 1, num_outputs = 2> (m)
        i1 = Reshape (i, one)
        j1 = Reshape (j, one)
        c = Mul (a, i1)
        d = Mul (b, j1)
        t = Add (c, d)
        y = Conv (t, w4)""",
        {
            "x": "1 1 2 1", "w0": "2 1 1 1", "w1": "2 1 1 1", "w2": "2 2 1 1", "w3": "4 2 1 1", "w4": "1 2 1 1",
            "split": [1, 2, 2, 1], "one": [1, 2, 1, 1],
        },
    ),
    "dual path": (
        """s = Conv (x, w0)
        a, b = Split <axis = 1, num_outputs = 2> (s)
        h = Conv (s, w1)
        c, d = Split <axis = 1, num_outputs = 2> (h)
        e = Add (a, c)
        f = Concat <axis = 1> (e, b, d)
        y = Conv (f, w2)""",
        {"x": "1 1 2 1", "w0": "4 1 1 1", "w1": "4 4 1 1", "w2": "1 6 1 1"},
    ),
    "standardised weight": (
        """m = ReduceMean <keepdims = 1> (w0, axes)
        c = Sub (w0, m)
        k = Mul (c, gain)
        s = Conv (x, k)
        r = Relu (s)
        y = Conv (r, w1)""",
        {"x": "1 2 2 1", "w0": "3 2 1 1", "axes": [1, 2, 3], "gain": "3 1 1 1", "w1": "1 3 1 1"},
    ),
    "two branches": (
        """a = Conv (x, w0)
        b = Conv (x, w1)
        c = Add (a, b)
        d = Relu (c)
        y = Conv (d, w2)""",
        {"x": "1 2 2 1", "w0": "3 2 1 1", "w1": "3 2 1 1", "w2": "2 3 1 1"},
    ),
    "tied": (
        """h = MatMul (x, a)
        r = Relu (h)
        b = Transpose <perm = [1, 0]> (a)
        y = MatMul (r, b)""",
        {"x": "2 2", "a": "2 3"},
    ),
    "experts": (
        """g0 = MatMul (x, wg)
        g = Softmax <axis = -1> (g0)
        g1 = Reshape (g, gates)
        x1 = Reshape (x, one)
        h = MatMul (x1, w1)
        r = Relu (h)
        o = MatMul (r, w2)
        m = Mul (o, g1)
        y = ReduceSum <keepdims = 0> (m, axes)""",
        {
            "x": "2 2", "wg": "2 2", "w1": "2 2 3", "w2": "2 3 2", "gates": [-1, 2, 1], "one": [2, 1, 2],
            "axes": [0],
        },
    ),
    "transposed": (
        """s = Conv (x, w0)
        t = ConvTranspose <strides = [2, 2]> (s, w1, b1)
        y = Conv (t, w2)""",
        {"x": "1 1 2 2", "w0": "2 1 1 1", "w1": "2 3 1 1", "b1": "3", "w2": "1 3 1 1"},
    ),
    "looked up": (
        """e = Gather (t, x)
        p = Add (e, o)
        r = Relu (p)
        y = MatMul (r, w)""",
        {"x": "ids: 2 2", "t": "4 3", "o": "2 3", "w": "3 2"},
    ),
    "pixel shuffle": (
        """s = Conv (x, w0)
        d = DepthToSpace <blocksize = 2> (s)
        y = Conv (d, w1)""",
        {"x": "1 1 1 2", "w0": "8 1 1 1", "w1": "1 2 1 1"},
    ),
    "root mean square": (
        """h = MatMul (x, a)
        q = Mul (h, h)
        m = ReduceMean <keepdims = 1> (q, axes)
        s = Sqrt (m)
        n = Div (h, s)
        y = MatMul (n, c)""",
        {"x": "2 2", "a": "2 3", "c": "3 2", "axes": [1]},
    ),
    "outer product": (
        """a = MatMul (x, w0)
        b = MatMul (x, w1)
        u = Reshape (a, column)
        v = Reshape (b, row)
        o = MatMul (u, v)
        f = Flatten (o)
        r = Relu (f)
        y = MatMul (r, w2)""",
        {
            "x": "2 1", "w0": "1 3", "w1": "1 2", "w2": "6 1",
            "column": [2, 3, 1], "row": [2, 1, 2],
        },
    ),
    "outer product, scaled": (
        """a = MatMul (x, w0)
        b = MatMul (x, w1)
        u = Reshape (a, column)
        v = Reshape (b, row)
        o = Mul (u, v)
        f = Flatten (o)
        n = Mul (f, g)
        y = MatMul (n, w2)""",
        {
            "x": "2 1", "w0": "1 2", "w1": "1 2", "g": "4", "w2": "4 1",
            "column": [2, 2, 1], "row": [2, 1, 2],
        },
    ),
    "bilinear pooling": (
        """a = Conv (x, w0)
        b = Reshape (a, flat)
        t = Transpose <perm = [0, 2, 1]> (b)
        o = MatMul (b, t)
        f = Flatten (o)
        y = MatMul (f, w1)""",
        {"x": "1 1 2 1", "w0": "3 1 1 1", "w1": "9 1", "flat": [1, 3, 2]},
    ),
    "three factors": (
        """a = MatMul (x, w0)
        b = MatMul (x, w1)
        c = MatMul (x, w2)
        u = Reshape (a, first)
        v = Reshape (b, second)
        o = Mul (u, v)
        w = Reshape (c, third)
        p = Mul (o, w)
        f = Flatten (p)
        y = MatMul (f, w3)""",
        {
            "x": "1 1", "w0": "1 2", "w1": "1 2", "w2": "1 2", "w3": "8 1",
            "first": [1, 2, 1, 1], "second": [1, 1, 2, 1], "third": [1, 1, 1, 2],
        },
    ),
    "made weights": (
        """a = Conv (x, w0)
        p = GlobalAveragePool (a)
        q = Flatten (p)
        e = MatMul (q, r)
        s = Softmax (e)
        w = MatMul (s, bank)
        k = Reshape (w, kernel)
        h = Conv (a, k)
        y = Conv (h, w1)""",
        {
            "x": "1 1 2 1", "w0": "2 1 1 1", "r": "2 2", "bank": "2 4", "w1": "1 2 1 1",
            "kernel": [2, 2, 1, 1],
        },
    ),
    "product of matrices": (
        """h = MatMul (x, w0)
        u = Reshape (a, left)
        v = Reshape (b, right)
        p = Mul (u, v)
        k = Reshape (p, whole)
        n = MatMul (h, k)
        y = MatMul (n, w1)""",
        {
            "x": "1 1", "w0": "1 4", "a": "2 1", "b": "2 2", "w1": "2 1",
            "left": [2, 1, 1, 1], "right": [1, 2, 1, 2], "whole": [4, 2],
        },
    ),
    "relative shift": (
        """a = MatMul (x, w0)
        h = Reshape (a, heads)
        t = Transpose <perm = [1, 0, 2]> (h)
        c = Concat <axis = 2> (z, t)
        s = Reshape (c, turned)
        d = Slice (s, from, to, along)
        e = Reshape (d, back)
        f = Transpose <perm = [1, 0, 2]> (e)
        j = Reshape (f, join)
        y = MatMul (j, w1)""",
        {
            "x": "2 1", "w0": "1 4", "z": "2 2 1", "w1": "4 1", "heads": [2, 2, 2], "turned": [2, 3, 2],
            "from": [1], "to": [3], "along": [1], "back": [2, 2, 2], "join": [2, 4],
        },
    ),
    "same channels, other positions": (
        """a = MatMul (x, w0)
        s = Reshape (a, turned)
        r = Relu (s)
        y = MatMul (r, w1)""",
        {"x": "2 3 1", "w0": "1 3", "w1": "3 1", "turned": [3, 2, 3]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_groups_are_the_smallest_sets(name: str) -> None:
    text, given = CASES[name]
    model = graphs.build(text, **given)
    truth = BruteForce(model).groups()
    partition = zig.analyze(model)
    groups = {
        frozenset((s.tensor, s.axis, int(i)) for s in (*g.members, *g.dependents) for i in s.indices) for g in partition
    }
    assert len(groups) == len(partition)
    assert groups <= truth, f"not smallest: {sorted(map(sorted, groups - truth))}"
    missed = [sorted(least) for least in truth - groups if not any(least & group for group in groups)]
    assert not missed, f"fixed without need: {missed}"
