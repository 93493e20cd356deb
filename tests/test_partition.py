"""Groups: how forks are decided, what belongs together, and why something is fixed."""

from __future__ import annotations

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
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

import zig
from zig.errors import UsageError
from zig.groups.forks import components
from zig.operators import OPERATORS, Operator

ATTENTION = attention("Reshape", "heads")
QKV = "wq.1 wk.1 wv.1 | wo.0"


def reasons(partition: zig.Partition) -> set[str]:
    return {fixed.reason for fixed in partition.fixed}


# -- forks ----------------------------------------------------------------------------------------------------------


def heads(forks: str, **sizes: int) -> set[str]:
    letters = {**ATTENTION.letters(), **sizes}
    return graphs.families(zig.analyze(ATTENTION.model(letters), forks=forks))


@pytest.mark.parametrize(
    ("forks", "sizes", "groups"),
    [
        ("heads", {"g": 2, "d": 3}, f"2: {QKV}"),
        ("heads", {"g": 3, "d": 2}, f"3: {QKV}"),
        ("head_dims", {"g": 2, "d": 3}, "3: wk.1 wq.1; 3: wv.1 | wo.0"),
        ("head_dims", {"g": 3, "d": 2}, "2: wk.1 wq.1; 2: wv.1 | wo.0"),
        ("finest", {"g": 3, "d": 2}, f"3: {QKV}"),
        ("finest", {"g": 2, "d": 3}, "3: wk.1 wq.1; 3: wv.1 | wo.0"),
    ],
)
def test_attention_by_heads_by_the_size_of_heads_or_by_the_finer_of_both(
    forks: str, sizes: dict[str, int], groups: str
) -> None:
    assert heads(forks, **sizes) == graphs.expected(groups, {})


@pytest.mark.parametrize("forks", ["heads", "head_dims", "finest"])
def test_attention_is_cut_exactly_whatever_is_chosen(forks: str, tmp_path: Path) -> None:
    model = ATTENTION.model({**ATTENTION.letters(), "g": 3, "d": 4})
    plan = graphs.half(zig.analyze(model, forks=forks))
    zig.zero(plan, tmp_path / "z.onnx")
    report = zig.compress(model, tmp_path / "s.onnx", plan, rtol=1e-5)
    assert report.removed == plan.remove.sum()
    assert graphs.shapes(tmp_path / "s.onnx")["wq"][1] < 12


def test_an_unknown_way_to_decide_forks() -> None:
    with pytest.raises(UsageError, match="heads, head_dims, finest"):
        zig.analyze(ATTENTION.model(ATTENTION.letters()), forks="wide")


GROUPED = "h = Conv (x, w, b)\nk = Conv <group = {g}> (h, u)\nz = Conv (k, v)"
GROUPED_SIZES = {"x": "N 3 5 5", "w": "g*d 3 1 1", "b": "g*d", "u": "g*e d 3 3", "v": "2 g*e 1 1"}


BY_GROUP, BY_POSITION = "g: b.0 u.0 w.0 | v.1", "d: b.0 w.0 | u.1; e: u.0 | v.1"


@pytest.mark.parametrize(
    ("sizes", "forks", "groups"),
    [
        ({"g": 4, "d": 2, "e": 3}, "heads", BY_POSITION),
        ({"g": 4, "d": 2, "e": 3}, "finest", BY_GROUP),
        ({"g": 2, "d": 4, "e": 3}, "heads", BY_POSITION),
        ({"g": 2, "d": 4, "e": 3}, "finest", BY_POSITION),
        ({"g": 4, "d": 1, "e": 3}, "heads", BY_GROUP),
    ],
)
def test_a_grouped_convolution_goes_by_position_or_by_group(sizes: dict[str, int], forks: str, groups: str) -> None:
    partition = zig.analyze(graphs.build(GROUPED, **GROUPED_SIZES, **sizes), forks=forks)
    assert graphs.families(partition) == graphs.expected(groups, sizes)


def test_a_choice_holds_for_both_sides_of_a_grouped_convolution() -> None:
    # 2 groups of 4 input and of 1 output channels: were the sides to choose alone, they would not fit together.
    sizes = {"g": 2, "d": 4, "e": 1}
    partition = zig.analyze(graphs.build(GROUPED, **GROUPED_SIZES, **sizes))
    plan = graphs.half(partition)
    assert plan.remove.any()


