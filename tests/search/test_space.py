"""Budgets: whatever the order of the steps, a budget is met within 1 %, or the nearest that there is is named."""

import itertools

import numpy as np
import pytest
from problems import problem

from zig.errors import PlanError
from zig.groups.budget import Budget
from zig.groups.importance import magnitude
from zig.search.space import Dial, Space, every_width, portions, rank, some_widths

RATIOS = [round(0.1 * tenth, 1) for tenth in range(1, 10)]


def space(seed: int, round_to: int = 1, **options: object) -> Space:
    partition = problem(seed)
    return Space(partition, magnitude(partition), every_width(partition, round_to=round_to), **options)


@pytest.mark.parametrize("block", range(4))
def test_200_random_problems_meet_their_budget(block: int) -> None:
    """Random orders of steps on random networks; what is not met is out of reach, and said so."""
    met, coarse = 0, []
    for seed in range(50 * block, 50 * block + 50):
        made = space(seed)
        random = np.random.default_rng(seed)
        least = made.removed(made.counts - 1, "macs")
        for ratio in RATIOS:
            keys = (
                random.random(len(made.gone))
                if seed % 2
                else made.gone / random.uniform(0.1, 1, len(made.dials))[made.dial]
            )
            choice = made.climb(keys, ratio)
            _, macs = Budget(made.partition).price(made.remove(choice.setting))
            assert choice.reached == pytest.approx(1 - macs / made.whole["macs"])
            if choice.met:
                met += 1
                assert abs(macs - (1 - ratio) * made.whole["macs"]) <= 0.01 * (1 - ratio) * made.whole["macs"] + 1
            else:
                assert f"not {ratio:.2%}" in choice.sentence
                assert choice.least == (least < ratio)
                if not choice.least:  # then single widths are too coarse for any step around it to meet the budget
                    near = made._one_step(choice.setting)
                    assert min(abs(made.removed(other, "macs") - ratio) for other in near) > 0.01 * (1 - ratio)
                    coarse.append((seed, ratio, choice.reached))
    assert len(coarse) <= 0.02 * met, coarse


def test_of_parameters_too() -> None:
    made = space(3)
    for ratio in RATIOS[:7]:
        choice = made.climb(made.even(), ratio, "params")
        assert choice.met
        assert made.removed(choice.setting, "params") == choice.reached


def test_the_nearest_of_all_settings_is_found_where_the_dials_are_coarse() -> None:
    """With few settings all can be tried: a budget that is missed has no setting that meets it."""
    partition = problem(5, layers=3, narrowest=3, widest=4)
    made = Space(partition, magnitude(partition), some_widths(partition, [0.5, 1]))
    settings = [np.array(s) for s in itertools.product(*(range(n) for n in made.counts))]
    reached = np.array([made.removed(s, "macs") for s in settings])
    for ratio in RATIOS:
        choice = made.climb(made.even(), ratio)
        if not choice.met:
            possible = np.abs(reached - ratio).min()
            assert possible > 0.01 * (1 - ratio)
            assert f"not {ratio:.2%}" in choice.sentence


def test_widths_are_multiples_and_prefixes_of_the_order_of_importance() -> None:
    partition = problem(1)
    scores = magnitude(partition)
    made = Space(partition, scores, every_width(partition, round_to=4))
    kept = made.kept(made.climb(made.even(), 0.6).setting)
    assert all(k == s or k % 4 == 0 for k, s in zip(kept, made.sizes, strict=True))
    remove = made.remove(made.climb(made.even(), 0.6).setting)
    for group in partition.node_groups:
        stays = scores[group.groups[~remove[group.groups]]]
        goes = scores[group.groups[remove[group.groups]]]
        assert len(stays)
        assert not len(goes) or stays.min() >= goes.max()


def test_steps_beyond_nine_tenths_wait_for_all_others() -> None:
    made = space(2)
    keys = np.where(made.dial == 0, -1.0, 0.0)  # the first dial is to go first of all
    choice = made.climb(keys, made.removed(np.where(np.arange(len(made.dials)) == 0, made.counts - 1, 0), "macs"))
    first = made.dials[0].options
    assert first[choice.setting[0]] >= 0.1 * first[0] - 1


def test_kernels_are_dials_too() -> None:
    partition = problem(7)
    weight = next(n for n in partition.flow.weights if partition.graph.initializers[n].dims[-1] == 3)
    made = Space(partition, magnitude(partition), [Dial(weight, (3, 1))])
    setting = made.counts - 1
    assert made.kernels(setting) == {weight: 1}
    assert made.shares(setting) == {weight: pytest.approx(1 / 9)}
    dims = partition.graph.initializers[weight].dims
    elements = int(np.prod(dims))
    assert made.whole["params"] - made.cost(setting, "params") == pytest.approx(elements * 8 / 9, abs=1)
    assert made.cost(setting, "macs") < made.whole["macs"]
    assert not made.remove(setting).any()


def test_groups_of_a_node_group_are_ranked_by_score() -> None:
    partition = problem(0)
    scores = np.random.default_rng(0).random(len(partition))
    places = rank(partition, scores)
    for group in partition.node_groups:
        assert (np.argsort(-scores[group.groups]) == np.argsort(places[group.groups])).all()


def test_wrong_arguments_are_met_with_a_sentence() -> None:
    made = space(0)
    with pytest.raises(PlanError, match="between 0 and 1"):
        made.climb(made.even(), 1.2)
    with pytest.raises(PlanError, match="macs, params, latency"):
        made.climb(made.even(), 0.5, "flops")
    with pytest.raises(PlanError, match="call measure_latency"):
        made.cost(made.full, "latency")
    with pytest.raises(PlanError, match="round_to"):
        portions(made.partition, 0)
    with pytest.raises(PlanError, match="kept"):
        some_widths(made.partition, [0.0, 1.0])
