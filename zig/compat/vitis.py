"""The pruning runners of Vitis Optimizer's PyTorch README, on zig's groups.

    from zig.compat.vitis import IterativePruningRunner   # was: from pytorch_nndct import ...

Names, arguments and files are those of the README; docs/search.md says what is mended and what differs. Ratios are
met by MACs, from which nothing functional is left out, and pruning reaches Linear layers and attention too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from zig.errors import UsageError
from zig.search.iterative import IterativePruner
from zig.search.network import Mode, reset_statistics
from zig.search.ofa import RATIOS, Evolution
from zig.search.ofa import OFAPruner as _OFAPruner
from zig.search.onestep import OneStepPruner
from zig.search.record import Best, write_json
from zig.search.supernet import Kind, Supernet
from zig.training.export import Inputs

FOLDER = ".vai"
Function = Callable[..., Any]
Direction = Literal["max", "min"]


class IterativePruningRunner:
    """Sensitivity analysis once, then a pruned model for each ratio."""

    def __init__(self, model: nn.Module, input_signature: Inputs):
        """Find the groups of a model; `input_signature` is what it reads."""
        self._pruner = IterativePruner(model, input_signature, folder=FOLDER)

    def ana(
        self, eval_fn: Function, args: Sequence[Any] = (), gpus: Sequence[Any] | None = None,
        excludes: Iterable[Any] | None = None, forced: bool = False, with_group_conv: bool = True,
        metric: Direction = "max",
    ) -> None:  # fmt: skip
        """Measure what each node group may lose; kept in `.vai/<class>.sens`.

        Args:
            eval_fn: Called with the model and `args`, returns a number.
            args: Its further arguments.
            gpus: Not used: the model is evaluated where it is.
            excludes: Modules, or paths of modules, that stay whole.
            forced: Whether to begin anew.
            with_group_conv: Must be true: grouped convolutions are groups like any other.
            metric: Whether more (`max`) or less (`min`) of the number is better; Vitis has no such argument.
        """
        _only_with_groups(with_group_conv)
        path = Path(FOLDER, f"{self._pruner.network.name}.sens")
        self._pruner.analyze(
            eval_fn, args, best=metric, excludes=list(excludes or ()), forced=forced, path=path
        )  # fmt: skip

    def prune(
        self, removal_ratio: float | None = None, threshold: float | None = None,
        spec_path: str | os.PathLike[str] | None = None, excludes: Iterable[Any] | None = None, mode: Mode = "sparse",
        pruning_info_path: str | os.PathLike[str] | None = None, channel_divisible: int = 2,
    ) -> nn.Module:  # fmt: skip
        """The pruned model: by a ratio, a threshold or an earlier plan.

        Args:
            removal_ratio: The share of MACs to remove.
            threshold: In its place, the damage that no node group may pass, as a share of the baseline.
            spec_path: In its place, the plan of an earlier call (`.vai/*.plan.json`).
            excludes: Modules, or paths of modules, that stay whole.
            mode: `sparse` keeps the shape and has `slim_state_dict()`; `slim` is the small module.
            pruning_info_path: Where to write which widths are left; none, if not given.
            channel_divisible: Widths are whole or multiples of this.

        Raises:
            UsageError: Not exactly one of the first three is given, or `ana` was not called.
        """
        model = self._pruner.prune(
            removal_ratio, threshold=threshold, spec=spec_path, excludes=list(excludes or ()),
            round_to=channel_divisible, mode=mode,
        )  # fmt: skip
        return _informed(self._pruner, model, pruning_info_path)


class OneStepPruningRunner:
    """Searches among random subnets of one ratio."""

    def __init__(self, model: nn.Module, input_signature: Inputs):
        """Find the groups of a model; `input_signature` is what it reads."""
        self._pruner = OneStepPruner(model, input_signature, folder=FOLDER)
        self._last: dict[str, Any] = {}

    def search(  # noqa: PLR0913, PLR0917 - Vitis has as many
        self, gpus: Sequence[Any] = ("0",), calibration_fn: Function | None = None, calib_args: Sequence[Any] = (),
        num_subnet: int = 200, removal_ratio: float = 0.5, excludes: Iterable[Any] = (),
        eval_fn: Function | None = None, eval_args: Sequence[Any] = (), forced: bool = False,
        with_group_conv: bool = True, metric: Direction = "max",
    ) -> None:  # fmt: skip
        """Score random subnets; kept in `.vai/<class>_ratio_<ratio>.search`.

        Args:
            gpus: Not used: the model is evaluated where it is.
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
            UsageError: There is no `eval_fn`.
        """
        _only_with_groups(with_group_conv)
        if eval_fn is None:
            raise UsageError("search needs eval_fn, by which subnets are scored")
        self._last = {
            "calibration_fn": calibration_fn, "calib_args": calib_args, "eval_fn": eval_fn, "eval_args": eval_args,
            "num_subnets": num_subnet, "removal_ratio": removal_ratio, "excludes": list(excludes), "best": metric,
        }  # fmt: skip
        path = Path(FOLDER, f"{self._pruner.network.name}_ratio_{removal_ratio}.search")
        self._pruner.search(**self._last, path=path, forced=forced)

    def prune(
        self, mode: Mode = "slim", removal_ratio: float | None = None, index: int | None = None,
        pruning_info_path: str | os.PathLike[str] | None = None, channel_divisible: int | None = None,
    ) -> nn.Module:  # fmt: skip
        """A subnet as a model.

        Args:
            mode: `slim` is the small module; `sparse` keeps the shape.
            removal_ratio: That of the search.
            index: Place among the subnets, 0 and None for the best (in Vitis, 0 is the worst).
            pruning_info_path: Where to write which widths are left; none, if not given.
            channel_divisible: Must not be given: widths that were scored are not rounded afterwards.

        Raises:
            UsageError: There was no search at this ratio.
        """
        searched = self._last.get("removal_ratio")
        if removal_ratio is not None and removal_ratio != searched:
            raise UsageError(
                f"the last search was at removal_ratio {searched}, not {removal_ratio}; search there first"
            )
        if channel_divisible is not None:
            raise UsageError("channel_divisible would change the widths that were scored; leave it out")
        return _informed(self._pruner, self._pruner.prune(index, mode=mode), pruning_info_path)


class OFAPruner:
    """A supernet, and subnets of it."""

    def __init__(self, model: nn.Module, inputs: Inputs):
        """Find the groups of a model; `inputs` is what it reads."""
        self._pruner = _OFAPruner(model, inputs, folder=FOLDER)

    def ofa_model(
        self, expand_ratio: Sequence[float] = RATIOS, channel_divisble: int = 8, excludes: Iterable[Any] | None = None,
        auto_add_excludes: bool = True, save_search_space: bool = False,
    ) -> Supernet:  # fmt: skip
        """The supernet.

        Args:
            expand_ratio: Shares of a width that subnets may keep.
            channel_divisble: Widths are whole or multiples of this, where the width allows; spelled as in Vitis.
            excludes: Modules, or paths of modules, that stay whole.
            auto_add_excludes: Whether first and last convolutions stay whole.
            save_search_space: Whether to write the dials to `searchspace.config`.
        """
        supernet = self._pruner.ofa_model(
            expand_ratio, excludes=list(excludes or ()), auto_excludes=auto_add_excludes, round_to=channel_divisble
        )
        if save_search_space:
            dials = [{"name": dial.name, "options": list(dial.options)} for dial in supernet.space.dials]
            write_json(Path("searchspace.config"), dials)
        return supernet

    def sample_subnet(self, model: Supernet, mode: Kind) -> tuple[Supernet, list[int]]:
        """The supernet, set to its largest (`max`), smallest (`min`) or a random subnet, and what it keeps."""
        model.sample(mode, self._pruner.random)
        return model, list(model.space.values(model.setting))

    def reset_bn_running_stats_for_calibration(self, model: nn.Module) -> None:
        """Let BatchNorm statistics begin anew, as averages over the batches that follow."""
        reset_statistics(model)

    def run_evolutionary_search(  # noqa: PLR0913, PLR0917 - Vitis has as many
        self, model: Supernet, calibration_fn: Function, calib_args: Sequence[Any], eval_fn: Function,
        eval_args: Sequence[Any], evaluation_metric: str, min_or_max_metric: Best, min_macs: float, max_macs: float,
        macs_step: float = 10, parent_popu_size: int = 16, iteration: int = 10, mutate_size: int = 8,
        mutate_prob: float = 0.2, crossover_size: int = 4,
    ) -> dict[str, dict[str, Any]]:  # fmt: skip
        """Search subnets between two costs.

        Args:
            model: The supernet.
            calibration_fn: Called with each subnet and `calib_args` first.
            calib_args: Its further arguments.
            eval_fn: Called with each subnet and `eval_args`, returns a number.
            eval_args: Its further arguments.
            evaluation_metric: What the number is called in the result.
            min_or_max_metric: Whether more (`max`) or less (`min`) of it is better.
            min_macs: The least that a subnet may cost, in millions of MACs.
            max_macs: The most.
            macs_step: Subnets that round to the same multiple of this compete.
            parent_popu_size: Random subnets to begin with.
            iteration: How often the best have children.
            mutate_size: Children of one parent each time.
            mutate_prob: That a mutation changes a width.
            crossover_size: Children of two parents each time.

        Returns:
            By multiple of `macs_step`: `net_id`, `mode`, the metric, `macs`, `params` (millions) and `subnet_setting`.
        """
        self._is_mine(model)
        evolution = Evolution(parent_popu_size, iteration, mutate_size, crossover_size, mutate_prob)
        found = self._pruner.run_evolutionary_search(
            calibration_fn, eval_fn, calib_args=calib_args, eval_args=eval_args, min_macs=min_macs, max_macs=max_macs,
            step=macs_step, best=min_or_max_metric, evolution=evolution,
        )  # fmt: skip
        return {
            bucket: {
                "net_id": f"net_evo_{subnet.born.replace(' ', '_')}", "mode": "evaluate",
                evaluation_metric: subnet.score, "macs": subnet.costs["macs"] / 1e6,
                "params": subnet.costs["params"] / 1e6, "subnet_setting": list(subnet.values),
            }
            for bucket, subnet in found.items()
        }  # fmt: skip

    def save_subnet_config(self, setting: Any, file_name: str | os.PathLike[str]) -> None:
        """Write what a search found."""
        write_json(Path(file_name), setting)

    def load_subnet_config(self, file_name: str | os.PathLike[str]) -> Any:
        """Read what `save_subnet_config` wrote.

        Raises:
            UsageError: It can't be read.
        """
        try:
            return json.loads(Path(file_name).read_text())
        except (OSError, ValueError) as error:
            raise UsageError(f"{file_name}: can't be read as JSON ({error})") from error

    def get_static_subnet(
        self, model: Supernet, setting: Sequence[int] | None = None
    ) -> tuple[nn.Module, list[dict[str, Any]], float, float]:
        """A subnet of its own.

        Args:
            model: The supernet.
            setting: Its `subnet_setting`; the subnet that is chosen now, if not given.

        Returns:
            The module, what each of its layers is, and its MACs and parameters in millions.
        """
        self._is_mine(model)
        static = self._pruner.get_static_subnet(setting)
        layers = [{"name": name, "type": type(part).__name__, **_sizes(part)} for name, part in _leaves(static.module)]
        return static.module, layers, static.costs["macs"] / 1e6, static.costs["params"] / 1e6

    def _is_mine(self, model: nn.Module) -> None:
        if model is not self._pruner.supernet:
            raise UsageError("this supernet is not the last one that ofa_model made")


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


def _leaves(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, part) for name, part in model.named_modules() if not list(part.children())]


_SIZES = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "groups", "in_features", "out_features",
          "num_features")  # fmt: skip


def _sizes(part: nn.Module) -> Mapping[str, Any]:
    return {name: getattr(part, name) for name in _SIZES if hasattr(part, name)}


__all__ = ["IterativePruningRunner", "OFAPruner", "OneStepPruningRunner", "get_pruning_runner"]