def test_two_grouped_convolutions_in_a_row_take_one_side(tmp_path: Path) -> None:
    text = GROUPED.replace("z = Conv (k, v)", "m = Conv <group = {g}> (k, t)\nz = Conv (m, v)")
    model = graphs.build(text, **GROUPED_SIZES, t="g*e e 1 1", g=2, d=2, e=6)
    plan = graphs.half(zig.analyze(model))
    assert zig.compress(model, tmp_path / "s.onnx", plan, rtol=1e-5).removed == plan.remove.sum()


SHUFFLE = """
    h = Conv (x, w, b)
    r = Reshape (h, apart)
    t = Transpose <perm = [0, 2, 1, 3, 4]> (r)
    s = Reshape (t, merge)
"""
SHUFFLE_SIZES = {
    "x": "N 3 5 5",
    "w": "c 3 1 1",
    "b": "c",
    "apart": [-1, 2, "c//2", 5, 5],
    "merge": [0, -1, 5, 5],
    "v": "2 c 1 1",
}


def test_a_channel_shuffle_keeps_a_group_for_each_pair() -> None:
    partition = zig.analyze(graphs.build(f"{SHUFFLE}z = Conv (s, v)", **SHUFFLE_SIZES, c=10))
    assert graphs.families(partition) == {"5: b.0 w.0 | v.1"}
    row = next(row for row in partition.rows if row.tensor == "w")
    assert np.array_equal(row.groups[:5], row.groups[5:])
    assert np.array_equal(next(row for row in partition.rows if row.tensor == "v").groups, np.repeat(row.groups[:5], 2))


def test_two_branches_that_are_shuffled_together_stay_channel_level(tmp_path: Path) -> None:
    text = """
        h = Conv (x, w, b)
        k = Conv (x, u)
        both = Concat <axis = 1> (h, k)
        r = Reshape (both, apart)
        t = Transpose <perm = [0, 2, 1, 3, 4]> (r)
        s = Reshape (t, merge)
        left, right = Split <axis = 1, num_outputs = 2> (s)
        z1 = Conv (left, v)
        z2 = Conv (right, y)
    """
    model = graphs.build(
        text,
        x="N 3 5 5",
        w="6 3 1 1",
        b="6",
        u="6 3 1 1",
        apart=[-1, 2, 6, 5, 5],
        merge=[0, -1, 5, 5],
        v="2 6 1 1",
        y="2 6 1 1",
    )
    partition = zig.analyze(model)
    assert len(partition) == 6
    plan = zig.Plan(partition, np.arange(6) % 3 == 0)
    assert zig.compress(model, tmp_path / "s.onnx", plan, rtol=1e-5).removed == 2


# -- node groups, rows and views ------------------------------------------------------------------------------------

RESIDUAL = """
    h = Conv (x, w, b)
    k = Conv <pads = [1, 1, 1, 1]> (h, u)
    r = Relu (k)
    l = Conv <pads = [1, 1, 1, 1]> (r, t)
    s = Add (h, l)
    z = Conv (s, v)
"""
RESIDUAL_SIZES = {"x": "N 3 5 5", "w": "4 3 1 1", "b": "4", "u": "6 4 3 3", "t": "4 6 3 3", "v": "2 4 1 1"}


@pytest.fixture
def residual() -> onnx.ModelProto:
    return graphs.build(RESIDUAL, **RESIDUAL_SIZES)


def test_node_groups_come_in_the_order_of_the_network(residual: onnx.ModelProto) -> None:
    partition = zig.analyze(residual)
    first, second = partition.node_groups
    assert (first.size, first.members, first.dependents) == (4, [("w", 0), ("b", 0), ("t", 0)], [("u", 1), ("v", 1)])
    assert (second.size, second.members, second.dependents) == (6, [("u", 0)], [("t", 1)])
    assert [first.id, second.id] == [0, 1]
    assert [first.name, second.name] == ["w", "u"]
    assert partition.node_group.tolist() == [0] * 4 + [1] * 6
    assert first.groups.tolist() == [0, 1, 2, 3]


def test_rows_say_where_each_group_lies(residual: onnx.ModelProto) -> None:
    rows = {(row.tensor, row.axis): row for row in zig.analyze(residual).rows}
    assert rows["w", 0].groups.tolist() == [0, 1, 2, 3]
    assert rows["w", 0].member.all()
    assert rows["u", 0].groups.tolist() == [4, 5, 6, 7, 8, 9]
    assert rows["u", 1].groups.tolist() == [0, 1, 2, 3]
    assert not rows["u", 1].member.any()
    assert ("w", 1) not in rows


