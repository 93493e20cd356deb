"""HSPG, DHSPG, HESSO and HESSO-CRIC against slow loops over groups, on a network with what is hard about groups."""

from __future__ import annotations

import copy
import io
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from slow import Slow, SlowCRIC, SlowDHSPG, SlowHESSO, SlowHSPG
from torch import Tensor, nn
from torch.nn import functional as F

from zig import OTO
from zig.errors import PlanError, UsageError
from zig.training import DHSPG, HESSO, HESSOCRIC, HSPG
from zig.training.grouped import GroupOptimizer
from zig.training.groups import GroupRows, GroupTable


class Hard(nn.Module):
    """A concatenation under one BatchNorm, a convolution that is used twice, and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 1)
        self.norm = nn.BatchNorm2d(8)
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.embed = nn.Linear(8, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.up, self.head = nn.Linear(16, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(torch.cat([self.left(x), self.right(x)], 1)).relu()
        x = self.shared(self.shared(x).relu()).relu()
        x = self.embed(x.flatten(2).transpose(1, 2))
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.up(x.mean(1)).relu())


@cache
def analysed() -> tuple[Hard, GroupTable]:
    torch.manual_seed(0)
    net = Hard()
    return net, OTO(net, torch.randn(2, 2, 4, 4)).table


def make(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Hard, GroupTable]:
    """A copy with weights of its own, and its table."""
    source, table = analysed()
    net = copy.deepcopy(source)
    torch.manual_seed(seed)
    for p in net.parameters():
        nn.init.normal_(p, 0.1 * (p.ndim == 1), 0.3)
    net.to(dtype)
    mine = dict(zip(source.parameters(), net.parameters(), strict=True))
    rows = [GroupRows(mine[row.parameter], row.axis, row.groups) for row in table.rows]
    return net, GroupTable(rows, table.node_group, table.prunable, table.price)


def loss_of(net: nn.Module, step: int, dtype: torch.dtype = torch.float64) -> Tensor:
    random = torch.Generator().manual_seed(step)
    x, y = torch.randn(8, 2, 4, 4, generator=random).to(dtype), torch.randint(0, 3, (8,), generator=random)
    return F.cross_entropy(net(x), y)


def train(net: nn.Module, optimizer: Any, steps: range, dtype: torch.dtype = torch.float64) -> None:
    for step in steps:

        def closure(step: int = step) -> Tensor:
            net.zero_grad()
            loss = loss_of(net, step, dtype)
            loss.backward()
            return loss

        optimizer.step(closure)


def zero_groups(table: GroupTable) -> np.ndarray:
    """Which groups are zero in the parameters themselves."""
    zero = np.ones(len(table), bool)
    for parameter, axis, groups in table.rows:
        rows = (parameter.detach() == 0).movedim(axis, 0).flatten(1).all(1) if parameter.ndim > 1 else parameter == 0
        zero[groups[(groups >= 0) & ~rows.numpy()]] = False
    return zero


SHORT = {"start_pruning_steps": 8, "pruning_steps": 30, "target_group_sparsity": 0.6}
DECAY = {**SHORT, "decay_steps": 12}
SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
CASES: list[tuple[type[GroupOptimizer], type[Slow], dict[str, Any], dict[str, Any]]] = [
    (DHSPG, SlowDHSPG, {**DECAY, **SGD}, {}),
    (DHSPG, SlowDHSPG, {**DECAY, "lr": 0.1, "epsilon": 0.5, "lmbda": 0.3, "warm_up_steps": 4}, {}),
    (DHSPG, SlowDHSPG, {**DECAY, **SGD, "nesterov": True, "hat_lmbda_coeff": 100.0, "scope": "global"}, {}),
    (DHSPG, SlowDHSPG, {**DECAY, "variant": "adam", "lr": 1e-2, "weight_decay": 1e-2, "epsilon": 0.9}, {}),
    (DHSPG, SlowDHSPG, {**DECAY, "variant": "adamw", "lr": 2e-2, "weight_decay": 0.1}, {}),
    (HSPG, SlowHSPG, {**DECAY, "lr": 0.1, "lmbda": 0.1, "epsilon": 0.95}, {"exact": True}),
    (HSPG, SlowHSPG, {**DECAY, **SGD, "lmbda": 0.05, "nesterov": True}, {"exact": True}),
    (HSPG, SlowHSPG, {**DECAY, "variant": "adam", "lr": 1e-2, "epsilon": 0.98}, {"exact": True}),
    (HSPG, SlowHSPG, {**DECAY, "variant": "adamw", "lr": 1e-2, "lmbda": 0.3, "epsilon": 0.9}, {"exact": True}),
    (HESSO, SlowHESSO, {**SHORT, **SGD, "pruning_periods": 4}, {}),
    (HESSO, SlowHESSO, {**SHORT, **SGD, "nesterov": True, "scope": "global", "pruning_periods": 1}, {}),
    (HESSO, SlowHESSO, {**SHORT, "variant": "adam", "lr": 1e-2, "pruning_periods": 7}, {}),
    (HESSO, SlowHESSO, {**SHORT, "variant": "adamw", "lr": 1e-2, "pruning_periods": 3}, {}),
    (HESSOCRIC, SlowCRIC, {**SHORT, **SGD, "sampling_steps": 4, "cycles": 5}, {"tolerance": 0, "loss_weight": 1.0}),
    (HESSOCRIC, SlowCRIC, {**SHORT, "variant": "adamw", "lr": 1e-2, "sampling_steps": 3, "cycles": 3}, {"tolerance": 1, "loss_weight": 0.5}),
]  # fmt: skip


def slow_knobs(fast: GroupOptimizer) -> dict[str, Any]:
    if isinstance(fast, DHSPG):
        return {"lmbda": fast.lmbda, "lmbda_amplify": fast.amplify, "hat_lmbda_coeff": fast.most, "epsilon": 0.0}
    if isinstance(fast, HSPG):
        return {"lmbda": fast.lmbda, "epsilon": 0.0}
    return {}


@pytest.mark.parametrize(("method", "slow_method", "options", "more"), CASES)
def test_each_method_is_its_equations(method: Any, slow_method: Any, options: Any, more: Any) -> None:
    (fast_net, fast_table), (slow_net, slow_table) = make(), make()
    own = {key: value for key, value in more.items() if key in ("tolerance", "loss_weight")}
    fast = method(fast_net.parameters(), fast_table, **options, **own)
    at = {"step": 0}
    knobs = {**slow_knobs(fast), **options, **more, "loss": lambda: float(loss_of(slow_net, at["step"]))}
    groups = [{**fast.defaults, "params": list(slow_net.parameters())}]
    slow = slow_method(slow_table, groups, knobs.pop("variant", "sgd"), **knobs)
    for step in range(50):
        at["step"] = step
        train(fast_net, fast, range(step, step + 1))
        slow_net.zero_grad()
        loss_of(slow_net, step).backward()
        slow.step()
        for (name, a), b in zip(fast_net.named_parameters(), slow_net.parameters(), strict=True):
            torch.testing.assert_close(
                a, b, rtol=1e-6, atol=1e-9, msg=lambda said, name=name, step=step: f"{name} in step {step}: {said}"
            )
    assert fast.zero_groups == zero_groups(fast_table).sum() == round(0.6 * len(fast_table))


METHODS = {
    "hspg": (HSPG, {}),
    "dhspg": (DHSPG, {"momentum": 0.9}),
    "hesso": (HESSO, {"pruning_periods": 3, "variant": "adamw"}),
    "hesso-cric": (HESSOCRIC, {"sampling_steps": 2, "cycles": 3, "variant": "adam"}),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("seed", range(20))
def test_the_target_is_reached_in_every_run(name: str, seed: int) -> None:
    method, options = METHODS[name]
    net, table = make(torch.float32, seed)
    random = np.random.default_rng(seed)
    of = ("target_group_sparsity", "target_macs", "target_params")[seed % 3]
    share = float(random.uniform(0.3, 0.7))
    start, steps = int(random.integers(0, 4)), int(random.integers(8, 12))
    optimizer = method(
        net.parameters(), table, lr=1e-2, start_pruning_steps=start, pruning_steps=steps, **{of: share}, **options
    )
    train(net, optimizer, range(start + steps), torch.float32)
    gone = zero_groups(table)
    assert optimizer.finished
    assert optimizer.zero_groups == gone.sum()
    if of == "target_group_sparsity":
        assert gone.sum() == round(share * len(table))
    else:
        within_one_group(table, gone, share, of)
    train(net, optimizer, range(start + steps, start + steps + 3), torch.float32)
    np.testing.assert_array_equal(zero_groups(table), gone)


def within_one_group(table: GroupTable, gone: np.ndarray, share: float, of: str) -> None:
    """The budget is nearer than the dearest group costs."""
    which = ("target_params", "target_macs").index(of)
    whole = table.price(np.zeros(len(table), bool))[which]
    left = table.price(gone)[which]
    without = [table.price(gone ^ (np.arange(len(table)) == g))[which] for g in range(len(table))]
    assert abs(left - share * whole) <= max(abs(left - each) for each in without)


@pytest.mark.parametrize("name", METHODS)
def test_resuming_is_bit_for_bit(name: str) -> None:
    method, options = METHODS[name]
    for stop in (3, 9, 14, 25):
        (whole_net, whole_table), (first_net, first_table), (second_net, second_table) = make(), make(), make()
        common = {"start_pruning_steps": 6, "pruning_steps": 12, "target_group_sparsity": 0.5, **options}
        train(whole_net, method(whole_net.parameters(), whole_table, **common), range(28))
        first = method(first_net.parameters(), first_table, **common)
        train(first_net, first, range(stop))
        file = io.BytesIO()
        torch.save({"net": first_net.state_dict(), "optimizer": first.state_dict()}, file)
        file.seek(0)
        saved = torch.load(file)
        second_net.load_state_dict(saved["net"])
        second = method(second_net.parameters(), second_table, **common)
        second.load_state_dict(saved["optimizer"])
        train(second_net, second, range(stop, 28))
        for a, b in zip(whole_net.parameters(), second_net.parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", METHODS)
def test_widths_are_multiples(name: str) -> None:
    method, options = METHODS[name]
    net, table = make(torch.float32)
    optimizer = method(
        net.parameters(), table, round_to=2, target_macs=0.7, start_pruning_steps=2, pruning_steps=10, **options
    )
    train(net, optimizer, range(14), torch.float32)
    kept = ~zero_groups(table)
    assert optimizer.zero_groups == (~kept).sum() > 0
    for parameter, _, groups in table.rows:
        live = groups[groups >= 0]
        for node in np.unique(table.node_group[live]):
            here = live[table.node_group[live] == node]
            assert kept[here].all() or kept[here].sum() % 2 == 0, parameter.shape


def test_hspg_without_a_target_goes_as_far_as_its_penalty_leads() -> None:
    reached = []
    for lmbda, upper in ((0.0, 0.7), (1.0, 0.7), (1.0, 0.3)):
        net, table = make()
        optimizer = HSPG(
            net.parameters(), table, lr=0.1, lmbda=lmbda, upper_group_sparsity=upper, adapt_epsilon_steps=5,
            start_pruning_steps=4, pruning_steps=26,
        )  # fmt: skip
        train(net, optimizer, range(32))
        reached.append(zero_groups(table).mean())
        assert zero_groups(table).sum() == optimizer.zero_groups <= round(upper * len(table))
    assert reached[0] < reached[1] > reached[2] > 0


def test_concatenation_under_batchnorm_keeps_what_survives() -> None:
    """Only the rows of redundant channels decay (OTO 3.0.1 multiplies the whole slice of their convolution)."""
    net, table = make()
    optimizer = HESSO(net.parameters(), table, lr=1e-9, start_pruning_steps=0, pruning_steps=5)
    before = net.norm.weight.detach().clone()
    train(net, optimizer, range(6))
    survives = net.norm.weight != 0
    assert 0 < survives.sum() < 8
    torch.testing.assert_close(net.norm.weight[survives], before[survives], atol=1e-6, rtol=0)


def test_wrong_use_is_one_sentence() -> None:
    net, table = make()
    for method, wrong, says in (
        (DHSPG, {"target_macs": 0.5, "target_params": 0.5}, "choose one of"),
        (DHSPG, {"target_macs": 0.001}, "keeps 0"),
        (DHSPG, {"target_params": 0.0}, r"\(0, 1\]"),
        (DHSPG, {"color": "red"}, "no option 'color'"),
        (DHSPG, {"variant": "sgd", "betas": (0.9, 0.99)}, "with sgd has no option 'betas'"),
        (HSPG, {"target_macs": 0.5, "upper_group_sparsity": 0.5}, "target or upper"),
        (HSPG, {"adapt_epsilon_steps": 0}, "1 or more"),
        (HESSO, {"pruning_periods": 0}, "1 to pruning_steps"),
        (HESSO, {"saliency": {"size": 1.0}}, "must weigh some of"),
        (HESSO, {"decay_steps": 3}, "no decay_steps"),
        (HESSOCRIC, {"sampling_steps": 100}, "leave nothing"),
    ):
        with pytest.raises(PlanError, match=says):
            method(net.parameters(), table, start_pruning_steps=50, pruning_steps=150, **wrong)
    optimizer = HESSOCRIC(net.parameters(), table, start_pruning_steps=0, pruning_steps=20)
    loss_of(net, 0).backward()
    with pytest.raises(UsageError, match=r"step\(closure\)"):
        optimizer.step()
