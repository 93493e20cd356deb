"""The examples of Vitis Optimizer's README, with their typing errors mended and the import changed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from searched import Residual, chain
from torch import nn

from zig.compat.vitis import (
    IterativePruningRunner,
    OFAPruner,
    OneStepPruningRunner,
    get_pruning_runner,
)
from zig.errors import UsageError

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
    runner.search(
        gpus=["0"],
        calibration_fn=calibration_fn, calib_args=(val_loader,),
        eval_fn=eval_fn, eval_args=(val_loader,),
        num_subnet=4, removal_ratio=0.7)  # fmt: skip
    assert (folder / ".vai" / "Sequential_ratio_0.7.search").exists()
    pruned = runner.prune(removal_ratio=0.7)
    assert sum(p.numel() for p in pruned.parameters()) < 0.5 * sum(p.numel() for p in model.parameters())
    assert pruned(INPUTS).shape == (1, 10)
    with pytest.raises(UsageError, match=r"at removal_ratio 0\.7, not 0\.5"):
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
        (train_loader,), eval_fn, (train_loader,), "acc1", "max", min_macs=0.5 * whole, max_macs=0.9 * whole,
        macs_step=0.2 * whole, parent_popu_size=4, iteration=1, mutate_size=2, crossover_size=1)  # fmt: skip
    ofa_pruner.save_subnet_config(pareto_global, "pareto_global.txt")
    pareto_global = ofa_pruner.load_subnet_config("pareto_global.txt")
    entry = next(iter(pareto_global.values()))
    assert set(entry) == {"net_id", "mode", "acc1", "macs", "params", "subnet_setting"}
    static_subnet, config, macs, params = ofa_pruner.get_static_subnet(ofa_model, entry["subnet_setting"])
    assert macs == pytest.approx(entry["macs"])
    assert (
        sum(p.numel() for p in static_subnet.parameters()) <= params * 1e6 < sum(p.numel() for p in model.parameters())
    )
    assert {layer["type"] for layer in config} >= {"Conv2d", "BatchNorm2d", "Linear"}
    assert 0.5 * whole <= macs <= 0.9 * whole
    with pytest.raises(UsageError, match="not the last one"):
        ofa_pruner.get_static_subnet(chain())
    with pytest.raises(UsageError, match="can't be read"):
        ofa_pruner.load_subnet_config("nowhere.txt")
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
