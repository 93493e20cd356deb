"""A network with dropout, and nothing that looks at the whole batch."""

from torch import Tensor, nn


class Dropping(nn.Module):
    """Two linear layers and dropout between."""

    def __init__(self, share: float = 0.3) -> None:
        super().__init__()
        self.first, self.drop, self.head = nn.Linear(64, 32), nn.Dropout(share), nn.Linear(32, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.drop(self.first(image.flatten(1)).relu()))
