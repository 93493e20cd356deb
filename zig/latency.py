"""How long a plan takes: tables of each layer's time over its widths, measured by onnxruntime on this machine.

A layer (a convolution or matrix product) is run alone at a grid of widths; layers that are alike share a table, and
between the points of the grid time is interpolated. A network is not the sum of its layers run alone: each of those
pays for a call, and for bringing its operands into the order that it likes. So the sum is fitted to the whole network's
time at some uniform widths:

    time(plan) = scale * (sum over layers of table(widths)) + constant

A time is that of the fastest of some runs on one thread, with a batch of one: what other programs take is not the
network's. Convolutions are fast at widths that are multiples of 8 or 16, and the tables are measured at such widths
where a layer has them; so a latency budget wants `round_to=8` or 16.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from zig.errors import ModelError, UsageError
from zig.flow.call import Call
from zig.flow.units import Axis, Part, Tensor, Units
from zig.groups.budget import Values
from zig.groups.partition import Mask, Partition
from zig.model.dims import at_least_one
from zig.plan import Plan
from zig.proof.inputs import GUESSES, random_feeds
from zig.proof.session import Session
from zig.surgery.compress import compress

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
POINTS = (0.125, 0.25, 0.5, 0.75, 1.0)  # shares of a width at which a layer is measured
COARSE = (0.25, 0.5, 1.0)  # the same for layers with three widths or more
UNIFORM = (0.125, 0.25, 0.5, 0.75, 1.0)  # shares of all widths at which the whole network is measured
_FAST = 8  # widths that processors like are multiples of this
_TINY = 1e-9
Kernels = Mapping[str, int]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Table:
    """Milliseconds of a layer over its widths.

    Attributes:
        widths: The grid, ascending, for each of the layer's axes that can shrink.
        times: Of each point of the grid.
    """

    widths: tuple[tuple[int, ...], ...]
    times: Values

    def __call__(self, widths: Sequence[float]) -> float:
        """The time between points, linear along each axis; below the grid that of its first point."""
        times = self.times
        for width, grid in zip(widths, self.widths, strict=True):
            place = float(np.interp(width, grid, np.arange(len(grid))))
            low = min(int(place), max(len(grid) - 2, 0))
            rest = place - low
            times = times[low] if len(grid) == 1 else (1 - rest) * times[low] + rest * times[low + 1]
        return float(times)


class Layer:
    """A call whose time is tabled: the groups that its axes lose, and the model of it alone at some widths.

    Attributes:
        groups: What axes are made of, each on its own; a width is how many of these groups are left.
    """

    def __init__(self, partition: Partition, call: Call):
        """Find the axes of the operands that can shrink; axes of the same groups shrink as one."""
        self.partition, self.call, self.weight = partition, call, call.node.inputs[1]
        found = [own for tensor in call.inputs if tensor for axis in tensor.axes for own in self._own(axis)]
        self.groups = list({own.tobytes(): own for own in found}.values())

    def _own(self, axis: Axis) -> list[Units]:
        """The groups that an axis is made of, those of each factor of a product by themselves."""
        owners = (own for part in axis if part.live for own in self.partition.owners(part.units))
        return [np.unique(own[own >= 0]) for own in owners if (own >= 0).any()]

    @property
    def grid(self) -> tuple[tuple[int, ...], ...]:
        """The widths to measure at."""
        points = POINTS if len(self.groups) < 3 else COARSE
        return tuple(tuple(sorted({_near(len(own), share) for share in points})) for own in self.groups)

    def model(self, widths: Sequence[int], kernel: int | None = None) -> onnx.ModelProto:
        """The layer alone, with random weights.

        Args:
            widths: How many of each of `groups` are left.
            kernel: Of a convolution, where not its own.
        """
        node, graph = self.call.node, self.partition.graph
        share = {own.tobytes(): width / len(own) for own, width in zip(self.groups, widths, strict=True)}
        proto = onnx.NodeProto()
        proto.CopyFrom(node.proto)
        inputs, weights = [], []
        shapes = [self._shape(tensor, share) if tensor else [] for tensor in self.call.inputs]
        if kernel is not None:
            _set_kernel(proto, shapes[1], kernel)
        if "Conv" in node.op:
            _set(proto, "group", self._groups(shapes[0][1]))
        random = np.random.default_rng(0)
        for name, shape in zip(node.inputs, shapes, strict=True):
            if name in graph.initializers:
                values = random.standard_normal(shape).astype(graph.array(name).dtype)
                weights.append(numpy_helper.from_array(values, name))
            elif name:
                inputs.append(helper.make_tensor_value_info(name, graph.types.get(name, TensorProto.FLOAT), shape))
        kind = inputs[0].type.tensor_type.elem_type if inputs else TensorProto.FLOAT
        outputs = [helper.make_tensor_value_info(name, kind, None) for name in node.outputs]
        made = helper.make_graph([proto], "layer", inputs, outputs, weights)
        return helper.make_model(made, opset_imports=graph.proto.opset_import, ir_version=graph.proto.ir_version)

    def _shape(self, tensor: Tensor, share: Mapping[bytes, float]) -> list[int]:
        return [math.prod(self._width(part, share) for part in axis) for axis in tensor.axes]

    def _width(self, part: Part, share: Mapping[bytes, float]) -> int:
        if not part.live:
            return at_least_one(part.size)
        free = int(np.logical_or.reduce([own >= 0 for own in self.partition.owners(part.units)]).sum())
        kept = math.prod(share.get(own.tobytes(), 1.0) for own in self._own((part,)))
        return len(part.units) - free + round(free * kept)

    def _groups(self, channels: int) -> int:
        """The groups of a convolution of some input channels: where whole groups go, as many as are left of them."""
        groups: int = self.call.attribute("group", 1)
        if not len(self._own(self.call.letters.get("g", ()))):
            return groups
        return channels * groups // math.prod(at_least_one(part.size) for part in self.call.tensor(0).axes[1])

    def key(self, kernel: int | None) -> str:
        """What layers that are alike have in common."""
        ends = self.model([max(grid) for grid in self.grid], kernel), self.model([min(g) for g in self.grid], kernel)
        made = hashlib.blake2b(repr(self.grid).encode(), digest_size=16)
        for model in ends:
            node = onnx.NodeProto(op_type=model.graph.node[0].op_type, attribute=model.graph.node[0].attribute)
            made.update(node.SerializeToString(deterministic=True))
            for value in model.graph.input:
                made.update(value.type.SerializeToString(deterministic=True))
            for tensor in model.graph.initializer:
                made.update(repr((list(tensor.dims), tensor.data_type)).encode())
        return made.hexdigest()


class Latency:
    """Times of one partition's plans on one provider of this machine.

    Attributes:
        partition: The groups.
        provider: Where onnxruntime runs.
        tables: By kind of layer.
        scale: What a millisecond of the layers run alone is in the network.
        constant: Milliseconds that no layer accounts for, or that the layers run alone pay once too often.
    """

    def __init__(
        self, partition: Partition, tables: Mapping[str, Table], *, scale: float = 1.0, constant: float = 0.0,
        provider: str = "cpu",
    ):  # fmt: skip
        """Bring tables and the partition's layers together; see `measure`."""
        self.partition, self.tables, self.provider = partition, dict(tables), provider
        self.scale, self.constant = scale, constant
        self.layers = layers_of(partition)
        self._keys: dict[tuple[str, int | None], str] = {}
        groups = [own for layer in self.layers for own in layer.groups]
        self._groups = np.concatenate([np.empty(0, np.int64), *groups])
        self._ends = np.cumsum([len(own) for own in groups], dtype=np.int64)

    def __call__(self, remove: Mask, kernels: Kernels | None = None) -> float:
        """Milliseconds of a plan.

        Args:
            remove: The groups that are gone, bool[G].
            kernels: The kernel sizes that are smaller than they were, by weight.

        Raises:
            UsageError: A kernel was not measured.
        """
        return max(0.0, self.scale * self._layered(remove, kernels or {}) + self.constant)

    def _layered(self, remove: Mask, kernels: Kernels) -> float:
        left = np.append(0, np.cumsum(~remove[self._groups]))[self._ends]
        widths, total, start = np.diff(left, prepend=0), 0.0, 0
        for layer in self.layers:
            stop = start + len(layer.groups)
            total += self._table(layer, kernels.get(layer.weight))(widths[start:stop].tolist())
            start = stop
        return total

    def _table(self, layer: Layer, kernel: int | None) -> Table:
        key = self._key(layer, kernel)
        if key not in self.tables:
            raise UsageError(f"no time of {layer.call.node} with a kernel of {kernel} is known; measure latency anew")
        return self.tables[key]

    def _key(self, layer: Layer, kernel: int | None) -> str:
        place = (layer.call.node.outputs[0], kernel)
        if place not in self._keys:
            self._keys[place] = layer.key(kernel)
        return self._keys[place]

    def covers(self, kernels: Mapping[str, Sequence[int]] | None = None) -> bool:
        """Whether there is a table for every layer, as it is and with further kernel sizes of some weights."""
        return all(self._key(layer, kernel) in self.tables for layer, kernel in _kinds(self.layers, kernels or {}))

    @classmethod
    def measure(
        cls, partition: Partition, *, provider: str = "cpu", runs: int = 15,
        kernels: Mapping[str, Sequence[int]] | None = None, progress: Progress | None = None,
    ) -> Latency:  # fmt: skip
        """Measure every kind of layer at its grid of widths, and the whole network at some uniform widths.

        Args:
            partition: The groups.
            provider: Where to run: `cpu`, `cuda`, ...; see `zig verify`.
            runs: How many runs a time is the fastest of.
            kernels: Further kernel sizes of some weights.
            progress: Called with the number of kinds of layers measured, and to measure.

        Raises:
            UsageError: The provider is missing here.
            ModelError: onnxruntime refuses a layer.
        """
        wanted: dict[str, tuple[Layer, int | None]] = {}
        for layer, kernel in _kinds(layers_of(partition), kernels or {}):
            wanted.setdefault(layer.key(kernel), (layer, kernel))
        tables = {}
        for done, (key, (layer, kernel)) in enumerate(wanted.items(), 1):
            tables[key] = _measured(layer, kernel, provider, runs)
            if progress is not None:
                progress(done, len(wanted))
        made = cls(partition, tables, provider=provider)
        made._fit(runs)
        return made

    def _fit(self, runs: int) -> None:
        """The scale and the constant, by least squares over relative errors."""
        plans = [uniform(self.partition, share) for share in UNIFORM]
        times = np.array([self.timed(remove, runs) for remove in plans])
        layers = np.array([self._layered(remove, {}) for remove in plans])
        table = np.stack([layers, np.ones_like(layers)], axis=1) / times[:, None]
        self.scale, self.constant = np.linalg.lstsq(table, np.ones_like(times), rcond=None)[0].tolist()
        if self.scale <= 0:  # too little to measure: then layers count by their share alone
            self.scale, self.constant = float((times / np.maximum(layers, _TINY)).mean()), 0.0

    def timed(self, remove: Mask, runs: int = 15) -> float:
        """Milliseconds of the network without some groups, measured."""
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "cut.onnx")
            compress(self.partition.graph, target, Plan(self.partition, remove), check=False)
            return fastest(target, runs, self.provider)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for `from_dict`."""
        tables = {k: {"widths": list(map(list, t.widths)), "times": t.times.tolist()} for k, t in self.tables.items()}
        return {"provider": self.provider, "scale": self.scale, "constant": self.constant, "tables": tables}

    @classmethod
    def from_dict(cls, partition: Partition, content: Mapping[str, Any]) -> Latency:
        """What `to_dict` gave."""
        tables = {
            key: Table(tuple(map(tuple, table["widths"])), np.array(table["times"], np.float64))
            for key, table in content["tables"].items()
        }
        return cls(
            partition, tables, scale=content["scale"], constant=content["constant"], provider=content["provider"]
        )


def layers_of(partition: Partition) -> list[Layer]:
    """The calls that take most of a network's time: each multiplies by weights or another activation."""
    calls = (call for call in partition.flow.calls if call.node.op in LAYERS and all(call.inputs[:2]))
    return [Layer(partition, call) for call in calls if not (call.outputs[0] and call.outputs[0].const)]


