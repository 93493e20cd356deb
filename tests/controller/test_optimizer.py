"""ATO's optimizer: its equations, its budget, its mask, and that it goes on where it was stopped."""

import copy
import io
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from small_nets import Plain
from torch import Tensor, nn
from torch.nn import functional as F

from zig import OTO
from zig.controller import ATOOptimizer
from zig.errors import PlanError, UsageError

WIDTH = 48


@cache
def analysed() -> tuple[OTO, dict[str, Tensor]]:
    torch.manual_seed(0)
    net = Plain(WIDTH)
    return OTO(net, torch.zeros(2, 1, 8, 8)), copy.deepcopy(net.state_dict())


def make(variant: str = "sgd", seed: int = 0, **options: Any) -> tuple[OTO, ATOOptimizer]:
    """The network with random weights, and its optimizer."""
    oto, state = analysed()
    oto.model.load_state_dict(state)
    oto.model.train().zero_grad()
    torch.manual_seed(seed)
    for p in oto.model.parameters():
        nn.init.normal_(p, 0.1 * (p.ndim == 1), 0.3)
    budget = {} if "p" in options else {"keep": 0.5}
    return oto, oto.ato(variant, **(budget | {"steps": 40, "lr": 0.01} | options))


def loss_of(net: nn.Module, step: int) -> Tensor:
    random = torch.Generator().manual_seed(step)
    x, y = torch.randn(8, 1, 8, 8, generator=random), torch.randint(0, 4, (8,), generator=random)
    return F.cross_entropy(net(x), y)


def train(oto: OTO, optimizer: ATOOptimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        loss_of(oto.model, step).backward()
        optimizer.step()
        optimizer.learn(lambda net, step=step: loss_of(net, step + 10_000))


@torch.no_grad()
def slow_step(oto: OTO, optimizer: ATOOptimizer, moments: dict[Tensor, Tensor], before: list[Tensor]) -> None:
    """One step of SGD with momentum 0.9 and the projection, group by group, after the optimizer chose its mask."""
    params, now = list(oto.model.parameters()), optimizer.steps - 1
    chosen = optimizer.state["groups"]["chosen"][:-1].numpy()
    family, lr, final = optimizer.table.node_group, 0.01, optimizer.final
    for p, value in zip(params, before, strict=True):
        p.copy_(value)
    x = {p: p.clone() for p in params}
    for p in params:
        moments[p] = 0.9 * moments.get(p, torch.zeros_like(p)) + p.grad
        p.sub_(lr * moments[p])
    for g in np.flatnonzero(chosen) if now >= optimizer.schedule.start else ():
        rows = [(p, axis, i) for p, axis, groups in optimizer.table.rows for i in np.flatnonzero(groups == g)]
        old, trial = ([source(p).select(a, i).flatten() for p, a, i in rows] for source in (x.__getitem__, lambda p: p))
        norm = torch.cat(old).norm()
        strength = optimizer.settings.lmbda[final] * chosen[family == family[g]].sum() / chosen.sum()
        pull = min(float(strength / norm.clamp_min(1e-8)), (1 if final else 0.5) / lr)
        gone = final and (lr * strength >= norm or now >= optimizer.schedule.end - 1)
        if final and optimizer.settings.projection == "half_space":
            after = torch.cat([t - lr * pull * o for t, o in zip(trial, old, strict=True)])
            gone = gone or bool(after @ torch.cat(old) < 0)
        scale = 0.0 if gone or norm == 0 else optimizer.schedule.shrink(now) if final else 1.0
        for p, axis, i in rows:
            p.select(axis, i).sub_(lr * pull * x[p].select(axis, i)).mul_(scale)


@pytest.mark.parametrize("options", [
    {"controller": "none", "lmbda": (1.0, 3.0)},
    {"controller": "none", "projection": "half_space", "lmbda": (1.0, 40.0)},
    {"controller": "logits", "lmbda": (4.0, 2.0), "every": 2, "base": -0.5},
])  # fmt: skip
def test_a_step_is_its_equations(options: Any) -> None:
    oto, optimizer = make(momentum=0.9, steps=30, **options)
    moments: dict[Tensor, Tensor] = {}
    for step in range(25):
        before = [p.detach().clone() for p in oto.model.parameters()]
        train(oto, optimizer, range(step, step + 1))
        fast = [p.detach().clone() for p in oto.model.parameters()]
        slow_step(oto, optimizer, moments, before)
        for (name, slow), value in zip(oto.model.named_parameters(), fast, strict=True):
            torch.testing.assert_close(
                value, slow.detach(), rtol=1e-4, atol=1e-6, msg=lambda m, n=name, s=step: f"{n} {s} {m}"
            )
    assert optimizer.finished
    assert optimizer.zero_groups == oto.zero_groups().sum() > 20


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("sgd", {"keep": 0.5, "momentum": 0.9}),
        ("adam", {"keep": 0.3, "controller": "logits"}),
        ("adamw", {"p": 0.7, "of": "params"}),
        ("adamw", {"keep": 0.6, "controller": "none", "projection": "half_space"}),
        ("sgd", {"p": 0.4, "rank": 4, "every": 3, "epoch_steps": 7}),
    ],
)
def test_the_mask_is_zero_at_the_stated_step_and_meets_the_budget(variant: Any, options: dict[str, Any]) -> None:
    oto, optimizer = make(variant, lmbda=(0.1, 0.1), **options)
    end = optimizer.schedule.end
    assert (optimizer.schedule.start, optimizer.lessons.freeze, end) == (8, 8 if "none" in options.values() else 20, 30)
    train(oto, optimizer, range(end - 1))
    assert not optimizer.finished
    train(oto, optimizer, range(end - 1, end))
    gone = oto.zero_groups()
    assert optimizer.finished
    np.testing.assert_array_equal(gone, optimizer.plan())
    whole, left = (
        (f(False), f(True))
        for f in (lambda c: oto.compute_macs(compressed=c), lambda c: oto.compute_num_params(compressed=c))
    )
    share = left if options.get("of") == "params" else whole
    reached = share[1] / share[0]
    assert reached == pytest.approx(optimizer.keep, abs=0.01)
    assert optimizer.left == pytest.approx(reached, abs=1e-9)
    if "p" in options:
        resource = optimizer.resource
        assert 1 - (1 - reached) * resource.whole / resource.prunable == pytest.approx(options["p"], abs=0.01)
    train(oto, optimizer, range(end, end + 3))
    np.testing.assert_array_equal(oto.zero_groups(), gone)


