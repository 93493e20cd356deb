"""What every method promises as a torch optimizer, on a small network with groups made by hand; DHSPG stands for all."""

from __future__ import annotations

import copy
import io
import math
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from slow import SlowDHSPG
from torch import Tensor, nn
from torch.nn import functional as F

from zig.errors import PlanError, RunError, UsageError
from zig.training import HESSO, HESSOCRIC, HSPG
from zig.training import step as steps
from zig.training.dhspg import DHSPG
from zig.training.finite import Watch
from zig.training.groups import GroupRows, GroupTable
from zig.training.target import Target

SCHEDULE = {"start_pruning_steps": 3, "pruning_steps": 10, "target_group_sparsity": 0.6}


# --- a small network with groups made by hand ----------------------------------------------------------------------


class Net(nn.Module):
    """Two convolutions with BatchNorm, a matrix whose groups lie along axis 1, and a head that has none."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn = nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.b = nn.Conv2d(6, 6, 1)
        self.m = nn.Parameter(torch.randn(6, 8) / 3)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.a(x)).relu()
        x = (x + self.b(x)).relu().mean((2, 3))
        return self.head((x @ self.m).relu())


def make(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Net, GroupTable]:
    torch.manual_seed(seed)
    net = Net().to(dtype)
    six, eight = np.arange(6), np.arange(6, 14)
    rows = [GroupRows(p, 0, six) for p in (net.a.weight, net.bn.weight, net.bn.bias, net.b.weight, net.b.bias)]
    return net, GroupTable([*rows, GroupRows(net.m, 1, eight)], np.array([0] * 6 + [1] * 8))


def data(step: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(step)
    return torch.randn(8, 2, 6, 6, generator=random).to(dtype), torch.randint(0, 3, (8,), generator=random)


def backward(net: nn.Module, step: int, dtype: torch.dtype = torch.float64) -> None:
    net.zero_grad()
    x, y = data(step, dtype)
    F.cross_entropy(net(x), y).backward()


def train(net: nn.Module, optimizer: Any, steps: range, dtype: torch.dtype = torch.float64) -> None:
    for step in steps:
        backward(net, step, dtype)
        optimizer.step()


def zero_groups(table: GroupTable) -> np.ndarray:
    """Which groups are zero in the parameters themselves."""
    largest = np.zeros(len(table))
    for parameter, axis, groups in table.rows:
        of_row = (
            parameter.detach().double().abs().movedim(axis, 0).flatten(1).amax(1)
            if parameter.ndim > 1
            else parameter.detach().double().abs()
        )
        for i, g in enumerate(groups):
            if g >= 0:
                largest[g] = max(largest[g], float(of_row[i]))
    return largest == 0


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


VARIANTS = [
    ("sgd", {"lr": 0.1}),
    ("sgd", {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3, "epsilon": 0.5}),
    ("sgd", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "lmbda": 0.3, "hat_lmbda_coeff": 100.0}),
    ("adam", {"lr": 1e-2, "weight_decay": 1e-2, "epsilon": 0.9}),
    ("adam", {"lr": 1e-2, "scope": "global"}),
    ("adamw", {"lr": 3e-2, "weight_decay": 0.1, "lmbda": 0.1, "warm_up_steps": 3}),
]


@pytest.mark.parametrize(("variant", "options"), VARIANTS)
def test_agrees_with_the_equations(variant: str, options: dict[str, Any]) -> None:
    fast_net, fast_table = make()
    slow_net, slow_table = make()
    fast = DHSPG(fast_net.parameters(), fast_table, variant=variant, decay_steps=4, **SCHEDULE, **options)
    knobs = {**SCHEDULE, "decay_steps": 4, **vars_of(fast), **options}
    slow = SlowDHSPG(slow_table, [{**fast.defaults, "params": list(slow_net.parameters())}], variant, **knobs)
    for step in range(18):
        backward(fast_net, step)
        backward(slow_net, step)
        fast.step()
        slow.step()
        for (name, a), b in zip(fast_net.named_parameters(), slow_net.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, msg=f"{name} in step {step}")
        assert fast.zero_groups == len(slow.zero)
    assert fast.zero_groups == 8


def vars_of(optimizer: DHSPG) -> dict[str, Any]:
    return {
        "scope": optimizer.scope, "lmbda": optimizer.lmbda, "lmbda_amplify": optimizer.amplify,
        "hat_lmbda_coeff": optimizer.most, "epsilon": optimizer.epsilon,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("variant", "options", "torch_class"),
    [
        ("sgd", {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}, torch.optim.SGD),
        ("sgd", {"lr": 0.1, "momentum": 0.9, "nesterov": True}, torch.optim.SGD),
        ("adam", {"lr": 1e-2, "weight_decay": 1e-2, "betas": (0.8, 0.99)}, torch.optim.Adam),
        ("adamw", {"lr": 1e-2, "weight_decay": 1e-1}, torch.optim.AdamW),
    ],
)
def test_before_the_start_it_is_torch_s_own(variant: str, options: dict[str, Any], torch_class: Any) -> None:
    (ours, table), (theirs, _) = make(), make()
    optimizer = DHSPG(ours.parameters(), table, variant=variant, start_pruning_steps=100, pruning_steps=150, **options)
    train(ours, optimizer, range(6))
    train(theirs, torch_class(theirs.parameters(), **options), range(6))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_kept_groups_and_the_head_train_as_without_pruning() -> None:
    """One step in the pruning phase moves what is not penalised exactly as SGD does."""
    (ours, table), (theirs, _) = make(), make()
    optimizer = DHSPG(ours.parameters(), table, lr=0.1, momentum=0.9, start_pruning_steps=0, pruning_steps=10)
    train(ours, optimizer, range(1))
    train(theirs, torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9), range(1))
    kept = ~optimizer.state["groups"]["chosen"][:6]
    torch.testing.assert_close(ours.a.weight[kept], theirs.a.weight[kept])
    torch.testing.assert_close(ours.head.weight, theirs.head.weight)
    assert not torch.allclose(ours.a.weight[~kept], theirs.a.weight[~kept])


@settings(max_examples=15, deadline=None)
@given(
    target=st.floats(0, 0.85),
    start=st.integers(0, 4),
    steps=st.integers(1, 9),
    variant=st.sampled_from(["sgd", "adam", "adamw"]),
)
def test_the_target_is_reached_by_its_step_and_held(target: float, start: int, steps: int, variant: str) -> None:
    net, table = make(torch.float32)
    optimizer = DHSPG(
        net.parameters(),
        table,
        variant=variant,
        target_group_sparsity=target,
        start_pruning_steps=start,
        pruning_steps=steps,
    )
    for step in range(start + steps + 4):
        train(net, optimizer, range(step, step + 1), torch.float32)
        if step >= start + steps - 1:
            assert zero_groups(table).sum() == optimizer.zero_groups == round(target * 14)
            assert optimizer.finished
    for node in (0, 1):
        assert (~zero_groups(table))[table.node_group == node].any()


def test_sparsity_grows_only() -> None:
    net, table = make()
    optimizer = DHSPG(net.parameters(), table, lr=0.1, epsilon=0.95, **SCHEDULE)
    before = np.zeros(14, bool)
    for step in range(20):
        train(net, optimizer, range(step, step + 1))
        now = zero_groups(table)
        assert not (before & ~now).any()
        before = now


@pytest.mark.parametrize(("variant", "options"), VARIANTS)
@pytest.mark.parametrize("at", [2, 6, 11, 15])
def test_resumes_bit_for_bit(variant: str, options: dict[str, Any], at: int) -> None:
    def optimizer(net: Net, table: GroupTable) -> tuple[DHSPG, Any]:
        made = DHSPG(net.parameters(), table, variant=variant, **SCHEDULE, **options)
        return made, torch.optim.lr_scheduler.StepLR(made, 5, 0.5)

    net, table = make(torch.float32)
    whole, schedule = optimizer(net, table)
    for step in range(20):
        if step == at:
            file = io.BytesIO()
            torch.save([net.state_dict(), whole.state_dict(), schedule.state_dict()], file)
        train(net, whole, range(step, step + 1), torch.float32)
        schedule.step()
    other, other_table = make(torch.float32, seed=1)
    resumed, other_schedule = optimizer(other, other_table)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    other_schedule.load_state_dict(saved[2])
    assert resumed.steps == at
    for step in range(at, 20):
        train(other, resumed, range(step, step + 1), torch.float32)
        other_schedule.step()
    assert same(net, other)
    assert resumed.zero_groups == whole.zero_groups == 8


def test_a_saved_state_does_not_change_while_training_goes_on() -> None:
    net, table = make()
    optimizer = DHSPG(net.parameters(), table, **SCHEDULE)
    train(net, optimizer, range(5))
    saved = optimizer.state_dict()["state"]["groups"].copy()
    before = copy.deepcopy(saved)
    train(net, optimizer, range(5, 16))
    assert saved["step"] == before["step"]
    assert torch.equal(saved["zero"], before["zero"])


def test_parameter_groups_have_their_own_options() -> None:
    net, table = make()
    slow_net, slow_table = make()

    def split(net: Net) -> list[dict[str, Any]]:
        return [
            {"params": [net.a.weight, net.bn.weight], "lr": 0.2, "weight_decay": 0.01},
            {"params": [net.bn.bias, net.b.weight, net.b.bias], "momentum": 0.5},
            {"params": [net.m, *net.head.parameters()], "lr": 0.0},
        ]

    fast = DHSPG(split(net), table, lr=0.1, decay_steps=4, **SCHEDULE)
    options = [{**fast.defaults, **group} for group in split(slow_net)]
    slow = SlowDHSPG(slow_table, options, "sgd", decay_steps=4, **SCHEDULE, **vars_of(fast))
    for step in range(16):
        backward(net, step)
        backward(slow_net, step)
        fast.step()
        slow.step()
    for a, b in zip(net.parameters(), slow_net.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert fast.zero_groups == 8


def test_schedulers_clipping_and_scaling_work_as_usual() -> None:
    net, table = make(torch.float32)
    optimizer = DHSPG(net.parameters(), table, lr=0.1, momentum=0.9, **SCHEDULE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=30)
    scaler = torch.amp.GradScaler("cpu")
    for step in range(20):
        x, y = data(step, torch.float32)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(net(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
    assert optimizer.zero_groups == zero_groups(table).sum() == 8
    assert all(torch.isfinite(p).all() for p in net.parameters())


def test_a_step_that_the_scaler_skips_is_no_step() -> None:
    net, table = make(torch.float32)
    optimizer = DHSPG(net.parameters(), table, **SCHEDULE)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    backward(net, 0, torch.float32)
    net.a.weight.grad[0] = math.inf
    scaler.scale(torch.zeros(()))
    scaler.step(optimizer)
    assert optimizer.steps == 0


def test_bfloat16_parameters_reach_the_target() -> None:
    net, table = make(torch.bfloat16)
    optimizer = DHSPG(net.parameters(), table, lr=0.05, momentum=0.9, **SCHEDULE)
    train(net, optimizer, range(16), torch.bfloat16)
    assert zero_groups(table).sum() == 8


def test_parameters_without_gradient_stay_but_go_with_their_group() -> None:
    net, table = make()
    net.head.requires_grad_(False)
    head, bias = net.head.weight.clone(), net.b.bias.clone()
    optimizer = DHSPG(net.parameters(), table, weight_decay=0.1, **SCHEDULE)
    for step in range(16):
        backward(net, step)
        net.b.bias.grad = None
        optimizer.step()
    zero = torch.from_numpy(zero_groups(table))
    assert torch.equal(net.head.weight, head)
    assert torch.equal(net.b.bias[~zero[:6]], bias[~zero[:6]])
    assert zero.sum() == 8


def test_groups_whose_rows_are_not_optimized_are_never_pruned() -> None:
    net, table = make()
    optimizer = DHSPG(
        [p for n, p in net.named_parameters() if n != "b.weight"], table, **{**SCHEDULE, "target_group_sparsity": 0.4}
    )
    train(net, optimizer, range(16))
    assert not zero_groups(table)[:6].any()
    assert optimizer.zero_groups == round(0.4 * 14)
    with pytest.raises(PlanError, match="only 7 can go"):
        DHSPG([net.m], table, target_group_sparsity=0.9)


def test_a_parameter_may_have_groups_along_both_axes() -> None:
    torch.manual_seed(0)
    net = nn.Linear(6, 5, bias=False).double()
    table = GroupTable(
        [GroupRows(net.weight, 0, np.arange(5)), GroupRows(net.weight, 1, np.arange(5, 11))], np.arange(11) // 5
    )
    optimizer = DHSPG(net.parameters(), table, start_pruning_steps=0, pruning_steps=6, target_group_sparsity=0.5)
    for _ in range(8):
        net.zero_grad()
        net(torch.randn(4, 6, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
    rows, columns = (net.weight == 0).all(1), (net.weight == 0).all(0)
    assert rows.sum() + columns.sum() >= 6 == optimizer.zero_groups
    assert not rows.all()


@pytest.mark.parametrize("divisible", [2, 3, 4])
def test_round_to(divisible: int) -> None:
    net, table = make()
    optimizer = DHSPG(net.parameters(), table, round_to=divisible, **SCHEDULE)
    train(net, optimizer, range(16))
    kept = [int((~zero_groups(table))[table.node_group == node].sum()) for node in (0, 1)]
    assert all(k % divisible == 0 or k == n for k, n in zip(kept, (6, 8), strict=True))
    assert abs(14 - sum(kept) - round(0.6 * 14)) <= divisible


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_choose_keeps_its_promises(draw: Any) -> None:
    sizes = draw.draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    divisible = draw.draw(st.integers(1, 5))
    node_group = np.repeat(np.arange(len(sizes)), sizes)
    random = np.random.default_rng(draw.draw(st.integers(0, 99)))
    permuted = random.permutation(node_group)
    prunable = random.random(len(permuted)) < draw.draw(st.sampled_from([0.5, 1.0]))
    table = GroupTable([GroupRows(torch.ones(len(permuted)), 0, np.arange(len(permuted)))], permuted, prunable)
    scores = random.standard_normal(len(permuted))
    count = draw.draw(st.integers(0, len(permuted)))
    try:
        chosen = Target(table, count / max(len(permuted), 1), round_to=divisible).choose(scores)
    except PlanError:
        assume(False)
    assert not chosen[~table.prunable].any()
    room = 0
    for node, size in enumerate(sizes):
        here = permuted == node
        kept = size - chosen[here].sum()
        assert kept == size or (kept >= divisible and kept % divisible == 0)
        room += min(size - 1, table.prunable[here].sum())
        if chosen[here].any():
            assert scores[here & chosen].min() >= scores[here & ~chosen & table.prunable].max(initial=-np.inf)
    if divisible == 1:
        assert chosen.sum() == min(count, room)


def test_gradients_are_the_user_s_to_free() -> None:
    net, table = make()
    optimizer = DHSPG(net.parameters(), table, start_pruning_steps=0, pruning_steps=4)
    for step in range(6):
        backward(net, step)
        optimizer.step()
        gradients = [weakref.ref(p.grad) for p in net.parameters()]
        net.zero_grad()
        assert not any(gradient() is not None for gradient in gradients)


def test_parameters_may_move_to_other_memory() -> None:
    """`module.to` replaces the storage of parameters under the optimizer; big ones are updated by views of theirs."""
    nets, tables = zip(make(), make(), strict=True)
    for net, table, moves in zip(nets, tables, (True, False), strict=True):
        optimizer = DHSPG(net.parameters(), table, momentum=0.9, **SCHEDULE)
        for step in range(16):
            backward(net, step)
            optimizer.step()
            if moves:
                for p in net.parameters():
                    p.data = p.data.clone()
    assert same(*nets)


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters that are updated some rows at a time end as those that are updated whole."""
    nets = []
    for tile in (2**20, 64):
        monkeypatch.setattr(steps, "_TILE", tile)
        net, table = make()
        optimizer = DHSPG(net.parameters(), table, variant="adam", lr=1e-2, **SCHEDULE)
        train(net, optimizer, range(16))
        assert optimizer.zero_groups == 8
        nets.append(net)
    for a, b in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_a_closure_is_evaluated_with_gradients() -> None:
    net, table = make()
    optimizer = DHSPG(net.parameters(), table, **SCHEDULE)

    def closure() -> Tensor:
        optimizer.zero_grad()
        x, y = data(0)
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        return loss

    assert optimizer.step(closure) > 0


