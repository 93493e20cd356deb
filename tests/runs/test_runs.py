"""Runs from their file to their report: every configuration of the seeds, and all that may happen on the way."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from children import start
from dropping import Dropping
from rich.console import Console
from test_killed import bits, same
from tiny_run import Write, fitted

from zig import OTO
from zig.cli import main
from zig.errors import RunError, UsageError
from zig.runs import checkpoint
from zig.runs.config import ModelSection, Run, load
from zig.runs.loop import Trainer
from zig.runs.models import build, load_weights
from zig.runs.networks import resnet50, vgg16, vgg16_bn
from zig.runs.processes import join
from zig.runs.train import train
from zig.training.demo import DigitNet

HAS_TENSORBOARD = importlib.util.find_spec("tensorboard") is not None
ROOT = Path(__file__).resolve().parents[2]
SEEDS = [
    "mnist",
    "vgg16_cifar10",
    "vgg16_bn_cifar10",
    "resnet50_cifar10",
    "resnet50_imagenet",
    *(f"bert_squad{level}" for level in ("", "_91", "_76", "_67", "_53", "_40")),
]


@pytest.mark.parametrize("name", SEEDS)
def test_smoke(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = {"resnet50_imagenet": "torchvision"} if "bert" not in name else {name: "transformers"}
    if name in needed:
        pytest.importorskip(needed[name])
    monkeypatch.chdir(tmp_path)
    config = ROOT / "samples" / "configs" / f"{name}.yml"
    report = train(config, smoke=True)
    run = load(config, Run, smoke=True)
    out = Path(f"{run.out}-smoke")
    assert json.loads((out / "report.json").read_text()) == report
    full, small = report["full"], report["compressed"]
    for metric in report["metrics"]:
        assert full[metric] == small[metric]
    of = "parameters" if run.method.target_params else "macs"
    aim = run.method.target_params or run.method.target_macs
    assert aim is not None
    assert small[of] / full[of] == pytest.approx(aim, abs=0.02)
    assert report["removed"] > 0
    assert report["warnings"] == []
    assert report["largest_relative_difference"] < 1e-4
    assert checkpoint.read(out / "checkpoint.pt")["step"] > 1
    rows = list(csv.DictReader((out / "log.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == list(range(1, run.training.epochs + 1))
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    if "bert" in name:
        check_bert(out)


def check_bert(out: Path) -> None:
    """Heads and feed-forward widths are smaller; the stream between the layers is not."""
    shapes = []
    for kind in ("full", "compressed"):
        model = onnx.load(out / f"BertForQuestionAnswering_{kind}.onnx")
        shapes.append({i.name: tuple(i.dims) for i in model.graph.initializer})
    full, small = shapes
    layer = "bert.encoder.layer.{}.{}.bias"
    for part, is_cut in (("attention.self.query", True), ("intermediate.dense", True), ("output.dense", False)):
        names = [layer.format(i, part) for i in (0, 1)]
        assert (sum(small[n][0] for n in names) < sum(full[n][0] for n in names)) is is_cut, part


def test_the_networks_are_those_of_the_authors() -> None:
    """Parameters as in the notebooks of OTOv2: 15.25 M of VGG16-BN, 23.52 M of ResNet-50."""
    for network, millions in ((vgg16(), 15.245), (vgg16_bn(), 15.254), (resnet50(), 23.521)):
        assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=5e-4)
        assert network.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "millions"), [(vgg16_bn, 313.7), (resnet50, 1297.8)])
def test_their_work_is_what_the_authors_count(network: Any, millions: float) -> None:
    """MACs of the full networks in the notebooks of OTOv2."""
    assert OTO(network(), torch.zeros(2, 3, 32, 32)).compute_macs() / 1e6 == pytest.approx(millions, abs=0.05)


def test_a_run_that_stops_anywhere_goes_on_with_the_same_bits(config: Write, tmp_path: Path) -> None:
    """With dropout, of which each step draws random numbers, momentum, a schedule and parts of batches."""
    options = {
        "method": {"name": "hspg", "variant": "sgd", "lr": 0.05, "momentum": 0.9},
        "training": {"schedule": {"name": "cosine", "warmup": 0.1}, "accumulate": 2, "clip": 1.0},
    }
    train(config("whole", **options))
    for until in (5, 6):
        assert fitted(config("parts", **options), until).step == until
    with pytest.raises(UsageError, match="holds a checkpoint already; go on with --resume"):
        train(tmp_path / "parts.yml")
    report = train(tmp_path / "parts.yml", resume=True)
    assert same(bits(tmp_path / "parts"), bits(tmp_path / "whole"))
    for name in ("log.csv", "log.jsonl", "Dropping_compressed.onnx", "report.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert train(tmp_path / "parts.yml", resume=True) == report  # it is over: the models are made anew
    with pytest.raises(UsageError, match=r"is of a run with method.lr 0.05, not 0.06; set it back"):
        train(config("parts", **{**options, "method": {**options["method"], "lr": 0.06}}), resume=True)
    checkpoint.write(tmp_path / "parts" / "checkpoint.pt", {"step": 3})
    with pytest.raises(UsageError, match="is no checkpoint of a run: it has no 'losses'"):
        train(tmp_path / "parts.yml", resume=True)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_stops(config: Write, tmp_path: Path, stop: signal.Signals) -> None:
    path, said = config(training={"epochs": 2000}), tmp_path / "said"
    child = start(path, said=said)
    while "epoch 2 " not in (said.read_text() if said.exists() else "") and child.is_alive():
        time.sleep(0.01)
    os.kill(child.pid or 0, stop)
    child.join(60)
    assert child.exitcode == 128 + stop, said.read_text()
    state = checkpoint.read(tmp_path / "run" / "checkpoint.pt")
    assert 8 <= state["step"] < 8000
    assert f"stopped after step {state['step']} of 8000; go on with --resume" in said.read_text()


def test_a_loss_that_is_no_number_stops(config: Write, tmp_path: Path) -> None:
    path = config(method={"variant": "sgd", "lr": 1e30})
    with pytest.raises(RunError, match=r"the loss is (nan|inf) in step \d+ \(epoch 1\).* lower method.lr"):
        train(path)
    assert not (tmp_path / "run" / "report.json").exists()


@pytest.mark.parametrize(
    "training", [{"precision": "bf16", "compile": "aot_eager"}, {"precision": "fp16", "tensorboard": HAS_TENSORBOARD}]
)
def test_ways_to_train(config: Write, training: dict[str, Any]) -> None:
    path = config(training=training)
    trainer = fitted(path)
    left = trainer.oto.compute_macs(compressed=True) / trainer.oto.compute_macs()
    assert left == pytest.approx(0.4, abs=0.05)
    if training.get("tensorboard"):
        assert list(path.with_suffix("").glob("tensorboard/events.*"))


def test_parts_of_a_batch_add_up_to_it(config: Write) -> None:
    """Where nothing looks at the whole batch, as BatchNorm does."""
    model = {"name": "dropping:Dropping", "options": {"share": 0.0}}
    whole, parts = (
        fitted(config(f"by{count}", model=model, training={"accumulate": count})).oto.model.state_dict()
        for count in (1, 4)
    )
    for name, value in whole.items():
        assert torch.allclose(value, parts[name], atol=1e-4), name


def test_fp16_that_skips_the_end_of_pruning_is_told(config: Write) -> None:
    run = load(config(training={"precision": "fp16"}), Run)
    with join(run.training) as processes:
        trainer = Trainer(run, processes, Console(quiet=True))
        trainer._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)  # the gradients of all steps overflow
        with pytest.raises(RunError, match="the training is over after 16 steps, but pruning is not: fp16"):
            trainer.fit()


def test_hesso_cric_trains_and_refuses_fp16(config: Write) -> None:
    method = {"name": "hesso_cric", "cycles": 2}
    with pytest.raises(UsageError, match="hesso_cric evaluates the loss anew"):
        train(config(method=method, training={"precision": "fp16"}))
    assert fitted(config(method=method)).pruner.group_sparsity > 0


@pytest.mark.skipif(HAS_TENSORBOARD, reason="tensorboard is installed")
def test_a_missing_tensorboard_is_told(config: Write) -> None:
    with pytest.raises(UsageError, match=r"training\.tensorboard needs tensorboard; install it by pip install tensor"):
        train(config(training={"tensorboard": True}))


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_the_commands(config: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config()
    assert command("train", path, "--json") == 0
    said = capsys.readouterr()
    assert "epoch 4  loss " in said.err
    report = json.loads(said.out)
    assert command("train", path) == 2
    assert capsys.readouterr().err.endswith("go on with --resume, or choose another out\n")
    saved = tmp_path / "run" / "checkpoint.pt"
    assert command("prune-checkpoint", path, saved, "--out", tmp_path / "again") == 0
    assert f"{report['removed']} of {report['groups']} groups removed" in capsys.readouterr().out
    assert json.loads((tmp_path / "again" / "report.json").read_text()) == report


def test_weights_from_a_file(tmp_path: Path) -> None:
    model, path = Dropping(), tmp_path / "weights.pt"
    torch.save({"state_dict": {f"module.{name}": value for name, value in model.state_dict().items()}}, path)
    other = build(ModelSection(name="dropping:Dropping", weights=str(path)), seed=1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    torch.save(DigitNet(4).state_dict(), path)
    with pytest.raises(UsageError, match=r"weights.pt does not fit the network: Missing key\(s\) in state_dict: "):
        load_weights(model, path)
    torch.save(model, path)
    with pytest.raises(UsageError, match=r"weights.pt is not a file of tensors and plain values"):
        load_weights(model, path)


def test_a_checkpoint_that_can_not_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.write(path, {"step": 1})

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="can't be written: No space left on device; nothing was changed"):
        checkpoint.write(path, {"step": 2})
    assert checkpoint.read(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError, match="is damaged"):
        checkpoint.read(path)
