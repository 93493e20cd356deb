"""Where a runner scores its model: `gpus` as in Vitis, a list of CUDA devices."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from zig.errors import UsageError, ZigWarning


@contextmanager
def scored_on(model: nn.Module, gpus: Sequence[Any] | None) -> Iterator[None]:
    """The model on the first of some GPUs for a while; a warning says where that has no effect.

    Args:
        model: The model; it is moved in place, and back afterwards.
        gpus: Numbers of CUDA devices (0, "0" or "cuda:0"); None for wherever the model is.

    Raises:
        UsageError: There is no such device.
    """
    device = chosen(gpus)
    homes = {tensor.device for tensor in [*model.parameters(), *model.buffers()]}
    if device is not None and len(homes) > 1:
        warnings.warn(
            "gpus has no effect: the model is on several devices already, and is scored there", ZigWarning, stacklevel=4
        )
    if device is None or len(homes) != 1 or homes == {device}:
        yield
        return
    model.to(device)
    try:
        yield
    finally:
        model.to(homes.pop())


def chosen(gpus: Sequence[Any] | None) -> torch.device | None:
    """The device that `gpus` means; None where there is nothing to choose, with a warning if something was asked for.

    Raises:
        UsageError: It names no device, or one that is not here.
    """
    if not gpus:
        return None
    numbers = [_number(gpu) for gpu in ([gpus] if isinstance(gpus, str) else gpus)]
    if not torch.cuda.is_available():
        warnings.warn(
            "gpus has no effect: CUDA is not available here, the model is scored where it is", ZigWarning, stacklevel=5
        )
        return None
    if max(numbers) >= torch.cuda.device_count():
        raise UsageError(f"gpus names device {max(numbers)}, and there are {torch.cuda.device_count()}, from 0 on")
    if len(numbers) > 1:
        warnings.warn(
            f"of gpus, device {numbers[0]} alone is used: one model is scored at a time", ZigWarning, stacklevel=5
        )
    return torch.device("cuda", numbers[0])


def _number(gpu: Any) -> int:
    text = str(gpu).strip().removeprefix("cuda:").replace("cuda", "0")
    if not text.isdecimal():
        raise UsageError(f"gpus lists numbers of CUDA devices, such as ['0'], not '{gpu}'")
    return int(text)