def test_wrong_use_is_one_sentence() -> None:
    net, table = make()
    for wrong, says in (
        ({"target_group_sparsity": 1.0}, "share in"),
        ({"target_group_sparsity": 0.95}, "only 12 can go"),
        ({"start_pruning_steps": 0, "pruning_steps": 0}, "no schedule"),
        ({"variant": "lion"}, "sgd, adam or adamw"),
        ({"round_to": 0}, "1 or more"),
        ({"scope": "layer"}, "local or global"),
    ):
        with pytest.raises(PlanError, match=says):
            DHSPG(net.parameters(), table, **{"steps": 300} | wrong)
    optimizer = DHSPG(net.parameters(), table, **SCHEDULE)
    with pytest.raises(PlanError, match="14 groups"):
        optimizer.load_state_dict(torch.optim.SGD(net.parameters(), lr=0.1).state_dict())
    embedding = nn.Embedding(4, 3, sparse=True)
    rows = GroupTable([GroupRows(embedding.weight, 1, np.arange(3))], np.zeros(3))
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(UsageError, match="sparse"):
        DHSPG(embedding.parameters(), rows, **SCHEDULE).step()


METHODS = (HSPG, DHSPG, HESSO, HESSOCRIC)


@pytest.mark.parametrize("method", METHODS)
def test_the_phases_follow_from_the_length_of_the_training(method: Any) -> None:
    net, table = make()
    for options, start, length in (
        ({"steps": 4000}, 1000, 2000),
        ({"epochs": 10, "batches": 400}, 1000, 2000),
        ({"steps": 4000, "start_pruning_steps": 400}, 400, 2000),
        ({"steps": 4000, "start_pruning_steps": 3000}, 3000, 1000),
        ({"steps": 4000, "pruning_steps": 3600}, 400, 3600),
        ({"start_pruning_steps": 7, "pruning_steps": 300}, 7, 300),
    ):
        schedule = method(net.parameters(), table, **options).schedule
        assert (schedule.start, schedule.steps) == (start, length)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("given", [{}, {"start_pruning_steps": 50}, {"pruning_steps": 150}])
