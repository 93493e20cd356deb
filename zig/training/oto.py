"""Only-Train-Once: the way of working of OTO, in five lines.

oto = OTO(model, dummy_input)                       # export, analyse, link
optimizer = oto.dhspg(lr=0.1, target_group_sparsity=0.7)
...                                                 # train as usual
oto.compress()                                      # DemoNet_full.onnx, DemoNet_compressed.onnx: same outputs
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zig.budget import cost
from zig.partition import Partition, analyze
from zig.plan import Plan, prune
from zig.surgery import Report, compress
from zig.training.dhspg import DHSPG, Variant
from zig.training.export import Inputs, export
from zig.training.groups import GroupTable
from zig.training.link import Links, link


class OTO:
    """A torch model, its zero-invariant groups, and the way from one to the other.

    Attributes:
        model: The model, as it was given; it stays on its device and in its mode.
        partition: The groups of its ONNX graph.
        links: Which parameter each initializer of the graph is.
    """

    def __init__(self, model: nn.Module, dummy_input: Inputs, *, forks: str = "heads", keep: Iterable[str] = ()):
        """Export the model, find its groups and link them to its parameters.

        Args:
            model: The model, on any device.
            dummy_input: What it reads: a tensor, a sequence of arguments, or a mapping of keyword arguments.
            forks: Whether attention loses heads, sizes of heads, or whatever is finer; see `zig.analyze`.
            keep: Patterns of parameter names that are never pruned, as `head.*`.

        Raises:
            ExportError: The model can't be exported without loss.
            LinkError: A trainable parameter can't be found in the graph.
        """
        self.model, self.inputs = model, dummy_input
        self._options: dict[str, Any] = {"forks": forks, "keep": tuple(keep)}
        self.partition: Partition = analyze(export(model, dummy_input), **self._options)
        self.links: Links = link(self.partition.graph, model)
        self._optimizer: DHSPG | None = None

    def dhspg(
        self,
        variant: Variant = "sgd",
        *,
        lr: float | None = None,
        target_group_sparsity: float = 0.5,
        params: Iterable[Any] | None = None,
        **options: Any,
    ) -> DHSPG:
        """Make the optimizer that trains the model and brings a share of its groups to zero.

        Args:
            variant: `sgd`, `adam` or `adamw`.
            lr: Learning rate; 0.1 for sgd, else 1e-3.
            target_group_sparsity: The share of all groups that is exactly zero once pruning is over.
            params: Parameters or parameter groups, where not simply all that are trainable.
            **options: Of `zig.training.dhspg.DHSPG`: `momentum`, `start_pruning_steps`, `pruning_steps`, ...

        Raises:
            PlanError: The target can't be reached, or the schedule is none.
        """
        chosen = [p for p in self.model.parameters() if p.requires_grad] if params is None else params
        table = GroupTable.of(self.partition, self.links, self.model)
        self._optimizer = DHSPG(
            chosen, table, variant=variant, lr=lr, target_group_sparsity=target_group_sparsity, **options
        )
        return self._optimizer

    def compress(self, out_dir: str | os.PathLike[str] = ".", name: str | None = None, **verify_options: Any) -> Report:
        """Write the model as it is now, and the same without its zero groups, verified to give the same outputs.

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
        full = folder / f"{name}_full.onnx"
        export(self.model, self.inputs, full)
        partition = analyze(full, **self._options)
        nothing_more = Plan(partition, np.zeros(len(partition), bool))
        return compress(full, folder / f"{name}_compressed.onnx", nothing_more, **verify_options)

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
        tensors: dict[str, Tensor] = dict(self.model.named_parameters(remove_duplicate=False))
        tensors |= dict(self.model.named_buffers(remove_duplicate=False))
        for row in self.links.rows(self.partition):
            here = row.member & (row.groups >= 0)
            here[here] = remove[row.groups[here]]
            tensor = tensors[row.parameter]
            tensor.index_fill_(row.axis, torch.from_numpy(np.flatnonzero(here)).to(tensor.device), 0)

    def compute_macs(self) -> int:
        """Multiply-accumulate operations of the whole model for one sample, from the sizes in its graph."""
        return cost(self.partition)["macs"]

    def compute_num_params(self) -> int:
        """The number of parameters in the graph of the whole model."""
        return cost(self.partition)["parameters"]

    def _check_finished(self) -> None:
        optimizer = self._optimizer
        if optimizer is not None and not optimizer.finished:
            warnings.warn(
                f"pruning is not over: {optimizer.zero_groups} of {optimizer.target_groups} groups are zero after "
                f"{optimizer.steps} steps, all will be after {optimizer.schedule.end}; train on, or set "
                "start_pruning_steps and pruning_steps",
                stacklevel=3,
            )
