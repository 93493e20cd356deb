"""What is searched: a torch model or an ONNX file, with its groups, and with any of them zeroed for a while.

A zeroed group is a removed group, so a candidate is tried without building it: the members of its groups are zeroed in
place, and put back afterwards. What that costs beside an evaluation is the copying of those slices.
"""

from __future__ import annotations

import copy
import hashlib
import os
import tempfile
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatchcase
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zig.errors import ExportError, UsageError
from zig.groups.importance import Scores, magnitude, relative_norms
from zig.groups.partition import Mask, Partition, analyze
from zig.plan import Plan
from zig.surgery.compress import Report, compress, zero
from zig.training.export import DynamicAxes, Inputs, export
from zig.training.link import load_of
from zig.training.oto import OTO, unwrapped
from zig.training.slim import slim_state_dict

Mode = Literal["sparse", "slim"]
Forward = Callable[[nn.Module, Any], Any]
Rows = list[tuple[str, int, NDArray[np.int64]]]


class Subject(Protocol):
    """What can be evaluated with some of its groups gone."""

    def subnet(self, candidate: Any) -> Any:
        """A context in which an evaluation sees the candidate; the context's value is what is evaluated."""


class Masked:
    """A torch model whose groups can be zeroed in place and restored.

    Attributes:
        model: The model.
        rows: Parameters and buffers that hold members: the name, the axis, and the group of each index (-1: none).
    """

    def __init__(self, model: nn.Module, rows: Rows):
        """See the class."""
        self.model, self.rows = model, rows
        self._parts = list(model.modules())  # walking through a large model takes as long as masking it

    @contextmanager
    def subnet(self, candidate: Mask) -> Iterator[nn.Module]:
        """The model with the groups of bool[G] zeroed; afterwards it is as it was, BatchNorm's statistics included."""
        saved: list[tuple[Tensor, int, Tensor, Tensor]] = []
        modes = {part: part.training for part in self._parts}
        with statistics_kept(self._parts):
            try:
                with torch.no_grad():
                    for tensor, axis, where in indices(self.model, self.rows, candidate):
                        saved.append((tensor, axis, where, tensor.index_select(axis, where)))
                        tensor.index_fill_(axis, where, 0)
                yield self.model
            finally:
                with torch.no_grad():
                    for tensor, axis, where, values in reversed(saved):
                        tensor.index_copy_(axis, where, values)
                set_modes(modes)


