"""If, Loop and Scan: units pass into their bodies and out again, and what is cut there is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import pytest

import zig
from zig.model import bodies
from zig.model.graph import Graph

PICK = "total = ReduceSum <keepdims = 0> (x)\nyes = Greater (total, zero)"
ONE = {"zero": 0.0, "x": "2 3"}


def check(model: onnx.ModelProto, folder: Path, expected: set[str]) -> zig.Partition:
    """The groups are the expected ones, and losing some of them changes nothing but sizes."""
    partition = zig.analyze(model)
    assert graphs.families(partition) == expected
    for seed in range(3):
        plan = graphs.half(partition, seed)
        report = zig.compress(model, folder / "small.onnx", plan)
        assert report.removed >= plan.remove.sum()
        assert report.after["parameters"] < report.before["parameters"]
        assert report.comparison is not None
        assert report.comparison.equal
    return partition


def test_what_a_branch_reads_from_outside_and_what_it_makes_can_go(tmp_path: Path) -> None:
    text = f"""
        h = Gemm (x, w, b)
        {PICK}
        z = If (yes) <
            then_branch = yes_graph () => (float[2, 4] t) {{ t = Relu (h) }},
            else_branch = no_graph () => (float[2, 4] e) {{ s = Gemm (x, v)
                e = Mul (s, h) }}
        >
        y = MatMul (z, u)
    """
    model = graphs.build(text, w="3 4", b="4", v="3 4", u="4 5", **ONE)
    check(model, tmp_path, {"4: b.0 v.1 w.1 | u.0"})


def test_two_branches_may_use_the_same_names_and_hold_weights_of_their_own(tmp_path: Path) -> None:
    text = f"""
        {PICK}
        z = If (yes) <
            then_branch = yes_graph () => (float[2, 5] r)
                <float[3, 4] w = {{1,2,3,4,5,6,7,8,9,1,2,3}}, float[4, 5] u = {{1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2}}>
                {{ h = MatMul (x, w)
                   a = Relu (h)
                   r = MatMul (a, u) }},
            else_branch = no_graph () => (float[2, 5] r)
                <float[3, 6] w = {{1,2,3,4,5,6,7,8,9,1,2,3,1,2,3,4,5,6}}, float[6, 5] u = {{1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3}}>
                {{ h = MatMul (x, w)
                   a = Relu (h)
                   r = MatMul (a, u) }}
        >
    """
    model = graphs.build(text, **ONE)
    partition = check(model, tmp_path, {"4: w.1 | u.0", "6: w_1.1 | u_1.0"})
    assert "is part of the model's output 'z'" in {fixed.reason for fixed in partition.fixed}


LOOP = """
    last = Loop (steps, go, {start}) <
        body = step (int64 i, bool c, float[2, 4] h) => (bool d, float[2, 4] k) {{
            d = Identity (c)
            s = MatMul (h, r)
            a = MatMul (x, w)
            q = Add (s, a)
            k = {function} (q)
        }}
    >
    y = MatMul (last, u)
