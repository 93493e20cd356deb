"""Every parameter keeps its name and its value, and the file computes what the module did."""

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import CASES, Residual, Tied
from torch import nn

import zig
from zig.errors import ExportError
from zig.proof.session import Session
from zig.training.export import LOSSLESS, export, save

EXPORTERS = ("dynamo", "torchscript")


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", CASES)
def test_every_parameter_keeps_name_and_value(name: str, exporter: str) -> None:
    net, x = CASES[name]
    model = export(net, x, exporter=exporter)
    found = model.graph.initializers
    tied = {"embedding.weight", "head.weight"} if isinstance(net, Tied) else set()
    used = {n: p for n, p in (*net.named_parameters(), *net.named_buffers()) if p.is_floating_point() and n not in tied}
    for parameter, values in used.items():
        np.testing.assert_array_equal(found[parameter].const_value.numpy(), values.detach().numpy(), parameter)
    assert len(tied & set(found)) == (1 if tied else 0)
    assert model.metadata_props[LOSSLESS] == exporter
    assert not model.graph.inputs[1:]


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", CASES)
def test_the_file_computes_what_the_module_does_for_any_batch(name: str, exporter: str, tmp_path: Path) -> None:
    net, x = CASES[name]
    model = export(net, x, tmp_path / "net.onnx", exporter=exporter)
    x = torch.cat([x] * 3) if x.is_floating_point() else torch.randint(0, 12, (3, 5))
    (found,) = Session(tmp_path / "net.onnx").run({model.graph.inputs[0].name: x.numpy()}).values()
    was = net.training
    np.testing.assert_allclose(found, net.eval()(x).detach().numpy(), atol=1e-5)
    net.train(was)
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_the_model_comes_back_as_it_was(exporter: str) -> None:
    net, x = Residual().train(), torch.randn(4, 3, 8, 8)
    net.bn2.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    export(net, x, exporter=exporter)
    assert net.training
    assert net.bn1.training
    assert not net.bn2.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_nothing_is_fused_and_nothing_shared(exporter: str) -> None:
    net, x = CASES["residual"]
    model = export(net, x, exporter=exporter)
    assert [node.op_type for node in model.graph].count("BatchNormalization") == 2
    weight = model.graph.initializers["a.weight"].const_value.numpy()
    before = weight.copy()
    with torch.no_grad():
        net.a.weight.mul_(2)
    np.testing.assert_array_equal(weight, before)


def test_a_bias_that_is_zero_before_training_stays() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(16, 2))
    nn.init.zeros_(net[0].bias)
    nn.init.zeros_(net[2].bias)
    assert {"0.bias", "2.bias"} <= set(export(net, torch.randn(1, 3, 2, 2)).graph.initializers)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_it_is_quiet(exporter: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(*CASES["attention"], exporter=exporter)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_inputs_may_be_a_sequence_or_a_mapping() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            return self.a(x) * scale

    x, scale = torch.randn(2, 3), torch.ones(2)
    for exporter in EXPORTERS:
        for inputs in ((x, scale), [x, scale], {"x": x, "scale": scale}):
            model = export(Two(), inputs, exporter=exporter)
            assert [value.name for value in model.graph.inputs] == ["x", "scale"]
            assert set(model.graph.initializers) >= {"a.weight", "a.bias"}


def test_a_model_that_fixes_its_batch_is_exported_with_that_batch() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x.reshape(4, 3))

    assert export(Fixed(), torch.randn(4, 3)).graph.inputs[0].shape == (4, 3)
    assert export(CASES["residual"][0], torch.randn(2, 3, 8, 8), dynamic_batch=False).graph.inputs[0].shape[0] == 2


def test_auto_falls_back_to_torchscript(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.onnx.export

    def without_dynamo(*args: Any, dynamo: bool, **options: Any) -> Any:
        if dynamo:
            raise torch.onnx.OnnxExporterError("dynamo is out today")
        return real(*args, dynamo=dynamo, **options)

    monkeypatch.setattr(torch.onnx, "export", without_dynamo)
    assert export(*CASES["residual"]).metadata_props[LOSSLESS] == "torchscript"
    with pytest.raises(ExportError, match="dynamo is out today"):
        export(*CASES["residual"], exporter="dynamo")


def test_what_can_t_be_exported_is_said_in_one_sentence(tmp_path: Path) -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svd(self.a(x))[0]

    with pytest.raises(ExportError, match=r"Branch can't be exported to ONNX \(dynamo: .*svd") as caught:
        export(Branch(), torch.randn(2, 3))
    assert "\n" not in str(caught.value)
    with pytest.raises(ExportError, match="choose auto, dynamo or torchscript"):
        export(*CASES["residual"], exporter="caffe")
    with pytest.raises(ExportError, match=r"nowhere/net\.onnx can't be written"):
        export(*CASES["residual"], tmp_path / "nowhere" / "net.onnx")


def test_a_file_that_can_t_be_finished_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = export(*CASES["residual"])
    target = tmp_path / "net.onnx"
    target.write_text("old")

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnx_ir.save", full)
    with pytest.raises(ExportError, match="No space left"):
        save(model, target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_weights_beyond_protobuf_s_limit_go_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zig.surgery.save._PROTOBUF_LIMIT", 100)
    monkeypatch.setattr("zig.surgery.save._INLINE", 16)
    export(*CASES["residual"], tmp_path / "net.onnx")
    model, data = sorted(file.name for file in tmp_path.iterdir())
    assert model == "net.onnx"
    assert re.fullmatch(r"net\.onnx\.[0-9a-f]{12}\.data", data)
    assert len(zig.analyze(tmp_path / "net.onnx")) == 8


def test_half_precision() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).bfloat16()
    model = export(net, torch.randn(1, 3).bfloat16())
    assert model.graph.initializers["0.weight"].const_value.dtype.name == "BFLOAT16"
    zig.training.link(model, net)