def test_a_group_is_a_view(residual: onnx.ModelProto) -> None:
    partition = zig.analyze(residual)
    group = partition[2]
    assert (group.id, group.node_group) == (2, 0)
    assert [(s.tensor, s.axis, s.indices.tolist()) for s in group.members] == [
        ("w", 0, [2]),
        ("b", 0, [2]),
        ("t", 0, [2]),
    ]
    assert [(s.tensor, s.axis, s.indices.tolist()) for s in group.dependents] == [("u", 1, [2]), ("v", 1, [2])]
    assert partition[-1].id == 9
    assert [g.id for g in partition] == list(range(len(partition)))
    with pytest.raises(IndexError):
        partition[10]


def test_a_group_may_hold_many_indices() -> None:
    partition = zig.analyze(ATTENTION.model({**ATTENTION.letters(), "g": 2, "d": 3}))
    assert partition[1].members[0].indices.tolist() == [3, 4, 5]


def test_one_axis_may_carry_two_node_groups() -> None:
    text = "h = Gemm (x, w, b)\np, q = Split <axis = 1> (h, sizes)\nz1 = Gemm (p, v)\nz2 = Gemm (q, u)"
    partition = zig.analyze(graphs.build(text, x="N 3", w="3 5", b="5", sizes=[2, 3], v="2 2", u="3 2"))
    assert graphs.families(partition) == {"2: b.0 w.1 | v.0", "3: b.0 w.1 | u.0"}
    assert next(row.groups for row in partition.rows if row.tensor == "w").tolist() == [0, 1, 2, 3, 4]


def test_weights_shared_by_two_layers_are_one_group(tmp_path: Path) -> None:
    text = "h = Conv (x, w)\nk = Conv (h, u)\nl = Relu (k)\nm = Conv (l, u)\nz = Conv (m, v)"
    model = graphs.build(text, x="N 3 5 5", w="4 3 1 1", u="4 4 1 1", v="2 4 1 1")
    partition = zig.analyze(model)
    assert graphs.families(partition) == {"4: u.0 w.0 | u.1 v.1"}
    assert zig.compress(model, tmp_path / "s.onnx", graphs.half(partition), rtol=1e-5).removed


def test_the_summary_counts_what_the_partition_holds(residual: onnx.ModelProto) -> None:
    summary = zig.summary(zig.analyze(residual))
    assert summary["groups"] == 10
    assert summary["nodes"] == 6
    assert summary["parameters"] == 4 * 3 + 4 + 6 * 4 * 9 + 4 * 6 * 9 + 2 * 4
    assert summary["prunable_parameters"] == summary["parameters"]
    assert summary["macs"] == 25 * (4 * 3 + 2 * 4 + 2 * 6 * 4 * 9)
    assert summary["node_groups"][1] == {
        "id": 1, "name": "u", "size": 6, "members": [{"tensor": "u", "axis": 0}], "dependents": [{"tensor": "t", "axis": 1}],
    }  # fmt: skip
    assert {"tensor", "axis", "size", "reason", "node"} == set(summary["fixed"][0])


# -- reasons --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "tensor", "reason"),
    [
        ("z = Gemm (h, v)", "v", "is part of the model's output 'z'"),
        ("z = Gemm (h, v)", "w", "is part of the model's input 'x'"),
        ("y = LayerNormalization (h, g)\nz = Gemm (y, v)", "w", "LayerNormalization '.*' normalises over this axis"),
        ("y = Softmax (h)\nz = Gemm (y, v)", "w", "normalises over this axis"),
        ("y = Add (h, x_other)\nz = Gemm (y, v)", "w", "meets an axis|is part of the model's input 'x_other'"),
        ("y = Log (h)\nz = Gemm (y, v)", "w", "infinite|does not rest at a constant"),
        ("y = local.Strange (h)\nz = Gemm (y, v)", "w", "local.Strange"),
        ("z = Identity (h)", "b", "is part of the model's output 'z'"),
    ],
)
def test_what_is_fixed_has_a_reason(body: str, tensor: str, reason: str) -> None:
    model = graphs.build(f"h = Gemm (x, w, b)\n{body}", x="N 3", w="3 4", b="4", v="4 2", g="4", x_other="N 4")
    partition = zig.analyze(model)
    found = [fixed.reason for fixed in partition.fixed if fixed.tensor == tensor]
    assert any(graphs.re.search(reason, text) for text in found), found


