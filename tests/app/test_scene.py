"""Drawn nodes, the tree of modules, scenes."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import parse
from zig.app.opened import Opened
from zig.app.scene import net, search
from zig.app.scene.tree import Branch, ancestors, containers, grow, opened
from zig.app.scene.view import Scene, scene

from zig.partition import analyze

pytest_plugins = ("app_models",)


def chain(blocks: int, *, names: bool = True, scopes: bool = False) -> onnx.ModelProto:
    """Residual blocks of two layers each, with TorchScript names, dynamo's scopes, or neither."""
    lines, weights, x = [], {}, "x0"
    paths = []
    for number in range(blocks):
        lines += [f"h{number} = Gemm ({x}, a{number})", f"r{number} = Relu (h{number})",
                  f"g{number} = Gemm (r{number}, b{number})", f"x{number + 1} = Add (g{number}, {x})"]  # fmt: skip
        weights |= {f"a{number}": np.ones((4, 6), np.float32), f"b{number}": np.ones((6, 4), np.float32)}
        paths += [(f"blocks.{number}", part) for part in ("up", "act", "down", "")]
        x = f"x{number + 1}"
    model = parse(f"agraph (float[N, 4] x0) => (float[N, 4] {x}) {{ {chr(10).join(lines)} }}", **weights)
    for node, (block, part) in zip(model.graph.node, paths, strict=True):
        if scopes:
            inner = [f"'blocks', '{block}'", *([f"'{block}.{part}'"] if part else [])]
            node.name = f"node_{node.op_type}_{node.output[0]}"
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', {', '.join(inner)}, 'op']")
        elif names:
            node.name = "/" + "/".join(filter(None, ["blocks", block, part, node.op_type]))
    return model


def tree(model: onnx.ModelProto) -> tuple[net.Net, Branch]:
    drawn = net.build(analyze(model))
    return drawn, grow(drawn)


def outline(branch: Branch, drawn: net.Net) -> list[object]:
    """Titles of containers and operators of leaves, nested."""
    return [
        [child.title + child.note, *outline(child, drawn)] if isinstance(child, Branch) else drawn.items[child].op
        for child in branch.children
    ]


BLOCK = ["Gemm", "Relu", "Gemm", "Add"]


@pytest.mark.parametrize("scopes", [False, True])
def test_scopes_of_both_exporters_give_the_tree(scopes: bool) -> None:
    drawn, root = tree(chain(3, scopes=scopes))
    assert outline(root, drawn) == [
        "input", ["blocks", ["blocks.0", *BLOCK], ["blocks.1", *BLOCK], ["blocks.2", *BLOCK]], "output"
    ]  # fmt: skip


def test_without_scopes_blocks_are_cut_where_one_tensor_carries_everything() -> None:
    drawn, root = tree(chain(3, names=False))
    assert outline(root, drawn) == [
        "input", ["block 1", *BLOCK], ["block 2", *BLOCK], ["block 3", *BLOCK], "output"
    ]  # fmt: skip


def test_runs_of_alike_siblings_are_folded_and_long_ones_open_in_chunks() -> None:
    drawn, root = tree(chain(12, names=False))
    assert outline(root, drawn) == [
        "input", ["block 1-12×12", *(["block " + str(k), *BLOCK] for k in range(1, 13))], "output"
    ]  # fmt: skip
    drawn, root = tree(chain(300))
    every = containers(root)
    assert max(len(branch.children) for branch in every.values()) <= 32
    assert every["/blocks"].leaves == list(range(1, 1201))
    assert len(opened(root, 60)) > 0


def test_a_module_that_is_called_again_further_on_is_drawn_in_pieces() -> None:
    model = parse("""agraph (float[N, 4] x) => (float[N, 4] y) {
        a = Relu (x)
        b = Sigmoid (a)
        c = Relu (b)
        y = Tanh (c)
    }""")
    for node, name in zip(model.graph.node, ("/act/Relu", "/m/Sigmoid", "/act/Relu_1", "/m/Tanh"), strict=True):
        node.name = name
    drawn, root = tree(model)
    partition = analyze(model)
    shown = scene(drawn, partition.graph, root, set())
    assert not shown.placed.back.any()
    assert len(shown.boxes) == 6


def every_leaf_is_seen_once(shown: Scene, drawn: net.Net) -> bool:
    seen = Counter(leaf for box in shown.boxes if box.kind != "frame" for leaf in box.leaves)
    return seen == Counter(range(len(drawn.items)))


def test_closing_and_opening_loses_no_node_and_no_connection(sample_model: Opened) -> None:
    drawn, root = sample_model.net, sample_model.tree
    for expanded in (frozenset[str](), sample_model.first_open(), sample_model.all_open(), frozenset({"/stage2"})):
        shown = sample_model.scene(expanded)
        assert every_leaf_is_seen_once(shown, drawn)
        wanted = {
            (int(shown.box_of[a]), int(shown.box_of[b])) for a, b in zip(drawn.sources, drawn.targets, strict=True)
        }
        assert set(zip(*shown.links.tolist(), strict=True)) == {(a, b) for a, b in wanted if a != b}
    flat = scene(drawn, sample_model.graph, root, (), flat=True)
    assert len(flat.boxes) == len(drawn.items)


