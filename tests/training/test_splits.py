"""Blocks that halve their channels by the size that they find (C2f of YOLOv8), trained, pruned, and back in torch."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from zig import OTO


class Bottleneck(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.a, self.b = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(self.a(x).relu()).relu()


class C2f(nn.Module):
    """Halves, a bottleneck on the second one, all of it side by side."""

    def __init__(self, inputs: int, outputs: int, how: str = "chunk"):
        super().__init__()
        half, self.how = outputs // 2, how
        self.first, self.norm = nn.Conv2d(inputs, 2 * half, 1, bias=False), nn.BatchNorm2d(2 * half)
        self.blocks = nn.ModuleList(Bottleneck(half) for _ in range(2))
        self.last = nn.Conv2d(4 * half, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        middle = x.shape[1] // 2
        parts = list(x.chunk(2, 1)) if self.how == "chunk" else [x[:, :middle], x[:, middle:]]
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.last(torch.cat(parts, 1)).relu()


class Detector(nn.Module):
    def __init__(self, how: str = "chunk"):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.blocks, self.head = nn.Sequential(C2f(8, 16, how), C2f(16, 16, how)), nn.Conv2d(16, 5, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(image).relu()))


@pytest.mark.parametrize("how", ["chunk", "slice"])
def test_the_sides_of_a_split_stay_equally_wide(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Detector(how)
    oto = OTO(model, torch.randn(1, 3, 16, 16))
    optimizer = oto.dhspg("adam", lr=1e-2, target_group_sparsity=0.5, start_pruning_steps=3, pruning_steps=9)
    for _ in range(15):
        optimizer.zero_grad()
        (model(torch.randn(4, 3, 16, 16)) - 0.5).square().mean().backward()
        optimizer.step()
    report = oto.compress(tmp_path)  # a warning that the module can't come back would be an error
    assert report.removed == optimizer.zero_groups == round(len(oto.partition) / 2)
    assert report.after["parameters"] < 0.6 * report.before["parameters"]
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(oto.compressed.eval()(x), model.eval()(x), rtol=1e-4, atol=1e-5)


def test_uneven_sides_are_for_the_file_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Detector()
    oto = OTO(model, torch.randn(1, 3, 16, 16), even_splits=False)
    even = OTO(model, torch.randn(1, 3, 16, 16))
    assert len(oto.partition) == len(even.partition) + 2 * 8  # one group for each pair in two blocks
    oto.random_set_zero_groups(0.5, seed=0)
    with pytest.warns(UserWarning, match="can't run with the cut sizes"):
        report = oto.compress(tmp_path)
    assert report.comparison is not None
    assert report.comparison.equal
