"""Each initializer is traced to its parameter, or the error names what was folded."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import zoo
from networks import CASES, Attention, Residual
from onnx import numpy_helper
from torch import nn

import zig
from zig.errors import LinkError
from zig.groups.partition import Row
from zig.training.export import export
from zig.training.groups import GroupTable
from zig.training.link import Links, link


def exported(net: nn.Module, x: torch.Tensor, path: Path, **options: Any) -> Path:
    """A file as users have it: by torch's TorchScript exporter with its defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net.eval(), (x,), path, dynamo=False, **options)
    return path


def how(links: Links) -> dict[str, set[str]]:
    return {tensor: {x.how for x in found} for tensor, found in links.links.items()}


def shake(net: nn.Module) -> nn.Module:
    """The module with values that no two parameters share."""
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) / 4)
    return net


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("name", CASES)
def test_our_own_export_links_every_parameter_by_name(name: str, exporter: str) -> None:
    net, x = CASES[name]
    links = link(export(net, x, exporter=exporter), net)
    assert links.unreached == ()
    assert set().union(*how(links).values()) == {"same"}
    linked = {x.parameter for found in links.links.values() for x in found}
    assert linked >= {parameter for parameter, _ in net.named_parameters()}


def test_a_parameter_that_the_model_does_not_use_is_no_error() -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    net.register_parameter("spare", nn.Parameter(torch.randn(5)))
    assert link(export(net, torch.randn(1, 3)), net).unreached == ("spare",)


def test_tied_parameters_are_one() -> None:
    net, x = CASES["tied"]
    links = link(export(net, x), net)
    assert links.aliases["embedding.weight"] == ("head.weight",)
    assert {"embedding.weight"} == {x.parameter for n, found in links.links.items() for x in found if "." in n} - {
        "middle.weight",
        "middle.bias",
    }


def test_a_model_that_has_changed_since_is_an_error() -> None:
    net, x = Residual(), torch.randn(1, 3, 8, 8)
    model = export(net, x)
    with torch.no_grad():
        net.a.weight.mul_(2)
    with pytest.raises(LinkError, match=r"'a.weight' no longer equal.*export it again"):
        link(model, net)


def test_transposed_by_value(tmp_path: Path) -> None:
    net, x = CASES["perceptron"]
    found = how(link(exported(net, x, tmp_path / "net.onnx"), net))
    assert sorted(next(iter(v)) for v in found.values()) == ["same", "same", "transposed", "transposed", "transposed"]


def test_reshaped_by_value(tmp_path: Path) -> None:
    net = shake(nn.Sequential(nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.PReLU(6)))
    links = link(exported(net, torch.randn(1, 3, 8, 8), tmp_path / "net.onnx"), net)
    assert {next(iter(v)) for v in how(links).values()} == {"same", "reshaped"}
    assert {x.parameter for found in links.links.values() for x in found} >= {"1.weight", "1.bias", "2.weight"}


def test_rows_of_an_lstm(tmp_path: Path) -> None:
    net, x = CASES["recurrent"]
    links = link(exported(net, x, tmp_path / "net.onnx"), net)
    state = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    graph = zig.load(tmp_path / "net.onnx")
    rows = [x for found in links.links.values() for x in found if x.how == "rows"]
    assert {x.parameter for x in rows} == {name for name in state if name.startswith("lstm")}
    for x in rows:
        parameter = state[x.parameter].reshape(len(state[x.parameter]), -1)
        here = graph.array(x.tensor).reshape(-1, parameter.shape[1])
        np.testing.assert_array_equal(here[x.at], parameter[x.rows])


def test_equal_values_are_told_apart_by_the_module(tmp_path: Path) -> None:
    """Zero biases of two layers, each beside its own weight."""
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    for layer in net:
        nn.init.zeros_(layer.bias)
    model = onnx.load(exported(net, torch.randn(1, 3, 4, 4), tmp_path / "net.onnx", do_constant_folding=False))
    first = model.graph.initializer[0]
    assert len(model.graph.initializer) == 3  # the exporter has merged the biases; undo that, under names of our own
    for node, name in zip([n for n in model.graph.node if n.op_type == "Conv"], ("x", "y"), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), name))
        node.input[2] = name
    assert first.name == "0.weight"
    links = link(model, net)
    assert links.links["x"][0].parameter == "0.bias"
    assert links.links["y"][0].parameter == "1.bias"


def test_batch_norms_at_their_start_are_told_apart_by_the_scope(tmp_path: Path) -> None:
    """Ones, zeros, zeros, ones in every norm, and no weight beside them: only the node's name tells."""
    net = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3), nn.ReLU())
    model = onnx.load(exported(net, torch.randn(1, 3, 4, 4), tmp_path / "net.onnx", do_constant_folding=False))
    values = [np.ones(3), np.zeros(3), np.zeros(3), np.ones(3)]
    del model.graph.initializer[:]
    for i, node in enumerate(n for n in model.graph.node if n.op_type == "BatchNormalization"):
        for j, value in enumerate(values):
            node.input[j + 1] = f"t{i}{j}"
            model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), f"t{i}{j}"))
    for node in [node for node in model.graph.node if node.op_type == "Identity"]:  # of what is gone
        model.graph.node.remove(node)
    links = link(model, net)
    for i, module in enumerate(("0", "2")):
        for j, name in enumerate(("weight", "bias", "running_mean", "running_var")):
            assert links.links[f"t{i}{j}"][0].parameter == f"{module}.{name}"


