"""The pruning runners of Vitis Optimizer's PyTorch README, on zig's groups.

    from zig.compat.vitis import IterativePruningRunner   # was: from pytorch_nndct import ...

Names, arguments and files are those of the README; docs/search.md says what is mended and what differs. Ratios are
met by MACs, from which nothing functional is left out, and pruning reaches Linear layers and attention too.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from zig.compat.devices import scored_on
from zig.compat.given import FOLDER, excluded, made, one_of
from zig.compat.kept import begun, found
from zig.compat.ofa import OFAPruner
from zig.errors import UsageError, ZigWarning
from zig.search.iterative import IterativePruner
from zig.search.network import Mode, Network
from zig.search.onestep import OneStepPruner
from zig.search.pruner import Pruner
from zig.search.record import write_json
from zig.training.export import Inputs

Function = Callable[..., Any]
Direction = Literal["max", "min"]


class IterativePruningRunner:
    """Sensitivity analysis once, then a pruned model for each ratio, in this process or a later one."""

    def __init__(self, model: nn.Module, input_signature: Inputs):
        """Find the groups of a model; `input_signature` is what it reads."""
        self._pruner = made(IterativePruner, model, input_signature)
        self._given = model, input_signature
        self._searched: OneStepPruningRunner | None = None

    def ana(
        self, eval_fn: Function, args: Sequence[Any] = (), gpus: Sequence[Any] | None = None,
        excludes: Iterable[Any] | None = None, forced: bool = False, with_group_conv: bool = True,
        metric: Direction = "max",
    ) -> None:  # fmt: skip
        """Measure what each node group may lose; kept in `.vai/<class>.sens`.

        What that file has of this model, by the same metric, is not measured again. What it has of another model, of
        other weights or of other input sizes moves aside, and a warning says so; weights that were trained after
        `prune` are no other ones, so the analysis serves all rounds.

        Args:
            eval_fn: Called with the model and `args`, returns a number.
            args: Its further arguments.
            gpus: The CUDA device to score on, such as ['0'] (the first one, if there are more): the model is moved
                there and back. None for where the model is. Without CUDA it has no effect, and a warning says so.
            excludes: Modules, or paths of modules, that stay whole.
            forced: Whether to begin anew.
            with_group_conv: Must be true: grouped convolutions are groups like any other.
            metric: Whether more (`max`) or less (`min`) of the number is better; Vitis has no such argument.

        Raises:
            UsageError: An argument is wrong.
            PlanError: Nothing can be pruned, or everything is excluded.
        """
        _only_with_groups(with_group_conv)
        one_of("metric", metric, ("max", "min"))
        without = excluded(excludes)
        forced = forced or begun(self._path, self._pruner, {"best": ("metric", metric)})
        with _on(self._pruner, gpus):
            self._pruner.analyze(eval_fn, args, best=metric, excludes=without, forced=forced, path=self._path)

    @property
    def _path(self) -> Path:
        return Path(FOLDER, f"{self._pruner.network.name}.sens")

    def search(self, *args: Any, **options: Any) -> None:
        """One-step pruning: the README's example calls it on this runner, where OneStepPruningRunner is meant.

        Args:
            *args: As of `OneStepPruningRunner.search`.
            **options: As of `OneStepPruningRunner.search`.
        """
        warnings.warn(
            "search belongs to OneStepPruningRunner; prune of this runner now gives the best of the search",
            ZigWarning,
            stacklevel=2,
        )
        self._searched = OneStepPruningRunner(*self._given)
        self._searched.search(*args, **options)

    def prune(
        self, removal_ratio: float | None = None, threshold: float | None = None,
        spec_path: str | os.PathLike[str] | None = None, excludes: Iterable[Any] | None = None,
        mode: Mode | None = None, pruning_info_path: str | os.PathLike[str] | None = None, channel_divisible: int = 2,
    ) -> nn.Module:  # fmt: skip
        """The pruned model: by a ratio, a threshold or an earlier plan; the analysis may be that of an earlier process.

        Args:
            removal_ratio: The share of MACs to remove; a warning says where it can't be met.
            threshold: In its place, the damage that no node group may pass, as a share of the baseline.
            spec_path: In its place, the plan of an earlier call (`.vai/*.plan.json`).
            excludes: Modules, or paths of modules, that stay whole.
            mode: `sparse`, if not given: keeps the shape and has `slim_state_dict()`; `slim` is the small module.
            pruning_info_path: Where to write which widths are left; none, if not given.
            channel_divisible: Widths are whole or multiples of this.

        Raises:
            UsageError: Not exactly one of the first three is given, or there is no analysis of this model.
            PlanError: The ratio is out of range, or everything is excluded.
        """
        if sum(given is not None for given in (removal_ratio, threshold, spec_path)) != 1:
            raise UsageError("prune needs one of removal_ratio, threshold and spec_path")
        if self._searched is not None and removal_ratio is not None:
            return self._searched.prune(mode or "slim", removal_ratio, pruning_info_path=pruning_info_path)
        if channel_divisible < 1:
            raise UsageError(f"channel_divisible must be at least 1, not {channel_divisible}")
        if self._pruner.sensitivity is None and spec_path is None:
            self._pruner.recall(found(self._path, self._pruner, "ana"))
        model = self._pruner.prune(
            removal_ratio, threshold=threshold, spec=spec_path, excludes=excluded(excludes),
            round_to=channel_divisible, mode=mode or "sparse",
        )  # fmt: skip
        return _informed(self._pruner, model, pruning_info_path)


class OneStepPruningRunner:
    """Searches among random subnets of one ratio; the result serves this process and later ones."""

    def __init__(self, model: nn.Module, input_signature: Inputs):
        """Find the groups of a model; `input_signature` is what it reads."""
        self._pruner = made(OneStepPruner, model, input_signature)
        self._ratio: float | None = None

    def search(  # noqa: PLR0913, PLR0917 - Vitis has as many
        self, gpus: Sequence[Any] | None = None, calibration_fn: Function | None = None, calib_args: Sequence[Any] = (),
        num_subnet: int = 200, removal_ratio: float = 0.5, excludes: Iterable[Any] | None = None,
        eval_fn: Function | None = None, eval_args: Sequence[Any] = (), forced: bool = False,
        with_group_conv: bool = True, metric: Direction = "max",
    ) -> None:  # fmt: skip
        """Score random subnets; kept in `.vai/<class>_ratio_<ratio>.search`.

        What that file has of this model and these arguments is not scored again. What it has of another model, of other
        weights or of other input sizes moves aside, and a warning says so. So do warnings where there are fewer
        different subnets than asked for, and where some miss the ratio.

        Args:
            gpus: As of `IterativePruningRunner.ana`.
            calibration_fn: Called with each subnet and `calib_args` first, for adaptive BatchNorm.
            calib_args: Its further arguments.
            num_subnet: How many subnets are drawn; all of them meet the ratio.
            removal_ratio: The share of MACs to remove.
            excludes: Modules, or paths of modules, that stay whole.
            eval_fn: Called with each subnet and `eval_args`, returns a number.
            eval_args: Its further arguments.
            forced: Whether to begin anew.
            with_group_conv: Must be true: grouped convolutions are groups like any other.
            metric: Whether more (`max`) or less (`min`) of the number is better; Vitis has no such argument.

        Raises:
            UsageError: There is no `eval_fn`, or another argument is wrong.
            PlanError: The ratio is out of range, nothing can be pruned, or everything is excluded.
        """
        _only_with_groups(with_group_conv)
        one_of("metric", metric, ("max", "min"))
        if eval_fn is None:
            raise UsageError("search needs eval_fn, by which subnets are scored")
        if num_subnet < 1:
            raise UsageError(f"num_subnet must be at least 1, not {num_subnet}")
        without, path = excluded(excludes), self._path(removal_ratio)
        said: dict[str, tuple[str, Any]] = {
            "best": ("metric", metric), "calibrated": ("calibration_fn", calibration_fn is not None),
            "excludes": ("choice of excludes", sorted(self._pruner.network.families_of(without))),
        }  # fmt: skip
        forced = forced or begun(path, self._pruner, said)
        with _on(self._pruner, gpus):
            self._pruner.search(
                calibration_fn, eval_fn, calib_args=calib_args, eval_args=eval_args, num_subnets=num_subnet,
                removal_ratio=removal_ratio, excludes=without, best=metric, path=path, forced=forced,
            )  # fmt: skip
        self._ratio = removal_ratio

    def _path(self, ratio: float) -> Path:
        return Path(FOLDER, f"{self._pruner.network.name}_ratio_{ratio}.search")

    def prune(
        self, mode: Mode = "slim", removal_ratio: float | None = None, index: int | None = None,
        pruning_info_path: str | os.PathLike[str] | None = None, channel_divisible: int | None = None,
    ) -> nn.Module:  # fmt: skip
        """A subnet as a model; the search may be that of an earlier process.

        Args:
            mode: `slim` is the small module; `sparse` keeps the shape.
            removal_ratio: That of a search; the last one of this process, if not given.
            index: Place among the subnets, 0 and None for the best (in Vitis, 0 is the worst).
            pruning_info_path: Where to write which widths are left; none, if not given.
            channel_divisible: Must not be given: widths that were scored are not rounded afterwards.

        Raises:
            UsageError: There was no search of this model at this ratio.
        """
        if channel_divisible is not None:
            raise UsageError("channel_divisible would change the widths that were scored; leave it out")
        wanted = self._ratio if removal_ratio is None else removal_ratio
        if wanted is None:
            raise UsageError("prune needs the removal_ratio of a search; there was none in this process yet")
        if wanted != self._ratio:
            again = f"search with removal_ratio={wanted}"
            self._pruner.recall(wanted, path=found(self._path(wanted), self._pruner, again))
            self._ratio = wanted
        return _informed(self._pruner, self._pruner.prune(index, mode=mode), pruning_info_path)


def get_pruning_runner(
    model: nn.Module, input_signature: Inputs, method: Literal["iterative", "one_step"]
) -> IterativePruningRunner | OneStepPruningRunner:
    """The runner of a method.

    Raises:
        UsageError: There is no such method.
    """
    kinds: dict[str, type[IterativePruningRunner | OneStepPruningRunner]] = {
        "iterative": IterativePruningRunner, "one_step": OneStepPruningRunner,
    }  # fmt: skip
    if method not in kinds:
        raise UsageError(f"the method is 'iterative' or 'one_step', not '{method}'")
    return kinds[method](model, input_signature)


def _on(pruner: Pruner, gpus: Sequence[Any] | None) -> AbstractContextManager[None]:
    assert isinstance(pruner.network, Network)  # see made
    return scored_on(pruner.network.model, gpus)


def _informed(pruner: Any, model: nn.Module, path: str | os.PathLike[str] | None) -> nn.Module:
    """The model; which widths are left is written down where that is asked for."""
    if path is not None:
        kept = np.bincount(pruner.partition.node_group[~pruner.plan().remove])
        write_json(
            Path(path), {g.name: {"size": g.size, "kept": int(kept[g.id])} for g in pruner.partition.node_groups}
        )
    return model


def _only_with_groups(with_group_conv: bool) -> None:
    if not with_group_conv:
        raise UsageError("grouped convolutions are pruned like any other; exclude those that must stay whole")


__all__ = ["IterativePruningRunner", "OFAPruner", "OneStepPruningRunner", "get_pruning_runner"]