class Network:
    """A torch model with its groups, and what becomes of it without some of them."""

    def __init__(
        self, model: nn.Module, inputs: Inputs, *, keywords: Mapping[str, Any] | None = None,
        dynamic_axes: DynamicAxes | None = None, forks: str = "heads", keep: Iterable[str] = (),
    ):  # fmt: skip
        """Export the model, find its groups and link them; arguments as of `zig.OTO`.

        Raises:
            ExportError: The model can't be exported without loss.
            LinkError: A trainable parameter can't be found in the graph.
        """
        self._exported: dict[str, Any] = {"inputs": inputs, "keywords": keywords, "dynamic_axes": dynamic_axes}
        self._analyzed: dict[str, Any] = {"forks": forks, "keep": tuple(keep)}
        self.oto = OTO(model, inputs, keywords=keywords, dynamic_axes=dynamic_axes, **self._analyzed)
        self.model, self.partition = self.oto.model, self.oto.partition
        self.name = type(self.model).__name__
        rows = self.oto.links.rows(self.partition)
        self.rows: Rows = [(row.parameter, row.axis, np.where(row.member, row.groups, -1)) for row in rows]
        self.axes: Rows = [(row.parameter, row.axis, row.groups) for row in rows]
        self.digest = structure(self.partition)

    @property
    def masked(self) -> Masked:
        """The model, ready to have groups zeroed."""
        return Masked(self.model, self.rows)

    def weights_digest(self) -> str:
        """A number that changes with any parameter or buffer."""
        return digest_of(self.model)

    def magnitude(self) -> Scores:
        """The importance of each group by the weights as they are now, float64[G]; see `zig.groups.importance`."""
        tensors = tensors_of(self.model)
        rows = ((tensors[name].detach().cpu().float().numpy(), axis, groups) for name, axis, groups in self.rows)
        return relative_norms(rows, self.partition.node_group)

    def families_of(self, excludes: Iterable[str | nn.Module]) -> frozenset[int]:
        """The node groups with a member in some module, or in a parameter that a pattern or a module's path names.

        Raises:
            UsageError: Something that is excluded is no part of the model.
        """
        meant = self.parameters_of(excludes)
        families = [groups[groups >= 0] for name, _, groups in self.rows if name in meant]
        return frozenset(self.partition.node_group[np.concatenate([*families, np.empty(0, np.int64)])].tolist())

    def parameters_of(self, excludes: Iterable[str | nn.Module]) -> frozenset[str]:
        """The parameters of some modules, of modules' paths, or of patterns of names; raises as `families_of`."""
        paths = {id(part): path for path, part in self.model.named_modules()}
        found: set[str] = set()
        names = [name for name, _ in self.model.named_parameters(remove_duplicate=False)]
        for excluded in excludes:
            if isinstance(excluded, nn.Module) and id(excluded) not in paths:
                raise UsageError(f"excludes has a {type(excluded).__name__} that is no part of {self.name}")
            pattern = paths[id(excluded)] if isinstance(excluded, nn.Module) else excluded
            meant = {n for n in names if fnmatchcase(n, pattern) or n.startswith(f"{pattern}.") or pattern == ""}
            if not meant:
                raise UsageError(f"'{pattern}' in excludes names no module or parameter of {self.name}")
            found |= meant
        return frozenset(found)

    # --- results ---------------------------------------------------------------------------------------------------

    def pruned(self, remove: Mask, mode: Mode) -> nn.Module:
        """A copy of the model without some groups.

        Args:
            remove: The groups, bool[G].
            mode: `sparse`: of the same shape, with zeros that training leaves alone, and a method `slim_state_dict`;
                `slim`: the small module.

        Raises:
            UsageError: There is no such mode.
            ExportError: The small module can't run.
        """
        if mode == "slim":
            return self.slim(remove)[0]
        if mode != "sparse":
            raise UsageError(f"mode must be 'sparse' or 'slim', not '{mode}'")
        model = copy.deepcopy(self.model)
        self.hold(model, remove)
        network = self

        def cut(self: nn.Module) -> dict[str, Tensor]:
            """The state of the small network, by the names of this one."""
            return network.slim_state_dict(self)

        vars(model)["slim_state_dict"] = types.MethodType(cut, model)
        return model

    def hold(self, model: nn.Module, remove: Mask) -> None:
        """Zero some groups of a copy of the model, and let no gradient reach them.

        A group without gradient stays zero under every optimizer that is made after this.
        """
        masks: dict[int, tuple[Tensor, Tensor]] = {}
        with torch.no_grad():
            for tensor, axis, where in indices(model, self.rows, remove):
                tensor.index_fill_(axis, where, 0)
                if isinstance(tensor, nn.Parameter) and tensor.requires_grad:
                    _, mask = masks.setdefault(id(tensor), (tensor, torch.ones_like(tensor)))
                    mask.index_fill_(axis, where, 0)
        for tensor, mask in masks.values():
            tensor.register_hook(mask.__mul__)  # type: ignore[no-untyped-call]

    def slim(self, remove: Mask, out_dir: str | os.PathLike[str] | None = None) -> tuple[nn.Module, Report]:
        """The small module, and the comparison of full and small file by onnxruntime.

        Args:
            remove: The groups that go, bool[G].
            out_dir: Where to leave `<name>_full.onnx` and `<name>_compressed.onnx`, if anywhere.

        Raises:
            VerifyError: The outputs differ.
            ExportError: The small module can't run with the cut sizes.
        """
        model = copy.deepcopy(self.model)
        other = self._of(model)
        other.zero(remove)
        place = nullcontext(out_dir) if out_dir is not None else tempfile.TemporaryDirectory()
        with place as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is raised below
            report = other.compress(folder)
        try:
            made = other.compressed
        except ExportError as error:
            where = str(error).partition("; ")[0]
            raise ExportError(f"{where}; take mode='sparse', and compress() for the small ONNX file") from error
        made.train(self.model.training)
        return made, report

    def compress(self, model: nn.Module, out_dir: str | os.PathLike[str]) -> Report:
        """Write a sparse model, retrained or not, as two files that give the same outputs; see `zig.OTO.compress`."""
        return self._of(unwrapped(model)).compress(out_dir)

    def slim_state_dict(self, model: nn.Module) -> dict[str, Tensor]:
        """The state of a sparse model, cut to what is not zero; tensors by the names of `model.state_dict()`."""
        with tempfile.TemporaryDirectory() as folder:
            full, small = Path(folder, "full.onnx"), Path(folder, "small.onnx")
            export(model, path=full, **self._exported)
            partition = analyze(load_of(full, model), **self._analyzed)
            compress(full, small, Plan(partition, np.zeros(len(partition), bool)), check=False)
            return slim_state_dict(model, full, small, **self._analyzed)

    def like(self, model: nn.Module) -> Network:
        """A model that differs from this one in weights and kernels alone.

        No unit stands for a place in a kernel, so its groups are these; an export and an analysis would say the same.
        """
        other = copy.copy(self)
        other.model, other.oto = model, self._of(model)
        return other

    def _of(self, model: nn.Module) -> OTO:
        """The same groups for a model of the same shape."""
        other = copy.copy(self.oto)
        other.model = model
        return other