def _kinds(layers: Sequence[Layer], kernels: Mapping[str, Sequence[int]]) -> Iterator[tuple[Layer, int | None]]:
    """What is to be timed: each layer with its own kernel, and with the further ones of its weight."""
    return ((layer, kernel) for layer in layers for kernel in (None, *kernels.get(layer.weight, ())))


def fastest(source: Any, runs: int, provider: str) -> float:
    """Milliseconds of the fastest of some runs on one thread, after one that is not counted.

    Raises:
        ModelError: onnxruntime refuses the model, or every input that could be made up.
    """
    session = Session(source, provider, threads=1)
    refused: ModelError | None = None
    for sizes in GUESSES:
        feeds = random_feeds(session.name, session.inputs, sizes._replace(batch=1), 0, 0)
        try:
            session.run(feeds)
        except ModelError as error:
            refused = refused or error
        else:
            return 1000 * min(_seconds(session, feeds) for _ in range(runs))
    assert refused is not None  # each guess that does not return leaves one
    raise refused


def _seconds(session: Session, feeds: dict[str, Any]) -> float:
    start = time.perf_counter()
    session.run(feeds)
    return time.perf_counter() - start


def uniform(partition: Partition, share: float) -> Mask:
    """Remove all but a share of each node group, to multiples of 8 where it is wide; which of them does not matter."""
    place = np.empty(len(partition), np.int64)
    for group in partition.node_groups:
        place[group.groups] = np.arange(group.size)
    sizes = np.bincount(partition.node_group)
    whole = np.where(sizes >= 2 * _FAST, _FAST, 1)
    kept = np.minimum(np.maximum(np.round(sizes * share / whole), 1) * whole, sizes)
    return np.asarray(place >= kept[partition.node_group])