def test_arrows_lead_from_box_to_box_through_ports(sample_model: Opened) -> None:
    shown = sample_model.scene(sample_model.all_open())
    count = len(shown.boxes)
    for a, b in shown.links.T.tolist():
        arriving = [e for e in range(len(shown.u)) if shown.v[e] == b and shown.source[e] == a]
        assert arriving, (shown.boxes[a].key, shown.boxes[b].key)
        at, steps = int(shown.u[arriving[0]]), 0
        while at >= count and steps < 20:  # a port: the arrow before it ends in it, or at its frame
            before = [e for e in range(len(shown.u)) if shown.v[e] == at and shown.source[e] == a]
            if not before:
                break
            at, steps = int(shown.u[before[0]]), steps + 1
        assert steps < 20


def test_boxes_do_not_overlap_and_frames_hold_their_content(sample_model: Opened) -> None:
    for expanded in (sample_model.first_open(), sample_model.all_open()):
        shown = sample_model.scene(expanded)
        x, y, w, h = (getattr(shown.placed, name) for name in ("x", "y", "width", "height"))
        siblings: dict[int, list[int]] = {}
        for number, box in enumerate(shown.boxes):
            siblings.setdefault(box.frame, []).append(number)
            if box.frame >= 0:
                assert abs(x[number] - x[box.frame]) + w[number] / 2 <= w[box.frame] / 2 + 0.01
                assert abs(y[number] - y[box.frame]) + h[number] / 2 <= h[box.frame] / 2 + 0.01
        for group in siblings.values():
            for i in group:
                for j in group:
                    if i < j:
                        apart = abs(x[i] - x[j]) >= (w[i] + w[j]) / 2 or abs(y[i] - y[j]) >= (h[i] + h[j]) / 2
                        assert apart, (shown.boxes[i].key, shown.boxes[j].key)


def test_a_layout_is_the_same_every_time(sample_path: Path) -> None:
    one, other = (Opened(sample_path, "m").scene(()).columns for _ in range(2))
    assert one == other


def test_straight_chains_are_drawn_straight() -> None:
    model = parse("agraph (float[N, 4] x) => (float[N, 4] y) { a = Relu (x)\n b = Tanh (a)\n y = Erf (b) }")
    drawn, root = tree(model)
    shown = scene(drawn, analyze(model).graph, root, (), flat=True)
    assert np.ptp(shown.placed.x[:5]) < 0.01


def test_dense_connections_are_bundled() -> None:
    layers = 24
    lines = ["h0 = Relu (x)"]
    for k in range(1, layers):
        lines.append(f"h{k} = Sum ({', '.join(f'h{j}' for j in range(k))})")
    model = parse(f"agraph (float[N, 4] x) => (float[N, 4] h{layers - 1}) {{ {chr(10).join(lines)} }}")
    drawn, root = tree(model)
    shown = scene(drawn, analyze(model).graph, root, (), flat=True)
    assert shown.placed.bundle.max() > 6
    assert shown.placed.size[0] < 600


def test_weights_count_for_the_node_that_reads_them() -> None:
    model = parse(
        """agraph (float[N, 4] x) => (float[N, 6] y) {
        t = Transpose <perm = [1, 0]> (w)
        i = Identity (x)
        h = MatMul (i, t)
        s = Shape (h)
        y = Reshape (h, s)
    }""",
        w=np.ones((6, 4), np.float32),
    )
    drawn = net.build(analyze(model))
    assert [item.op for item in drawn.items] == ["input", "MatMul", "Reshape", "output"]
    assert drawn.items[1].weights == ["w"]
    assert drawn.items[1].parameters == 24
    assert drawn.hidden == 3


def test_groups_are_written_by_members_and_read_by_dependents(small_model: Opened) -> None:
    roles = {item.name.split("/")[2]: (dict(item.writes), dict(item.reads), item.is_fixed)
             for item in small_model.net.items if item.index >= 0}  # fmt: skip
    assert set(roles["conv1"][0]) == {0}
    assert set(roles["logits"][1]) == {0}
    assert roles["logits"][2]
    assert not roles["relu1"][0]
    box = next(box for box in small_model.scene(small_model.all_open()).boxes if box.title.startswith("Gemm"))
    assert "part of the model's output" in box.fixed


@pytest.mark.parametrize(
    ("query", "names"),
    [("g0", 4), ("gemm", 1), ("conv1", 1), ("GAMMA", 1), ("/block", 2), ("conv block", 1), ("nowhere", 0), ("", 0)],
)
def test_search_finds_names_operators_tensors_and_groups(small_model: Opened, query: str, names: int) -> None:
    found = search.find(small_model.net, query)
    assert len(found) == names, [small_model.net.items[i].name for i in found]


def test_hits_in_closed_modules_mark_the_module(sample_model: Opened) -> None:
    shown = sample_model.scene(frozenset())
    hits = search.hits(sample_model.net, shown, "stage2.1.conv1")
    assert [shown.boxes[number].title for number in hits["boxes"]] == ["stage2"]
    assert hits["total"] == 1


def test_revealing_a_node_opens_what_it_is_in(sample_model: Opened) -> None:
    key = next(key for key in sample_model.positions if "stage3.2.conv2" in key)
    chain_ = ancestors(sample_model.tree)[sample_model.positions[key]]
    assert sample_model.above(key) == chain_
    assert key in sample_model.scene(frozenset(chain_)).index
    assert key not in sample_model.scene(frozenset()).index


def test_first_picture_stays_within_its_budget(sample_model: Opened) -> None:
    for budget in (8, 20, 60):
        shown = sample_model.scene(opened(sample_model.tree, budget))
        assert sum(box.kind != "frame" for box in shown.boxes) <= budget