@pytest.mark.parametrize("controller", ["gru", "logits"])
def test_a_run_that_goes_on_has_the_same_mask(controller: Any) -> None:
    options = {"controller": controller, "momentum": 0.9, "every": 2}
    oto, optimizer = make(**options)
    train(oto, optimizer, range(36))
    expected, weights = optimizer.plan(), [p.detach().clone() for p in oto.model.parameters()]
    for stop in (3, 11, 19, 21, 33):
        oto, first = make(**options)
        train(oto, first, range(stop))
        file = io.BytesIO()
        torch.save({"model": oto.model.state_dict(), "optimizer": first.state_dict()}, file)
        file.seek(0)
        saved = torch.load(file)
        oto, second = make(seed=5, **options)
        oto.model.load_state_dict(saved["model"])
        second.load_state_dict(saved["optimizer"])
        train(oto, second, range(stop, 36))
        np.testing.assert_array_equal(second.plan(), expected)
        assert all(torch.equal(a, b) for a, b in zip(oto.model.parameters(), weights, strict=True))


@pytest.mark.parametrize("controller", ["gru", "logits"])
def test_the_controller_learns_what_the_loss_needs(controller: Any) -> None:
    oto, optimizer = make(controller=controller, keep=0.3, steps=300, seed=3)
    net: Any = oto.model
    useful = np.arange(2 * WIDTH) % 2 == 0
    with torch.no_grad():
        for norm in (net.norm, net.norm1, net.norm2):  # no channel is silent
            norm.weight.fill_(1.0)
            norm.bias.fill_(0.5)
        net.head.weight[:, ~useful] = 0
        x = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        target = net.eval()(x)
    optimizer.state["groups"]["step"] = 60  # the lessons alone: the network stays as it is
    lessons = [optimizer.learn(lambda net: F.mse_loss(net(x), target) / target.var()) for _ in range(150)]
    penalties = np.array(lessons)[:, 1]
    assert penalties[-20:].mean() < 0.2 < penalties[0]
    second = optimizer.table.node_group == optimizer.table.node_group[-1]
    assert optimizer.learner is not None
    logits = optimizer.learner.logits()[second]
    assert logits[useful].mean() > logits[~useful].mean() + 0.5
    kept = ~optimizer.plan()[second]
    assert kept[useful].mean() > 1.2 * kept[~useful].mean()


