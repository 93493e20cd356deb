"""The compressed torch module, and what the facade accepts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from networks import CASES
from torch import Tensor, nn
from torch.nn import functional as F

from zig import OTO
from zig.errors import ExportError, LinkError, UsageError
from zig.proof.session import Session
from zig.training import slim_state_dict


class Grouped(nn.Module):
    """Depthwise and grouped convolutions, a transposed one, GroupNorm, PReLU, and a view that knows no sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.deep = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=16)
        self.norm, self.some = nn.BatchNorm2d(16), nn.Conv2d(16, 16, 1, groups=4)
        self.group, self.act = nn.GroupNorm(4, 16), nn.PReLU(16)
        self.up, self.head = nn.ConvTranspose2d(16, 6, 2, 2), nn.Linear(6 * 64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.deep(self.a(x).relu())).relu()
        x = self.act(self.group(self.some(x)))
        return self.head(self.up(x).relu().flatten(1))


class Block(nn.Module):
    """Attention as people write it."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 4, 8
        self.q, self.k, self.v, self.out = (nn.Linear(16, 32), nn.Linear(16, 32), nn.Linear(16, 32), nn.Linear(32, 16))
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (p(x).view(b, n, self.num_heads, self.head_dim).transpose(1, 2) for p in (self.q, self.k, self.v))
        y = (q @ k.transpose(-1, -2) / 8**0.5).softmax(-1) @ v
        x = self.norm(x + self.out(y.transpose(1, 2).reshape(b, n, -1)))
        return x + self.down(F.gelu(self.up(x)))


def sigmoid() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 3))


def slim_of(net: nn.Module, x: object, folder: Path, seed: int = 1, **options: object) -> nn.Module:
    """Zero half of the groups, compress, and check that the module is smaller and says the same."""
    oto = OTO(net, x, **options)
    oto.random_set_zero_groups(0.5, seed)
    report = oto.compress(folder)
    small = oto.compressed
    assert type(small) is type(net)
    assert small is not net
    count, expected = (sum(p.numel() for p in m.parameters()) for m in (small, net))
    assert count < expected
    assert report.after["parameters"] < report.before["parameters"]
    assert {n: p.shape for n, p in small.named_parameters()}.keys() == {n for n, _ in net.named_parameters()}
    return small


def test_every_attribute_follows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = Grouped(), torch.randn(2, 3, 8, 8)
    small = slim_of(net, x, tmp_path)
    assert small.a.out_channels == small.a.weight.shape[0] == small.deep.groups == small.deep.in_channels
    assert small.norm.num_features == len(small.norm.running_mean) == small.deep.out_channels
    assert small.some.in_channels == small.some.weight.shape[1] * small.some.groups
    assert small.group.num_channels == len(small.group.weight) == small.act.num_parameters
    assert small.group.num_channels // small.group.num_groups == 4
    assert small.up.in_channels == small.up.weight.shape[0] == small.some.out_channels
    assert small.up.out_channels == small.up.weight.shape[1]
    assert small.head.in_features == small.head.weight.shape[1] == 64 * small.up.out_channels
    net.eval(), small.eval()
    other = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(small(other), net(other), atol=1e-5, rtol=1e-4)
    file = Session(tmp_path / "Grouped_compressed.onnx")
    theirs = next(iter(file.run({next(iter(file.inputs)): other.numpy()}).values()))
    np.testing.assert_allclose(theirs, small(other).detach(), atol=1e-5)
    small.train()
    small(other).sum().backward()


@pytest.mark.parametrize("forks", ["heads", "head_dims"])
def test_attention_loses_heads_or_sizes(forks: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Block()
    small = slim_of(net, torch.randn(2, 5, 16), tmp_path, forks=forks)
    assert (small.num_heads < 4) == (forks == "heads")
    assert (small.head_dim < 8) == (forks == "head_dims")
    assert small.q.out_features == small.num_heads * small.head_dim == small.out.in_features


@pytest.mark.parametrize("name", ["residual", "recurrent", "tied", "perceptron"])
def test_kinds_of_parameters(name: str, tmp_path: Path) -> None:
    net, x = CASES[name]
    before = {key: value.clone() for key, value in net.state_dict().items()}
    small = slim_of(net, x, tmp_path)
    if name == "tied":
        assert small.head.weight is small.embedding.weight
        assert small.embedding.embedding_dim == small.embedding.weight.shape[1] < 6
    if name == "recurrent":
        assert small.lstm.hidden_size == small.lstm.weight_hh_l0.shape[1]
    net.load_state_dict(before)


def test_constants_fold_into_the_bias(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = sigmoid()
    small = slim_of(net, torch.randn(2, 6), tmp_path)
    assert not torch.equal(small[2].bias, net[2].bias)
    state = slim_state_dict(net, tmp_path / "Sequential_full.onnx", tmp_path / "Sequential_compressed.onnx")
    assert state.keys() == net.state_dict().keys()
    assert all(torch.equal(value, small.state_dict()[name]) for name, value in state.items())


class Written(nn.Module):
    """Has sizes written in it."""

    def __init__(self, slices: bool) -> None:
        super().__init__()
        self.a, self.b, self.slices = nn.Linear(6, 16), nn.Linear(16, 3), slices

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        x = x * torch.linspace(1, 2, x.shape[1]) if self.slices else x.view(len(x), 16)
        return self.b(x)


@pytest.mark.parametrize(
    ("slices", "says"),
    [(False, r"at test_slim\.py:\d+, `x = .*view\(len\(x\), 16\)` \(.*invalid"), (True, "gives other outputs")],
)
def test_written_sizes_are_named_and_the_file_is_there(slices: bool, says: str, tmp_path: Path) -> None:
    oto = OTO(Written(slices), torch.randn(2, 6))
    with pytest.raises(UsageError, match=r"call compress\(\) first"):
        _ = oto.compressed
    oto.random_set_zero_groups()
    with pytest.warns(UserWarning, match=says):
        oto.compress(tmp_path)
    assert (tmp_path / "Written_compressed.onnx").exists()
    with pytest.raises(ExportError, match=says):
        _ = oto.compressed


def test_files_of_another_state_are_refused(tmp_path: Path) -> None:
    net, x = CASES["perceptron"]
    oto = OTO(net, x)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    oto.random_set_zero_groups()
    oto.compress(tmp_path)
    full, small = tmp_path / "Sequential_full.onnx", tmp_path / "Sequential_compressed.onnx"
    with pytest.raises(LinkError, match="was not made from"):
        slim_state_dict(net, full, full)
    net.load_state_dict(before)
    with pytest.raises(LinkError, match="export it again"):
        slim_state_dict(net, full, small)


class Several(nn.Module):
    """Positional, keyword and dictionary arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, image: Tensor, extra: dict[str, Tensor], *, scale: Tensor | None = None) -> dict[str, Tensor]:
        x = (self.a(image).relu().mean((2, 3)) + self.b(extra["features"])).relu()
        return {"scores": self.c(x * scale if scale is not None else x)}


