"""A network that is many: its subnets share all weights, and any of them runs, trains and is scored in its place.

A subnet is a plan over groups, and a smaller kernel is the middle of a larger one. So a subnet is the network with some
slices of its parameters multiplied by zero: what is masked gets no gradient, what is left gets exactly that of the
subnet. Unlike a network of prefixes, the widths here keep the groups that were most important when it was made.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from zig.errors import UsageError
from zig.groups.partition import Mask
from zig.search.network import Rows, indices, set_modes, statistics_kept
from zig.search.space import Ints, Space

Kind = Literal["max", "min", "random"]
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LEAST = 3  # the smallest kernel that a larger one shrinks to


class Supernet(nn.Module):
    """All subnets of a network; called, it runs the one that is chosen.

    Attributes:
        network: The network that holds the weights, a copy of the one it was made from.
        setting: The subnet that is chosen, int64[D].
    """

    def __init__(self, model: nn.Module, rows: Rows, space: Space, weights: Mapping[str, str]):
        """Copy a model; the whole of it is chosen.

        Args:
            model: The model.
            rows: Its parameters and buffers with members, see `zig.search.network.Masked`.
            space: Its dials.
            weights: The parameter of each weight whose kernel is a dial.
        """
        super().__init__()
        self.network = copy.deepcopy(model)
        self.rows, self.space, self.weights = rows, space, dict(weights)
        self.setting: Ints = space.full
        self._masks: dict[str, Tensor] = {}

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """What the chosen subnet gives."""
        tensors: dict[str, Tensor] = dict(self.network.named_parameters())
        if not self.training:  # in training, buffers are written to
            tensors |= dict(self.network.named_buffers())
        masked = {name: tensors[name] * mask for name, mask in self._masks.items() if name in tensors}
        return functional_call(self.network, masked, arguments, keywords)

    def choose(self, setting: Ints | Sequence[int]) -> None:
        """Run another subnet from now on.

        Args:
            setting: Option number of each dial, int64[D].
        """
        self.setting = np.asarray(setting, np.int64)
        self._masks = {}
        for tensor, name, axis, where in self._zeroed(self.space.remove(self.setting)):
            line = torch.ones(tensor.shape[axis], device=tensor.device, dtype=tensor.dtype).index_fill_(0, where, 0)
            self._multiply(name, line.view([-1 if i == axis else 1 for i in range(tensor.ndim)]))
        parameters = dict(self.network.named_parameters())
        for initializer, kernel in self.space.kernels(self.setting).items():
            weight = parameters[self.weights[initializer]]
            window = torch.zeros(weight.shape[2:], device=weight.device, dtype=weight.dtype)
            window[tuple(_middle(size, kernel) for size in window.shape)] = 1
            self._multiply(self.weights[initializer], window[None, None])

    def _zeroed(self, remove: Mask) -> Iterator[tuple[Tensor, str, int, Tensor]]:
        names = {id(tensor): name for name, tensor in self.network.named_parameters()}
        names |= {id(tensor): name for name, tensor in self.network.named_buffers()}
        for tensor, axis, where in indices(self.network, self.rows, remove):
            yield tensor, names[id(tensor)], axis, where

    def _multiply(self, name: str, mask: Tensor) -> None:
        self._masks[name] = self._masks[name] * mask if name in self._masks else mask

    def sample(self, kind: Kind, random: np.random.Generator | None = None) -> Ints:
        """Choose the largest, the smallest, or any subnet.

        Args:
            kind: `max`, `min` or `random`.
            random: Where a random one comes from.

        Raises:
            UsageError: There is no such kind.
        """
        if kind not in ("max", "min", "random"):
            raise UsageError(f"a subnet is 'max', 'min' or 'random', not '{kind}'")
        counts = self.space.counts
        if kind == "random":
            self.choose((random or np.random.default_rng()).integers(counts))
        else:
            self.choose(self.space.full if kind == "max" else counts - 1)
        return self.setting

    @contextmanager
    def subnet(self, candidate: Ints) -> Iterator[Supernet]:
        """Another subnet for a while; its BatchNorm statistics may be taken anew in it, and are forgotten after."""
        before, modes = self.setting, {part: part.training for part in self.modules()}
        with statistics_kept(self.network.modules()):
            self.choose(candidate)
            try:
                yield self
            finally:
                self.choose(before)
                set_modes(modes)

    def static(self) -> nn.Module:
        """A copy of the network with the chosen kernels, and its masked slices still there as zeros."""
        model = copy.deepcopy(self.network)
        with torch.no_grad():
            for tensor, axis, where in indices(model, self.rows, self.space.remove(self.setting)):
                tensor.index_fill_(axis, where, 0)
        modules = dict(model.named_modules())
        for initializer, kernel in self.space.kernels(self.setting).items():
            part: Any = modules[self.weights[initializer].rpartition(".")[0]]
            rim = [(size - kernel) // 2 * step for size, step in zip(part.kernel_size, part.dilation, strict=True)]
            window = tuple(_middle(size, kernel) for size in part.kernel_size)
            part.weight = nn.Parameter(part.weight.detach()[(slice(None), slice(None), *window)].clone())
            part.padding = tuple(old - less for old, less in zip(part.padding, rim, strict=True))
            part.kernel_size = (kernel,) * len(part.kernel_size)
            part._reversed_padding_repeated_twice = [n for n in reversed(part.padding) for _ in range(2)]
        return model


def kernel_sizes(part: nn.Module) -> tuple[int, ...]:
    """The kernels that a convolution may have: odd, from its own down to 3, as far as its padding gives way."""
    if not isinstance(part, CONVOLUTIONS) or isinstance(part.padding, str) or len(set(part.kernel_size)) > 1:
        return ()
    size, dilation = part.kernel_size[0], max(part.dilation)
    rim = min(part.padding) // dilation  # how many places on each side may go
    if size % 2 == 0 or rim == 0:
        return ()
    return tuple(range(size, max(_LEAST, size - 2 * rim) - 1, -2))


def _middle(size: int, kernel: int) -> slice:
    return slice((size - kernel) // 2, (size + kernel) // 2)
