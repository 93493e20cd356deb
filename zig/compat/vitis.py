"""The pruning runners of Vitis Optimizer's PyTorch README, on zig's groups.

    from zig.compat.vitis import IterativePruningRunner   # was: from pytorch_nndct import ...

Names, arguments and files are those of the README; docs/search.md says what is mended and what differs. Ratios are
met by MACs, from which nothing functional is left out, and pruning reaches Linear layers and attention too.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from torch import nn

from zig.compat.devices import scored_on
from zig.compat.kept import begun, found
from zig.errors import UsageError
from zig.search.iterative import IterativePruner
from zig.search.network import Mode, Network, reset_statistics
from zig.search.ofa import RATIOS, Evolution
from zig.search.ofa import OFAPruner as _OFAPruner
from zig.search.onestep import OneStepPruner
from zig.search.pruner import Pruner
from zig.search.record import Best, write_json
from zig.search.supernet import Kind, Supernet
from zig.training.export import Inputs

FOLDER = ".vai"
Function = Callable[..., Any]
Direction = Literal["max", "min"]
P = TypeVar("P", bound=Pruner)


class IterativePruningRunner:
    """Sensitivity analysis once, then a pruned model for each ratio, in this process or a later one."""

    def __init__(self, model: nn.Module, input_signature: Inputs):
        """Find the groups of a model; `input_signature` is what it reads."""
        self._pruner = _made(IterativePruner, model, input_signature)
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
        _one_of("metric", metric, ("max", "min"))
        without = _excluded(excludes)
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
            removal_ratio, threshold=threshold, spec=spec_path, excludes=_excluded(excludes),
            round_to=channel_divisible, mode=mode or "sparse",
        )  # fmt: skip
        return _informed(self._pruner, model, pruning_info_path)


class OneStepPruningRunner:
    """Searches among random subnets of one ratio; the result serves this process and later ones."""

    def __init__(self, model: nn.Module, input_signature: Inputs):
        """Find the groups of a model; `input_signature` is what it reads."""
        self._pruner = _made(OneStepPruner, model, input_signature)
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
        _one_of("metric", metric, ("max", "min"))
        if eval_fn is None:
            raise UsageError("search needs eval_fn, by which subnets are scored")
        if num_subnet < 1:
            raise UsageError(f"num_subnet must be at least 1, not {num_subnet}")
        without, path = _excluded(excludes), self._path(removal_ratio)
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


class OFAPruner:
    """A supernet, and subnets of it."""

    def __init__(self, model: nn.Module, inputs: Inputs):
        """Find the groups of a model; `inputs` is what it reads."""
        self._pruner = _made(_OFAPruner, model, inputs)

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
            expand_ratio, excludes=_excluded(excludes), auto_excludes=auto_add_excludes, round_to=channel_divisble
        )
        if save_search_space:
            dials = [{"name": dial.name, "options": list(dial.options)} for dial in supernet.space.dials]
            write_json(Path("searchspace.config"), dials)
        return supernet

    def sample_subnet(self, model: Supernet, mode: Kind) -> tuple[Supernet, list[int]]:
        """The supernet, set to its largest (`max`), smallest (`min`) or a random subnet, and what it keeps."""
        model.sample(mode, self._pruner.random)
        return model, list(model.space.values(model.setting))

    def sample_random_subnet(self, model: Supernet | None = None) -> tuple[Supernet, list[int]]:
        """`sample_subnet(model, "random")`, as the README's text calls it; of the supernet made last, if not given."""
        return self.sample_subnet(self._pruner.supernet if model is None else model, "random")

    def reset_bn_running_stats_for_calibration(self, model: nn.Module) -> None:
        """Let BatchNorm statistics begin anew, as averages over the batches that follow."""
        reset_statistics(model)

    def run_evolutionary_search(  # noqa: PLR0913, PLR0917 - Vitis has as many
        self, model: Supernet, calibration_fn: Function, calib_args: Sequence[Any], eval_fn: Function,
        eval_args: Sequence[Any], evaluation_metric: str, min_or_max_metric: Best, min_macs: float | None = None,
        max_macs: float | None = None, macs_step: float | None = None, parent_popu_size: int = 16, iteration: int = 10,
        mutate_size: int = 8, mutate_prob: float = 0.2, crossover_size: int = 4, *, min_flops: float | None = None,
        max_flops: float | None = None, flops_step: float | None = None,
    ) -> dict[str, dict[str, Any]]:  # fmt: skip
        """Search subnets between two costs. What Vitis calls FLOPs are MACs; both names mean the same here.

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
            macs_step: Subnets that round to the same multiple of this compete; 10, if not given.
            parent_popu_size: Random subnets to begin with.
            iteration: How often the best have children.
            mutate_size: Children of one parent each time.
            mutate_prob: That a mutation changes a width.
            crossover_size: Children of two parents each time.
            min_flops: In place of `min_macs`, as in the README.
            max_flops: In place of `max_macs`.
            flops_step: In place of `macs_step`.

        Returns:
            By multiple of `macs_step`: `net_id`, `mode`, the metric, `flops` and `macs` (the same number), `params`
            (millions), `subnet_setting`, and `supernet`, by which `load_subnet_config` knows the supernet again.

        Raises:
            UsageError: An argument is wrong, or the supernet is not the last one.
            PlanError: No subnet lies within the range.
        """
        self._is_mine(model)
        _one_of("min_or_max_metric", min_or_max_metric, ("max", "min"))
        if parent_popu_size < 1:
            raise UsageError(f"parent_popu_size must be at least 1, not {parent_popu_size}")
        low, high = _either("min", min_macs, min_flops), _either("max", max_macs, max_flops)
        step = macs_step if flops_step is None else flops_step
        evolution = Evolution(parent_popu_size, iteration, mutate_size, crossover_size, mutate_prob)
        found = self._pruner.run_evolutionary_search(
            calibration_fn, eval_fn, calib_args=calib_args, eval_args=eval_args, min_macs=low, max_macs=high,
            step=10 if step is None else step, best=min_or_max_metric, evolution=evolution,
        )  # fmt: skip
        return {
            bucket: {
                "net_id": f"net_evo_{subnet.born.replace(' ', '_')}", "mode": "evaluate",
                evaluation_metric: subnet.score, "flops": subnet.costs["macs"] / 1e6,
                "macs": subnet.costs["macs"] / 1e6, "params": subnet.costs["params"] / 1e6,
                "subnet_setting": list(subnet.values), "supernet": model.space.digest,
            }
            for bucket, subnet in found.items()
        }  # fmt: skip

    def save_subnet_config(self, setting: Any, file_name: str | os.PathLike[str]) -> None:
        """Write what a search found."""
        write_json(Path(file_name), setting)

    def load_subnet_config(self, file_name: str | os.PathLike[str]) -> Any:
        """Read what `save_subnet_config` wrote.

        Raises:
            UsageError: It can't be read, or its settings mean something else in the supernet that `ofa_model` made.
        """
        try:
            content = json.loads(Path(file_name).read_text())
        except (OSError, ValueError) as error:
            raise UsageError(f"{file_name}: can't be read as JSON ({error})") from error
        entries = content.values() if isinstance(content, dict) else ()
        said = {entry["supernet"] for entry in entries if isinstance(entry, dict) and "supernet" in entry}
        if self._pruner.made and said - {self._pruner.supernet.space.digest}:
            raise UsageError(
                f"{file_name}: its subnets are of another supernet; make OFAPruner with the same weights, and "
                "ofa_model with the same ratios and excludes, then load what was trained into the supernet"
            )
        return content

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


