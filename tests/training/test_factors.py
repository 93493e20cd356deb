"""A parameter along a product of two axes has rows of two groups each: zeroed, cut and rebuilt in torch alike."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from zig import OTO
from zig.controller.resource import resource
from zig.latency import Latency


class Bilinear(nn.Module):
    """Outer products of two sets of channels, normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1)
        self.norm, self.head = nn.BatchNorm1d(48), nn.Linear(48, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.a(x).relu().flatten(2), self.b(x).relu().flatten(2)
        made: torch.Tensor = self.head(self.norm((a @ b.transpose(1, 2)).flatten(1)).relu())
        return made


def test_groups_of_both_factors_go_in_torch_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = Bilinear().eval(), torch.randn(4, 3, 6, 6)
    oto = OTO(module, x)
    assert [group.size for group in oto.partition.node_groups] == [8, 6]
    remove = np.zeros(14, bool)
    remove[[0, 3, 7, 9, 12]] = True
    oto.zero(remove)
    assert (oto.zero_groups() == remove).all()
    oto.compress(tmp_path)
    small = oto.compressed
    assert small.norm.weight.shape == (5 * 4,)
    assert sum(p.numel() for p in small.parameters()) == oto.compute_num_params(compressed=True) - 2 * 5 * 4
    assert torch.allclose(small.eval()(x), module(x), atol=1e-5)


def test_costs_by_gates_and_layers_know_both_factors() -> None:
    oto = OTO(Bilinear().eval(), torch.randn(4, 3, 6, 6))
    cost, remove = resource(oto.partition, np.ones(14, bool), "params"), np.arange(14) % 3 == 0
    gone = cost.gated(torch.ones(14)) - cost.gated(torch.from_numpy(~remove).float())
    assert float(gone) == cost.cost(np.zeros(14, bool)) - cost.cost(remove)
    product = Latency(oto.partition, {}).layers[-1]
    assert [len(groups) for groups in product.groups] == [8, 6]
    weight = next(t for t in product.model([4, 3]).graph.initializer if 5 in t.dims and len(t.dims) == 2)
    assert sorted(weight.dims) == [5, 12]
