"""Latency as a budget: tables of layers at any widths, and what they say of a plan."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import searched
import torch
from searched import CASES, Residual, randomised

import zig
from zig.errors import UsageError
from zig.latency import Latency, Table, layers_of, uniform
from zig.proof.session import Session
from zig.search import Evolution, IterativePruner, OFAPruner, OneStepPruner
from zig.training.export import export

# networks this small have few widths: budgets are missed, and the same candidate is drawn again
pytestmark = pytest.mark.filterwarnings("ignore:.*(removed, not|candidates|subnets were scored)")


def test_times_between_points_are_linear() -> None:
    table = Table(((2, 4), (1, 3, 5)), np.array([[1.0, 2.0, 4.0], [3.0, 4.0, 6.0]]))
    assert table([2, 1]) == 1
    assert table([4, 5]) == 6
    assert table([3, 2]) == pytest.approx(2.5)
    assert table([3, 4]) == pytest.approx(4.0)
    assert table([1, 1]) == 1
    assert Table((), np.array(0.5))([]) == 0.5
    assert Table(((3,),), np.array([0.5]))([3]) == 0.5


@pytest.mark.parametrize(
    "name", ["attention", "2d grouped", *(pytest.param(n, marks=pytest.mark.slow) for n in ("residual", "3d"))]
)
def test_every_layer_runs_alone_at_every_width(name: str) -> None:
    model, x = CASES[name]
    partition = zig.analyze(export(model, x))
    layers = layers_of(partition)
    assert layers
    assert all(layer.call.outputs[0] is not None for layer in layers)
    for layer in layers:
        for widths in ([min(g) for g in layer.grid], [max(g) for g in layer.grid]):
            made = layer.model(widths)
            weights = {t.name: list(t.dims) for t in made.graph.initializer}
            session = Session(made)
            feeds = {n: np.ones(i.shape, np.float32) for n, i in session.inputs.items()}
            assert all(np.isfinite(value).all() for value in session.run(feeds).values())
            if widths == [max(g) for g in layer.grid]:
                assert all(list(partition.graph.initializers[n].dims) == dims for n, dims in weights.items())


def test_layers_that_are_alike_share_a_table() -> None:
    partition = zig.analyze(export(*CASES["chain"]))
    keys = [layer.key(None) for layer in layers_of(partition)]
    assert len(keys) == len(set(keys)) == 6
    twins = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))  # fmt: skip
    layers = layers_of(zig.analyze(export(twins, torch.zeros(1, 8))))
    keys = [layer.key(None) for layer in layers]
    assert keys[1] == keys[2]
    assert len(set(keys)) == 3


@pytest.fixture(scope="module")
def measured() -> Latency:
    return Latency.measure(zig.analyze(export(*CASES["chain"])), runs=2)


def test_a_time_is_the_sum_of_the_layers_and_falls_with_their_widths(measured: Latency) -> None:
    groups = len(measured.partition)
    times = []
    for share in (1.0, 0.75, 0.5, 0.25):
        remove = uniform(measured.partition, share)
        assert 0 <= remove.mean() <= 1 - share + 0.1
        times.append(measured(remove))
    assert times == sorted(times, reverse=True)
    assert times[0] >= 0
    plain = Latency(measured.partition, measured.tables)
    layers = [plain.tables[layer.key(None)] for layer in plain.layers]
    whole = sum(t([max(g) for g in t.widths]) for t in layers)
    assert plain(np.zeros(groups, bool)) == pytest.approx(whole)
    assert measured.timed(uniform(measured.partition, 0.5), runs=1) > 0


def test_tables_pass_through_json(measured: Latency) -> None:
    again = Latency.from_dict(measured.partition, json.loads(json.dumps(measured.to_dict())))
    remove = uniform(measured.partition, 0.4)
    assert again(remove) == measured(remove)
    assert again.provider == "cpu"


def test_times_in_a_file_are_taken_where_they_are_of_this_network(network: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(network, tmp_path / "net.onnx")
    pruner = IterativePruner(tmp_path / "net.onnx", folder=tmp_path)
    seen: list[int] = []

    def measured_anew() -> bool:
        seen.clear()
        pruner.measure_latency(runs=1, progress=lambda done, of: seen.append(done))
        return bool(seen)

    assert measured_anew()
    content = json.loads(pruner.file("cpu.latency").read_text())
    changes: list[tuple[dict[str, Any], bool]] = [
        (content, False),
        ({name: value for name, value in content.items() if name != "inputs"}, False),  # as an older zig wrote it
        (content | {"inputs": [[1, 2, 3, 4]]}, True),
        (content | {"tables": dict([*content["tables"].items()][1:])}, True),
        (content | {"tables": {}}, True),
    ]
    for changed, anew in changes:
        pruner.file("cpu.latency").write_text(json.dumps(changed))
        assert measured_anew() is anew
        assert pruner.latency is not None
        assert pruner.latency(np.zeros(len(pruner.partition), bool)) >= 0


def test_latency_is_a_budget_of_all_three_methods(tmp_path: Path) -> None:
    x = CASES["chain"][1]
    tables: Latency | None = None
    for kind in (IterativePruner, OneStepPruner, OFAPruner):
        pruner = searched.made(kind, "chain", tmp_path)
        seen: list[int] = []
        found = pruner.measure_latency(runs=2, progress=lambda done, of, seen=seen: seen.append(done))
        if tables is None:
            assert seen == list(range(1, len(found.tables) + 1))
            tables = found
            # Times that are linear in the widths, so that no noise decides about this test.
            found.scale, found.constant = 1.0, 0.01
            for key, table in found.tables.items():
                grids = np.meshgrid(*table.widths, indexing="ij")
                found.tables[key] = Table(table.widths, np.prod([g / g.max() for g in grids], axis=0))
            content = {"zig": "latency", **found.to_dict()}
            pruner.file("cpu.latency").write_text(json.dumps(content))
            pruner.measure_latency()
        assert not seen or kind is IterativePruner  # the others read the file
        if isinstance(pruner, IterativePruner):
            pruner.analyze(lambda m: float(m.eval()(x).detach().sum()), ratios=(0.5,))
            pruner.decide(0.4, of="latency")
        elif isinstance(pruner, OneStepPruner):
            pruner.search(
                None, lambda m: float(m.eval()(x).detach().sum()), num_subnets=3, removal_ratio=0.4, of="latency"
            )
            pruner.decide()
        else:
            supernet = pruner.ofa_model((0.25, 0.5, 0.75, 1), auto_excludes=False)
            whole = supernet.space.whole["latency"]
            subnets = pruner.run_evolutionary_search(
                None, lambda m: float(m.eval()(x).detach().sum()), min_macs=0.55 * whole, max_macs=0.65 * whole, step=whole / 10,
                of="latency", evolution=Evolution(population=4, generations=1, mutations=2, crossovers=1),
            )  # fmt: skip
            best = next(iter(subnets.values()))
            assert 0.55 * whole <= best.costs["latency"] <= 0.65 * whole
            pruner.get_static_subnet(best.values)
        assert pruner.latency is not None
        predicted, real = pruner.predicted_and_measured(runs=1)
        assert real > 0
        if not isinstance(pruner, OFAPruner):
            assert pruner.choice is not None
            assert pruner.choice.of == "latency"
            assert pruner.choice.reached == pytest.approx(0.4, abs=0.03)
            assert predicted == pruner.latency(pruner.plan().remove)


def test_smaller_kernels_have_tables_of_their_own(tmp_path: Path) -> None:
    pruner = OFAPruner(randomised(Residual(8, 5)), torch.zeros(1, 1, 8, 8), folder=tmp_path)
    fewer = pruner.measure_latency(runs=1)
    supernet = pruner.ofa_model(auto_excludes=False)
    found = pruner.measure_latency(runs=1)  # anew: the file knows no smaller kernels
    assert set(fewer.tables) < set(found.tables)
    names = [dial.name for dial in supernet.space.dials if dial.family < 0]
    assert len(names) == 2
    nothing = np.zeros(len(pruner.partition), bool)
    assert found(nothing, {names[0]: 3}) >= 0
    layer = next(layer for layer in found.layers if layer.weight == names[0])
    assert list(layer.model([max(g) for g in layer.grid], 3).graph.initializer[0].dims)[2:] == [3, 3]
    with pytest.raises(UsageError, match="kernel of 1"):
        found(nothing, {names[0]: 1})
    assert supernet.space.cost(supernet.space.counts - 1, "latency") >= 0


def test_nothing_is_guessed_without_tables(tmp_path: Path) -> None:
    pruner = searched.made(IterativePruner, "chain", tmp_path)
    with pytest.raises(UsageError, match="call measure_latency"):
        pruner.predicted_and_measured()
    with pytest.raises(UsageError, match="provider"):
        pruner.measure_latency("coffee")