def test_a_fused_batch_norm_is_an_error_that_names_the_tensors(tmp_path: Path) -> None:
    net = shake(Residual())
    with pytest.raises(LinkError, match=r"'onnx::Conv_\d+'.*'a.weight'.*export with zig.training.export"):
        link(exported(net, torch.randn(1, 3, 8, 8), tmp_path / "net.onnx"), net)


def test_merged_parameters_are_an_error(tmp_path: Path) -> None:
    net = Residual()
    path = exported(net, torch.randn(1, 3, 8, 8), tmp_path / "net.onnx", do_constant_folding=False)
    assert link(path, net).links["bn2.weight"][0].parameter == "bn2.weight"  # an Identity tells them apart
    model = onnx.load(path)
    merged = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Identity"}
    for node in model.graph.node:
        node.input[:] = [merged.get(name, name) for name in node.input]
    for node in [node for node in model.graph.node if node.op_type == "Identity"]:
        model.graph.node.remove(node)
    with pytest.raises(LinkError, match=r"'bn2.weight'.*merged"):
        link(model, net)


def test_resnet18_of_torchvision(torchvision_models: Any) -> None:
    net = torchvision_models.resnet18()
    links = link(export(net, torch.randn(1, 3, 64, 64)), net)
    assert len(links.links) == 102  # 62 parameters and 40 statistics
    assert links.unreached == ()


@pytest.fixture
def torchvision_models() -> Any:
    try:
        return zoo.torchvision_models()
    except zoo.UnavailableError as error:
        return pytest.skip(str(error))


# --- what a partition says about parameters ------------------------------------------------------------------------


def as_initializers(net: nn.Module, x: torch.Tensor) -> tuple[zig.Partition, Links]:
    partition = zig.analyze(export(net, x))
    return partition, link(partition.graph, net)


def test_rows_of_a_lossless_export_are_those_of_the_partition() -> None:
    net, x = CASES["residual"]
    partition, links = as_initializers(net, x)
    found = {(row.parameter, row.axis): row for row in links.rows(partition)}
    for row in partition.rows:
        if row.tensor in links.links:
            np.testing.assert_array_equal(found[row.tensor, row.axis].groups, row.groups)
            np.testing.assert_array_equal(found[row.tensor, row.axis].member, row.member)


def test_rows_agree_between_an_export_of_ours_and_a_foreign_one(tmp_path: Path) -> None:
    """The same groups of parameter slices, whatever the exporter has transposed or reordered."""
    for name in ("perceptron", "recurrent"):
        net, x = CASES[name]
        ours = as_initializers(net, x)
        partition = zig.analyze(exported(net, x, tmp_path / f"{name}.onnx"))
        theirs = partition, link(partition.graph, net)
        assert slices(*ours) == slices(*theirs)


def slices(partition: zig.Partition, links: Links) -> set[frozenset[tuple[str, int, int]]]:
    """The member slices of each group."""
    groups: list[set[tuple[str, int, int]]] = [set() for _ in range(len(partition))]
    for row in links.rows(partition):
        for i in np.flatnonzero(row.member & (row.groups >= 0)):
            groups[row.groups[i]].add((row.parameter, row.axis, int(i)))
    return {frozenset(group) for group in groups}


def test_single_elements_of_a_parameter_are_no_rows(tmp_path: Path) -> None:
    net = shake(nn.Sequential(nn.Conv2d(2, 6, 3), nn.GroupNorm(2, 6)))
    links = link(exported(net, torch.randn(1, 2, 8, 8), tmp_path / "net.onnx"), net)
    tensor = next(t for t, found in links.links.items() if found[0].how == "reshaped")

    class Odd:
        graph = zig.load(tmp_path / "net.onnx")
        rows = (Row(tensor, 0, np.arange(6), np.ones(6, bool)),)

    (row,) = links.rows(Odd())  # type: ignore[arg-type]
    assert (row.axis, row.groups.tolist()) == (0, list(range(6)))


def test_frozen_members_are_never_pruned() -> None:
    net, x = Attention(), torch.randn(1, 5, 16)
    net.up.bias.requires_grad_(False)
    partition, links = as_initializers(net, x)
    table = GroupTable.of(partition, links, net)
    (widths,) = [g.groups for g in partition.node_groups if g.size == 24]
    assert not table.prunable[widths].any()
    assert not any(row.parameter is net.up.bias for row in table.rows)