def test_several_inputs_keywords_dicts_and_dynamic_axes(tmp_path: Path) -> None:
    net = Several()
    inputs = [torch.randn(2, 3, 8, 8), {"features": torch.randn(2, 4)}]
    small = slim_of(
        net, inputs, tmp_path, keywords={"scale": torch.rand(2, 1)}, dynamic_axes={"image": {2: "height", 3: "width"}}
    )
    assert small.a.out_channels == small.b.out_features == small.c.in_features
    file = Session(tmp_path / "Several_compressed.onnx")
    other = (torch.randn(3, 3, 11, 9), torch.randn(3, 4), torch.rand(3, 1))
    outputs = file.run({name: value.numpy() for name, value in zip(file.inputs, other, strict=True)})
    with torch.no_grad():
        expected = small(other[0], {"features": other[1]}, scale=other[2])["scores"]
    np.testing.assert_allclose(next(iter(outputs.values())), expected, atol=1e-5)
    with pytest.raises(UsageError, match="image, extra"):
        OTO(net, inputs, dynamic_axes={"picture": {2: "height"}})


def test_wrappers_are_taken_off() -> None:
    net, x = CASES["perceptron"]
    assert OTO(nn.DataParallel(net), x).model is net
    compiled = torch.compile(net, backend="eager")
    oto = OTO(compiled, x)
    assert oto.model is net
    assert set(oto.hesso(steps=300).param_groups[0]["params"]) == set(net.parameters())


def test_protection_pictures_and_counts(tmp_path: Path) -> None:
    net, x = CASES["perceptron"]
    before = {key: value.clone() for key, value in net.state_dict().items()}
    oto = OTO(net, x)
    assert oto.compute_macs() == 5 * (6 * 8 + 8 * 8 + 8 * 3)
    with pytest.raises(UsageError, match="matches no weight"):
        oto.mark_unprunable("none.*")
    oto.mark_unprunable(["0.*"])
    assert len(oto.partition) == 8
    oto.zero(np.arange(8) < 4)
    assert oto.zero_groups().tolist() == [True] * 4 + [False] * 4
    assert oto.compute_macs(compressed=True) == 5 * (6 * 8 + 8 * 4 + 4 * 3)
    assert oto.compute_num_params(compressed=True) < oto.compute_num_params()
    assert oto.visualize(tmp_path, form="dot").read_text().startswith(("digraph", "//"))
    oto.hspg(steps=300)
    with pytest.raises(UsageError, match="before making it"):
        oto.mark_unprunable("2.*")
    net.load_state_dict(before)
