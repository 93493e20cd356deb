"""One-step pruning: candidates that all meet the budget, scored with statistics of their own, on any number of processes."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
import searched
import torch
from searched import CASES
from torch import Tensor, nn

from zig.errors import PlanError, UsageError
from zig.search import OneStepPruner, recalibrate
from zig.search.network import Network

# networks this small have few widths: budgets are missed, and the same candidate is drawn again
pytestmark = pytest.mark.filterwarnings("ignore:.*(removed, not|candidates|subnets were scored)")


class KilledError(Exception):
    """Stands for a kill in the middle of a search."""


def images(seed: int, count: int = 64) -> Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def spread(model: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float(model.eval()(x).std())


def made(folder: Path, name: str = "chain") -> OneStepPruner:
    return searched.made(OneStepPruner, name, folder)


@pytest.mark.parametrize("ratio", [0.3, 0.49, 0.5, 0.7])
def test_every_candidate_meets_the_budget(ratio: float, tmp_path: Path) -> None:
    pruner = made(tmp_path)
    found = pruner.search(None, spread, eval_args=(images(0),), num_subnets=12, removal_ratio=ratio)
    assert 4 <= len(found) <= 12
    assert all(candidate.choice.met for candidate in found)
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
    assert len({tuple(c.choice.setting) for c in found}) == len(found)


@pytest.mark.parametrize(
    "name", ["residual", pytest.param("attention", marks=pytest.mark.slow), pytest.param("3d", marks=pytest.mark.slow)]
)
def test_every_candidate_is_the_same_masked_and_removed(name: str, tmp_path: Path) -> None:
    pruner = made(tmp_path, name)
    _, x = CASES[name]
    found = pruner.search(None, spread, eval_args=(x,), num_subnets=3, removal_ratio=0.4)
    assert isinstance(pruner.network, Network)
    for i, candidate in enumerate(found):
        slim = pruner.prune(i)
        with torch.no_grad(), pruner.network.masked.subnet(pruner.plan().remove) as masked:
            np.testing.assert_allclose(slim.eval()(x).numpy(), masked(x).numpy(), rtol=0, atol=1e-5)
            assert spread(slim, x) == pytest.approx(candidate.score, abs=1e-5)
        assert pruner.choice == candidate.choice


def test_statistics_are_those_of_the_candidate(tmp_path: Path) -> None:
    """What the score saw is what the slim network gives once its statistics are taken anew; the model keeps its own."""
    pruner = made(tmp_path)
    model = pruner.network.model
    assert isinstance(model, nn.Module)
    before = copy.deepcopy(model.state_dict())
    batches = list(images(1).split(16))
    plain = pruner.search(None, spread, eval_args=(images(0),), num_subnets=3, path=tmp_path / "plain")
    fresh = pruner.search(
        recalibrate, spread, calib_args=(batches,), eval_args=(images(0),), num_subnets=3, path=tmp_path / "fresh"
    )
    assert {c.number: c.score for c in fresh} != {c.number: c.score for c in plain}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    slim = pruner.prune(0)
    recalibrate(slim, batches)
    assert spread(slim, images(0)) == pytest.approx(fresh[0].score, abs=1e-5)


def test_statistics_taken_anew_are_those_of_all_images() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4, momentum=0.3), nn.Dropout(0.9))
    x = images(0)
    recalibrate(model, [(batch, "label") for batch in x.split(16)], limit=None)
    y = model[0](x)
    torch.testing.assert_close(model[1].running_mean, y.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert model[1].momentum == 0.3
    assert model.training
    recalibrate(model.eval(), x.split(16), limit=1)
    torch.testing.assert_close(model[1].running_mean, y[:16].mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert not model.training


def test_the_direction_is_said_and_nan_is_never_best(tmp_path: Path) -> None:
    pruner = made(tmp_path)
    scores = iter([3.0, float("nan"), 1.0, *range(4, 20)])
    low = pruner.search(None, lambda _: next(scores), num_subnets=12, best="min")
    assert [c.score for c in low[:2]] == [1.0, 3.0]
    assert np.isnan(low[-1].score)
    with pytest.raises(UsageError, match="its best is"):
        pruner.search(None, pytest.fail, num_subnets=12, best="max")


def test_more_can_be_drawn_later_and_a_kill_costs_nothing(tmp_path: Path) -> None:
    calls = []

    def counted(model: nn.Module, x: Tensor) -> float:
        calls.append(1)
        if len(calls) == 5:
            raise KilledError
        return spread(model, x)

    whole = made(tmp_path / "whole")
    expected = whole.search(None, spread, eval_args=(images(0),), num_subnets=8)
    broken = made(tmp_path / "broken")
    with pytest.raises(KilledError):
        broken.search(None, counted, eval_args=(images(0),), num_subnets=8)
    again = made(tmp_path / "broken")
    first = again.search(None, counted, eval_args=(images(0),), num_subnets=6)
    assert len(first) <= 6
    found = again.search(None, counted, eval_args=(images(0),), num_subnets=8)
    assert len(calls) == len(expected) + 1
    assert [(c.number, c.score) for c in found] == [(c.number, c.score) for c in expected]
    file = "macs-0.5.one-step"
    assert again.file(file).read_text() == whole.file(file).read_text()
    assert (again.decide().remove == whole.decide(0).remove).all()
    content = json.loads(again.file(file).read_text())
    assert [line["number"] for line in content["candidates"]] == [c.number for c in found]


def test_processes_share_the_work(tmp_path: Path) -> None:
    alone = made(tmp_path / "one").search(None, spread, eval_args=(images(0),), num_subnets=6)
    together = made(tmp_path / "two").search(None, spread, eval_args=(images(0),), num_subnets=6, jobs=2)
    assert [(c.number, pytest.approx(c.score)) for c in together] == [(c.number, c.score) for c in alone]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_machines_share_the_work(tmp_path: Path) -> None:
    """joblib's Dask back end on a local cluster of two worker processes."""
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    import joblib

    alone = made(tmp_path / "one").search(None, spread, eval_args=(images(0),), num_subnets=6)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        together = made(tmp_path / "two").search(None, spread, eval_args=(images(0),), num_subnets=6, jobs=-1)
    assert [(c.number, pytest.approx(c.score)) for c in together] == [(c.number, c.score) for c in alone]


@pytest.mark.filterwarnings("ignore")
def test_the_example_of_dask_runs_as_printed(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="dask.distributed is not installed")
    page = (Path(__file__).resolve().parents[2] / "docs" / "search.md").read_text()
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.S) if 'backend="dask"' in block)
    alone = made(tmp_path / "one").search(recalibrate, spread, calib_args=([images(1)],), eval_args=(images(0),))
    pruner = made(tmp_path / "two")
    names = {"pruner": pruner, "recalibrate": recalibrate, "evaluate": spread, "images": [images(1)]}
    exec(example, names | {"val_loader": images(0)})
    together = pruner.candidates
    assert [(c.number, pytest.approx(c.score)) for c in together] == [(c.number, c.score) for c in alone]


def test_wrong_use_is_met_with_a_sentence(tmp_path: Path) -> None:
    pruner = made(tmp_path)
    with pytest.raises(UsageError, match="call search"):
        pruner.prune()
    with pytest.raises(PlanError, match="num_subnets"):
        pruner.search(None, spread, num_subnets=0)
    count = len(pruner.search(None, lambda _: 0.0, num_subnets=4))
    with pytest.raises(UsageError, match=f"candidates 0 to {count - 1}, not {count}"):
        pruner.prune(count)