def test_a_constant_that_leaks_is_named_with_its_value() -> None:
    text = "h = Conv (x, w)\ny = Sigmoid (h)\nz = ReduceSum (y, channels)"
    partition = zig.analyze(graphs.build(text, x="N 3 5 5", w="4 3 1 1", channels=[1]))
    assert len(partition) == 0
    found = next(fixed for fixed in partition.fixed if (fixed.tensor, fixed.axis) == ("w", 0))
    assert found.reason.startswith("rests at 0.5 where ReduceSum")
    assert found.size == 4
    assert found.node


def test_a_weight_that_reads_a_constant_that_would_leak_is_a_member() -> None:
    text = "h = Conv (x, w)\ny = Sigmoid (h)\nz = Conv <pads = [1, 1, 1, 1]> (y, v)"
    partition = zig.analyze(graphs.build(text, x="N 3 5 5", w="4 3 1 1", v="2 4 3 3"))
    assert graphs.families(partition) == graphs.expected("c: v.1 w.0", {"c": 4})


def test_part_of_an_axis_may_be_fixed() -> None:
    text = "h = Gemm (x, w, b)\ny = Gather <axis = 1> (h, first)\nz1 = Identity (y)\nz2 = Gemm (h, v)"
    partition = zig.analyze(graphs.build(text, x="N 3", w="3 4", b="4", v="4 2", first=np.array(2)))
    assert [f.size for f in partition.fixed if (f.tensor, f.axis) == ("w", 1)] == [1]
    assert next(row.groups for row in partition.rows if row.tensor == "w").tolist() == [0, 1, -1, 2]


# -- keep -----------------------------------------------------------------------------------------------------------


def test_kept_weights_stay_as_they_are(residual: onnx.ModelProto) -> None:
    partition = zig.analyze(residual, keep=("v",))
    assert graphs.families(partition) == {"6: u.0 | t.1"}
    assert "is kept by request ('v')" in reasons(partition)


def test_patterns_have_wildcards() -> None:
    model = graphs.build(
        "h = Gemm (x, w_1, b_1)\ny = Gemm (h, w_2)\nz = Gemm (y, v)", x="N 3", w_1="3 4", b_1="4", w_2="4 5", v="5 2"
    )
    assert len(zig.analyze(model, keep=("w_*",))) == 0
    assert len(zig.analyze(model, keep=("b_?",))) == 5
    assert len(zig.analyze(model)) == 9


def test_a_pattern_that_matches_nothing_is_wrong_use(residual: onnx.ModelProto) -> None:
    with pytest.raises(UsageError, match=r"keep pattern 'layer\*' matches no weight"):
        zig.analyze(residual, keep=("w", "layer*"))


# -- unknown operators ----------------------------------------------------------------------------------------------

STRANGE = "h = Gemm (x, w, b)\ny = local.Strange (h)\nk = Gemm (y, v)\nr = Relu (k)\nz = Gemm (r, u)"
STRANGE_SIZES = {"x": "N 3", "w": "3 4", "b": "4", "v": "4 5", "u": "5 2"}


def test_an_unknown_operator_is_a_wall() -> None:
    model = graphs.build(STRANGE, **STRANGE_SIZES)
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("y", 1, ["N", 4]))
    partition = zig.analyze(model)
    assert partition.unknown_operators == ["local.Strange"]
    assert graphs.families(partition) == {"5: v.1 | u.0"}
    assert any("local.Strange" in reason and "operators=" in reason for reason in reasons(partition))


def test_an_unknown_operator_is_a_wall_even_where_nothing_is_known_of_its_result() -> None:
    partition = zig.analyze(graphs.build(STRANGE, **STRANGE_SIZES))
    assert partition.unknown_operators == ["local.Strange"]
    assert not any(row.tensor in ("w", "b") for row in partition.rows)


def test_a_row_for_an_unknown_operator_makes_it_known() -> None:
    rows = {"local.Strange": Operator("*b -> *b", rest=lambda call, x: x)}
    partition = zig.analyze(graphs.build(STRANGE, **STRANGE_SIZES), operators=rows)
    assert partition.unknown_operators == []
    assert graphs.families(partition) == {"4: b.0 w.1 | v.0", "5: v.1 | u.0"}


