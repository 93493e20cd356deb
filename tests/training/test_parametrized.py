"""Weights that are computed from others (weight norm, spectral norm, one's own), pruned while they train."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from zig import OTO
from zig.errors import UsageError
from zig.training.parametrized import computed

Wrap = Callable[[nn.Module], nn.Module]
SCHEDULE: dict[str, Any] = {"lr": 0.02, "target_group_sparsity": 0.5, "start_pruning_steps": 5, "pruning_steps": 15}


def old_weight_norm(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():  # the old spelling, which many networks still use
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(module)


WRAPS: dict[str, Wrap] = {
    "weight_norm": parametrizations.weight_norm,
    "weight_norm of columns": partial(parametrizations.weight_norm, dim=1),
    "weight_norm of all": partial(parametrizations.weight_norm, dim=None),
    "old weight_norm": old_weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "old spectral_norm": nn.utils.spectral_norm,
}


def net(wrap: Wrap, groups: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        wrap(nn.Conv2d(3, 8, 3, padding=1)), nn.ReLU(), wrap(nn.Conv2d(8, 8, 3, padding=1, groups=groups)), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), wrap(nn.Linear(8, 4)),
    )  # fmt: skip


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 25) -> None:
    random = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(8, 3, 8, 8, generator=random)

        def closure(x: Tensor = x) -> Tensor:
            optimizer.zero_grad()
            loss = (model(x) - 0.3).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)


@pytest.mark.parametrize(
    ("wrap", "groups"),
    [*((wrap, 1) for wrap in WRAPS), ("weight_norm", 8), ("old weight_norm", 4), ("spectral_norm", 4)],
)
def test_what_a_norm_divides_is_pruned_exactly(wrap: str, groups: int, tmp_path: Path) -> None:
    model = net(WRAPS[wrap], groups)
    oto = OTO(model, torch.randn(1, 3, 8, 8))
    optimizer = oto.dhspg(**SCHEDULE)
    train(model, optimizer)
    assert all(p.isfinite().all() for p in model.parameters())
    report = oto.compress(tmp_path)
    assert report.removed == optimizer.zero_groups == oto.zero_groups().sum() == len(oto.partition) // 2
    assert report.after["parameters"] < 0.6 * report.before["parameters"]
    small, x = oto.compressed, torch.randn(4, 3, 8, 8)
    assert not list(computed(small))  # plain weights: the norms of what is left are others
    torch.testing.assert_close(small.eval()(x), model.eval()(x))
    assert len(list(computed(model))) == 3  # and the model itself is as it was
    model.train()(x).sum().backward()


NONE = {"target_group_sparsity": None}  # the default


@pytest.mark.parametrize(
    ("method", "wrap", "options"),
    [
        ("hspg", "weight_norm", {}),
        ("hesso", "old weight_norm", {}),
        ("hesso_cric", "weight_norm", {"cycles": 2}),
        ("ato", "weight_norm", {"keep": 0.5, "controller": "none"} | NONE),
        ("ato", "spectral_norm", {"keep": 0.5, "controller": "none"} | NONE),
    ],
)
def test_by_every_method(method: str, wrap: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = net(WRAPS[wrap])
    oto = OTO(model, torch.randn(1, 3, 8, 8))
    optimizer = getattr(oto, method)(**SCHEDULE | options)
    train(model, optimizer)
    assert oto.compress(tmp_path).removed == optimizer.zero_groups > 0
    x = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(oto.compressed.eval()(x), model.eval()(x))


class Normed(nn.Module):
    """A convolution by v and g, however they are combined."""

    def __init__(self, weight: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.v, self.g = nn.Parameter(torch.randn(6, 3, 3, 3)), nn.Parameter(torch.rand(6, 1, 1, 1) + 0.5)
        self.weight, self.head = weight, nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.conv2d(x, self.weight(self.v, self.g)).relu().mean((2, 3)))


def squares(v: Tensor) -> Tensor:
    return v.pow(2).sum((1, 2, 3), keepdim=True)


@pytest.mark.parametrize(
    ("weight", "members"),
    [
        (lambda v, g: g * v / squares(v).sqrt(), {"g"}),
        (lambda v, g: v * (g / squares(v).sqrt()), {"g"}),
        (lambda v, g: v / squares(v).sqrt() * g, {"g"}),
        (lambda v, g: g * v * torch.rsqrt(squares(v)), {"g"}),
        (lambda v, g: v * squares(v) ** -0.5 * g, {"g"}),
        (lambda v, g: v / v.abs().sum((1, 2, 3), keepdim=True) * g, {"g"}),
        (
            lambda v, g: v / squares(v).sqrt() + 0 * g.sum(),
            {"head.weight"},
        ),  # it can't be zero, but nobody need read it
        (lambda v, g: g * v / (squares(v) + 1e-6).sqrt(), {"g", "v"}),  # defined at zero
    ],
)
def test_nothing_that_is_divided_by_is_zeroed(
    weight: Callable[[Tensor, Tensor], Tensor], members: set[str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = Normed(weight)
    oto = OTO(model, torch.randn(1, 3, 8, 8))
    assert len(oto.partition) == 6
    assert {slice_.tensor for slice_ in oto.partition[0].members} == members
    plan = oto.random_set_zero_groups(0.5, seed=1)
    assert model(torch.randn(2, 3, 8, 8)).isfinite().all()
    assert oto.compress(tmp_path).removed == plan.remove.sum() == 3


def test_one_s_own_parametrization_is_pruned_where_the_graph_can_tell(tmp_path: Path) -> None:
    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 2 * x.tanh()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    parametrize.register_parametrization(model[0], "weight", Doubled())
    oto = OTO(model, torch.randn(1, 3))
    oto.random_set_zero_groups(0.5, seed=0)
    assert oto.compress(tmp_path).removed == 4
    x = torch.randn(5, 3)
    torch.testing.assert_close(oto.compressed(x), model(x))


class Inverse(nn.Module):
    """A parametrization that no exporter knows."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.ldl_factor(x @ x.T)[0] @ x


def test_a_parametrization_that_can_t_be_exported_is_refused_by_name(capfd: pytest.CaptureFixture[str]) -> None:
    orthogonal = nn.Sequential(parametrizations.orthogonal(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3))
    own = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    parametrize.register_parametrization(own[2], "weight", Inverse())
    for model, words in ((orthogonal, "'0' is parametrised by Orthogonal"), (own, "'2' is parametrised by Inverse")):
        with pytest.raises(UsageError, match=f"{words}, which can't be exported .*remove_parametrizations first"):
            OTO(model, torch.randn(2, 6))
    with pytest.raises(UsageError, match="'Linear' is parametrised by Orthogonal"):
        OTO(parametrizations.orthogonal(nn.Linear(6, 8)), torch.randn(2, 6))
    capfd.readouterr()


def test_a_frozen_vector_of_the_power_iteration_is_no_member() -> None:
    model = net(parametrizations.spectral_norm)
    oto = OTO(model, torch.randn(1, 3, 8, 8))
    buffers = {name for name, _ in model.named_buffers()}
    tensors = {slice_.tensor for zig in oto.partition for slice_ in zig.members}
    assert not tensors & buffers
    assert oto.table.prunable.all()
    assert np.isin(["0.parametrizations.weight.original", "0.bias"], list(tensors)).all()
