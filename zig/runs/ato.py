"""ATO in a run: its controller learns from examples that the loop does not train on."""

from __future__ import annotations

from typing import Any

from torch import Tensor, distributed, nn

from zig.controller import ATOOptimizer
from zig.runs import data
from zig.runs.setting import Setting
from zig.training.oto import OTO


def build(oto: OTO, options: dict[str, Any], setting: Setting) -> ATOOptimizer:
    """Make the optimizer; see `zig.controller.settings` for the options, of which phases are shares of the training.

    Raises:
        PlanError: The budget can't be reached, or an option is out of range.
        UsageError: A pattern of `unprunable` matches no parameter.
    """
    for name in ("start_controller", "freeze"):
        if name in options:
            options[f"{name}_steps"] = round(options.pop(name) * setting.steps)
    if patterns := options.pop("unprunable"):
        oto.mark_unprunable(patterns)
    options["epoch_steps"] = data.steps_in_epoch(len(setting.task.train) - len(setting.held_back), setting.batch_size)
    del options["apart"]
    optimizer = oto.ato(**options, seed=setting.seed)
    optimizer.lessons_from = Lessons(setting)
    return optimizer


class Lessons:
    """Losses on batches of the examples that are held back: each a function of the step, other ones in each process."""

    def __init__(self, setting: Setting):
        """See how many there are."""
        self.setting = setting
        self.batch = min(setting.batch_size, len(setting.held_back))

    def __call__(self, step: int) -> Any:
        """The loss of a module on the batch of a step."""
        setting, together = self.setting, distributed.is_available() and distributed.is_initialized()
        rank, count = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
        share = slice(rank, None, count) if self.batch >= count else slice(None)
        chosen = data.keys(len(setting.held_back), self.batch, setting.seed, range(step, step + 1), share)
        (batch,) = data.batches(setting.held_back, chosen)
        here = {name: value.to(setting.device) for name, value in batch.items()}

        def loss(net: nn.Module) -> Tensor:
            return setting.task.loss(setting.task.forward(net, here), here)

        return loss
