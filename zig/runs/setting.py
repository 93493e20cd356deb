"""What a run tells the method that prunes in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zig.runs.data import Batch, Examples, Task


@dataclass(frozen=True)
class Setting:
    """What a method may want to know of a run.

    Attributes:
        task: The data, whole.
        steps: Optimizer steps of the whole training.
        held_back: Examples that the loop does not learn from: `method.held_back` of them; empty for most.
        device: Where the model is.
        seed: Of the run.
        batch_size: Examples of a step, over all processes.
        loss: Outputs and loss of a batch on the device, with the run's precision.
    """

    task: Task
    steps: int
    held_back: Examples
    device: torch.device
    seed: int
    batch_size: int
    loss: Callable[[Batch], Tensor]
