"""Small networks with what is hard about gates, their weights and statistics random yet alive."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Excited(nn.Module):
    """A residual block, a depthwise convolution, squeeze and excitation, a concatenation under one BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.expand, self.norm1 = nn.Conv2d(12, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.deep, self.norm2 = nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24)
        self.squeeze, self.excite = nn.Conv2d(24, 6, 1), nn.Conv2d(6, 24, 1)
        self.project, self.norm3 = nn.Conv2d(24, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.left, self.right = nn.Conv2d(12, 8, 3, padding=1), nn.Conv2d(12, 10, 1)
        self.joined, self.last = nn.BatchNorm2d(18), nn.Conv2d(18, 14, 3)
        self.head = nn.Linear(14, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.stem(image)).relu()
        y = F.hardswish(self.norm1(self.expand(x)))
        y = F.silu(self.norm2(self.deep(y)))
        y = y * self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        x = x + self.norm3(self.project(y))
        x = self.joined(torch.cat([self.left(x), self.right(x)], 1)).relu()
        return self.head(F.gelu(self.last(x)).mean((2, 3)))


class Transformer(nn.Module):
    """Attention with projections of its own, a gated perceptron, and torch's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(16), nn.LayerNorm(16), nn.LayerNorm(16)
        self.q, self.k, self.v, self.o = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.gate, self.up, self.down = nn.Linear(16, 20), nn.Linear(16, 20), nn.Linear(20, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.head = nn.Linear(16, 5)

    def heads(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], 4, -1).transpose(1, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        y = self.norm1(x)
        q, k, v = (self.heads(f(y)) for f in (self.q, self.k, self.v))
        mixed = ((q @ k.transpose(2, 3)) / 2).softmax(3) @ v
        x = x + self.o(mixed.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        y = self.norm3(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head(x.mean(1))


class Recurrent(nn.Module):
    """An LSTM in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 10, batch_first=True, bidirectional=True), nn.Linear(20, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(tokens)[0][:, -1])


class Plain(nn.Module):
    """Two convolutions under BatchNorm, and a depthwise one between them."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.deep, self.norm1 = nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False), nn.BatchNorm2d(width)
        self.second, self.norm2 = nn.Conv2d(width, 2 * width, 3, 2), nn.BatchNorm2d(2 * width)
        self.head = nn.Linear(2 * width, 4)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm1(self.deep(self.norm(self.first(image)).relu())).relu()
        return self.head(self.norm2(self.second(x)).relu().mean((2, 3)))


INPUTS = {Excited: (3, 8, 8), Transformer: (5, 6), Recurrent: (5, 6), Plain: (1, 8, 8)}


def alive(kind: type[nn.Module], seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A network in evaluation mode, and a batch of four for it."""
    torch.manual_seed(seed)
    net = kind()
    for p in net.parameters():
        nn.init.normal_(p, 0.3 * (p.ndim == 1), 0.4)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.5)
            part.running_var.uniform_(0.5, 2)
    return net.eval(), torch.randn(4, *INPUTS[kind])
