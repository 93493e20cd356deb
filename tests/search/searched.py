"""Small networks of every kind of layer that can be searched, with statistics that hide nothing."""

import copy
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Case = tuple[nn.Module, Tensor]


class Residual(nn.Module):
    """Convolutions with BatchNorm, a shortcut, and a depthwise convolution."""

    def __init__(self, width: int = 8, kernel: int = 3) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, width, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(width)
        self.a, self.norm_a = nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width)
        self.depth = nn.Conv2d(2 * width, 2 * width, kernel, padding=kernel // 2, groups=2 * width)
        self.b, self.norm_b = nn.Conv2d(2 * width, width, 1, bias=False), nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        y = self.depth(self.norm_a(self.a(x)).relu())
        return self.head((x + self.norm_b(self.b(y))).relu().mean((2, 3)))


class Heads(nn.Module):
    """Attention by four projections."""

    def __init__(self, width: int = 16, num_heads: int = 4) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, width // num_heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            p(x).reshape(x.shape[0], x.shape[1], self.num_heads, -1).transpose(1, 2) for p in (self.q, self.k, self.v)
        )
        y = (q @ k.transpose(2, 3) * self.head_dim**-0.5).softmax(-1) @ v
        return self.out(y.transpose(1, 2).flatten(2))


class Attending(nn.Module):
    """An embedding, attention (torch's own, or by projections) and a perceptron."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.embedding, self.attention, self.norm = nn.Embedding(20, 16), attention, nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        y = self.norm(x)
        own = isinstance(self.attention, nn.MultiheadAttention)
        x = x + (self.attention(y, y, y, need_weights=False)[0] if own else self.attention(y))
        return x + self.down(self.up(x).relu())


class Embedded(nn.Module):
    """An embedding whose width is free."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.middle, self.head = nn.Embedding(20, 12), nn.Linear(12, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.embedding(x)).relu().mean(1))


def convolutions(rank: int, groups: int = 1) -> nn.Module:
    """Convolution, its transpose and BatchNorm of some rank."""
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    up = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[rank - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1]
    return nn.Sequential(
        conv(3, 8, 3, padding=1), norm(8), nn.ReLU(),
        conv(8, 12, 3, padding=1, groups=groups), norm(12), nn.ReLU(),
        up(12, 8, 2, stride=2, groups=groups), norm(8), nn.ReLU(), conv(8, 2, 1),
    )  # fmt: skip


def chain() -> nn.Module:
    """Five node groups of convolutions with BatchNorm."""
    parts: list[nn.Module] = []
    for inputs, outputs in ((1, 12), (12, 16), (16, 20), (20, 16), (16, 14)):
        parts += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(14, 10))


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Parameters and statistics of a healthy size, none of them 0 or 1."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.running_mean.copy_(0.1 * torch.randn(part.running_mean.shape, generator=random))
                part.running_var.copy_(0.5 + torch.rand(part.running_var.shape, generator=random))
        for p in model.parameters():
            if p.ndim == 1:
                p.copy_(0.5 + 0.5 * torch.rand(p.shape, generator=random))
    return model.eval()


def cases() -> dict[str, Case]:
    torch.manual_seed(0)
    made = {
        "residual": (Residual(), torch.randn(2, 1, 8, 8)),
        "chain": (chain(), torch.randn(2, 1, 8, 8)),
        "attention": (Attending(Heads()), torch.randint(0, 20, (2, 5))),
        "embedding": (Embedded(), torch.randint(0, 20, (2, 5))),
        "perceptron": (nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(2, 6)),
    }  # fmt: skip
    for rank, size in ((1, 8), (2, 6), (3, 4)):
        for groups in (1, 2):
            name = f"{rank}d" + ("" if groups == 1 else " grouped")
            made[name] = (convolutions(rank, groups), torch.randn(2, 3, *[size] * rank))
    return {name: (randomised(model), x) for name, (model, x) in made.items()}


CASES = cases()
_MADE: dict[Any, Any] = {}
P = TypeVar("P")


def made(kind: type[P], name: str, folder: Path) -> P:
    """A pruner of a case, as new; its model is exported and analysed once."""
    case, x = CASES[name]
    if (kind, name) not in _MADE:
        _MADE[kind, name] = kind(copy.deepcopy(case), x)
    pruner = copy.copy(_MADE[kind, name])
    pruner.folder = folder
    pruner.network.model.load_state_dict(case.state_dict())
    pruner.network.model.eval()
    return pruner
