"""Small networks, one for each way in which an exporter may treat a parameter."""

import torch
from torch import Tensor, nn

Case = tuple[nn.Module, Tensor]


class Residual(nn.Module):
    """Convolution, BatchNorm and a shortcut; the second norm starts like the first, value for value."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.b, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.a(x)).relu()
        return self.head((x + self.bn2(self.b(x)).relu()).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm = nn.MultiheadAttention(16, 4, batch_first=True), nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.down(self.up(x).relu())


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 10, batch_first=True, bidirectional=True), nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Tied(nn.Module):
    """The embedding is the head's weight too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.middle = nn.Embedding(12, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 12, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.embedding(x)).relu())


def weight_norm() -> nn.Module:
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 6, 3))
    return nn.Sequential(normed, nn.GroupNorm(2, 6), nn.PReLU(6), nn.Conv2d(6, 4, 3))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8, bias=False), nn.Linear(8, 3))


def cases() -> dict[str, Case]:
    torch.manual_seed(0)
    return {
        "residual": (Residual(), torch.randn(1, 3, 8, 8)),
        "attention": (Attention(), torch.randn(1, 5, 16)),
        "recurrent": (Recurrent(), torch.randn(1, 5, 6)),
        "tied": (Tied(), torch.randint(0, 12, (1, 5))),
        "weight_norm": (weight_norm(), torch.randn(1, 3, 8, 8)),
        "perceptron": (perceptron(), torch.randn(1, 5, 6)),
    }


CASES = cases()
