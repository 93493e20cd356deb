"""An axis that is a product of two axes loses rows and columns alike, and a reshape walls only what it cuts across.

For every network: the groups by name, then for some random halves of them that cutting gives what zeroing gives and
that the file holds as many parameters as the plan announced, then the whole way of `prune`, `compress` and `verify`.
That nothing finer would do is asked by brute force, in `test_brute_force`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import pytest

import zig
from zig.budget import Budget
from zig.explain import why

OUTER = """a = MatMul (x, w0)
    b = MatMul (x, w1)
    u = Unsqueeze (a, two)
    v = Unsqueeze (b, one)
    o = Mul (u, v)
    f = Flatten (o)"""
GIVEN: dict[str, Any] = {"x": "N 5", "w0": "5 6", "w1": "5 4", "one": [1], "two": [2]}
SHIFT = """q0 = MatMul (x, wq)
    q1 = Reshape (q0, heads)
    q = Transpose <perm = [0, 2, 1, 3]> (q1)
    p0 = MatMul (x2, wp)
    p1 = Reshape (p0, heads)
    p = Transpose <perm = [0, 2, 3, 1]> (p1)
    s = MatMul (q, p)
    z = Pad (s, pads)
    {turned}
    c = Slice (t, first, last, along)
    e = Reshape (c, {back})
    k0 = MatMul (x, wk)
    k1 = Reshape (k0, heads)
    k = Transpose <perm = [0, 2, 3, 1]> (k1)
    d = MatMul (q, k)
    g = Slice (e, zero, {width}, axis)
    j = Add (d, g)
    i = Softmax <axis = -1> (j)
    v0 = MatMul (x, wv)
    v1 = Reshape (v0, heads)
    v = Transpose <perm = [0, 2, 1, 3]> (v1)
    h = MatMul (i, v)
    l = Transpose <perm = [0, 2, 1, 3]> (h)
    m = Reshape (l, join)
    y = MatMul (m, wo)"""
HEADS: dict[str, Any] = {
    **dict.fromkeys(("wq", "wp", "wk", "wv"), "3 12"), "wo": "12 3", "heads": [0, -1, 4, 3], "join": [0, -1, 12],
    "pads": [0, 0, 0, 1, 0, 0, 0, 0], "first": [1], "along": [2], "zero": [0], "axis": [3],
    "last": [2**31],
}  # fmt: skip

PRODUCTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "outer product": (
        f"{OUTER}\n r = Relu (f)\n y = Gemm (r, w2, c)",
        {**GIVEN, "w2": "24 3", "c": "3"},
        "6: w0.1 | w2.0; 4: w1.1 | w2.0",
    ),
    "at rest at a half": (
        f"{OUTER}\n r = Sigmoid (f)\n y = Gemm (r, w2, c)",
        {**GIVEN, "w2": "24 3", "c": "3"},
        "6: w0.1 | w2.0; 4: w1.1 | w2.0",
    ),
    "normalised": (
        f"{OUTER}\n n = BatchNormalization (f, g, c, m, s)\n r = Relu (n)\n y = Gemm (r, w2)",
        {**GIVEN, "w2": "24 3", "g": "24", "c": "24", "m": "24", "s": "positive: 24"},
        "6: w0.1 g.0 c.0 | w2.0 m.0 s.0; 4: w1.1 g.0 c.0 | w2.0 m.0 s.0",
    ),
    "outer sum": (
        f"{OUTER.replace('Mul (u', 'Add (u')}\n r = Relu (f)\n y = Gemm (r, w2, c)",
        {**GIVEN, "w2": "24 3", "c": "3"},
        "6: w0.1 w2.0; 4: w1.1 w2.0",
    ),
    "in pieces": (
        f"{OUTER}\n s, t = Split <axis = 1> (f, cut)\n r = Relu (s)\n j = Concat <axis = 1> (t, r)\n y = MatMul (j, w2)",
        {**GIVEN, "w2": "24 3", "cut": [8, 16]},
        "2: w0.1 | w2.0; 4: w0.1 | w2.0; 4: w1.1 | w2.0",
    ),
    "bilinear pooling": (
        """a = Conv (x, w0, b0)
        b = Conv (x, w1)
        u = Reshape (a, left)
        v = Reshape (b, right)
        t = Transpose <perm = [0, 2, 1]> (v)
        o = MatMul (u, t)
        f = Flatten (o)
        g = Sign (f)
        h = Abs (f)
        k = Sqrt (h)
        l = Mul (g, k)
        n = LpNormalization <axis = 1, p = 2> (l)
        y = Gemm (n, w2)""",
        {"x": "N 3 4 4", "w0": "6 3 1 1", "b0": "6", "w1": "4 3 1 1", "w2": "24 3", "left": [0, 6, 16], "right": [0, 4, 16]},
        "6: w0.0 b0.0 | w2.0; 4: w1.0 | w2.0",
    ),
    "of one set of channels": (
        """a = Conv (x, w0, b0)
        r = Relu (a)
        u = Reshape (r, flat)
        t = Transpose <perm = [0, 2, 1]> (u)
        o = MatMul (u, t)
        f = Flatten (o)
        y = Gemm (f, w2)""",
        {"x": "N 3 4 4", "w0": "6 3 1 1", "b0": "6", "w2": "36 3", "flat": [0, 6, 16]},
        "6: w0.0 b0.0 | w2.0",
    ),
    "three factors": (
        f"""{OUTER.replace("Flatten (o)", "Unsqueeze (o, three)")}
        c = MatMul (x, w3)
        w = Reshape (c, last)
        p = Mul (f, w)
        i = Flatten (p)
        y = Gemm (i, w2)""",
        {**GIVEN, "w3": "5 2", "w2": "48 3", "three": [3], "last": [-1, 1, 1, 2]},
        "6: w0.1 | w2.0; 4: w1.1 | w2.0; 2: w3.1 | w2.0",
    ),
    "convolution by experts": (
        """a = Conv (x, w0)
        r = Relu (a)
        p = GlobalAveragePool (r)
        q = Flatten (p)
        e = Gemm (q, we, be)
        s = Relu (e)
        k = MatMul (s, bank)
        i = MatMul (s, biases)
        w = Reshape (k, kernel)
        b = Reshape (i, one)
        h = Conv <pads = [1, 1, 1, 1]> (r, w, b)
        t = Relu (h)
        y = Conv (t, w9)""",
        {"x": "1 3 4 4", "w0": "4 3 1 1", "we": "4 5", "be": "5", "bank": "5 216", "biases": "5 6", "w9": "2 6 1 1",
         "kernel": [6, 4, 3, 3], "one": [6]},
        "4: w0.0 bank.1 | we.0; 5: we.1 be.0 | bank.0 biases.0; 6: bank.1 biases.1 | w9.1",
    ),
    "convolution by experts at rest at a half": (
        """a = Conv (x, w0)
        p = GlobalAveragePool (a)
        q = Flatten (p)
        e = Gemm (q, we)
        s = Sigmoid (e)
        k = MatMul (s, bank)
        w = Reshape (k, kernel)
        h = Conv (a, w)
        t = Relu (h)
        y = Conv (t, w9)""",
        {"x": "1 3 4 4", "w0": "4 3 1 1", "we": "4 5", "bank": "5 24", "w9": "2 6 1 1", "kernel": [6, 4, 1, 1]},
        "4: w0.0 bank.1 | we.0; 5: we.1 | bank.0; 6: bank.1 | w9.1",
    ),
    "weights that a network makes": (
        """m = MatMul (x1, wz)
        z = Relu (m)
        k = MatMul (z, bank)
        b = Add (k, bias)
        w = Reshape (b, kernel)
        a = MatMul (x, w0)
        r = Relu (a)
        h = MatMul (r, w)
        t = Relu (h)
        y = MatMul (t, w9)""",
        {"x": "N 3", "x1": "1 2", "wz": "2 7", "bank": "7 24", "bias": "24", "kernel": [4, 6], "w0": "3 4", "w9": "6 2"},
        "7: wz.1 | bank.0; 4: w0.1 bank.1 bias.0; 6: bank.1 bias.0 | w9.0",
    ),
    "Kronecker product": (
        """a = MatMul (x, w0)
        r = Relu (a)
        p = Reshape (u, left)
        q = Reshape (v, right)
        o = Mul (p, q)
        k = Reshape (o, kernel)
        h = MatMul (r, k)
        n = Add (h, b)
        t = Relu (n)
        y = MatMul (t, w9)""",
        {"x": "N 3", "w0": "3 12", "u": "3 2", "v": "4 5", "left": [3, 1, 2, 1], "right": [1, 4, 1, 5],
         "kernel": [12, 10], "b": "10", "w9": "10 3"},
        "3: w0.1 | u.0; 4: w0.1 | v.0; 2: u.1 b.0 | w9.0; 5: v.1 b.0 | w9.0",
    ),
    "tensor train": (
        """a = MatMul (x, w0)
        r = Relu (a)
        t = Reshape (r, cut)
        u = MatMul (t, c1)
        v = Transpose <perm = [0, 2, 1]> (u)
        w = MatMul (v, c2)
        f = Flatten (w)
        y = MatMul (f, w9)""",
        {"x": "N 3", "w0": "3 12", "cut": [-1, 3, 4], "c1": "4 5", "c2": "3 2", "w9": "10 3"},
        "3: w0.1 | c2.0; 4: w0.1 | c1.0; 5: c1.1 | w9.0; 2: c2.1 | w9.0",
    ),
    "relative shift": (
        SHIFT.format(turned="t = Reshape (z, turned)", back="back", width="width"),
        {**HEADS, "x": "2 5 3", "x2": "2 9 3", "turned": [2, 4, 10, 5], "back": [2, 4, 5, 9], "width": [5]},
        "4: wq.1 wp.1 wk.1 wv.1 | wo.0",
    ),
    "relative shift, any length": (
        SHIFT.format(
            turned="""batch = Shape <start = 0, end = 1> (z)
            parts = Shape <start = 1, end = 2> (z)
            rows = Shape <start = 2, end = 3> (z)
            columns = Shape <start = 3, end = 4> (z)
            sizes = Concat <axis = 0> (batch, parts, columns, rows)
            t = Reshape (z, sizes)
            original = Shape (s)
            length = Shape <start = 1, end = 2> (x)""",
            back="original", width="length",
        ),
        {**HEADS, "x": "N S 3", "x2": "N R 3", "dynamic": "R"},
        "4: wq.1 wp.1 wk.1 wv.1 | wo.0",
    ),
}  # fmt: skip
SYMBOLS = {"relative shift, any length": {"S": 5, "R": 9}}


def model_of(name: str) -> onnx.ModelProto:
    text, given, _ = PRODUCTS[name]
    return graphs.build(text, seed=1, **given)


def check(model: onnx.ModelProto, folder: Path, **symbols: int) -> None:
    """Random halves of the groups can be cut as exactly as zeroed, and leave what was announced."""
    partition = zig.analyze(model)
    inputs, moved = graphs.feeds(model, 3, **symbols), []
    for seed in range(4):
        plan = graphs.half(partition, seed)
        zig.zero(plan, folder / "zeroed.onnx")
        report = zig.compress(folder / "zeroed.onnx", folder / "small.onnx", check=False)
        full, half, cut = (graphs.run(m, inputs) for m in (model, folder / "zeroed.onnx", folder / "small.onnx"))
        assert graphs.difference(half, cut) <= 1e-5
        moved.append(graphs.difference(full, half))
        assert report.removed == plan.remove.sum()
        assert (
            parameters(folder / "small.onnx") == report.after["parameters"] == Budget(partition).price(plan.remove)[0]
        )
    assert max(moved) > 1e-3, "zeroing never changed an output: the check is empty"


def parameters(path: Path) -> int:
    tensors = onnx.load(path).graph.initializer
    return sum(int(np.prod(t.dims)) for t in tensors if t.data_type == onnx.TensorProto.FLOAT)


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_groups_of_each_factor(name: str) -> None:
    assert graphs.families(zig.analyze(model_of(name))) == graphs.expected(PRODUCTS[name][2], {})


@pytest.mark.parametrize("name", PRODUCTS)
def test_what_is_zeroed_can_be_cut(name: str, tmp_path: Path) -> None:
    check(model_of(name), tmp_path, **SYMBOLS.get(name, {}))


@pytest.mark.parametrize("of", ["params", "macs"])
@pytest.mark.parametrize(
    "name",
    ["bilinear pooling", "of one set of channels", "convolution by experts at rest at a half", "normalised"],
)
def test_a_budget_is_met_and_verified(name: str, of: str, tmp_path: Path) -> None:
    partition = zig.analyze(model_of(name))
    plan = zig.prune(partition, 0.5, of=of)
    assert abs(plan.reached[of] - 0.5) < 0.2
    zig.zero(plan, tmp_path / "zeroed.onnx")
    report = zig.compress(tmp_path / "zeroed.onnx", tmp_path / "small.onnx")
    assert report.comparison is not None
    assert report.comparison.equal
    assert (report.after["parameters"], report.after["macs"]) == Budget(partition).price(plan.remove)
    assert parameters(tmp_path / "small.onnx") == report.after["parameters"]
    again = zig.analyze(tmp_path / "small.onnx").summary()
    assert (again["parameters"], again["macs"]) == (report.after["parameters"], report.after["macs"])


def test_a_group_of_each_factor_owns_its_slices_of_the_product() -> None:
    partition = zig.analyze(model_of("outer product"))
    slices = [
        {(s.tensor, s.axis): s.indices.tolist() for s in (*partition[g].members, *partition[g].dependents)}
        for g in (1, 6 + 2)
    ]
    assert slices == [
        {("w0", 1): [1], ("w2", 0): [4, 5, 6, 7]},
        {("w1", 1): [2], ("w2", 0): [2, 6, 10, 14, 18, 22]},
    ]


def test_scores_count_the_whole_of_a_slice() -> None:
    partition = zig.analyze(model_of("normalised"))
    arrays = {name: partition.graph.array(name).astype(np.float64) for name in ("w0", "w1", "g", "c")}
    tables = [arrays[name].reshape(6, 4) ** 2 for name in "gc"]
    for wide, weight, axis in ((slice(0, 6), "w0", 1), (slice(6, 10), "w1", 0)):
        norms = np.sqrt((arrays[weight] ** 2).sum(axis=0) + sum(table.sum(axis=axis) for table in tables))
        assert zig.importance.magnitude(partition)[wide] == pytest.approx(norms / norms.mean(), rel=1e-5)


@pytest.mark.parametrize("forks", ["heads", "head_dims", "finest"])
def test_no_choice_is_needed_where_both_can_go(forks: str) -> None:
    assert len(zig.analyze(model_of("outer product"), forks=forks)) == 10


def test_what_is_fixed_of_a_product_fixes_its_row_and_its_column() -> None:
    text = f"{OUTER}\n s = Gather <axis = 1> (f, three)\n y = Identity (s)\n z = MatMul (f, w2)"
    partition = zig.analyze(graphs.build(text, **GIVEN, w2="24 3", three=[9, 10]))
    assert graphs.families(partition) == {"5: w0.1 | w2.0", "2: w1.1 | w2.0"}  # of row 2 the columns 1 and 2
    fixed = next(w for w in why(partition, "w1") if w.axis == 1)
    assert (fixed.size, fixed.reason) == (2, "is part of the model's output 'y'")
    assert fixed.chain


def test_an_axis_with_a_part_of_a_table_goes_by_one_side(tmp_path: Path) -> None:
    """Of a triangle or a diagonal nothing might be left."""
    text = f"{OUTER}\n d = Gather <axis = 1> (f, diagonal)\n y = MatMul (d, w2)"
    model = graphs.build(text, **GIVEN, w2="4 3", diagonal=[0, 5, 10, 15])
    partition = zig.analyze(model)
    assert {name for group in partition.node_groups for name, _ in group.members} == {"w0"}
    one = zig.Plan(partition, np.arange(len(partition)) != 0)
    zig.zero(one, tmp_path / "zeroed.onnx")
    zig.compress(tmp_path / "zeroed.onnx", tmp_path / "small.onnx")


def test_heads_that_own_a_bias_go_as_heads() -> None:
    """The biases of queries (heads by sizes) in relative attention do not make their sizes groups of their own."""
    text = """q0 = MatMul (x, wq)
        q1 = Reshape (q0, heads)
        q2 = Add (q1, u)
        q = Transpose <perm = [0, 2, 1, 3]> (q2)
        k0 = MatMul (x, wk)
        k1 = Reshape (k0, heads)
        k = Transpose <perm = [0, 2, 3, 1]> (k1)
        s = MatMul (q, k)
        p = Softmax <axis = -1> (s)
        v0 = MatMul (x, wv)
        v1 = Reshape (v0, heads)
        v = Transpose <perm = [0, 2, 1, 3]> (v1)
        o = MatMul (p, v)
        t = Transpose <perm = [0, 2, 1, 3]> (o)
        f = Reshape (t, join)
        y = MatMul (f, wo)"""
    given = {"wq": "3 12", "wk": "3 12", "wv": "3 12", "wo": "12 3", "u": "4 3", "heads": [0, 0, 4, 3]}
    model = graphs.build(text, x="2 5 3", join=[0, 0, 12], **given)
    assert graphs.families(zig.analyze(model)) == {"4: u.0 wk.1 wq.1 wv.1 | wo.0"}


# -- a shuffle that does not fit the groups of the next convolution ---------------------------------------------------


def shuffling(batch: str = "N", *, channels: int = 60, groups: int = 3, blocks: int = 1) -> onnx.ModelProto:
    """Residual blocks of a grouped convolution, a channel shuffle, one for each channel, and a grouped one."""
    text, given, last = "e = Conv (x, w, b)", {"w": f"{channels} 3 1 1", "b": str(channels)}, "e"
    for i in range(blocks):
        text += f"""
            a{i} = Conv <group = {groups}> ({last}, u{i}, ub{i})
            r{i} = Relu (a{i})
            h{i} = Reshape (r{i}, split)
            t{i} = Transpose <perm = [0, 2, 1, 3, 4]> (h{i})
            f{i} = Reshape (t{i}, join)
            d{i} = Conv <group = {channels}, pads = [1, 1, 1, 1]> (f{i}, v{i})
            p{i} = Conv <group = {groups}> (d{i}, z{i}, zb{i})
            q{i} = Add ({last}, p{i})
            e{i} = Relu (q{i})"""
        one = f"{channels} {channels // groups} 1 1"
        given |= {f"u{i}": one, f"z{i}": one, f"v{i}": f"{channels} 1 3 3"}
        given |= {f"{name}{i}": str(channels) for name in ("ub", "zb")}
        last = f"e{i}"
    sizes = [-1 if batch == "N" else int(batch)]
    given |= {"split": [*sizes, groups, channels // groups, 4, 4], "join": [*sizes, channels, 4, 4]}
    text += f"\n k = GlobalAveragePool ({last})\n l = Flatten (k)\n y = Gemm (l, wo)"
    return graphs.build(text, x=f"{batch} 3 4 4", wo=f"{channels} 5", seed=2, **given)


@pytest.mark.parametrize("batch", ["N", "2"])
@pytest.mark.parametrize("blocks", [1, 2])
def test_a_shuffle_that_does_not_fit_is_a_wall_for_itself_alone(batch: str, blocks: int, tmp_path: Path) -> None:
    model = shuffling(batch, blocks=blocks)
    members = " ".join(f"z{i}.0 zb{i}.0" for i in range(blocks))
    dependents = " ".join(f"u{i}.1" for i in range(blocks))
    partition = zig.analyze(model)
    assert graphs.families(partition) == graphs.expected(f"20: w.0 b.0 {members} | {dependents} wo.0", {})
    assert all("an axis of 20 can't be split into 3" in w.reason for w in why(partition, "u0"))
    check(model, tmp_path)


@pytest.mark.parametrize(("channels", "groups", "widths"), [(36, 3, {12, 4}), (24, 4, {6}), (50, 2, {25})])
def test_shuffles_of_other_sizes(channels: int, groups: int, widths: set[int], tmp_path: Path) -> None:
    model = shuffling(channels=channels, groups=groups)
    assert {group.size for group in zig.analyze(model).node_groups} == widths
    check(model, tmp_path)


# -- reshapes that cut across some axes only --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "place"),
    [([6, 4, 5], [6, 5, 4], 1), ([4, 5, 6], [5, 4, 6], 3), ([2, 6, 4, 5], [2, 6, 5, 4], 2), ([4, 9, 6], [6, 6, 6], 3)],
    ids=["before", "behind", "between", "of the same size"],
)
def test_axes_beside_those_that_are_cut_anew_pass(
    before: list[int], after: list[int], place: int, tmp_path: Path
) -> None:
    """A layer of 6 channels stands before or behind the axes that a reshape cuts across."""
    last = len(before)
    order = [i for i in range(last + 1) if i != place] + [place]
    back = np.argsort(order).tolist()
    text = f"""h = MatMul (x, w)
        a = Transpose <perm = {back}> (h)
        b = Reshape (a, after)
        r = Relu (b)
        c = Transpose <perm = {order}> (r)
        y = MatMul (c, v)"""
    sizes = [n for i, n in enumerate(before, 1) if i != place]
    model = graphs.build(text, x=f"N {' '.join(map(str, sizes))} 3", w="3 6", v="6 2", after=[-1, *after])
    assert graphs.families(zig.analyze(model)) == {"6: w.1 | v.0"}
    check(model, tmp_path)
