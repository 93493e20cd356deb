"""Iterative pruning: sensitivity without a rebuild, budgets, rounds, and files that survive."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import searched
import torch
from searched import CASES, Attending, Residual, randomised
from torch import Tensor, nn

import zig
from zig.errors import ExportError, PlanError, UsageError
from zig.proof.session import Session
from zig.search import IterativePruner
from zig.search.iterative import Sensitivity
from zig.search.network import Masked
from zig.training.export import export

# networks this small have few widths: budgets are missed, and the same candidate is drawn again
pytestmark = pytest.mark.filterwarnings("ignore:.*(removed, not|candidates|subnets were scored)")


class KilledError(Exception):
    """Stands for a kill in the middle of a search."""


def closeness(x: Tensor, model: nn.Module) -> Any:
    """A metric whose best value is that of the whole network: minus the distance of outputs, plus 10."""
    with torch.no_grad():
        whole = model.eval()(x)

    def score(candidate: nn.Module) -> float:
        with torch.no_grad():
            return 10 - float((candidate.eval()(x) - whole).abs().mean())

    return score


def output(path: Path, x: Tensor) -> np.ndarray:
    session = Session(path)
    return next(iter(session.run({next(iter(session.inputs)): x.numpy()}).values()))


@pytest.fixture
def pruner(tmp_path: Path) -> IterativePruner:
    made = searched.made(IterativePruner, "residual", tmp_path)
    made.analyze(closeness(CASES["residual"][1], made.network.model), ratios=(0.25, 0.5, 0.75))
    return made


DEFAULT = ("residual", "attention", "2d grouped")
KINDS = [name if name in DEFAULT else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


@pytest.mark.parametrize("name", KINDS)
def test_masked_and_removed_agree_for_every_kind_of_layer(name: str, tmp_path: Path) -> None:
    """The masked model, the sparse copy, the slim module and onnxruntime give the same outputs."""
    pruner, x = searched.made(IterativePruner, name, tmp_path), CASES[name][1]
    model = pruner.network.model
    pruner.analyze(closeness(x, model), ratios=(0.5,))
    sparse = pruner.prune(0.4)
    assert pruner.choice is not None
    assert pruner.choice.reached > 0
    remove = pruner.plan().remove
    with torch.no_grad(), pruner.network.masked.subnet(remove) as masked:
        expected = masked(x).numpy()
    slim = pruner.prune(0.4, mode="slim").eval()
    pruner.compress(tmp_path / "out")
    file = output(tmp_path / "out" / f"{type(model).__name__}_compressed.onnx", x)
    with torch.no_grad():
        assert np.abs(model(x).numpy() - expected).max() > 1e-3
        for got in (sparse.eval()(x).numpy(), slim(x).numpy(), file):
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    assert sum(p.numel() for p in slim.parameters()) < sum(p.numel() for p in model.parameters())


def test_masking_restores_every_bit() -> None:
    for name in ("residual", "attention"):
        network, x = searched.made(IterativePruner, name, Path()).network, CASES[name][1]
        model = network.model
        before = {key: value.clone() for key, value in model.state_dict().items()}
        with network.masked.subnet(np.ones(len(network.partition), bool)) as masked:
            masked.train()
            masked(x)
        assert not model.training, name
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), name


def test_a_failing_evaluation_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    pruner = searched.made(IterativePruner, "residual", tmp_path)
    model = pruner.network.model
    before = copy.deepcopy(model.state_dict())
    calls = []

    def fails(candidate: nn.Module) -> float:
        calls.append(candidate)
        if len(calls) == 3:
            raise KilledError
        return 1.0

    with pytest.raises(KilledError):
        pruner.analyze(fails)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_model_is_never_rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pruner = searched.made(IterativePruner, "residual", tmp_path)
    model = pruner.network.model
    monkeypatch.setattr("zig.search.network.export", pytest.fail)
    monkeypatch.setattr("zig.training.oto.export", pytest.fail)
    monkeypatch.setattr(copy, "deepcopy", pytest.fail)
    seen = set()

    def score(candidate: nn.Module) -> float:
        seen.add(id(candidate))
        return 0.0

    pruner.analyze(score)
    assert seen == {id(model)}


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = searched.made(IterativePruner, "residual", tmp_path / "whole")
    metric = closeness(CASES["residual"][1], whole.network.model)
    expected = whole.analyze(metric)
    calls = []

    def counted(candidate: nn.Module) -> float:
        calls.append(1)
        if len(calls) == 7:
            raise KilledError
        return metric(candidate)

    broken = searched.made(IterativePruner, "residual", tmp_path / "broken")
    with pytest.raises(KilledError):
        broken.analyze(counted)
    again = searched.made(IterativePruner, "residual", tmp_path / "broken")
    found = again.analyze(counted)
    assert len(calls) == 7 + len(json.loads(whole.file("sensitivity").read_text())["scores"]) - 6
    np.testing.assert_array_equal(found.metrics, expected.metrics)
    assert again.file("sensitivity").read_text() == whole.file("sensitivity").read_text()
    assert (again.decide(0.5).remove == whole.decide(0.5).remove).all()
    again.analyze(pytest.fail)  # nothing is left to measure


def test_a_file_of_something_else_is_refused(tmp_path: Path, pruner: IterativePruner) -> None:
    other = IterativePruner(randomised(Residual(12)), torch.zeros(1, 1, 8, 8), folder=tmp_path)
    assert other.file("sensitivity") != pruner.file("sensitivity")
    with pytest.raises(UsageError, match="digest"):
        other.analyze(pytest.fail, path=pruner.file("sensitivity"))
    with pytest.raises(UsageError, match="its best is"):
        pruner.analyze(pytest.fail, best="min")
    with torch.no_grad():
        pruner.network.model.stem.weight.mul_(2)
    for ratios in ((0.25, 0.5, 0.75), (0.1,)):  # complete or not
        with pytest.raises(UsageError, match="its weights is"):
            pruner.analyze(pytest.fail, ratios=ratios)
    file = tmp_path / "other.json"
    file.write_text("[1]")
    with pytest.raises(UsageError, match="no file of a search"):
        pruner.analyze(pytest.fail, path=file)


def test_the_file_tells_people_what_was_measured(pruner: IterativePruner) -> None:
    content = json.loads(pruner.file("sensitivity").read_text())
    assert content["network"] == "Residual"
    curve = content["node_groups"][0]
    assert curve["ratios"] == [0, 0.25, 0.5, 0.75]
    assert len(curve["metrics"]) == len(curve["macs"]) == len(curve["params"]) == 4
    budget = zig.Budget(pruner.partition)
    assert (curve["params"][0], curve["macs"][0]) == (budget.parameters, budget.macs)
    assert curve["macs"] == sorted(curve["macs"], reverse=True)


@pytest.mark.parametrize("of", ["macs", "params"])
def test_budgets_are_met_and_told(pruner: IterativePruner, of: str) -> None:
    for ratio in (0.2, 0.4, 0.6, 0.8):
        remove = pruner.decide(ratio, of=of).remove
        assert pruner.choice is not None
        assert pruner.choice.met or f"not {ratio:.2%}" in pruner.choice.sentence
        parameters, macs = zig.Budget(pruner.partition).price(remove)
        left = {
            "macs": macs / zig.summary(pruner.partition)["macs"],
            "params": parameters / zig.Budget(pruner.partition).parameters,
        }
        assert pruner.choice.reached == pytest.approx(1 - left[of])


def test_what_does_least_damage_goes_first() -> None:
    """Two node groups, one of which does not matter: a small budget takes from that one alone."""
    model = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 2))
    pruner = IterativePruner(model, torch.zeros(1, 4))
    for best, metrics in (("max", [[0.5, 0.1], [1.0, 0.99]]), ("min", [[2.0, 4.0], [1.0, 1.01]])):
        pruner.sensitivity = Sensitivity(1.0, best, np.array([0.5, 0.9]), np.array(metrics))
        remove = pruner.decide(0.2).remove
        assert set(pruner.partition.node_group[remove]) == {1}, best


def test_gains_are_no_damage_and_curves_never_fall() -> None:
    found = Sensitivity(1.0, "max", np.array([0.3, 0.6, 0.9]), np.array([[1.1, 0.5, 0.8], [1.0, np.nan, 0.2]]))
    np.testing.assert_allclose(found.damage, [[0, 0.5, 0.5], [0, np.inf, np.inf]], atol=1e-4)


def test_a_threshold_in_place_of_a_ratio(pruner: IterativePruner) -> None:
    assert pruner.sensitivity is not None
    reached = []
    for threshold in (0.0, 0.005, 0.02, 10.0):
        pruner.prune(threshold=threshold)
        assert pruner.choice is not None
        reached.append(pruner.choice.reached)
    assert reached == sorted(reached)
    assert reached[0] < reached[-1]
    kept = np.bincount(pruner.partition.node_group[~pruner.plan().remove])
    assert all(0.1 <= k / g.size <= 0.3 for k, g in zip(kept, pruner.partition.node_groups, strict=True))


def test_a_plan_s_file_gives_the_plan_again(pruner: IterativePruner) -> None:
    remove = pruner.decide(0.5, round_to=2).remove
    assert pruner.choice is not None
    file = pruner.file("macs-0.5.plan")
    content = json.loads(file.read_text())
    assert content["reached"] == pruner.choice.reached
    assert all(entry["kept"] % 2 == 0 for entry in content["node_groups"])
    pruner.decide(0.2)
    assert (pruner.decide(spec=file).remove == remove).all()
    with pytest.raises(UsageError, match="another network"):
        pruner.decide(spec=content | {"digest": "0"})


def test_excludes_by_module_path_and_pattern(pruner: IterativePruner) -> None:
    model = pruner.network.model
    assert isinstance(model, Residual)
    plans = [
        pruner.decide(0.4, excludes=excludes).remove
        for excludes in ([model.stem], ["stem"], ["stem.*"], ["norm_b.weight"])
    ]
    assert all((plan == plans[0]).all() for plan in plans)
    slim = pruner.network.slim(plans[0])[0]
    assert slim.stem.out_channels == 8
    assert slim.a.out_channels < 16
    pruner.analyze(pytest.fail, ratios=(0.25, 0.5, 0.75), excludes=["stem"])
    assert (pruner.decide(0.4).remove == plans[0]).all()  # what was not measured is not pruned
    for excludes, match in ((["stam"], "'stam'"), ([nn.Linear(1, 1)], "Linear")):
        with pytest.raises(UsageError, match=match):
            pruner.decide(0.4, excludes=excludes)
    with pytest.raises(PlanError, match="nothing of Residual"):
        pruner.decide(0.4, excludes=[model])


def test_a_sparse_model_trains_and_stays_sparse(pruner: IterativePruner, tmp_path: Path) -> None:
    """Training leaves the zeros alone; its state, cut, is that of the slim module; a further round takes more."""
    first = pruner.prune(0.3)
    removed = pruner.plan().remove
    slim = pruner.prune(0.3, mode="slim")
    torch.manual_seed(0)
    images, labels = torch.randn(32, 1, 8, 8), torch.randint(0, 10, (32,))
    for model in (first, slim):
        optimizer = torch.optim.AdamW(model.train().parameters(), 1e-2, weight_decay=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    state = first.slim_state_dict()
    for name, value in slim.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5, msg=name)
    report = pruner.compress(tmp_path / "out", first)
    assert report.removed == removed.sum()
    pruner.network.model.load_state_dict(first.state_dict())
    again = pruner.decide(0.5).remove
    assert again[removed].all()
    assert again.sum() > removed.sum()


def test_an_onnx_file_of_any_framework(tmp_path: Path) -> None:
    model, x = copy.deepcopy(CASES["residual"])
    path = tmp_path / "net.onnx"
    export(model, x, path)
    pruner = IterativePruner(path, folder=tmp_path / "search")
    whole = output(path, x)
    found = pruner.analyze(lambda file: float(np.abs(output(file, x) - whole).mean()), best="min", ratios=(0.5,))
    assert found.baseline == 0
    assert (found.metrics > 0).all()
    plan = pruner.decide(0.4)
    report = pruner.compress(tmp_path / "small.onnx")
    assert report.comparison is not None
    assert report.comparison.max_abs < 1e-5
    assert report.removed == plan.remove.sum()
    with pytest.raises(UsageError, match="is a file"):
        pruner.prune(0.4)
    assert pruner.decide(0.4, excludes=["stem.*"]).remove.any()
    with pytest.raises(UsageError, match="names no prunable weight"):
        pruner.decide(0.4, excludes=["stam.*"])


@pytest.mark.slow
def test_attention_that_torch_has_fused_comes_sparse_and_as_a_file(tmp_path: Path) -> None:
    """torch's own attention module knows one width for all: it can't be slim."""
    model = randomised(Attending(nn.MultiheadAttention(16, 4, batch_first=True)))
    x = torch.randint(0, 20, (2, 5))
    pruner = IterativePruner(model, x, folder=tmp_path)
    pruner.analyze(closeness(x, model), ratios=(0.5,))
    sparse = pruner.prune(0.4).eval()
    with pytest.warns(UserWarning, match="Attending can't run with the cut sizes"):
        report = pruner.compress(tmp_path / "out", sparse)
    assert report.comparison is not None
    assert report.comparison.max_abs < 1e-5
    with torch.no_grad():
        np.testing.assert_allclose(output(tmp_path / "out" / "Attending_compressed.onnx", x), sparse(x), atol=1e-5)
    with pytest.raises(ExportError, match=r"searched.py:\d+.*mode='sparse', and compress\(\)"):
        pruner.prune(0.4, mode="slim")


def test_wrong_use_is_met_with_a_sentence(pruner: IterativePruner, tmp_path: Path) -> None:
    model = CASES["residual"][0]
    fresh = searched.made(IterativePruner, "residual", tmp_path / "fresh")
    for wrong, match in (
        (lambda: IterativePruner(model), "needs inputs"),
        (lambda: fresh.prune(0.5), "call analyze"),
        (fresh.plan, "call prune"),
        (lambda: fresh.analyze(pytest.fail, best="most"), "'max' or 'min'"),
        (pruner.prune, "one of"),
        (lambda: pruner.prune(0.5, threshold=0.1), "one of"),
        (lambda: pruner.prune(0.5, mode="dense"), "'sparse' or 'slim'"),
    ):
        with pytest.raises(UsageError, match=match):
            wrong()
    for wrong, match in (
        (lambda: pruner.prune(1.5), "between 0 and 1"),
        (lambda: pruner.prune(0.5, of="latency"), "latency"),
        (lambda: fresh.analyze(pytest.fail, ratios=(0.0,)), "ratios"),
    ):
        with pytest.raises(PlanError, match=match):
            wrong()


@pytest.mark.slow
def test_several_processes_measure_the_same(tmp_path: Path) -> None:
    model, x = copy.deepcopy(CASES["perceptron"])
    pruner = IterativePruner(model, x, folder=tmp_path / "two")
    found = pruner.analyze(mean_output, (x,), ratios=(0.5,), jobs=2)
    alone = IterativePruner(model, x, folder=tmp_path / "one").analyze(mean_output, (x,), ratios=(0.5,))
    np.testing.assert_array_equal(found.metrics, alone.metrics)


def mean_output(model: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float(model(x).mean())


def test_masks_know_nothing_but_names(tmp_path: Path) -> None:
    """What goes to another process is the model and arrays alone."""
    masked = searched.made(IterativePruner, "residual", tmp_path).network.masked
    assert isinstance(masked, Masked)
    assert set(vars(masked)) == {"model", "rows", "_parts"}