class File:
    """An ONNX file whose groups can be zeroed: an evaluation gets the path of a file with zeros in it."""

    def __init__(self, path: str | os.PathLike[str], *, forks: str = "heads", keep: Iterable[str] = ()):
        """Find the groups of a file.

        Raises:
            ModelError: It can't be read.
        """
        self.model = Path(path)
        self.partition = analyze(self.model, forks=forks, keep=tuple(keep))
        self.name, self.digest = self.model.stem, structure(self.partition)

    @property
    def masked(self) -> File:
        """The file, ready to have groups zeroed."""
        return self

    @contextmanager
    def subnet(self, candidate: Mask) -> Iterator[Path]:
        """A file beside nothing, with the groups of bool[G] zeroed; gone afterwards."""
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, self.model.name)
            zero(Plan(self.partition, candidate), target)
            yield target

    def weights_digest(self) -> str:
        """A number that changes with any weight."""
        made = hashlib.blake2b(digest_size=16)
        for name in self.partition.graph.initializers:
            made.update(name.encode())
            made.update(np.ascontiguousarray(self.partition.graph.array(name)).tobytes())
        return made.hexdigest()

    def magnitude(self) -> Scores:
        """The importance of each group, float64[G]; see `zig.groups.importance`."""
        return magnitude(self.partition)

    def families_of(self, excludes: Iterable[str]) -> frozenset[int]:
        """The node groups with a member in an initializer that a pattern names.

        Raises:
            UsageError: A pattern names nothing.
        """
        found: set[int] = set()
        for pattern in excludes:
            meant = [g.id for g in self.partition.node_groups if any(fnmatchcase(t, pattern) for t, _ in g.members)]
            if not meant:
                raise UsageError(f"'{pattern}' in excludes names no prunable weight of {self.model}")
            found.update(meant)
        return frozenset(found)

    def compress(self, remove: Mask, target: str | os.PathLike[str]) -> Report:
        """Write the small file; full and small are compared by onnxruntime first.

        Raises:
            VerifyError: The outputs differ.
        """
        return compress(self.model, target, Plan(self.partition, remove))


