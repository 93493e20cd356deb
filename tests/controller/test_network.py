"""The controller as a network: its size, its noise, its heads."""

import numpy as np
import pytest
import torch

from zig.controller import network


def test_the_gru_has_the_size_of_the_paper_and_sees_orthogonal_inputs() -> None:
    made = network.Controller([64] * 20 + [128] * 12)
    assert sum(p.numel() for p in made.gru.parameters()) == 148_992
    assert made.heads.shape == (20 * 64 + 12 * 128, 256)
    torch.testing.assert_close(made.walk @ made.walk.T, torch.eye(32), rtol=0, atol=1e-6)
    assert made.walk.grad is None
    assert "walk" in made.state_dict()
    assert made().shape == (2816,)


def test_each_node_group_has_a_head_of_its_own() -> None:
    torch.manual_seed(0)
    made = network.Controller([3, 5])
    seen = made.norm(made.gru(made.walk)[0]).relu()
    expected = [torch.nn.functional.linear(h, w) for h, w in zip(seen, made.heads.split([3, 5]), strict=True)]
    torch.testing.assert_close(made(), torch.cat(expected))


def test_heads_of_a_low_rank_are_small() -> None:
    many = network.Controller([60_000, 50_000])
    assert many.heads.shape == (110_000, network.RANK)
    assert many().shape == (110_000,)
    assert network.Controller([60_000, 50_000], rank=0, hidden=8).heads.shape == (110_000, 16)
    assert network.Controller([4, 4], rank=2).heads.shape == (8, 2)


def test_gates_are_drawn_with_the_probability_that_is_told() -> None:
    random = torch.Generator().manual_seed(0)
    for logit in (0.0, -2.0, -3.0, -3.367, -6.0):
        logits = torch.full((40_000,), logit)
        hard = network.hard_gates(network.soft_gates(logits, network.noise(40_000, random)))
        assert set(hard.unique().tolist()) <= {0.0, 1.0}
        assert float(hard.mean()) == pytest.approx(float(network.probability(logits)[0]), abs=0.01)
    assert float(network.probability(torch.tensor(-3.367))) == pytest.approx(0.5, abs=1e-3)


def test_hard_gates_have_the_gradient_of_the_soft_ones() -> None:
    logits = torch.linspace(-6, 0, 50, requires_grad=True)
    gumbel, weights = network.noise(50, torch.Generator().manual_seed(1)), torch.arange(50.0)
    soft = network.soft_gates(logits, gumbel)
    (expected,) = torch.autograd.grad((soft * weights).sum(), logits, retain_graph=True)
    (found,) = torch.autograd.grad((network.hard_gates(soft) * weights).sum(), logits)
    assert torch.equal(found, expected)
    values = soft.detach().numpy()
    np.testing.assert_allclose(expected, weights.numpy() * values * (1 - values) / network.TEMPERATURE, rtol=1e-4)
