"""The processes of a run: one, or several under torchrun that train one model, each on its share of every batch."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zig.errors import UsageError
from zig.runs.config import Training

PATIENCE = datetime.timedelta(hours=4)  # of the others, while the first measures and writes


@dataclass(frozen=True)
class Processes:
    """This process among all.

    Attributes:
        rank: Its number; 0 writes and speaks.
        count: How many there are.
        device: Where its model is.
    """

    rank: int
    count: int
    device: torch.device

    def share(self, batch: int) -> slice:
        """This process's part of a batch."""
        own = batch // self.count
        return slice(self.rank * own, (self.rank + 1) * own)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes, the same in each."""
        if self.count == 1:
            return values
        total = values.detach().clone()
        distributed.all_reduce(total)
        return total / self.count

    def gathered(self, value: Any) -> list[Any]:
        """What each process has, in order."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            distributed.barrier()

    def wrapped(self, model: nn.Module, backend: str | None) -> nn.Module:
        """The model as it is trained: compiled, and with gradients that are the mean over all processes."""
        if backend is not None:
            model = torch.compile(model, backend=backend)  # type: ignore[assignment]
        if self.count == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices)


@contextlib.contextmanager
def join(section: Training) -> Iterator[Processes]:
    """Take part in what torchrun has started, if it has.

    Raises:
        UsageError: The section asks for what is not there, or a batch can't be shared out.
    """
    if section.parallel == "fsdp":
        raise UsageError(
            "training.parallel is fsdp: FSDP2 gives each process some rows of a parameter, and groups must be seen "
            "whole; use ddp"
        )
    count, rank = (int(os.environ.get(name, usual)) for name, usual in (("WORLD_SIZE", 1), ("RANK", 0)))
    parts = count * section.accumulate
    if section.batch_size % parts:
        raise UsageError(
            f"training.batch_size {section.batch_size} can't be shared out evenly: {count} processes with "
            f"{section.accumulate} parts each; choose a multiple of {parts}"
        )
    processes = Processes(rank, count, _device(section.device))
    if count > 1:
        backend = "nccl" if processes.device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield processes
    finally:
        if count > 1:
            distributed.destroy_process_group()


def _device(name: str) -> torch.device:
    local = os.environ.get("LOCAL_RANK", "0")
    if name == "auto":
        name = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(f"cuda:{local}" if name == "cuda" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"training.device is {name}: {str(error).splitlines()[0]}") from error
    return device


# --- BatchNorm over all processes ------------------------------------------------------------------------------------


@contextlib.contextmanager
def synchronised(model: nn.Module, processes: Processes) -> Iterator[None]:
    """Let every BatchNorm take its statistics over the shares of all processes, as one process would over the batch.

    torch.nn.SyncBatchNorm does this on accelerators only. The modules are as they were when it is over.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)] if processes.count > 1 else []
    for norm in norms:
        norm.forward = partial(_normalise, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _normalise(norm: _BatchNorm, x: Tensor) -> Tensor:
    """(n, c, ...) -> the same; all processes have as many values."""
    if not norm.training:
        plain: Tensor = type(norm).forward(norm, x)
        return plain
    axes, shape = [i for i in range(x.ndim) if i != 1], [1, -1] + [1] * (x.ndim - 2)
    exact = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    mean = _mean(exact.mean(axes))
    variance = _mean((exact - mean.view(shape)).square().mean(axes))
    _remember(norm, mean.detach(), variance.detach(), x.numel() // x.shape[1] * distributed.get_world_size())
    y = (exact - mean.view(shape)) * torch.rsqrt(variance + norm.eps).view(shape)
    if norm.affine:
        y = y * norm.weight.view(shape) + norm.bias.view(shape)
    return y.to(x.dtype)


def _remember(norm: _BatchNorm, mean: Tensor, variance: Tensor, count: int) -> None:
    """Update the running statistics; the variance is the unbiased one."""
    if norm.running_mean is None or norm.running_var is None:
        return
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    momentum = 1 / float(norm.num_batches_tracked or 1) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_((variance * (count / max(count - 1, 1))).to(norm.running_var.dtype), momentum)


def _mean(values: Tensor) -> Tensor:
    found: Tensor = _Mean.apply(values)  # type: ignore[no-untyped-call]
    return found


class _Mean(torch.autograd.Function):
    """The mean over all processes; the gradient is the mean of theirs."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total / distributed.get_world_size()

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total / distributed.get_world_size()
