"""Only-Train-Once: the way of working of OTO, in five lines.

oto = OTO(model, dummy_input)                       # export, analyse, link
optimizer = oto.dhspg(lr=0.1, target_group_sparsity=0.7, epochs=300, batches=len(loader))
...                                                 # train as usual
oto.compress()                                      # DemoNet_full.onnx, DemoNet_compressed.onnx: same outputs
oto.compressed                                      # the same as a torch module
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zig.errors import ExportError, LinkError, UsageError, ZigWarning
from zig.groups.budget import cost
from zig.groups.partition import Partition, analyze
from zig.groups.picture import draw
from zig.plan import Plan, prune
from zig.surgery.compress import Report, compress
from zig.training.bases import Variant
from zig.training.dhspg import DHSPG
from zig.training.export import DynamicAxes, Inputs, arguments_of, export
from zig.training.grouped import GroupOptimizer
from zig.training.groups import GroupTable, refuse_sharded
from zig.training.hesso import HESSO
from zig.training.hesso_cric import HESSOCRIC
from zig.training.hspg import HSPG
from zig.training.link import Links, link, load_of
from zig.training.log import TrainingLog
from zig.training.parametrized import blame, check_exportable
from zig.training.slim import slim

if TYPE_CHECKING:
    from zig.controller.optimizer import ATOOptimizer

Method = TypeVar("Method", bound=GroupOptimizer)


class OTO:
    """A torch model, its zero-invariant groups, and the way from one to the other.

    Attributes:
        model: The model, without the wrappers of DistributedDataParallel, DataParallel or `torch.compile`; it stays on
            its device and in its mode.
        partition: The groups of its ONNX graph.
        links: Which parameter each initializer of the graph is.
    """

    def __init__(
        self, model: nn.Module, dummy_input: Inputs, *, keywords: Mapping[str, Any] | None = None,
        dynamic_axes: DynamicAxes | None = None, forks: str = "heads", keep: Iterable[str] = (),
        even_splits: bool = True,
    ):  # fmt: skip
        """Export the model, find its groups and link them to its parameters.

        Args:
            model: The model, on any device, wrapped or not.
            dummy_input: What it reads: a tensor, a sequence of arguments (tensors, dicts, ...), or a mapping of keyword
                arguments.
            keywords: Keyword arguments, where there are others too.
            dynamic_axes: Axes that stay free besides the batch: by argument, a name for each, {"image": {2: "height"}}.
            forks: Whether attention loses heads, sizes of heads, or whatever is finer; see `zig.analyze`.
            keep: Patterns of parameter names that are never pruned, as `head.*`.
            even_splits: Whether all sides of an axis that is split into equal ones lose the same indices, so that
                `x.chunk(2, 1)` still fits in the compressed module. Without, more groups are free, and the module may
                not come back; the file always does.

        Raises:
            ExportError: The model can't be exported without loss.
            LinkError: A trainable parameter can't be found in the graph.
            UsageError: The parameters are sharded, or a weight is parametrised by what can't be exported.
        """
        self.model = unwrapped(model)
        refuse_sharded(self.model.parameters())
        check_exportable(self.model)
        self._inputs: dict[str, Any] = {"inputs": dummy_input, "keywords": keywords}
        self._axes, self._forks, self._keep, self._even = dynamic_axes, forks, tuple(keep), even_splits
        self._optimizer: GroupOptimizer | None = None
        self._compressed: nn.Module | ExportError | LinkError | None = None
        self._analyze()

    def _analyze(self) -> None:
        try:
            exported = export(self.model, **self._inputs, dynamic_axes=self._axes)
        except ExportError as error:
            raise blame(self.model, error) from error
        graph = load_of(exported, self.model)
        self.links: Links = link(graph, self.model)
        self.partition: Partition = analyze(graph, **self._options(self.links))

    def _options(self, links: Links) -> dict[str, Any]:
        """How groups are found: buffers keep their values, as no training moves them."""
        buffers = {name for name, _ in self.model.named_buffers(remove_duplicate=False)}
        held = [tensor for tensor, found in links.links.items() if {each.parameter for each in found} <= buffers]
        return {"forks": self._forks, "keep": self._keep, "held": held, "even_splits": self._even}

    def mark_unprunable(self, patterns: str | Iterable[str]) -> None:
        """Protect parameters by patterns of their names, as `head.*`; before the optimizer is made.

        Raises:
            UsageError: A pattern matches no parameter, or there is an optimizer already.
        """
        if self._optimizer is not None:
            raise UsageError("the optimizer knows its groups already; mark what is unprunable before making it")
        before, self._keep = self._keep, (*self._keep, *([patterns] if isinstance(patterns, str) else patterns))
        try:
            self._analyze()
        except UsageError:
            self._keep = before
            raise

    # --- optimizers ----------------------------------------------------------------------------------------------

    def hspg(self, variant: Variant = "sgd", *, params: Iterable[Any] | None = None, **options: Any) -> HSPG:
        """Make the optimizer of OTO: mixed-norm penalty, then half-space projection.

        Args:
            variant: `sgd`, `adam` or `adamw`.
            params: Parameters or parameter groups, where not simply all that are trainable.
            **options: Of `HSPG` and `zig.training.grouped.Options`.

        Raises:
            PlanError: The target can't be reached, or the schedule is none.
            UsageError: It is not known how long the training is.
        """
        return self._made(HSPG, variant, params, options)

    def dhspg(self, variant: Variant = "sgd", *, params: Iterable[Any] | None = None, **options: Any) -> DHSPG:
        """Make the optimizer of OTOv2; arguments as of `hspg`, options of `DHSPG`."""
        return self._made(DHSPG, variant, params, options)

    def hesso(self, variant: Variant = "sgd", *, params: Iterable[Any] | None = None, **options: Any) -> HESSO:
        """Make the optimizer of OTOv3; arguments as of `hspg`, options of `HESSO`."""
        return self._made(HESSO, variant, params, options)

    def hesso_cric(self, variant: Variant = "sgd", *, params: Iterable[Any] | None = None, **options: Any) -> HESSOCRIC:
        """Make HESSO with its corrective cycle; arguments as of `hspg`, options of `HESSOCRIC`."""
        return self._made(HESSOCRIC, variant, params, options)

    def ato(self, variant: Variant = "sgd", *, params: Iterable[Any] | None = None, **options: Any) -> ATOOptimizer:
        """Make the optimizer of ATO, with a controller; arguments as of `hspg`, options of `ATOOptimizer`."""
        from zig.controller.gates import Gates  # noqa: PLC0415 - the controller builds on this package
        from zig.controller.optimizer import ATOOptimizer  # noqa: PLC0415

        gates = Gates(self.model, self.partition, self.links)
        return self._made(ATOOptimizer, variant, params, {"gates": gates, **options})

    def _made(
        self, method: type[Method], variant: Variant, params: Iterable[Any] | None, options: dict[str, Any]
    ) -> Method:
        chosen = [p for p in self.model.parameters() if p.requires_grad] if params is None else params
        optimizer = method(chosen, self.table, variant=variant, **options)
        self._optimizer = optimizer
        return optimizer

    def log(self, path: str | Path) -> TrainingLog:
        """A log that the app's Training page reads; call its `write(loss=..., accuracy=...)` as often as you like.

        Raises:
            UsageError: There is no optimizer yet.
        """
        if self._optimizer is None:
            raise UsageError("make the optimizer first, then the log of what it reaches")
        return TrainingLog(path, self._optimizer, [group.name for group in self.partition.node_groups])

    @property
    def table(self) -> GroupTable:
        """The groups as rows of the model's parameters: what an optimizer of `zig.training` is made with."""
        return GroupTable.of(self.partition, self.links, self.model)

    # --- the result ----------------------------------------------------------------------------------------------

    def compress(self, out_dir: str | os.PathLike[str] = ".", name: str | None = None, **verify_options: Any) -> Report:
        """Write the model as it is now, and the same without its zero groups, verified to give the same outputs.

        The compressed torch module is in `compressed` then. Where the module can't be cut (its `forward` has sizes
        written in it), a warning says where, and the files are there all the same.

        Args:
            out_dir: Folder of `<name>_full.onnx` and `<name>_compressed.onnx`; made where it is missing.
            name: The class of the model, if not given.
            **verify_options: Of `zig.compress`.

        Returns:
            Sizes before and after, and the comparison by onnxruntime.

        Raises:
            ExportError: The full model can't be written.
            VerifyError: The outputs differ; the compressed model is not written.
        """
        self._check_finished()
        folder = Path(out_dir)
        folder.mkdir(parents=True, exist_ok=True)
        name = name or type(self.model).__name__
        full, small = folder / f"{name}_full.onnx", folder / f"{name}_compressed.onnx"
        export(self.model, **self._inputs, path=full, dynamic_axes=self._axes)
        graph = load_of(full, self.model)
        options = self._options(link(graph, self.model))
        partition = analyze(graph, **options)
        nothing_more = Plan(partition, np.zeros(len(partition), bool))
        report = compress(full, small, nothing_more, **verify_options)
        try:
            inputs = arguments_of(self.model, **self._inputs)
            self._compressed = slim(self.model, full, small, inputs, **options)
        except (ExportError, LinkError) as error:
            self._compressed = error
            warnings.warn(str(error), ZigWarning, stacklevel=2)
        return report

    @property
    def compressed(self) -> nn.Module:
        """The torch module that `compress` made: the same class, with parameters and attributes cut.

        Raises:
            UsageError: `compress` was not called yet.
            ExportError: The module's `forward` has sizes written in it; the message says where.
            LinkError: A weight of the compressed file has no place in the module.
        """
        if self._compressed is None:
            raise UsageError("there is no compressed module yet; call compress() first")
        if not isinstance(self._compressed, nn.Module):
            raise self._compressed
        return self._compressed

    def random_set_zero_groups(self, ratio: float = 0.5, seed: int = 0) -> Plan:
        """Zero a random share of the groups in the torch model: the quickest way to see what `compress` does.

        Raises:
            PlanError: The ratio is not in (0, 1), or nothing can be pruned.
        """
        plan = prune(self.partition, ratio, of="groups", criterion="random", seed=seed)
        self.zero(plan.remove)
        return plan

    @torch.no_grad()
    def zero(self, remove: NDArray[np.bool_]) -> None:
        """Set the members of some groups to zero in the torch model.

        Args:
            remove: The groups, bool[G].
        """
        for tensor, axis, groups in self._members():
            here = np.append(remove, False)[groups]
            tensor.index_fill_(axis, torch.from_numpy(np.flatnonzero(here)).to(tensor.device), 0)

    @torch.no_grad()
    def zero_groups(self) -> NDArray[np.bool_]:
        """Which groups are zero in the torch model as it is now, bool[G]."""
        zero = np.ones(len(self.partition) + 1, bool)
        for tensor, axis, groups in self._members():
            rows = tensor.movedim(axis, 0).reshape(len(groups), -1).any(1).cpu().numpy()
            zero[groups[rows]] = False
        return zero[:-1]

    def _members(self) -> list[tuple[Tensor, int, NDArray[np.int64]]]:
        """Tensors of the model that hold members, with the group of each index along an axis (-1: none)."""
        tensors: dict[str, Tensor] = dict(self.model.named_parameters(remove_duplicate=False))
        tensors |= dict(self.model.named_buffers(remove_duplicate=False))
        rows = self.links.rows(self.partition)
        return [(tensors[row.parameter], row.axis, np.where(row.member, row.groups, -1)) for row in rows]

    # --- what there is to know -----------------------------------------------------------------------------------

    def compute_macs(self, *, compressed: bool = False) -> int:
        """Multiply-accumulate operations for one sample, from the sizes in the graph.

        Args:
            compressed: Of what is left without the groups that are zero now.
        """
        return self._cost(compressed)["macs"]

    def compute_num_params(self, *, compressed: bool = False) -> int:
        """The number of parameters in the graph; `compressed` as in `compute_macs`."""
        return self._cost(compressed)["parameters"]

    def _cost(self, compressed: bool) -> dict[str, int]:
        return cost(self.partition, self.zero_groups() if compressed else None)

    def visualize(self, out_dir: str | os.PathLike[str] = ".", name: str | None = None, form: str = "svg") -> Path:
        """Draw the graph with its groups in colour, by graphviz; where that is missing, write its input and say so.

        Args:
            out_dir: Folder of the picture; made where it is missing.
            name: Its name without suffix; the class of the model, if not given.
            form: `svg`, `pdf` or `dot`.

        Raises:
            UsageError: The picture can't be written.
        """
        folder = Path(out_dir)
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{name or type(self.model).__name__}.{form}"
        note = draw(self.partition, target, form)
        if note:
            warnings.warn(note, ZigWarning, stacklevel=2)
        return target

    def _check_finished(self) -> None:
        optimizer = self._optimizer
        if optimizer is not None and not optimizer.finished:
            warnings.warn(
                f"pruning is not over: {optimizer.zero_groups} groups are zero after {optimizer.steps} steps, and "
                f"all that must go will be after {optimizer.schedule.end}; train on, or set "
                "start_pruning_steps and pruning_steps",
                ZigWarning,
                stacklevel=3,
            )


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside the wrappers of DistributedDataParallel, DataParallel and `torch.compile`."""
    while True:
        if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model
