"""ATO in one piece: trained, reported, removed; with the published counts, in several processes, from a file."""

import csv
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from small_nets import Excited, Transformer
from torch import nn
from torch.nn import functional as F

from zig import analyze, summary
from zig.controller import ATO, report
from zig.controller.resource import resource
from zig.errors import UsageError
from zig.proof.session import Session

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.filterwarnings("ignore:Transformer can't run with the cut sizes")  # torch's attention has them in numbers
@pytest.mark.parametrize(("kind", "shape"), [(Excited, (3, 8, 8)), (Transformer, (5, 6))])
def test_the_masked_network_is_the_removed_one(kind: type[nn.Module], shape: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = kind(), torch.randn(32, *shape)
    y = x.flatten(1)[:, :5].argmax(1)
    ato = ATO(
        net, x[:2], keep=0.6, variant="adamw", lr=0.01, steps=40, unprunable=["embed.*"] if kind is Transformer else []
    )
    log = ato.log(tmp_path / "log.jsonl")
    for step in range(40):
        ato.optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        ato.optimizer.step()
        ato.optimizer.learn(lambda net: F.cross_entropy(net(x), y))
        if step % 8 == 7:
            log.write(loss=1.0)
    net.eval()
    with torch.no_grad():
        with ato.optimizer.removed():
            masked = net(x[:2]).numpy()
        np.testing.assert_array_equal(masked, net(x[:2]).numpy())  # it is zero already
        whole = ato.model(x[:2]).numpy()
    ato.compress(tmp_path, "net")
    small = Session(tmp_path / "net_compressed.onnx")
    (removed,) = small.run({next(iter(small.inputs)): x[:2].numpy()}).values()
    np.testing.assert_allclose(removed, masked, rtol=1e-5, atol=1e-5)
    assert np.abs(whole[0] - whole[1]).max() > 1e-3
    reached = summary(analyze(tmp_path / "net_compressed.onnx"))["macs"] / ato.compute_macs()
    assert reached == pytest.approx(ato.optimizer.left, abs=1e-6)
    told(tmp_path, ato)


def told(folder: Path, ato: ATO) -> None:
    """The log, the table and the picture say what the plan is."""
    table, picture = report(folder / "log.jsonl")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    last = [row for row in rows if row["step"] == "40"]
    groups = ato.partition.node_groups
    assert len(rows) == 5 * len(last) == 5 * len(groups)
    kept = [int((~ato.optimizer.plan())[group.groups].sum()) for group in groups]
    assert [float(row["kept"]) for row in last] == kept
    assert [float(row["probability"]) for row in last] == [
        round(k / g.size, 4) for k, g in zip(kept, groups, strict=True)
    ]
    assert float(last[0]["resource"]) == pytest.approx(ato.optimizer.left, rel=1e-5)
    drawn = ElementTree.fromstring(picture.read_text())
    texts = [each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {group.name for group in groups} <= set(texts)
    line = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    assert {"controller_loss", "penalty", "resource", "gates", "widths", "sparsity"} <= line.keys()


def test_a_log_without_a_controller_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for text, says in (
        ('{"step": 1}\n', "tells of no controller"),
        ("x\n", "is no training log"),
        (None, "can't be read"),
    ):
        path.unlink(missing_ok=True)
        if text:
            path.write_text(text)
        with pytest.raises(UsageError, match=says):
            report(path)


# The widths that ATO's code gates, as what it does not; and its counts: all, prunable, gates, units. What ours are.
PUBLISHED = {
    "resnet34": (["bn1.*", "layer?.?.bn2.*"], (3.67661, 3.53425, 16, 3776), (3.66376, 3.52597)),
    "resnet50": (["bn1.*", "*.bn3.*"], (4.12283, 3.63588, 32, 7552), (4.08918, 3.60946)),
    "mobilenet_v2": (
        ["features.0.1.*", "features.1.conv.2.*", "features.*.conv.3.*", "features.18.1.*"],
        (0.31413, 0.27539, 16, 7104), (0.30077, 0.25855),
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # of the exporter
@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones_by_their_formula(name: str, tmp_path: Path) -> None:
    """Theirs: k^2 Cin / g Cout H W of convolutions, + 3 Cout H W of prunable ones; in all, + norms, ReLUs (no ReLU6),
    linear layers and max pooling."""
    models = pytest.importorskip("torchvision.models")
    fixed, (whole, prunable, gates, units), ours = PUBLISHED[name]
    path = tmp_path / "net.onnx"
    torch.onnx.export(
        getattr(models, name)().eval(), (torch.zeros(1, 3, 224, 224),), path, dynamo=False, opset_version=17,
        do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE,
    )  # fmt: skip
    partition = analyze(path, keep=tuple(fixed))
    graph, shapes = partition.graph, partition.graph.shapes
    assert (len(partition.node_groups), len(partition)) == (gates, units)
    live = {row.tensor for row in partition.rows}
    all_, some = 0.0, 0.0
    for node in graph.nodes:
        out = float(np.prod([n for n in shapes[node.outputs[0]][1:] if isinstance(n, int)]))
        if node.op == "Conv":
            height, width = shapes[node.outputs[0]][2:]
            cost = float(np.prod(graph.initializers[node.inputs[1]].dims)) * height * width
            all_ += cost
            some += (cost + 3 * out) * (node.inputs[1] in live)
        elif node.op == "Gemm":
            all_ += float(np.prod(graph.initializers[node.inputs[1]].dims)) + out
        else:
            all_ += {"BatchNormalization": 2, "Relu": 1, "MaxPool": 9}.get(node.op, 0) * out
    assert (round(all_ / 1e9, 5), round(some / 1e9, 5)) == (whole, prunable)
    cost = resource(partition, np.ones(units, bool), "macs")
    assert (round(cost.whole / 1e9, 5), round(cost.prunable / 1e9, 5)) == ours


@pytest.mark.slow
def test_two_processes_have_one_mask(tmp_path: Path) -> None:
    child = Path(__file__).with_name("two_processes.py")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, child, str(rank), tmp_path],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in (0, 1)
    ]
    ends = [each.communicate(timeout=300) for each in started]
    assert [each.returncode for each in started] == [0, 0], ends
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert len(first["masks"]) > 8
    for a, b in zip(first["masks"], second["masks"], strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in itertools.pairwise(first["masks"]))
    assert first["losses"] != second["losses"]  # each learned from examples of its own
    for key in ("model", "controller"):
        assert all(torch.equal(a, b) for a, b in zip(first[key].values(), second[key].values(), strict=True))