def test_without_a_length_there_is_no_default(method: Any, given: dict[str, int]) -> None:
    net, table = make()
    with pytest.raises(UsageError, match=r"give steps .* sensible is to start after a tenth to a quarter of all steps"):
        method(net.parameters(), table, **given)


def test_a_length_that_is_none_is_refused() -> None:
    net, table = make()
    for wrong, says in (
        ({"epochs": 3}, "steps alone, or epochs and batches"),
        ({"steps": 30, "batches": 10, "epochs": 3}, "steps alone"),
        ({"steps": 0}, "1 or more"),
        ({"epochs": 3, "batches": 2.5}, "whole number"),
    ):
        with pytest.raises(UsageError, match=says):
            DHSPG(net.parameters(), table, **wrong)
    with pytest.raises(PlanError, match="more than the 100 steps of the training"):
        DHSPG(net.parameters(), table, steps=100, start_pruning_steps=50, pruning_steps=60)


@pytest.mark.parametrize("method", METHODS)
def test_a_parameter_that_is_not_finite_any_more_stops_the_training(method: Any) -> None:
    net, table = make()
    names = {parameter: name for name, parameter in net.named_parameters()}
    table = GroupTable(table.rows, table.node_group, table.prunable, table.price, names)
    optimizer = method(net.parameters(), table, **SCHEDULE | {"pruning_steps": 20})
    x, y = data(0)
    for step in range(3):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        if step == 2:
            net.head.bias.grad[1] = np.inf
            with pytest.raises(RunError, match=r"^parameter 'head.bias' is not finite any more after step 3; lower lr"):
                optimizer.step()
            return
        optimizer.step()


def test_a_loss_that_is_no_number_moves_nothing() -> None:
    net, table = make()
    optimizer = DHSPG(net.parameters(), table, **SCHEDULE)
    before = [p.clone() for p in net.parameters()]
    with pytest.raises(RunError, match="the loss is nan in step 1, and the parameters are as before"):
        optimizer.step(lambda: torch.tensor(np.nan))
    assert all((a == b).all() for a, b in zip(before, net.parameters(), strict=True))


def test_large_networks_and_accelerators_are_looked_at_now_and_then() -> None:
    assert Watch([torch.empty(10, device="meta")], {}).every == 50  # a look has to be waited for
    assert Watch([torch.zeros(10)], {}).every == 1
    watch = Watch([torch.zeros(5 << 20)], {})
    assert watch.every == 6
    assert [watch.is_due(step) for step in range(6)] == [False] * 5 + [True]
    huge = torch.full((3,), 3e38)  # its square is no number of that type, it is one
    Watch([huge], {}).check(0)