"""
STEPS = {"steps": np.array(3), "go": np.array(True), "w": "3 4", "r": "4 4", "u": "4 5", "x": "2 3"}


def test_a_state_that_starts_at_zero_stays_there(tmp_path: Path) -> None:
    model = graphs.build(LOOP.format(start="h0", function="Tanh"), h0=np.zeros((2, 4), np.float32), **STEPS)
    check(model, tmp_path, {"4: h0.1 r.1 w.1 | r.0 u.0"})


def test_a_state_that_does_not_stay_at_zero_is_kept_with_a_reason() -> None:
    model = graphs.build(LOOP.format(start="h0", function="Sigmoid"), h0=np.zeros((2, 4), np.float32), **STEPS)
    partition = zig.analyze(model)
    assert len(partition) == 0
    assert any("does not stay at 0 from one step of Loop" in fixed.reason for fixed in partition.fixed)


def test_a_state_that_comes_from_the_model_s_input_is_kept_with_that_reason() -> None:
    model = graphs.build(LOOP.format(start="x_0", function="Tanh"), x_0="2 4", **STEPS)
    partition = zig.analyze(model)
    assert {fixed.reason for fixed in partition.fixed if fixed.tensor == "r"} == {"is part of the model's input 'x_0'"}


def test_a_state_that_grows_has_no_size(tmp_path: Path) -> None:
    text = """
        h = MatMul (x, w)
        last = Loop (steps, go, h) <
            body = step (int64 i, bool c, float[m, 4] s) => (bool d, float[n, 4] k) {
                d = Identity (c)
                g = Relu (h)
                k = Concat <axis = 0> (s, g)
            }
        >
        y = MatMul (last, u)
    """
    model = graphs.build(text, steps=np.array(3), go=np.array(True), w="3 4", u="4 5", x="2 3")
    check(model, tmp_path, {"4: w.1 | u.0"})
    del model.graph.node[1].attribute[0].g.input[2].type.tensor_type.shape.dim[:]
    model.graph.node[1].attribute[0].g.input[2].type.tensor_type.ClearField("shape")
    graph = Graph(model)
    (loop,) = [node for node in graph.nodes if node.op == "Loop" and not node.is_entry]
    assert loop.body is not None
    assert loop.body.grown == {"s"}
    assert not isinstance(graph.shapes["s"][0], int)


def test_a_scan_steps_over_a_sequence_and_stacks_what_it_makes(tmp_path: Path) -> None:
    text = """
        f = MatMul (x, w)
        last, all = Scan <num_scan_inputs = 1, body = step (float[2, 4] h, float[2, 4] f_t) => (float[2, 4] k, float[2, 4] o) {
            s = MatMul (h, r)
            q = Add (s, f_t)
            k = Tanh (q)
            o = Identity (k)
        }> (h0, f)
        y = MatMul (last, u)
        z = MatMul (all, v)
    """
    sizes: dict[str, Any] = {"w": "3 4", "r": "4 4", "u": "4 5", "v": "4 2", "x": "7 2 3"}
    model = graphs.build(text, h0=np.zeros((2, 4), np.float32), **sizes)
    check(model, tmp_path, {"4: h0.1 r.1 w.1 | r.0 u.0 v.0"})


def test_an_if_within_a_loop_and_a_branch_that_reads_across_both(tmp_path: Path) -> None:
    text = """
        last = Loop (steps, go, h0) <
            body = step (int64 i, bool c, float[2, 4] h) => (bool d, float[2, 4] k) {
                d = Identity (c)
                t = ReduceSum <keepdims = 0> (h)
                p = Greater (t, zero)
                s = MatMul (h, r)
                a = MatMul (x, w)
                k = If (p) <
                    then_branch = yes_graph () => (float[2, 4] e) { e = Add (s, a) },
                    else_branch = no_graph () => (float[2, 4] f) { g = MatMul (x, v)
                        f = Sub (g, s) }
                >
            }
        >
        y = MatMul (last, u)
    """
    model = graphs.build(text, h0=np.zeros((2, 4), np.float32), v="3 4", zero=0.0, **STEPS)
    check(model, tmp_path, {"4: h0.1 r.1 v.1 w.1 | r.0 u.0"})


@pytest.mark.parametrize("second", ["float[2, 4, 1] e", "float[4, 2] e"])
def test_branches_that_do_not_fit_are_kept_with_a_reason(second: str) -> None:
    move = "Unsqueeze (h, last)" if second.count(",") == 2 else "Transpose (h)"
    text = f"""
        h = MatMul (x, w)
        {PICK}
        z = If (yes) <
            then_branch = yes_graph () => (float[2, 4] t) {{ t = Relu (h) }},
            else_branch = no_graph () => ({second}) {{ e = {move} }}
        >
        y = Relu (z)
    """
    model = graphs.build(text, w="3 4", last=[-1], **ONE)
    partition = zig.analyze(model)
    assert len(partition) == 0
    assert [fixed.axis for fixed in partition.fixed if fixed.tensor == "w"] == [0, 1]


def test_a_body_is_named_apart_only_where_names_meet() -> None:
    model = graphs.build(LOOP.format(start="h0", function="Tanh"), h0="2 4", **STEPS)
    before = model.SerializeToString()
    assert bodies.named_apart(model).SerializeToString() == before
    model.graph.node.append(model.graph.node[0])
    model.graph.node[-1].output[0] = "other"
    inner = bodies.named_apart(model).graph.node[-1].attribute[0].g
    assert [value.name for value in inner.input] == ["i_1", "c_1", "h_1"]
    assert inner.node[1].input[:] == ["h_1", "r"]


def test_what_a_body_that_stays_closed_reads_from_outside_is_fixed() -> None:
    text = """
        h = Gemm (x, w, b)
        z = local.Repeat <body = step () => (float[2, 4] t) { t = Relu (h) }> (x)
    """
    model = graphs.build(text, x="2 3", w="3 4", b="4")
    assert set(Graph(model).nodes[1].captured) == {"h"}
    partition = zig.analyze(model)
    assert len(partition) == 0
    assert any("sub-graph" in fixed.reason for fixed in partition.fixed)


def test_an_if_whose_condition_follows_from_the_sizes_is_its_branch(tmp_path: Path) -> None:
    text = """
        h = MatMul (x, w)
        n = Shape <start = 1, end = 2> (h)
        p = Equal (n, size)
        q = If (p) <
            then_branch = yes_graph () => (float[2, 4] e) { e = Relu (h) },
            else_branch = no_graph () => (float[2, 4, 1] f) { f = Unsqueeze (h, last) }
        >
        y = MatMul (q, u)
    """
    model = graphs.build(text, w="3 4", u="4 5", size=[4], last=[-1], x="2 3")
    check(model, tmp_path, {"4: w.1 | u.0"})


def test_an_if_on_a_size_that_only_the_run_tells_is_no_branch() -> None:
    text = """
        h = MatMul (x, w)
        n = Shape <start = 0, end = 1> (h)
        p = Equal (n, one)
        q = If (p) <
            then_branch = yes_graph () => (float[a, 4] e) { e = Relu (h) },
            else_branch = no_graph () => (float[a, 4] f) { f = MatMul (x, v) }
        >
        y = MatMul (q, u)
    """
    model = graphs.build(text, w="3 4", v="3 4", u="4 5", one=[1], x="N 3")
    assert graphs.families(zig.analyze(model)) == {"4: v.1 w.1 | u.0"}
