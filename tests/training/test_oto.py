"""The OTO way of working, from the module to two files that give the same outputs."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import CASES, Attention, Residual
from torch import nn

import zig
from zig import OTO
from zig.errors import LinkError, PlanError
from zig.proof.session import Session
from zig.training import demo

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]
SHORT = {"start_pruning_steps": 2, "pruning_steps": 6}


def batches(shape: tuple[int, ...], classes: int, device: str, steps: int) -> Any:
    random = torch.Generator().manual_seed(0)
    for _ in range(steps):
        yield (
            torch.randn(8, *shape, generator=random).to(device),
            torch.randint(0, classes, (8,), generator=random).to(device),
        )


@pytest.mark.parametrize("device", DEVICES)
def test_the_example_of_oto_s_readme(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = Residual()
    dummy_input = torch.zeros(1, 3, 32, 32)
    oto = OTO(model=model.to(device), dummy_input=dummy_input.to(device))

    optimizer = oto.dhspg(lr=0.1, target_group_sparsity=0.7, **SHORT)

    model.train()
    model.to(device)
    criterion = torch.nn.CrossEntropyLoss()
    for X, y in batches((3, 32, 32), 4, device, 10):  # noqa: N806 - the names of the README
        y_pred = model.forward(X)
        f = criterion(y_pred, y)
        optimizer.zero_grad()
        f.backward()
        optimizer.step()

    report = oto.compress()
    assert model.training
    assert all(p.device.type == device for p in model.parameters())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["Residual_compressed.onnx", "Residual_full.onnx"]
    assert report.comparison is not None
    assert report.comparison.equal
    assert report.groups == 8
    assert report.removed == optimizer.zero_groups == round(0.7 * 8)
    x = torch.randn(3, 3, 32, 32)
    outputs = [
        next(iter(Session(tmp_path / f"Residual_{kind}.onnx").run({"x": x.numpy()}).values()))
        for kind in ("full", "compressed")
    ]
    expected = model.eval()(x.to(device)).detach().cpu().numpy()
    np.testing.assert_allclose(outputs[0], expected, atol=1e-4)
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "groups"),
    [("recurrent", 10), ("tied", 6), ("perceptron", 16), ("weight_norm", 2)],
)
def test_every_kind_of_parameter_goes(name: str, groups: int, tmp_path: Path) -> None:
    net, x = CASES[name]
    oto = OTO(net, x)
    assert len(oto.partition) >= groups
    before = {key: value.clone() for key, value in net.state_dict().items()}
    plan = oto.random_set_zero_groups(0.5, seed=1)
    report = oto.compress(tmp_path, name)
    assert report.removed >= plan.remove.sum() > 0
    assert report.after["parameters"] < report.before["parameters"]
    net.load_state_dict(before)


def test_half_of_all_groups_by_default_and_all_variants(tmp_path: Path) -> None:
    for variant in ("sgd", "adam", "adamw"):
        net = Residual()
        oto = OTO(net, torch.zeros(1, 3, 8, 8))
        optimizer = oto.dhspg(variant, **SHORT)
        for x, y in batches((3, 8, 8), 4, "cpu", 8):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
        assert oto.compress(tmp_path).removed == 4


def test_heads_and_sizes_of_heads(tmp_path: Path) -> None:
    for forks in ("heads", "head_dims"):
        net = Attention()
        oto = OTO(net, torch.randn(2, 5, 16), forks=forks)
        optimizer = oto.dhspg("adam", target_group_sparsity=0.6, **SHORT)
        for x, _ in batches((5, 16), 2, "cpu", 8):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
        with pytest.warns(UserWarning, match=r"can't run with the cut sizes at networks\.py:\d+, `x = x \+ self\.att"):
            report = oto.compress(tmp_path)
        assert report.removed == optimizer.zero_groups == round(0.6 * len(oto.partition))


def test_keep() -> None:
    net, x = CASES["perceptron"]
    everything, some = OTO(net, x), OTO(net, x, keep=["0.*"])
    assert len(some.partition) == len(everything.partition) - 8


def test_counts() -> None:
    net, x = CASES["residual"]
    oto = OTO(net, x)
    assert oto.compute_macs() == 64 * 8 * 9 * (3 + 8) + 8 * 4
    assert oto.compute_num_params() == sum(p.numel() for p in net.parameters()) + 4 * 8  # with BatchNorm's statistics


def test_compress_says_when_pruning_is_not_over(tmp_path: Path) -> None:
    oto = OTO(Residual(), torch.zeros(1, 3, 8, 8))
    oto.dhspg(target_group_sparsity=0.5, start_pruning_steps=50, pruning_steps=150)
    with pytest.warns(UserWarning, match="0 groups are zero after 0 steps, and all that must go will be after 200"):
        oto.compress(tmp_path / "made" / "for you")
    assert (tmp_path / "made" / "for you" / "Residual_full.onnx").exists()


def test_what_can_t_be_reached_is_refused() -> None:
    oto = OTO(Residual(), torch.zeros(1, 3, 8, 8))
    with pytest.raises(PlanError, match="only 7 can go"):
        oto.dhspg(target_group_sparsity=0.95, **SHORT)


def test_a_model_without_groups_still_trains() -> None:
    net = nn.Linear(4, 2)
    optimizer = OTO(net, torch.randn(2, 4)).dhspg(target_group_sparsity=0.0, **SHORT)
    for x, y in batches((4,), 2, "cpu", 9):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    with pytest.raises(PlanError, match="no group of this model can be pruned"):
        OTO(net, torch.randn(2, 4)).dhspg(target_group_sparsity=0.5, **SHORT)


def test_random_zero_groups_are_seeded() -> None:
    plans = []
    for seed in (0, 0, 1):
        oto = OTO(Residual(), torch.zeros(1, 3, 8, 8))
        plans.append(oto.random_set_zero_groups(0.5, seed).remove)
        zero = (oto.model.a.weight == 0).flatten(1).all(1).numpy()
        np.testing.assert_array_equal(zero, plans[-1])
    np.testing.assert_array_equal(plans[0], plans[1])
    assert not np.array_equal(plans[0], plans[2])


def test_it_is_where_users_look_for_it() -> None:
    assert zig.OTO is OTO
    assert issubclass(LinkError, zig.errors.ZigError)


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "EPOCHS", 2)
    monkeypatch.setattr(demo, "DigitNet", partial(demo.DigitNet, 16))
    content = demo.run(tmp_path / "demo")
    assert {"full.onnx", "compressed.onnx", "report.json"} <= {file.name for file in (tmp_path / "demo").iterdir()}
    assert content == json.loads((tmp_path / "demo" / "report.json").read_text())
    assert content["same_predictions"] == content["held_out"] == 360
    assert abs(content["removed"] / content["groups"] - 0.7) < 0.03
    assert content["compressed"]["parameters"] < content["full"]["parameters"] / 4
    assert "accuracy" in capsys.readouterr().out


class OneNorm(nn.Module):
    """Two layers behind each of which stands the same normalisation, whose parameters are ones and zeros at first."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.two(torch.relu(self.norm(self.one(x)))))))


def test_what_a_module_has_once_stays_one_before_it_is_trained() -> None:
    torch.manual_seed(0)
    fresh = OneNorm().eval()
    before = OTO(fresh, torch.randn(4, 5)).partition
    for parameter in fresh.parameters():
        nn.init.normal_(parameter)
    after = OTO(fresh, torch.randn(4, 5)).partition
    assert [group.size for group in before.node_groups] == [group.size for group in after.node_groups] == [8]