def _measured(layer: Layer, kernel: int | None, provider: str, runs: int) -> Table:
    grid = layer.grid
    times = np.empty([len(widths) for widths in grid])
    for place in itertools.product(*(range(len(widths)) for widths in grid)):
        model = layer.model([widths[i] for widths, i in zip(grid, place, strict=True)], kernel)
        try:
            times[place] = fastest(model, runs, provider)
        except ModelError as error:
            raise ModelError(f"{layer.call.node} can't be timed alone: {error}") from error
    for axis in range(times.ndim):  # a narrower layer that took longer is noise, or would be run wider
        times = np.maximum.accumulate(times, axis=axis)
    return Table(grid, times)


def _near(whole: int, share: float) -> int:
    """A width near a share of an axis, fast where the axis is wide."""
    step = _FAST if whole >= 2 * _FAST and share < 1 else 1
    return min(whole, max(1, round(whole * share / step)) * step)


def _set(proto: onnx.NodeProto, name: str, value: Any) -> None:
    for i, attribute in enumerate(proto.attribute):
        if attribute.name == name:
            del proto.attribute[i]
            break
    proto.attribute.append(helper.make_attribute(name, value))


def _set_kernel(proto: onnx.NodeProto, shape: list[int], kernel: int) -> None:
    """A smaller kernel in the middle of the larger one, with as much less padding."""
    rims = [(size - kernel) // 2 for size in shape[2:]]
    pads = next((list(a.ints) for a in proto.attribute if a.name == "pads"), [0] * 2 * len(rims))
    dilations = next((list(a.ints) for a in proto.attribute if a.name == "dilations"), [1] * len(rims))
    shape[2:] = [kernel] * len(rims)
    _set(proto, "kernel_shape", shape[2:])
    _set(proto, "pads", [old - rim * step for old, rim, step in zip(pads, rims * 2, dilations * 2, strict=True)])


__all__ = ["Latency", "Layer", "Table", "layers_of", "uniform"]