def test_a_row_may_replace_one_of_the_dictionary() -> None:
    model = graphs.build("h = Gemm (x, w, b)\ny = Relu (h)\nz = Gemm (y, v)", x="N 3", w="3 4", b="4", v="4 2")
    rows = {"Relu": Operator("n c! -> n c", why="is special here")}
    partition = zig.analyze(model, operators=rows)
    assert len(partition) == 0
    assert any("is special here" in reason for reason in reasons(partition))
    assert len(zig.analyze(model)) == 4
    assert OPERATORS["Relu"] is not rows["Relu"]


def test_a_row_that_does_not_fit_is_a_reason_not_a_crash() -> None:
    partition = zig.analyze(
        graphs.build(STRANGE, **STRANGE_SIZES), operators={"local.Strange": Operator("a b c -> a b c")}
    )
    assert any("can't be followed through local.Strange" in reason for reason in reasons(partition))


def test_an_unknown_operator_of_the_standard_domain_is_a_wall_too() -> None:
    model = graphs.build("h = MatMul (x, w)\nd = Det (h)\nz = Identity (d)", x="N 4 3", w="3 4")
    partition = zig.analyze(model)
    assert partition.unknown_operators in (["Det"], [])  # [] once the dictionary states why it is a wall
    assert len(partition) == 0


# -- components -----------------------------------------------------------------------------------------------------

TIES = st.integers(1, 30).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=60))
)


@settings(deadline=None)
@given(TIES)
def test_components_are_scipy_s(case: tuple[int, list[tuple[int, int]]]) -> None:
    count, ties = case
    a, b = (np.array([tie[side] for tie in ties], np.int64) for side in (0, 1))
    number, labels = components(count, a, b)
    links = coo_array((np.ones(len(a)), (a, b)), shape=(count, count))
    theirs, expected = connected_components(links, directed=False)
    assert number == theirs
    assert same_classes(labels, expected)
    first = [int(np.flatnonzero(labels == i)[0]) for i in range(number)]
    assert first == sorted(first), "components are numbered by their first unit"


def same_classes(a: Any, b: Any) -> bool:
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))


HALVES = """
g (float[N, 6] x) => (float[N, 4] y)
{
  m = MatMul (x, a)
  %s
  left = Relu (l)
  t = Tanh (r)
  both = Concat <axis = 1> (left, t%s)
  y = MatMul (both, b)
}
"""
THIRDS = "s = Constant <value_ints = [4, 4, 4]> ()\n  l, r, q = Split <axis = 1> (m, s)"
UNEVEN = "s = Constant <value_ints = [4, 8]> ()\n  l, r = Split <axis = 1> (m, s)"


@pytest.mark.parametrize(("cut", "more", "free", "even"), [(THIRDS, ", q", 12, 4), (UNEVEN, "", 12, 12)])
def test_only_sides_of_one_size_are_tied(cut: str, more: str, free: int, even: int) -> None:
    weights = {name: np.ones(shape, np.float32) for name, shape in {"a": (6, 12), "b": (12, 4)}.items()}
    model = parse(HALVES % (cut, more), **weights)
    assert len(zig.analyze(model)) == free
    assert len(zig.analyze(model, even_splits=True)) == even


def test_what_is_held_is_no_member() -> None:
    text = "g (float[N, 6] x) => (float[N, 4] y) { m = MatMul (x, a)  n = Mul (m, s)  y = MatMul (n, b) }"
    shapes = {"a": (6, 12), "s": (12,), "b": (12, 4)}
    model = parse(text, **{name: np.ones(shape, np.float32) for name, shape in shapes.items()})
    assert {slice_.tensor for slice_ in zig.analyze(model)[0].members} == {"a", "s"}
    held = zig.analyze(model, held=["s"])
    assert len(held) == 12
    assert {slice_.tensor for slice_ in held[0].members} == {"a"}
    added = parse(text.replace("Mul (m", "Add (m"), **{n: np.ones(s, np.float32) for n, s in shapes.items()})
    members = {slice_.tensor for slice_ in zig.analyze(added, held=["s"])[0].members}
    assert "s" not in members  # which then does not rest at zero: the weight that reads it has to
    assert "b" in members
