"""A network that has nothing to prune."""

from torch import Tensor, nn


class Ungrouped(nn.Module):
    """One linear layer, whose outputs are those of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(image.flatten(1))