def _made(kind: type[P], model: nn.Module, inputs: Inputs) -> P:
    if not isinstance(model, nn.Module):
        raise UsageError(f"the model must be a torch module, not {type(model).__name__}; zig.search takes ONNX files")
    return kind(model, inputs, folder=FOLDER)


def _on(pruner: Pruner, gpus: Sequence[Any] | None) -> AbstractContextManager[None]:
    assert isinstance(pruner.network, Network)  # see _made
    return scored_on(pruner.network.model, gpus)


def _excluded(excludes: Iterable[Any] | None) -> list[Any]:
    """Modules and paths; a name of a node in Vitis, such as `Net::Net/Block[layer]/Conv2d[conv]/x`, has them in it."""
    given = [excludes] if isinstance(excludes, (str, nn.Module)) else list(excludes or ())
    return [".".join(re.findall(r"\[([^]]+)]", e)) if isinstance(e, str) and "::" in e else e for e in given]


def _one_of(name: str, value: Any, allowed: Sequence[Any]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} must be {' or '.join(map(repr, allowed))}, not {value!r}")


def _either(end: str, macs: float | None, flops: float | None) -> float:
    """A bound of a range, under one of its names."""
    if (macs is None) == (flops is None):
        raise UsageError(f"run_evolutionary_search needs {end}_flops, or {end}_macs, which means the same; give one")
    return float(flops if macs is None else macs)  # type: ignore[arg-type]


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
