"""The examples of Vitis Optimizer's README, with their typing errors mended and the import changed."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from searched import Residual, chain
from torch import Tensor, nn

from zig.compat.devices import chosen
from zig.compat.vitis import (
    IterativePruningRunner,
    OFAPruner,
    OneStepPruningRunner,
    get_pruning_runner,
)
from zig.errors import PlanError, UsageError

# networks this small have few widths: budgets are missed, and the same subnet is drawn again
pytestmark = pytest.mark.filterwarnings("ignore:.*(removed, not|candidates|subnets were scored)")
INPUTS = torch.randn([1, 1, 8, 8], dtype=torch.float32)


class AverageMeter:
    def __init__(self) -> None:
        self.sum, self.count = 0.0, 0

    def update(self, value: float, n: int) -> None:
        self.sum, self.count = self.sum + value * n, self.count + n

    @property
    def avg(self) -> float:
        return self.sum / self.count


def loader(count: int = 3) -> list[Any]:
    random = torch.Generator().manual_seed(0)
    return [(torch.randn(16, 1, 8, 8, generator=random), torch.arange(16) % 10) for _ in range(count)]


def eval_fn(model: nn.Module, dataloader: Any) -> float:
    top1 = AverageMeter()
    model.eval()
    with torch.no_grad():
        for images, targets in dataloader:
            outputs = model(images)
            acc1 = 100 * (outputs.argmax(1) == targets).float().mean()
            top1.update(acc1.item(), images.size(0))
    return top1.avg


def calibration_fn(model: nn.Module, dataloader: Any, number_forward: int = 100) -> None:
    model.train()
    with torch.no_grad():
        for index, (images, _) in enumerate(dataloader):
            model(images)
            if index > number_forward:
                break


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    return tmp_path


@pytest.mark.slow
def test_iterative_pruning(folder: Path) -> None:
    model = Residual()
    runner = IterativePruningRunner(model, INPUTS)
    val_loader = loader()
    runner.ana(eval_fn, args=(val_loader,))
    assert (folder / ".vai" / "Residual.sens").exists()
    model = runner.prune(removal_ratio=0.2)

    optimizer = torch.optim.Adam(model.parameters(), 1e-3, weight_decay=5e-4)
    for images, targets in loader():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), targets).backward()
        optimizer.step()
    torch.save(model.state_dict(), "model_pruned.pth")
    torch.save(model.slim_state_dict(), "model_slim.pth")
    slim = runner.prune(removal_ratio=0.2, mode="slim", pruning_info_path="info.json")
    slim.load_state_dict(torch.load("model_slim.pth"))
    torch.testing.assert_close(slim.eval()(INPUTS), model.eval()(INPUTS), rtol=1e-4, atol=1e-5)
    assert all(entry["kept"] % 2 == 0 for entry in json.loads(Path("info.json").read_text()).values())

    retrained = Residual()  # a further round on the same analysis
    retrained.load_state_dict(torch.load("model_pruned.pth"))
    again = IterativePruningRunner(retrained, INPUTS)
    again.ana(pytest.fail)
    smaller = again.prune(removal_ratio=0.4, mode="slim")
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in slim.parameters())


def test_one_step_pruning(folder: Path) -> None:
    model = chain()
    runner = OneStepPruningRunner(model, INPUTS)
    val_loader = loader()
    with pytest.warns(UserWarning, match="gpus has no effect") if not torch.cuda.is_available() else nullcontext():
        runner.search(
            gpus=["0"],
            calibration_fn=calibration_fn, calib_args=(val_loader,),
            eval_fn=eval_fn, eval_args=(val_loader,),
            num_subnet=4, removal_ratio=0.7)  # fmt: skip
    assert (folder / ".vai" / "Sequential_ratio_0.7.search").exists()
    pruned = runner.prune(removal_ratio=0.7)
    assert sum(p.numel() for p in pruned.parameters()) < 0.5 * sum(p.numel() for p in model.parameters())
    assert pruned(INPUTS).shape == (1, 10)
    with pytest.raises(UsageError, match=r"no \.vai.Sequential_ratio_0\.5\.search yet; call search"):
        runner.prune(removal_ratio=0.5)
    with pytest.raises(UsageError, match="channel_divisible"):
        runner.prune(channel_divisible=4)


@pytest.mark.slow
def test_once_for_all() -> None:
    model = chain()
    ofa_pruner = OFAPruner(model, INPUTS)
    ofa_model = ofa_pruner.ofa_model([0.5, 0.75, 1], excludes=None, auto_add_excludes=True, channel_divisble=4, save_search_space=True)  # fmt: skip
    assert json.loads(Path("searchspace.config").read_text())[0]["options"] == [16, 12, 8]
    train_loader = loader()
    optimizer = torch.optim.SGD(ofa_model.parameters(), 0.01)
    teacher_model = chain()
    for images, target in train_loader:
        optimizer.zero_grad()
        teacher_model.train()
        with torch.no_grad():
            soft_logits = teacher_model(images).detach()
        for arch_id in range(4):
            if arch_id == 0:
                net, _ = ofa_pruner.sample_subnet(ofa_model, "max")
            elif arch_id == 1:
                net, _ = ofa_pruner.sample_subnet(ofa_model, "min")
            else:
                net, _ = ofa_pruner.sample_subnet(ofa_model, "random")
            output = net(images)
            loss = nn.functional.mse_loss(output, soft_logits) + nn.functional.cross_entropy(output, target)
            loss.backward()
        torch.nn.utils.clip_grad_value_(ofa_model.parameters(), 1.0)
        optimizer.step()

    whole = ofa_model.space.whole["macs"] / 1e6
    pareto_global = ofa_pruner.run_evolutionary_search(ofa_model, calibration_fn,
        (train_loader,), eval_fn, (train_loader,), "acc1", "max", min_flops=0.5 * whole, max_flops=0.9 * whole,
        flops_step=0.2 * whole, parent_popu_size=4, iteration=1, mutate_size=2, crossover_size=1)  # fmt: skip
    ofa_pruner.save_subnet_config(pareto_global, "pareto_global.txt")
    pareto_global = ofa_pruner.load_subnet_config("pareto_global.txt")
    entry = next(iter(pareto_global.values()))
    assert set(entry) == {"net_id", "mode", "acc1", "flops", "macs", "params", "subnet_setting", "supernet"}
    assert entry["flops"] == entry["macs"]
    static_subnet, config, macs, params = ofa_pruner.get_static_subnet(ofa_model, entry["subnet_setting"])
    assert macs == pytest.approx(entry["macs"])
    assert (
        sum(p.numel() for p in static_subnet.parameters()) <= params * 1e6 < sum(p.numel() for p in model.parameters())
    )
    assert len(ofa_pruner.sample_random_subnet()[1]) == len(entry["subnet_setting"])
    assert {layer["type"] for layer in config} >= {"Conv2d", "BatchNorm2d", "Linear"}
    assert 0.5 * whole <= macs <= 0.9 * whole
    with pytest.raises(UsageError, match="not the last one"):
        ofa_pruner.get_static_subnet(chain())
    with pytest.raises(UsageError, match="can't be read"):
        ofa_pruner.load_subnet_config("nowhere.txt")
    for bounds, match in (
        ({"min_flops": 1}, "needs max_flops"), ({"min_flops": 1, "min_macs": 1, "max_flops": 2}, "needs min_flops"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=match):
            ofa_pruner.run_evolutionary_search(ofa_model, None, (), eval_fn, (), "acc1", "max", **bounds)
    with pytest.raises(UsageError, match="min_or_max_metric must be"):
        ofa_pruner.run_evolutionary_search(ofa_model, None, (), eval_fn, (), "acc1", "most", 1, 2)
    ofa_pruner.ofa_model([0.25, 1], auto_add_excludes=False)
    with pytest.raises(UsageError, match="of another supernet"):
        ofa_pruner.load_subnet_config("pareto_global.txt")
    ofa_pruner.reset_bn_running_stats_for_calibration(ofa_model)
    assert all(part.momentum is None for part in ofa_model.modules() if isinstance(part, nn.BatchNorm2d))


def test_runners_by_name() -> None:
    runner, other = (get_pruning_runner(nn.Linear(4, 4), torch.zeros(1, 4), kind) for kind in ("iterative", "one_step"))
    assert isinstance(runner, IterativePruningRunner)
    assert isinstance(other, OneStepPruningRunner)
    with pytest.raises(UsageError, match="'iterative' or 'one_step'"):
        get_pruning_runner(Residual(), INPUTS, "two_step")
    with pytest.raises(UsageError, match="grouped convolutions"):
        runner.ana(eval_fn, with_group_conv=False)
    with pytest.raises(UsageError, match="eval_fn"):
        other.search()


class Small(nn.Sequential):
    """A perceptron of two node groups."""

    def __init__(self, inputs: int = 6) -> None:
        super().__init__(nn.Linear(inputs, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))


X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))


def near(model: nn.Module, x: Tensor = X) -> float:
    with torch.no_grad():
        return float(model.eval()(x).square().mean())


def widths(model: nn.Module) -> list[int]:
    return [part.out_features for part in model.modules() if isinstance(part, nn.Linear)]


@contextmanager
def counted(times: int | None = None) -> Iterator[Any]:
    """A score that counts how often it was asked for."""
    calls: list[int] = []

    def score(model: nn.Module) -> float:
        calls.append(1)
        return near(model, X[:, : model[0].in_features])

    yield score
    assert len(calls) == times if times is not None else calls


def test_a_later_process_prunes_by_the_analysis_of_an_earlier_one(folder: Path) -> None:
    model = Small()
    runner = IterativePruningRunner(copy.deepcopy(model), X)
    with pytest.raises(UsageError, match=r"no \.vai.Small\.sens yet; call ana first"):
        runner.prune(removal_ratio=0.4)
    with counted(10) as score:
        runner.ana(score, metric="min", excludes=["0"])
    assert widths(runner.prune(removal_ratio=0.2, mode="slim"))[0] == 12
    later = IterativePruningRunner(copy.deepcopy(model), X)
    assert widths(later.prune(removal_ratio=0.2, mode="slim")) == widths(runner.prune(removal_ratio=0.2, mode="slim"))
    with counted(9) as score:  # what was excluded before, and nothing else
        later.ana(score, metric="min")
    assert widths(IterativePruningRunner(model, X).prune(removal_ratio=0.6, mode="slim"))[0] < 12


def test_an_analysis_of_other_weights_sizes_or_metric_is_not_used(folder: Path) -> None:
    one, other = Small(), Small()
    file = folder / ".vai" / "Small.sens"
    IterativePruningRunner(one, X).ana(near)
    first = file.read_text()
    runner = IterativePruningRunner(other, X)
    with pytest.raises(UsageError, match=r"Small\.sens is of other weights; call ana"):
        runner.prune(removal_ratio=0.4)
    assert file.read_text() == first
    with pytest.warns(UserWarning, match="is of other weights; it is .*measured anew"), counted() as score:
        runner.ana(score)
    with pytest.warns(UserWarning, match="made with another metric; .*anew"), counted() as score:
        runner.ana(score, metric="min")
    wider = IterativePruningRunner(Small(4), X[:, :4])
    with pytest.raises(UsageError, match="is of another model; call ana"):
        wider.prune(removal_ratio=0.4)
    file.write_text("{")
    with pytest.warns(UserWarning, match="it can't be read as scores"), counted() as score:
        wider.ana(score)
    IterativePruningRunner(one, X).prune(removal_ratio=0.4)  # its own file lies beside
    assert file.read_text() != first  # which notes the plan now
    assert json.loads(file.read_text())["scores"] == json.loads(first)["scores"]


def test_an_analysis_of_another_input_size_is_not_used() -> None:
    model = chain()
    IterativePruningRunner(model, INPUTS).ana(eval_fn, args=(loader(1),), excludes=["3", "6", "9", "12"])
    larger = IterativePruningRunner(model, torch.randn(1, 1, 12, 12))
    with pytest.raises(UsageError, match="is of other input sizes"):
        larger.prune(removal_ratio=0.1)


def test_what_was_pruned_and_retrained_shares_the_analysis() -> None:
    model = Small()
    runner = IterativePruningRunner(model, X)
    runner.ana(near)
    sparse = runner.prune(removal_ratio=0.3)
    optimizer = torch.optim.AdamW(sparse.parameters(), 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        sparse(X).square().mean().backward()
        optimizer.step()
    retrained = Small()
    retrained.load_state_dict(sparse.state_dict())
    later = IterativePruningRunner(retrained, X)
    later.ana(pytest.fail)
    assert sum(widths(later.prune(removal_ratio=0.6, mode="slim"))) < sum(
        widths(runner.prune(removal_ratio=0.3, mode="slim"))
    )
    again = IterativePruningRunner(retrained, X)
    again.prune(removal_ratio=0.6)  # without ana
    dense = copy.deepcopy(retrained)
    nn.init.normal_(dense[0].weight)
    with pytest.raises(UsageError, match="other weights"):
        IterativePruningRunner(dense, X).prune(removal_ratio=0.6)


def test_a_later_process_prunes_by_the_search_of_an_earlier_one(folder: Path) -> None:
    model = Small()
    runner = OneStepPruningRunner(copy.deepcopy(model), X)
    with pytest.raises(UsageError, match="needs the removal_ratio"):
        runner.prune()
    runner.search(None, None, (), 4, 0.4, eval_fn=near, excludes=["2"])
    runner.search(None, None, (), 6, 0.6, eval_fn=near)
    expected = [widths(runner.prune(removal_ratio=ratio)) for ratio in (0.4, 0.6)]
    later = OneStepPruningRunner(copy.deepcopy(model), X)
    assert [widths(later.prune(removal_ratio=ratio)) for ratio in (0.4, 0.6)] == expected
    assert expected[0][1] == 8
    with pytest.warns(UserWarning, match="another choice of excludes"), counted() as score:
        later.search(None, None, (), 2, 0.4, eval_fn=score)
    with pytest.warns(UserWarning, match="another calibration_fn"), counted() as score:
        later.search(None, lambda _: None, (), 2, 0.4, eval_fn=score)
    other = OneStepPruningRunner(Small(), X)
    with pytest.raises(
        UsageError, match=r"Small_ratio_0\.4\.search is of other weights; call search with removal_ratio=0\.4"
    ):
        other.prune(removal_ratio=0.4)
    with pytest.warns(UserWarning, match="is of other weights"), counted() as score:
        other.search(None, None, (), 2, 0.4, eval_fn=score)
    other.prune(removal_ratio=0.4)
    assert len(list((folder / ".vai").glob("Small_ratio_0.4*.search"))) == 2


def test_a_search_that_was_killed_is_finished_before_it_prunes() -> None:
    model = Small()
    scores = [1.0]
    with pytest.raises(IndexError):
        OneStepPruningRunner(model, X).search(num_subnet=12, eval_fn=lambda _: scores.pop())
    with pytest.raises(UsageError, match="was not finished"):
        OneStepPruningRunner(model, X).prune(removal_ratio=0.5)
    OneStepPruningRunner(model, X).search(num_subnet=1, eval_fn=pytest.fail)


@pytest.mark.filterwarnings("default")
def test_missed_budgets_and_missing_candidates_are_told() -> None:
    model = Small()
    runner = OneStepPruningRunner(model, X)
    with pytest.warns(UserWarning, match="different candidates were scored, not 30"):
        runner.search(num_subnet=30, removal_ratio=0.5, eval_fn=near)
    with pytest.warns(UserWarning, match=r"candidates miss the budget; of the nearest, .* not 99\.00%"):
        runner.search(num_subnet=2, removal_ratio=0.99, eval_fn=near)
    with pytest.warns(UserWarning, match=r"macs removed, not 99\.00%: this is the smallest"):
        runner.prune(removal_ratio=0.99)
    iterative = IterativePruningRunner(model, X)
    iterative.ana(near)
    with pytest.warns(UserWarning, match=r"macs removed, not 99\.00%"):
        iterative.prune(removal_ratio=0.99)
    pruner = OFAPruner(model, X)
    supernet = pruner.ofa_model(channel_divisble=2, auto_add_excludes=False)
    with pytest.warns(UserWarning, match="different subnets were scored, not 136"):
        pruner.run_evolutionary_search(supernet, calibrated, (), near, (), "loss", "min", min_flops=0, max_flops=1)


def calibrated(model: nn.Module) -> None:
    """Nothing to calibrate."""


def test_the_readme_s_one_step_example_on_the_other_runner() -> None:
    runner = IterativePruningRunner(Small(), X)
    with pytest.warns(UserWarning, match="search belongs to OneStepPruningRunner"):
        runner.search(calibration_fn=calibrated, eval_fn=near, num_subnet=3, removal_ratio=0.5)
    assert sum(widths(runner.prune(removal_ratio=0.5))) < 23


def test_errors_speak_of_the_runners_own_arguments() -> None:
    model = Small()
    runner, other = IterativePruningRunner(model, X), OneStepPruningRunner(model, X)
    for call, match in (
        (runner.prune, "one of removal_ratio, threshold and spec_path"),
        (lambda: runner.prune(threshold=0.1), "call ana first"),
        (lambda: runner.ana(near, metric="most"), "metric must be 'max' or 'min', not 'most'"),
        (lambda: runner.prune(0.5, channel_divisible=0), "channel_divisible must be"),
        (lambda: other.search(eval_fn=near, num_subnet=0), "num_subnet must be at least 1"),
        (lambda: other.search(eval_fn=near, metric="most"), "metric must be"),
        (lambda: other.prune(removal_ratio=0.5), r"call search with removal_ratio=0\.5"),
        (lambda: IterativePruningRunner("model.onnx", X), "must be a torch module"),
        (lambda: runner.ana(near, gpus=["all"]), "gpus lists numbers"),
    ):
        with pytest.raises(UsageError, match=match):
            call()
    for call in (
        lambda: runner.ana(pytest.fail, excludes=[model]),
        lambda: other.search(eval_fn=pytest.fail, excludes=["0", "2"]),
        lambda: other.search(eval_fn=pytest.fail, excludes=["Small::Small/Linear[0]/1", "Small::Small/Linear[2]/2"]),
        lambda: OFAPruner(model, X).ofa_model(excludes=["0", "2"], auto_add_excludes=False),
    ):
        with pytest.raises(PlanError, match=r"nothing of Small is left .* all of its .* excluded by excludes"):
            call()
    runner.ana(near)
    with pytest.raises(PlanError, match="excluded by excludes"):
        runner.prune(removal_ratio=0.5, excludes=[model])
    with pytest.raises(PlanError, match="no width has a smaller multiple of 16"):
        runner.prune(removal_ratio=0.5, channel_divisible=16)


class Moved(Small):
    """Notes where it is moved."""

    def to(self, device: torch.device) -> "Moved":
        self.moves = [*getattr(self, "moves", ()), str(device)]
        return self


def test_gpus_move_the_model_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Moved()
    runner = IterativePruningRunner(model, X)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.warns(UserWarning, match="gpus has no effect: CUDA is not available"):
        runner.ana(near, gpus=["0"])
    assert not hasattr(model, "moves")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    runner.ana(near, gpus=[1], forced=True)
    assert model.moves == ["cuda:1", "cpu"]
    OneStepPruningRunner(model, X).search(["cuda:0"], eval_fn=near, num_subnet=1)
    assert model.moves == ["cuda:1", "cpu", "cuda:0", "cpu"]
    with pytest.warns(UserWarning, match="device 1 alone is used"):
        assert chosen(["1", "0"]) == torch.device("cuda", 1)
    with pytest.raises(UsageError, match="names device 2, and there are 2"):
        chosen([2])
    assert chosen(None) is None