def test_a_lesson_leaves_the_model_as_it_is_and_is_given_only_when_it_is_time() -> None:
    oto, optimizer = make(steps=40, every=3)
    before = copy.deepcopy(oto.model.state_dict())
    asked: list[int] = []

    def loss(net: nn.Module) -> Tensor:
        asked.append(optimizer.steps)
        assert not net.training
        return loss_of(net, 0)

    for step in range(40):
        optimizer.state["groups"]["step"] = step
        assert (optimizer.learn(loss) is not None) is optimizer.learning
    assert asked == list(range(4, 20, 3))
    assert oto.model.training
    assert all(p.grad is None for p in oto.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(oto.model.state_dict().values(), before.values(), strict=True))
    optimizer.state["groups"]["step"] = 3
    optimizer.lessons_from = lambda step: loss
    loss_of(oto.model, 0).backward()
    optimizer.step()
    assert asked[-1] == 4
    assert optimizer.lesson is not None


def test_random_masks_leave_each_node_group_a_unit() -> None:
    _, optimizer = make(base=-20.0)
    assert optimizer.learner is not None
    masks = [optimizer.learner.sample() for _ in range(5)]
    for mask in masks:
        assert [int((~mask)[optimizer.table.node_group == k].sum()) for k in (0, 1)] == [1, 1]
    assert any((a != b).any() for a, b in pairwise(masks))
    assert optimizer.probabilities.max() < 1e-6


def test_the_schedule_follows_from_the_number_of_steps() -> None:
    _, optimizer = make(steps=1000)
    assert tuple(optimizer.lessons) == (100, 500, 1, 5)
    assert (optimizer.schedule.start, optimizer.schedule.end, optimizer.schedule.decay) == (200, 750, 125)
    _, optimizer = make(steps=245 * 1251)
    assert optimizer.lessons.every == 20


def test_the_length_may_come_in_epochs_and_must_be_known() -> None:
    _, optimizer = make(steps=None, epochs=10, batches=100)
    assert (optimizer.schedule.start, optimizer.schedule.end) == (200, 750)
    assert tuple(optimizer.lessons) == (100, 500, 1, 5)
    for given in ({}, {"start_pruning_steps": 50}):
        with pytest.raises(UsageError, match=r"ATO must know how long the training is: give steps .*sensible"):
            make(steps=None, **given)


def test_the_budget_has_the_names_of_the_other_methods_too() -> None:
    for variant, target, of in (("adamw", "target_macs", "macs"), ("sgd", "target_params", "params")):
        budgets = ({target: 0.5}, {"keep": 0.5, "of": of})
        ours, theirs = (analysed()[0].ato(variant, lr=0.01, steps=40, **given) for given in budgets)  # type: ignore[arg-type]
        assert ours.keep == theirs.keep == pytest.approx(0.5, abs=0.02)
        assert ours.settings.of == theirs.settings.of == of


def test_what_can_not_be_is_refused() -> None:
    for wrong, says in (
        ({"keep": 0.001}, "keep is 0.001; choose"),
        ({"keep": None}, "give keep"),
        ({"target_group_sparsity": 0.5}, "ATO has no target_group_sparsity; give keep"),
        ({"target_macs": 0.5, "keep": 0.5}, "target_macs and keep are two budgets; give one"),
        ({"target_macs": 0.5, "of": "params"}, "of is 'params', but the budget is target_macs"),
        ({"controller": "lstm"}, "no controller 'lstm'; choose one of gru"),
        ({"projection": "oto"}, "no projection 'oto'"),
        ({"every": 0}, "every is 0; choose 1 or more"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"start_controller_steps": 30}, "must start before the mask is final"),
        ({"freeze_steps": 30, "decay_steps": 1}, "in steps 8 to 29"),
        ({"freeze_steps": 5}, "between the start of pruning"),
        ({"color": "red"}, "no option 'color'"),
    ):
        with pytest.raises(PlanError, match=says):
            make(**wrong)
    _, optimizer = make()
    _, other = make(controller="none")
    for a, b in ((optimizer, other), (other, optimizer)):
        with pytest.raises(PlanError, match="of another controller"):
            a.load_state_dict(b.state_dict())
