"""Gates: exact where they are 0 or 1, once on each path where they are not; and the cost that they stand for."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from small_nets import Excited, Plain, Recurrent, Transformer, alive
from torch import Tensor, nn

from zig import OTO
from zig.controller.gates import Gates
from zig.controller.resource import resource
from zig.errors import PlanError
from zig.groups.budget import Budget
from zig.latency import Latency, Table, layers_of

NETS = (Excited, Transformer, Recurrent, Plain)


@cache
def analysed(kind: type[nn.Module]) -> tuple[OTO, Gates, Tensor]:
    net, x = alive(kind)
    oto = OTO(net, x)
    return oto, Gates(oto.model, oto.partition, oto.links), x


def masks(oto: OTO, count: int) -> list[np.ndarray]:
    """Random masks that leave each node group a unit."""
    random, family = np.random.default_rng(0), oto.partition.node_group
    first = np.zeros(len(family), bool)
    first[np.unique(family, return_index=True)[1]] = True
    return [(random.random(len(family)) < share) & ~first for share in np.linspace(0.2, 1, count)]


@pytest.mark.parametrize("kind", NETS)
def test_a_hard_gate_gives_what_a_zero_group_gives(kind: type[nn.Module]) -> None:
    oto, gates, x = analysed(kind)
    with torch.no_grad():
        whole = oto.model(x)
        for mask in masks(oto, 6):
            gated = gates.run(lambda net: net(x), torch.from_numpy(1.0 - mask).float())
            with gates.removed(mask):
                zeroed = oto.model(x)
            torch.testing.assert_close(gated, zeroed, rtol=1e-5, atol=1e-5)
            assert (gated - whole).abs().max() > 1e-3
        assert torch.equal(oto.model(x), whole)


def test_gates_multiply_once_on_each_path() -> None:
    gated = {kind: set(analysed(kind)[1].rows) for kind in NETS}
    # Not the convolutions before a BatchNorm, what a depthwise one reads, nor what excites a channel that is silent.
    assert gated[Excited] == {
        "norm.weight", "norm.bias", "norm2.weight", "norm2.bias", "norm3.weight", "norm3.bias", "squeeze.weight",
        "squeeze.bias", "joined.weight", "joined.bias", "last.weight", "last.bias",
    }  # fmt: skip
    # Values but neither queries nor keys, and the linear side of the gated perceptron; torch's have one tensor for all.
    assert gated[Transformer] == {
        "v.weight", "v.bias", "up.weight", "up.bias", "attention.in_proj_weight", "attention.in_proj_bias"
    }  # fmt: skip


def test_a_soft_gate_scales_the_normalised_channel() -> None:
    _, gates, x = analysed(Plain)
    net: Any = gates.module
    random = torch.rand(24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = net.deep(net.norm(net.first(x)).relu())
        y = (net.norm1(y) * random[:8, None, None]).relu()
        y = (net.norm2(net.second(y)) * random[8:, None, None]).relu()
        expected = net.head(y.mean((2, 3)))
        torch.testing.assert_close(gates.run(lambda net: net(x), random), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", NETS)
def test_gradients_reach_the_gates_and_nothing_else(kind: type[nn.Module]) -> None:
    _, gates, x = analysed(kind)
    soft = torch.full((len(gates.partition),), 0.7, requires_grad=True)
    gates.module.train()
    gates.run(lambda net: net(x).square().mean(), soft).backward()
    assert gates.module.training
    assert all(p.grad is None for p in gates.module.parameters())
    assert (soft.grad != 0).float().mean() > 0.7  # the rest are channels that a ReLU has silenced


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("of", ["macs", "params"])
def test_the_resource_of_hard_gates_is_the_budget(kind: type[nn.Module], of: Any) -> None:
    oto, _, _ = analysed(kind)
    everything = np.ones(len(oto.partition), bool)
    cost, budget = resource(oto.partition, everything, of), Budget(oto.partition)
    for mask in masks(oto, 6):
        left = budget.price(mask)[("params", "macs").index(of)]
        gated = cost.gated(torch.from_numpy(1.0 - mask))
        assert cost.whole - cost.prunable + float(gated) == pytest.approx(left, rel=1e-12)
        assert cost.cost(mask) == left
        assert cost.left(1.0 - mask) == pytest.approx(left / cost.whole, rel=1e-12)
    least = 1 - cost.target(oto.table, 0.0, 1).most
    assert least == pytest.approx(left / cost.whole)  # the last mask leaves each node group one unit
    assert cost.goal(1.0, None, least) == (1.0, 1.0)


def test_a_depthwise_convolution_costs_linearly() -> None:
    oto, _, _ = analysed(Plain)
    cost = resource(oto.partition, np.ones(24, bool), "macs")
    gates = torch.full((24,), 0.5, dtype=torch.float64, requires_grad=True)
    gated = cost.gated(gates)
    first, deep, second, head = 64 * 9 * 8, 64 * 9 * 8, 9 * 9 * 8 * 16, 16 * 4
    assert float(gated.detach()) == first / 2 + deep / 2 + second / 4 + head / 2
    gated.backward()
    assert float(gates.grad[0]) == (first + deep + second / 2) / 8
    assert float(gates.grad[-1]) == (second / 2 + head) / 16


def test_the_penalty_is_two_sided_and_flat_at_the_budget() -> None:
    cost = resource(analysed(Plain)[0].partition, np.ones(24, bool), "macs")

    def slope(value: float, p: float) -> tuple[float, float]:
        gates = torch.full((24,), value, dtype=torch.float64, requires_grad=True)
        found = cost.penalty(gates, p)
        found.backward()
        return float(found.detach()), float(gates.grad.sum())

    r = float(cost.gated(torch.full((24,), 0.5, dtype=torch.float64))) / cost.prunable
    above, below, at = slope(0.5, r - 0.1), slope(0.5, r + 0.1), slope(0.5, r + 0.004)
    assert above[0] == pytest.approx(np.log(r / (r - 0.1)))
    assert below[0] == pytest.approx(np.log((r + 0.1) / r))
    assert above[1] > 0 > below[1]
    assert at[0] > 0 == at[1]


def test_a_budget_that_no_network_has_is_refused_with_the_range() -> None:
    oto, _, _ = analysed(Plain)
    everything = np.ones(24, bool)
    cost = resource(oto.partition, everything, "macs")
    least = 1 - cost.target(oto.table, 0.0, 1).most
    for wrong, says in (
        ((0.01, None), r"keep is 0.01; choose 0.063 to 1: 100.0% of the cost can be pruned"),
        ((1.2, None), "keep is 1.2; choose"),
        ((None, 0.001), "p is 0.001; choose"),
        ((0.5, 0.5), "give keep, the share of everything that is left, or p"),
        ((None, None), "give keep"),
    ):
        with pytest.raises(PlanError, match=says):
            cost.goal(*wrong, least)
    with pytest.raises(PlanError, match="no group of this model can be pruned"):
        resource(oto.partition, ~everything, "macs")
    with pytest.raises(PlanError, match="go together"):
        resource(oto.partition, everything, "latency")


def test_milliseconds_are_those_of_the_tables() -> None:
    oto, _, _ = analysed(Plain)
    tables = {}
    for layer in layers_of(oto.partition):  # times as a layer of 1 + products of widths would have them
        grids = np.meshgrid(*layer.grid, indexing="ij")
        tables[layer.key(None)] = Table(layer.grid, 1.0 + np.prod(grids, axis=0))
    latency = Latency(oto.partition, tables, scale=0.5, constant=3.0)
    cost = resource(oto.partition, np.ones(24, bool), "latency", latency)
    for mask in masks(oto, 5):
        gates = torch.from_numpy(1.0 - mask).requires_grad_()
        gated = cost.gated(gates)
        assert cost.whole - cost.prunable + float(gated.detach()) == pytest.approx(latency(mask), rel=1e-9)
        assert cost.left(1.0 - mask) == pytest.approx(latency(mask) / cost.whole, rel=1e-9)
    gated.backward()
    assert cost.gated(torch.full((24,), 0.5)) < cost.prunable
    scores = np.random.default_rng(0).random(24)
    for keep in (0.9, 0.6, 0.4):
        plan = cost.target(oto.table, 1 - keep, 1).choose(scores)
        steps = [abs(latency(plan ^ (np.arange(24) == g)) - latency(plan)) for g in range(24)]
        assert abs(latency(plan) - keep * cost.whole) <= max(steps)
    optimizer = oto.ato(keep=0.6, of="latency", latency=latency, steps=40)
    assert latency(optimizer.plan()) / cost.whole == pytest.approx(0.6, abs=0.05)
    with pytest.raises(PlanError, match="of another partition"):
        resource(analysed(Excited)[0].partition, np.ones(24, bool), "latency", latency)
