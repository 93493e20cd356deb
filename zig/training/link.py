"""Which torch parameter each ONNX initializer came from, and what that says about its rows.

A name alone proves nothing: exporters keep the name of a weight that they have fused with another. So a link is always
a name *and* equal bits, or equal bits alone:

    how           the initializer's elements are
    same          the parameter's
    transposed    those of a matrix, transposed
    reshaped      the same in memory order
    rows          rows of one or more parameters (LSTM gates in ONNX order, a split or joined projection)

Parameters of equal value (zero biases) are told apart by the module that the other weights of the node come from. What
arithmetic has folded (a BatchNorm into a Conv) links to nothing, and the error says so.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zig.errors import LinkError
from zig.graph import Graph, Node, load
from zig.training.export import LOSSLESS

if TYPE_CHECKING:
    from zig.partition import Partition

How = Literal["same", "transposed", "reshaped", "rows"]
Bits = NDArray[Any]
Ints = NDArray[np.int64]

_HERE = -2  # marks an element of a parameter that a link does not reach; groups are -1 (fixed) or more
_NAMED = 5  # tensors that an error names before it says "..."


@dataclass(frozen=True, slots=True)
class Link:
    """An initializer holds a parameter, or some rows of it.

    Attributes:
        tensor: Name of the initializer.
        parameter: Name of the parameter or buffer; of tied ones the first.
        how: See the top of this file.
        at: For `rows`, which rows of the initializer (seen as a matrix with the parameter's row length), int64[k].
        rows: For `rows`, the parameter's row at each of them, int64[k].
        turned: For `rows`, whether the initializer must be transposed first.
    """

    tensor: str
    parameter: str
    how: How
    at: Ints | None = None
    rows: Ints | None = None
    turned: bool = False


@dataclass(frozen=True, slots=True)
class ParameterRows:
    """The ZIGs that run along one axis of a torch parameter.

    Attributes:
        parameter: Name of the parameter.
        axis: The axis.
        groups: ZIG number of each index, -1 where it is fixed, int64[n].
        member: Whether slice i must be zero for its ZIG to be zero, bool[n].
    """

    parameter: str
    axis: int
    groups: Ints
    member: NDArray[np.bool_]


@dataclass(frozen=True)
class Links:
    """All links between a graph and a module.

    Attributes:
        links: The links of each float initializer that has any.
        shapes: Shape of each parameter and buffer.
        aliases: The other names of a tied parameter, by its first name.
        unreached: Trainable parameters that the graph does not use.
    """

    links: dict[str, tuple[Link, ...]]
    shapes: dict[str, tuple[int, ...]]
    aliases: dict[str, tuple[str, ...]]
    unreached: tuple[str, ...]

    def rows(self, partition: Partition) -> list[ParameterRows]:
        """What a partition of the graph says about the module's parameters and buffers.

        Raises:
            LinkError: A ZIG takes single elements of a parameter, which no axis of it can say.
        """
        found: dict[tuple[str, int, bytes], ParameterRows] = {}
        for row in partition.rows:
            shape = partition.graph.initializers[row.tensor].dims
            for link in self.links.get(row.tensor, ()):
                carried = _carry(link, tuple(shape), row.axis, row.groups, row.member, self.shapes[link.parameter])
                if carried is None:
                    continue
                key = (link.parameter, carried.axis, carried.groups.tobytes())
                member = carried.member | found[key].member if key in found else carried.member
                found[key] = ParameterRows(carried.parameter, carried.axis, carried.groups, member)
        return list(found.values())


def link(source: Any, module: nn.Module) -> Links:
    """Link each float initializer of a model to the parameter or buffer it came from.

    A file that `zig.training.export` wrote holds every parameter by name, as it was; any other file is searched by
    value.

    Args:
        source: A path, `onnx.ModelProto`, `onnx_ir.Model` or `Graph`.
        module: The torch module it was exported from, in the same state.

    Raises:
        LinkError: A trainable parameter was folded, was changed since the export, or can't be told from another.
    """
    graph = load_of(source, module)
    parameters, aliases = _parameters(module)
    search = _Search(graph, parameters, aliases)
    search.by_name()
    if _is_lossless(graph):
        search.check_unchanged()
    else:
        search.by_value()
        search.by_rows()
    unreached = search.missing(module)
    if unreached and not _is_lossless(graph):
        search.check_nothing_folded(unreached, type(module).__name__)
    shapes = {name: values.shape for name, values in parameters.items()}
    return Links(search.links, shapes, aliases, tuple(unreached))


def load_of(source: Any, module: nn.Module) -> Graph:
    """A model exported from a module, in which a parameter stays one tensor even where all of it is still zero or one.

    Raises:
        ModelError: The file can't be read.
    """
    named = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    return load(source, tied=[name for name, _ in named])


class _Search:
    """The initializers that are not linked yet, and the ways to find their parameters, surest first."""

    def __init__(self, graph: Graph, parameters: dict[str, Bits], aliases: dict[str, tuple[str, ...]]):
        self.graph, self.parameters = graph, parameters
        self.first = {alias: name for name, others in aliases.items() for alias in (name, *others)}
        self.links: dict[str, tuple[Link, ...]] = {}
        self.readers = graph.readers

    def open(self) -> list[str]:
        """Float initializers that some node reads, that could be a weight, and that have no link."""
        return [
            name
            for name, tensor in self.graph.initializers.items()
            if name in self.readers and name not in self.links and self.graph.is_float(name) and _size(tensor.dims) > 0
        ]

    def by_name(self) -> None:
        for tensor in self.open():
            name = self.first.get(tensor)
            if name is not None and _equal(self.parameters[name], self.bits(tensor)):
                self.links[tensor] = (Link(tensor, name, "same"),)

    def by_value(self) -> None:
        """Link what equals one parameter, its transpose or its elements in order; then what the module decides."""
        index: dict[bytes, list[tuple[str, How]]] = defaultdict(list)
        for name, values in self.parameters.items():
            for how, form in _forms(values):
                index[_digest(how, form)].append((name, how))
        candidates = {t: _best(index, self.bits(t)) for t in self.open() if _size(self.graph.initializers[t].dims) > 1}
        for tensor, found in candidates.items():
            if len(found) == 1 and not _uniform(self.bits(tensor)):
                self.links[tensor] = (Link(tensor, *found[0]),)
        before = -1
        while before < len(self.links):  # each link may decide about its neighbours
            before = len(self.links)
            for tensor, found in candidates.items():
                if found and tensor not in self.links:
                    self._by_module(tensor, found, candidates)

    def _by_module(
        self, tensor: str, found: list[tuple[str, How]], candidates: dict[str, list[tuple[str, How]]]
    ) -> None:
        """Choose among equal parameters the one of the module that the node belongs to."""
        for node in self.readers[tensor]:
            modules = self._modules(node)
            near = [c for c in found if _module(c[0]) in modules]
            equals = [t for t in dict.fromkeys(node.inputs) if candidates.get(t) == found]
            if near and len(near) == len(equals):  # in BatchNorm's order: weight, bias, mean, variance
                self.links[tensor] = (Link(tensor, *near[equals.index(tensor)]),)
                return

    def _modules(self, node: Node) -> set[str]:
        """Names of the modules that a node may belong to: by its other weights, else by the scope it was traced in."""
        links = [x for name in node.inputs for x in self.links.get(name, ())]
        return {_module(x.parameter) for x in links} or _scope(node, map(_module, self.parameters))

    def by_rows(self) -> None:
        """Link what is made of whole rows of parameters, in any order."""
        tensors = [t for t in self.open() if not _uniform(self.bits(t))]
        index: dict[int, dict[bytes, list[tuple[str, int]]]] = defaultdict(lambda: defaultdict(list))
        for name, values in self.parameters.items() if tensors else ():
            if values.ndim:
                rows = values.reshape(len(values), -1)
                for i, row in enumerate(rows):
                    index[rows.shape[1]][row.tobytes()].append((name, i))
        for tensor in tensors:
            bits = self.bits(tensor)
            for turned, form in ((False, bits), (True, bits.T))[: 1 + (bits.ndim == 2)]:
                if found := _rows_of(form, index):
                    self.links[tensor] = tuple(Link(tensor, p, "rows", at, rows, turned) for p, at, rows in found)
                    break

    def bits(self, tensor: str) -> Bits:
        array = self.graph.array(tensor)
        return array.view(f"u{array.dtype.itemsize}")

    def missing(self, module: nn.Module) -> list[str]:
        """Trainable parameters that no initializer links to."""
        linked = {x.parameter for links in self.links.values() for x in links}
        return [
            n for n, p in module.named_parameters() if p.requires_grad and p.numel() and self.first.get(n) not in linked
        ]

    def check_unchanged(self) -> None:
        changed = [tensor for tensor in self.open() if tensor in self.first]
        if changed:
            raise LinkError(
                f"{self.graph.name}: {_some(changed)} no longer equal the parameters of the same name; "
                "the module was changed after it was exported, so export it again"
            )

    def check_nothing_folded(self, missing: Sequence[str], module: str) -> None:
        """Refuse a file in which a parameter was merged with an equal one, or folded with others into a new tensor."""
        present = {_digest("same", self.bits(tensor)) for tensor in self.links}
        merged = [name for name in missing if _digest("same", self.parameters[name]) in present]
        if merged:
            raise LinkError(
                f"{self.graph.name}: {_some(merged)} of {module} are equal to other parameters, and the exporter has "
                "merged them into one tensor; export with zig.training.export"
            )
        strangers = [t for t in self.open() if _size(self.graph.initializers[t].dims) > 1]
        if strangers:
            raise LinkError(
                f"{self.graph.name}: {_some(strangers)} can't be traced to a parameter of {module}, and "
                f"{_some(missing)} are in no tensor; the exporter has folded or renamed them; "
                "export with zig.training.export"
            )


def _parameters(module: nn.Module) -> tuple[dict[str, Bits], dict[str, tuple[str, ...]]]:
    """The bits of each distinct float parameter and buffer, and the other names of those that are tied."""
    values: dict[str, Bits] = {}
    first: dict[Any, str] = {}
    aliases: dict[str, list[str]] = defaultdict(list)
    for name, tensor in (
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ):
        if not tensor.is_floating_point():
            continue
        place = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else name
        if first.setdefault(place, name) == name:
            values[name] = _torch_bits(tensor)
            aliases[name] = []
        else:
            aliases[first[place]].append(name)
    return values, {name: tuple(others) for name, others in aliases.items()}


def _torch_bits(tensor: Tensor) -> Bits:
    """A tensor's bits as unsigned integers of its element size; bfloat16 has no numpy type of its own."""
    size = tensor.element_size()
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
    bits: Bits = tensor.detach().cpu().contiguous().view(integer).numpy()
    return bits.view(f"u{size}")


def _is_lossless(graph: Graph) -> bool:
    return any(entry.key == LOSSLESS for entry in graph.proto.metadata_props)


def _equal(a: Bits, b: Bits) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool(np.array_equal(a, b))


def _uniform(bits: Bits) -> bool:
    return bool((bits == bits.flat[0]).all())


def _size(shape: Iterable[int]) -> int:
    return int(np.prod(tuple(shape), dtype=np.int64))


def _module(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def _some(names: Sequence[str]) -> str:
    quoted = ", ".join(f"'{name}'" for name in names[:_NAMED])
    return quoted + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _forms(values: Bits) -> list[tuple[How, Bits]]:
    """The shapes in which an exporter may write a parameter."""
    forms: list[tuple[How, Bits]] = [("same", values)]
    if values.ndim == 2:
        forms.append(("transposed", values.T))
    return [*forms, ("reshaped", values.reshape(-1))]


def _digest(how: How, bits: Bits) -> bytes:
    shape = bits.shape if how != "reshaped" else ()
    return hashlib.blake2b(np.ascontiguousarray(bits).tobytes() + repr((shape, bits.dtype.str)).encode()).digest()


def _best(index: dict[bytes, list[tuple[str, How]]], bits: Bits) -> list[tuple[str, How]]:
    """The parameters that an initializer equals in the plainest way that any does."""
    found = index.get(_digest("same", bits), [])
    reshaped = [c for c in index.get(_digest("reshaped", bits), []) if c[1] == "reshaped"]
    plain = [c for c in found if c[1] == "same"]
    return plain or [c for c in found if c[1] == "transposed"] or reshaped


def _scope(node: Node, modules: Iterable[str]) -> set[str]:
    """The innermost module that a node was traced in, if its exporter says so."""
    written = {p.key: p.value for p in node.proto.metadata_props}.get("pkg.torch.onnx.name_scopes", "")
    paths = [part.strip("'\"[] ") for part in written.split(",")]
    path: list[str] = []
    for part in node.name.split("/")[1:-1]:  # /layer1/layer1.0/conv1/Conv lies in layer1.0.conv1
        words = part.split(".")
        shared = max((k for k in range(1, len(words)) if path[-k:] == words[:k]), default=0)
        path += words[shared:]
        paths.append(".".join(path))
    known = set(modules)
    return set([p for p in paths if p and p in known][-1:])


def _rows_of(bits: Bits, index: dict[int, dict[bytes, list[tuple[str, int]]]]) -> list[tuple[str, Ints, Ints]] | None:
    """The parameter rows that an initializer is made of, as (parameter, rows here, rows there), or None."""
    flat = np.ascontiguousarray(bits)
    for length in sorted(index, reverse=True):
        if flat.size % length or flat.size == length == 1:
            continue
        found = [index[length].get(row.tobytes(), []) for row in flat.reshape(-1, length)]
        if all(found):
            return _by_parameter(_runs(found))
    return None


def _runs(found: list[list[tuple[str, int]]]) -> list[tuple[str, int]]:
    """One candidate for each row; among equals the one that goes on where its neighbour stands."""
    chosen: list[tuple[str, int] | None] = [c[0] if len(c) == 1 else None for c in found]
    for step, order in ((1, range(len(found))), (-1, range(len(found) - 1, -1, -1))):
        for i in order:
            neighbour = chosen[i - step] if 0 <= i - step < len(found) else None
            if chosen[i] is None and neighbour is not None and (go := (neighbour[0], neighbour[1] + step)) in found[i]:
                chosen[i] = go
    return [c or options[0] for c, options in zip(chosen, found, strict=True)]


def _by_parameter(rows: list[tuple[str, int]]) -> list[tuple[str, Ints, Ints]]:
    names = dict.fromkeys(name for name, _ in rows)
    at = {name: np.array([i for i, (n, _) in enumerate(rows) if n == name], np.int64) for name in names}
    return [(name, at[name], np.array([rows[i][1] for i in at[name]], np.int64)) for name in names]


def _carry(
    link: Link, shape: tuple[int, ...], axis: int, groups: Ints, member: NDArray[np.bool_], target: tuple[int, ...]
) -> ParameterRows | None:
    """The rows of an initializer's axis as rows of the parameter; None where only dependents are lost."""
    if link.how == "same":
        return ParameterRows(link.parameter, axis, groups, member)
    if link.how == "transposed":
        return ParameterRows(link.parameter, 1 - axis, groups, member)
    labels = np.where(groups < 0, -1, 2 * groups + member)
    wide = np.broadcast_to(labels.reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape)
    here = _elements(link, wide, target)
    for i in sorted(range(len(target)), key=lambda i: target[i] == 1):
        lines = np.moveaxis(here, i, 0).reshape(target[i], -1)
        if (lines == lines[:, :1]).all():
            label = lines[:, 0]
            fixed = label < 0
            return ParameterRows(link.parameter, i, np.where(fixed, -1, label // 2), ~fixed & (label % 2 == 1))
    if not member.any():
        return None
    raise LinkError(
        f"tensor '{link.tensor}' holds '{link.parameter}' in an order in which its axis {axis} is no axis of the "
        "parameter; export with zig.training.export"
    )


def _elements(link: Link, labels: Ints, target: tuple[int, ...]) -> Ints:
    """Labels of an initializer's elements, put where those elements stand in the parameter."""
    if link.rows is None:
        return labels.reshape(target)
    here = np.full((target[0], _size(target[1:])), _HERE, np.int64)
    here[link.rows] = (labels.T if link.turned else labels).reshape(-1, here.shape[1])[link.at]
    return here.reshape(target)
