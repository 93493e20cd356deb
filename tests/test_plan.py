"""Plans: the ratio is met, every node group lives, and what a plan is said to cost is what it costs."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import pytest
from conftest import parse
from hypothesis import given, settings
from hypothesis import strategies as st
from operators.cases import attention

import zig
from zig.errors import PlanError
from zig.groups.importance import magnitude
from zig.plan import MEASURES, SCOPES

ATTENTION = attention("Reshape", "heads")
MODELS = {
    "residual": graphs.build(
        """
        a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
        r = Relu (a)
        c = Conv <pads = [1, 1, 1, 1]> (r, w2)
        s = Relu (c)
        d = Conv <pads = [1, 1, 1, 1]> (s, w3)
        e = Add (r, d)
        p = GlobalAveragePool (e)
        f = Flatten (p)
        z = Gemm (f, w4, b4)
        """,
        x="N 3 6 6", w1="8 3 3 3", b1="8", w2="20 8 3 3", w3="8 20 3 3", w4="8 5", b4="5",
    ),
    "wide": graphs.build(
        "h = Gemm (x, w1, b1)\ny = Relu (h)\nk = Gemm (y, w2, b2)\nl = Relu (k)\nz = Gemm (l, w3)",
        x="N 16", w1="16 64", b1="64", w2="64 48", b2="48", w3="48 4",
    ),
    "depthwise": graphs.build(
        "h = Conv (x, w1)\nk = Conv <group = 24, pads = [1, 1, 1, 1]> (h, w2)\nl = Conv (k, w3)\nz = Conv (l, w4)",
        x="N 3 6 6", w1="24 3 1 1", w2="24 1 3 3", w3="12 24 1 1", w4="2 12 1 1",
    ),
    "attention": ATTENTION.model({**ATTENTION.letters(), "i": 8, "g": 6, "d": 4, "o": 8}),
}  # fmt: skip


@pytest.fixture(scope="module", params=MODELS)
def partition(request: pytest.FixtureRequest) -> zig.Partition:
    return zig.analyze(MODELS[request.param])


def costs(partition: zig.Partition, remove: Any) -> dict[str, float]:
    """The share of each measure that is gone."""
    whole, left = zig.cost(partition), zig.cost(partition, remove)
    return {
        "params": 1 - left["parameters"] / whole["parameters"],
        "macs": 1 - left["macs"] / whole["macs"],
        "groups": float(remove.mean()),
    }


def one_group(partition: zig.Partition, of: str) -> float:
    """The largest share of one group alone."""
    first = [group.groups[0] for group in partition.node_groups]
    return max(costs(partition, np.arange(len(partition)) == g)[of] for g in first)


def most(partition: zig.Partition, of: str) -> float:
    """The share that goes when one group of each node group is left."""
    remove = np.ones(len(partition), bool)
    remove[[group.groups[0] for group in partition.node_groups]] = False
    return costs(partition, remove)[of]


# -- the ratio ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", MEASURES)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("criterion", ["magnitude", "random"])
@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.5, 0.72])
def test_the_ratio_is_met_within_the_share_of_one_group(
    partition: zig.Partition, of: str, scope: str, criterion: str, ratio: float
) -> None:
    plan = zig.prune(partition, ratio, of=of, scope=scope, criterion=criterion)
    reached = costs(partition, plan.remove)[of]
    assert plan.reached == pytest.approx(costs(partition, plan.remove))
    assert abs(reached - min(ratio, most(partition, of))) <= one_group(partition, of)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(MODELS)), ratio=st.floats(0.01, 0.99), of=st.sampled_from(MEASURES),
    scope=st.sampled_from(SCOPES), seed=st.integers(0, 5),
)  # fmt: skip
def test_any_ratio_is_met_and_one_group_is_always_kept(name: str, ratio: float, of: str, scope: str, seed: int) -> None:
    partition = zig.analyze(MODELS[name])
    plan = zig.prune(partition, ratio, of=of, scope=scope, criterion="random", seed=seed)
    assert all((~plan.remove[group.groups]).any() for group in partition.node_groups)
    reached = costs(partition, plan.remove)[of]
    assert abs(reached - min(ratio, most(partition, of))) <= one_group(partition, of)


def test_a_ratio_that_cannot_be_reached_leaves_one_group_of_each(partition: zig.Partition) -> None:
    plan = zig.prune(partition, 0.999)
    assert [(~plan.remove[group.groups]).sum() for group in partition.node_groups] == [1] * len(partition.node_groups)


def test_more_is_removed_at_a_higher_ratio(partition: zig.Partition) -> None:
    plans = [zig.prune(partition, ratio).remove for ratio in (0.2, 0.4, 0.6, 0.8)]
    assert all((big | ~small).all() for small, big in itertools.pairwise(plans))


# -- which groups ---------------------------------------------------------------------------------------------------


def test_the_least_important_groups_go_first(partition: zig.Partition) -> None:
    scores = np.random.default_rng(3).random(len(partition))
    plan = zig.prune(partition, 0.4, of="groups", criterion=scores)
    for group in partition.node_groups:
        gone, kept = (scores[group.groups[mask]] for mask in (plan.remove[group.groups], ~plan.remove[group.groups]))
        assert not len(gone) or gone.max() < kept.min()


def test_local_scope_takes_the_same_share_everywhere() -> None:
    partition = zig.analyze(MODELS["wide"])
    plan = zig.prune(partition, 0.5, of="groups", scope="local")
    assert [plan.remove[group.groups].mean() for group in partition.node_groups] == [0.5, 0.5]


def test_global_scope_takes_the_least_important_wherever_they_are() -> None:
    partition = zig.analyze(MODELS["wide"])
    scores = np.where(partition.node_group == 0, 1.0, 2.0)
    plan = zig.prune(partition, 0.5, of="groups", criterion=scores)
    first, second = partition.node_groups
    assert plan.remove[first.groups].sum() == 56
    assert not plan.remove[second.groups].any()


def test_random_plans_depend_on_the_seed_alone() -> None:
    partition = zig.analyze(MODELS["wide"])
    a, b, c = (zig.prune(partition, 0.5, criterion="random", seed=seed).remove for seed in (1, 1, 2))
    assert (a == b).all()
    assert (a != c).any()


def test_magnitude_is_the_norm_of_all_members_relative_to_the_node_group() -> None:
    model = MODELS["wide"]
    partition = zig.analyze(model)
    w, b, u, c = (partition.graph.array(name).astype(np.float64) for name in ("w1", "b1", "w2", "b2"))
    for p in (1, 2):
        norms = [np.linalg.norm(np.vstack([x, y]), p, axis=0) for x, y in ((w, b), (u, c))]
        expected = np.concatenate([n / n.mean() for n in norms])
        assert magnitude(partition, p=p) == pytest.approx(expected, rel=1e-5)


def test_magnitude_of_a_model_that_is_zero_is_zero() -> None:
    model = graphs.build("h = Gemm (x, w)\nz = Gemm (h, v)", x="N 3", w=np.zeros((3, 4), np.float32), v="4 2")
    assert magnitude(zig.analyze(model)).tolist() == [0, 0, 0, 0]


# -- widths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 4, 8])
@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.9])
def test_kept_widths_are_multiples(step: int, ratio: float) -> None:
    for name in ("residual", "wide", "depthwise"):
        partition = zig.analyze(MODELS[name])
        plan = zig.prune(partition, ratio, round_to=step)
        for group in partition.node_groups:
            kept = int((~plan.remove[group.groups]).sum())
            assert kept % step == 0 or kept == group.size
            assert kept > 0


def test_heads_count_as_many_indices_as_they_have() -> None:
    partition = zig.analyze(MODELS["attention"])
    plan = zig.prune(partition, 0.5, round_to=8)
    assert (~plan.remove).sum() % 2 == 0  # a head has 4 indices, so 8 are two heads


# -- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0}, "between 0 and 1, not 0"), ({"ratio": 1}, "between 0 and 1"), ({"ratio": -0.5}, "not -0.5"),
        ({"ratio": 1.5}, "not 1.5"), ({"ratio": float("nan")}, "not nan"), ({"of": "bytes"}, "params, macs, groups"),
        ({"scope": "layer"}, "global, local"), ({"criterion": "luck"}, "magnitude, random"),
        ({"criterion": np.ones(3)}, "one number for each"), ({"round_to": 0}, "at least 1"),
    ],
)  # fmt: skip
def test_wrong_use(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        zig.prune(zig.analyze(MODELS["wide"]), **{"ratio": 0.5, **options})
    assert caught.value.exit_code == 2


def test_a_plan_has_one_entry_for_each_group() -> None:
    partition = zig.analyze(MODELS["wide"])
    with pytest.raises(PlanError, match="needs 112 entries"):
        zig.Plan(partition, np.ones(5, bool))


def test_a_model_without_groups_has_an_empty_plan() -> None:
    partition = zig.analyze(graphs.build("z = Relu (x)", x="N 3"))
    plan = zig.prune(partition, 0.5)
    assert plan.remove.shape == (0,)
    assert plan.reached["groups"] == 0


# -- cost -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", range(3))
def test_the_cost_of_a_plan_is_that_of_the_compressed_file(name: str, seed: int, tmp_path: Path) -> None:
    partition = zig.analyze(MODELS[name])
    plan = graphs.half(partition, seed)
    report = zig.compress(MODELS[name], tmp_path / "s.onnx", plan, check=False)
    small = zig.analyze(tmp_path / "s.onnx")
    cost = zig.cost(partition, plan.remove)
    assert report.removed == plan.remove.sum()
    assert cost["parameters"] == small.graph.parameters == zig.cost(small)["parameters"] == report.after["parameters"]
    assert cost["macs"] == zig.cost(small)["macs"] == report.after["macs"]
    assert report.before["parameters"] == partition.graph.parameters


@pytest.mark.parametrize(
    ("text", "sizes", "macs"),
    [
        ("z = Gemm (x, w)", {"x": "7 3", "w": "3 4"}, 7 * 3 * 4),
        ("z = MatMul (x, w)", {"x": "N 7 3", "w": "3 4"}, 7 * 3 * 4),
        ("z = MatMul (x, x_other)", {"x": "N 2 7 3", "x_other": "N 2 3 5"}, 2 * 7 * 3 * 5),
        ("z = Conv (x, w)", {"x": "N 3 6 6", "w": "4 3 3 3"}, 16 * 4 * 3 * 9),
        ("z = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)", {"x": "N 3 6 6", "w": "4 3 3 3"}, 9 * 4 * 3 * 9),
        ("z = Conv <group = 2> (x, w)", {"x": "N 6 6 6", "w": "4 3 3 3"}, 16 * 4 * 3 * 9),
        ("z = Conv (x, w)", {"x": "N 3 8", "w": "4 3 3"}, 6 * 4 * 3 * 3),
        ("z = ConvTranspose <strides = [2, 2]> (x, w)", {"x": "N 3 4 4", "w": "3 5 2 2"}, 16 * 3 * 5 * 4),
        ('z = Einsum <equation = "bij,jk->bik"> (x, w)', {"x": "N 7 3", "w": "3 4"}, 7 * 3 * 4),
        ("z = LSTM <hidden_size = 4> (x, w, r)", {"x": "5 N 3", "w": "1 16 3", "r": "1 16 4"}, 5 * (16 * 3 + 16 * 4)),
        ("z = Relu (x)", {"x": "N 3"}, 0),
    ],
)
def test_multiply_accumulates(text: str, sizes: dict[str, str], macs: int) -> None:
    assert zig.summary(zig.analyze(graphs.build(text, **sizes)))["macs"] == macs


@pytest.mark.parametrize(
    ("name", "giga", "million"),
    [("resnet50", 4.09, 25.6), ("vit_b_16", 17.6, 86.6), ("mobilenet_v2", 0.30, 3.54)],  # with BatchNorm's statistics
)
def test_costs_of_the_literature(name: str, giga: float, million: float) -> None:
    torch = pytest.importorskip("torch")
    zoo = pytest.importorskip("zoo")
    try:
        model = getattr(zoo.torchvision_models(), name)().eval()
    except zoo.UnavailableError as reason:
        pytest.skip(str(reason))
    file = io.BytesIO()
    with zoo.quiet():  # not without gradients: torch would then fuse attention into one operator of its own
        image = torch.zeros(1, 3, 224, 224)
        torch.onnx.export(model, (image,), file, dynamo=False, do_constant_folding=False, opset_version=zoo.OPSET)
    summary = zig.summary(zig.analyze(onnx.load_from_string(file.getvalue())))
    assert summary["macs"] / 1e9 == pytest.approx(giga, rel=0.02)
    assert summary["parameters"] / 1e6 == pytest.approx(million, rel=0.01)


LAYERS = "g (float[N, 4] x) => (float[N, 2] y) { h = MatMul (x, w) a = Add (h, b) r = Relu (a) y = MatMul (r, v) }"


@pytest.mark.parametrize("scope", ["global", "local"])
def test_what_does_nothing_goes_first_and_goes_whole(scope: str, tmp_path: Path) -> None:
    # The outgoing weights of three channels are zero, so they are dead, though their own weights are large.
    random = np.random.default_rng(0)
    w, b, v = (random.standard_normal(shape).astype(np.float32) for shape in ((4, 10), (10,), (10, 2)))
    w[:, [1, 4, 7]] *= 100
    v[[1, 4, 7]] = 0
    model = parse(LAYERS, w=w, b=b, v=v)
    partition = zig.analyze(model)
    for ratio, gone in ((0.1, 3), (0.3, 3), (0.5, 5)):
        plan = zig.prune(partition, ratio, of="groups", scope=scope)
        assert plan.remove[[1, 4, 7]].all()
        assert (plan.remove.sum(), plan.idle) == (gone, 3)
        zig.zero(plan, tmp_path / "zeroed.onnx")
        assert zig.compress(tmp_path / "zeroed.onnx", tmp_path / "small.onnx").removed == gone


def test_what_adds_a_constant_does_something(tmp_path: Path) -> None:
    # The fourth and the sixth channel are constant; the sixth is zero, and the fourth speaks through its bias.
    random = np.random.default_rng(0)
    w, v = (random.standard_normal(shape).astype(np.float32) for shape in ((4, 10), (10, 2)))
    w[:, [3, 5]], b = 0, np.eye(10, dtype=np.float32)[3] * 5
    model = parse(LAYERS, w=w, b=b, v=v)
    plan = zig.prune(zig.analyze(model), 0.1, of="groups")
    assert np.flatnonzero(plan.remove).tolist() == [5]
    assert plan.idle == 1
    onnx.save(model, tmp_path / "full.onnx")
    zig.zero(plan, tmp_path / "zeroed.onnx")
    assert zig.verify(tmp_path / "full.onnx", tmp_path / "zeroed.onnx").equal
