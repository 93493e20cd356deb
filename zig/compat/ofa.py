"""The once-for-all runner of Vitis Optimizer's PyTorch README, on zig's groups; `zig.compat.vitis` has all runners."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from zig.compat.given import excluded, made, one_of
from zig.errors import UsageError
from zig.search import ofa
from zig.search.network import reset_statistics
from zig.search.ofa import RATIOS, Evolution
from zig.search.record import Best, write_json
from zig.search.supernet import Kind, Supernet
from zig.training.export import Inputs

Function = Callable[..., Any]


class OFAPruner:
    """A supernet, and subnets of it."""

    def __init__(self, model: nn.Module, inputs: Inputs):
        """Find the groups of a model; `inputs` is what it reads."""
        self._pruner = made(ofa.OFAPruner, model, inputs)

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
            expand_ratio, excludes=excluded(excludes), auto_excludes=auto_add_excludes, round_to=channel_divisble
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
        one_of("min_or_max_metric", min_or_max_metric, ("max", "min"))
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
        except (OSError, ValueError, RecursionError) as error:
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


def _either(end: str, macs: float | None, flops: float | None) -> float:
    """A bound of a range, under one of its names."""
    if (macs is None) == (flops is None):
        raise UsageError(f"run_evolutionary_search needs {end}_flops, or {end}_macs, which means the same; give one")
    return float(flops if macs is None else macs)  # type: ignore[arg-type]


def _leaves(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, part) for name, part in model.named_modules() if not list(part.children())]


_SIZES = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "groups", "in_features", "out_features",
          "num_features")  # fmt: skip


def _sizes(part: nn.Module) -> Mapping[str, Any]:
    return {name: getattr(part, name) for name in _SIZES if hasattr(part, name)}


__all__ = ["OFAPruner"]