def indices(model: nn.Module, rows: Rows, remove: Mask) -> Iterator[tuple[Tensor, int, Tensor]]:
    """The tensors that hold members of some groups, the axis, and where they stand along it."""
    starts = np.cumsum([0, *(len(groups) for _, _, groups in rows)])
    gone = np.flatnonzero(np.append(remove, False)[np.concatenate([np.empty(0, np.int64), *(r[2] for r in rows)])])
    bounds = np.searchsorted(gone, starts)
    for i in np.flatnonzero(np.diff(bounds)).tolist():
        name, axis, _ = rows[i]
        tensor: Tensor = attrgetter(name)(model)
        yield tensor, axis, torch.from_numpy(gone[bounds[i] : bounds[i + 1]] - starts[i]).to(tensor.device)


def set_modes(modes: Mapping[nn.Module, bool]) -> None:
    """Give modules their modes back; setting an attribute of a module is slow, so only where it is another one."""
    for part, training in modes.items():
        if part.training != training:
            part.training = training


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name, under every name that they have."""
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    return tensors | dict(model.named_buffers(remove_duplicate=False))


@contextmanager
def statistics_kept(parts: Iterable[nn.Module]) -> Iterator[None]:
    """The running statistics of some modules' BatchNorm, and how they run, are afterwards as they were."""
    norms = [part for part in parts if isinstance(part, nn.modules.batchnorm._NormBase)]
    momenta, buffers = [part.momentum for part in norms], [b for part in norms for b in _statistics(part)]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
        for part, momentum in zip(norms, momenta, strict=True):
            if part.momentum != momentum:
                part.momentum = momentum


def _statistics(part: Any) -> list[Tensor]:
    return [b for b in (part.running_mean, part.running_var, part.num_batches_tracked) if b is not None]


def reset_statistics(model: nn.Module) -> None:
    """Let the BatchNorm layers of a model begin anew, as averages over all batches that they see in training mode."""
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.reset_running_stats()
            part.momentum = None
            part.train()


def recalibrate(
    model: nn.Module, batches: Iterable[Any], limit: int | None = 16, forward: Forward | None = None
) -> None:
    """Adaptive BatchNorm (EagleEye, 2007.02491): statistics of the network as it is now, by forward passes alone.

    Args:
        model: A network with other weights than those that its statistics are of.
        batches: What the model reads; of a tuple or list, the first entry.
        limit: How many batches are enough; None for all.
        forward: How the model reads a batch, called with both, where not simply so.
    """
    mode = model.training
    momenta = {part: part.momentum for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)}
    model.eval()
    reset_statistics(model)
    device = next((p.device for p in model.parameters()), None)
    with torch.no_grad():
        for i, batch in enumerate(batches):
            if limit is not None and i >= limit:
                break
            if forward is not None:
                forward(model, batch)
            else:
                model((batch[0] if isinstance(batch, (tuple, list)) else batch).to(device))
    model.train(mode)
    for part, momentum in momenta.items():
        part.momentum = momentum


def digest_of(model: nn.Module) -> str:
    """A number for all parameters and buffers of a model."""
    made = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        made.update(name.encode())
        made.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return made.hexdigest()


def sizes_of(partition: Partition) -> list[list[int | None]]:
    """The sizes of what a graph reads, None for those that are left free: costs, and so searches, go by them."""
    graph = partition.graph
    read = [i.type.tensor_type.shape.dim for i in graph.proto.graph.input if i.name in graph.inputs]
    return [[dim.dim_value if dim.HasField("dim_value") else None for dim in dims] for dims in read]


def structure(partition: Partition) -> str:
    """A number for the graph and its groups, whatever the weights are: what a stored search must agree with."""
    made = hashlib.blake2b(digest_size=16)
    for node in partition.graph.nodes:
        made.update(f"{node.op}({','.join(node.inputs)})".encode())
    for name, tensor in partition.graph.initializers.items():
        made.update(f"{name}{list(tensor.dims)}".encode())
    made.update(np.ascontiguousarray(partition.node_group, np.int64).tobytes())
    return made.hexdigest()
