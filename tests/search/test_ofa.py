"""Once-for-all pruning: a subnet is the same masked, static and in the file; training and search go on after a kill."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import searched
import torch
from searched import CASES, Residual, randomised
from torch import Tensor, nn
from torch.nn import functional

import zig
from zig.errors import PlanError, UsageError
from zig.proof.session import Session
from zig.search import Evolution, OFAPruner, recalibrate
from zig.search.ofa import ends_of, soft_cross_entropy
from zig.search.supernet import kernel_sizes

# networks this small have few widths: the same subnet is drawn again
pytestmark = pytest.mark.filterwarnings("ignore:.*subnets were scored")
SMALL = Evolution(population=5, generations=2, mutations=3, crossovers=2)


class KilledError(Exception):
    """Stands for a kill in the middle of a search."""


def images(seed: int = 0, count: int = 32) -> Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def spread(model: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return float(model.eval()(x).std())


def big_kernels() -> nn.Module:
    """Kernels of 5 and 7, strides, a transposed and a depthwise convolution, and one whose padding does not give way."""
    return randomised(
        nn.Sequential(
            nn.Conv2d(1, 6, 7, padding=3), nn.BatchNorm2d(6), nn.ReLU(),
            nn.Conv2d(6, 8, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.BatchNorm2d(8), nn.ReLU(),
            nn.ConvTranspose2d(8, 6, 5, stride=2, padding=2, output_padding=1), nn.BatchNorm2d(6), nn.ReLU(),
            nn.Conv2d(6, 6, 5, padding=0), nn.ReLU(), nn.Conv2d(6, 4, 3),
        )
    )  # fmt: skip


def pruner(folder: Path, name: str = "chain", **options: object) -> OFAPruner:
    made = searched.made(OFAPruner, name, folder)
    made.ofa_model(**options)
    return made


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("kernels", {"auto_excludes": False}),
        pytest.param("residual", {"ratios": (0.25, 0.5, 1), "auto_excludes": False}, marks=pytest.mark.slow),
        pytest.param("attention", {"auto_excludes": False}, marks=pytest.mark.slow),
        pytest.param("2d grouped", {"auto_excludes": False}, marks=pytest.mark.slow),
    ],
)
def test_a_static_subnet_gives_what_the_masked_supernet_gives(
    name: str, options: dict[str, object], tmp_path: Path
) -> None:
    model, x = (big_kernels(), torch.randn(2, 1, 8, 8)) if name == "kernels" else copy.deepcopy(CASES[name])
    made = OFAPruner(model, x, folder=tmp_path)
    supernet = made.ofa_model(**options).eval()
    for kind in ("min", "random"):
        values = made.sample_subnet(kind)
        static = made.get_static_subnet(values, out_dir=tmp_path / kind)
        with torch.no_grad():
            expected, whole = supernet(x).numpy(), model(x).numpy()
            np.testing.assert_allclose(static.module(x).numpy(), expected, rtol=0, atol=1e-5)
        session = Session(tmp_path / kind / f"{type(model).__name__}_compressed.onnx")
        file = next(iter(session.run({next(iter(session.inputs)): x.numpy()}).values()))
        np.testing.assert_allclose(file, expected, rtol=0, atol=1e-5)
        assert np.abs(expected - whole).max() > 1e-4
        assert static.report.after["macs"] == pytest.approx(static.costs["macs"], abs=1)
        assert static.report.after["parameters"] == pytest.approx(static.costs["params"], abs=1)


def test_one_export_makes_the_pruner_and_one_each_subnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    oto, network = (importlib.import_module(name) for name in ("zig.training.oto", "zig.search.network"))
    calls: list[int] = []

    def counted(*arguments: object, **options: object) -> object:
        calls.append(1)
        return export(*arguments, **options)

    export = oto.export
    for module in (oto, network):
        monkeypatch.setattr(module, "export", counted)
    made = OFAPruner(big_kernels(), torch.randn(2, 1, 8, 8), folder=tmp_path)
    made.ofa_model()
    assert len(calls) == 1
    made.get_static_subnet(made.sample_subnet("min"))
    assert len(calls) == 2


def test_kernels_shrink_to_the_middle_where_padding_gives_way(tmp_path: Path) -> None:
    model = big_kernels()
    assert [kernel_sizes(part) for part in model if not isinstance(part, (nn.BatchNorm2d, nn.ReLU))] == [
        (7, 5, 3), (5, 3), (5, 3), (5, 3), (), (),
    ]  # fmt: skip
    assert kernel_sizes(nn.Conv2d(1, 1, 7, padding=2, dilation=1)) == (7, 5, 3)
    assert kernel_sizes(nn.Conv2d(1, 1, 7, padding=1)) == (7, 5)
    assert kernel_sizes(nn.Conv2d(1, 1, 5, padding="same")) == ()
    assert kernel_sizes(nn.Conv2d(1, 1, (5, 3), padding=2)) == ()
    made = OFAPruner(model, torch.zeros(1, 1, 8, 8), folder=tmp_path)
    made.ofa_model(auto_excludes=False)
    made.sample_subnet("min")
    static = made.supernet.static()
    assert [part.kernel_size[0] for part in static if hasattr(part, "kernel_size")] == [3, 3, 3, 3, 5, 3]
    assert [part.padding[0] for part in static if hasattr(part, "kernel_size")] == [1, 1, 1, 1, 0, 0]
    made.ofa_model(kernels=False, auto_excludes=False)
    assert all(dial.family >= 0 for dial in made.supernet.space.dials)


def test_a_subnet_trains_as_the_static_one_does(tmp_path: Path) -> None:
    """The gradients in the supernet are those of the static subnet; what is masked gets none."""
    made = pruner(tmp_path, auto_excludes=False)
    values = made.sample_subnet("random")
    static = made.get_static_subnet(values).module.train()
    supernet = made.supernet.train()
    x, y = images(), torch.arange(32) % 10
    for model in (supernet, static):
        functional.cross_entropy(model(x), y).backward()
    masked = {name: p.grad for name, p in supernet.network.named_parameters()}
    for name, p in static.named_parameters():
        theirs = masked[name]
        assert theirs is not None
        assert p.grad is not None
        assert theirs.norm() == pytest.approx(float(p.grad.norm()), rel=1e-3, abs=1e-6), name


def test_the_sandwich_teaches_all_subnets(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = pruner(tmp_path, auto_excludes=False)
    before = copy.deepcopy(made.network.model.state_dict())
    x, y = images(), torch.arange(32) % 10
    with torch.no_grad():
        wanted = made.network.model(x)

    def losses() -> list[float]:
        found = []
        for kind in ("max", "min"):
            made.sample_subnet(kind)
            made.supernet.train()
            with torch.no_grad():
                output = made.supernet(x)
            found.append(float(functional.cross_entropy(output, y) + soft_cross_entropy(output, wanted)))
        return found

    first, optimizer = losses(), torch.optim.AdamW(made.supernet.parameters(), 1e-2)
    means = [made.train_step(x, y, optimizer) for _ in range(15)]
    assert means[-1] < means[0]
    assert all(after < start for start, after in zip(first, losses(), strict=True))
    assert all(torch.equal(value, before[name]) for name, value in made.network.model.state_dict().items())


def test_first_and_last_layers_stay_whole(tmp_path: Path) -> None:
    made = pruner(tmp_path)
    weights = {t for g in made.partition.node_groups for t, _ in g.members}
    assert ends_of(made.partition) == {"0.weight", "12.weight"} <= weights
    whole = {g.id for g in made.partition.node_groups} - {d.family for d in made.supernet.space.dials}
    names = {t for g in made.partition.node_groups if g.id in whole for t, _ in g.members}
    assert {"0.weight", "12.weight"} <= names
    assert "3.weight" not in names
    perceptron = OFAPruner(*CASES["perceptron"], folder=tmp_path)
    ends = {links[0].parameter for name, links in perceptron.network.oto.links.links.items() if name in ends_of(perceptron.partition)}  # fmt: skip
    assert ends == {"0.weight", "4.weight"}
    with pytest.raises(PlanError, match="nothing of Sequential"):
        made.ofa_model(excludes=[made.network.model])


def test_widths_are_shares_and_kept_by_importance(tmp_path: Path) -> None:
    made = pruner(tmp_path, ratios=(0.5, 0.75, 1), round_to=4, auto_excludes=False)
    space = made.supernet.space
    assert [dial.options for dial in space.dials] == [(12, 8), (16, 12, 8), (20, 16, 8), (16, 12, 8), (14, 12, 8)]
    made.sample_subnet("min")
    remove = space.remove(made.supernet.setting)
    for group in made.partition.node_groups:
        scores = made.scores[group.groups]
        assert scores[remove[group.groups]].max() <= scores[~remove[group.groups]].min()


def search(made: OFAPruner, **options: object) -> dict[str, object]:
    whole = made.supernet.space.whole["macs"] / 1e6
    settings = {"min_macs": 0.3 * whole, "max_macs": 0.7 * whole, "step": 0.1 * whole, "evolution": SMALL} | options
    return made.run_evolutionary_search(None, spread, eval_args=(images(),), **settings)


def test_the_search_stays_within_its_range_and_finds_the_best_of_each_step(tmp_path: Path) -> None:
    made = pruner(tmp_path, auto_excludes=False)
    space, whole = made.supernet.space, made.supernet.space.whole["macs"]
    found = search(made)
    content = json.loads(made.file("macs.once-for-all").read_text())
    assert list(found) == sorted(found, key=float)
    assert len(content["subnets"]) == len(content["scores"]) >= 8
    assert {line["born"].split()[1] for line in content["subnets"]} == {"random", "mutation", "crossover"}
    for line in content["subnets"]:
        assert 0.3 * whole <= line["macs"] <= 0.7 * whole
        assert line["macs"] == space.cost(space.setting(line["setting"]), "macs")
    for bucket, subnet in found.items():
        rivals = [
            line["score"] for line in content["subnets"] if abs(line["macs"] / 1e6 - float(bucket)) < 0.05 * whole / 1e6
        ]
        assert subnet.score == max(rivals)
        assert content["pareto"][bucket]["setting"] == list(subnet.values)
    best = next(iter(found.values()))
    static = made.get_static_subnet(best.values)
    assert spread(static.module, images()) == pytest.approx(best.score, abs=1e-5)
    assert static.costs == best.costs


def test_a_score_is_that_of_the_calibrated_subnet(tmp_path: Path) -> None:
    made = pruner(tmp_path, auto_excludes=False)
    batches = [images(1)]
    whole = made.supernet.space.whole["macs"] / 1e6
    found = made.run_evolutionary_search(
        recalibrate, spread, calib_args=(batches,), eval_args=(images(),), min_macs=0.4 * whole, max_macs=0.6 * whole,
        step=whole, evolution=Evolution(population=2, generations=0), best="min",
    )  # fmt: skip
    best = next(iter(found.values()))
    static = made.get_static_subnet(best.values, calibration_fn=recalibrate, calib_args=(batches,))
    assert spread(static.module, images()) == pytest.approx(best.score, abs=1e-5)


def test_a_killed_search_ends_as_a_whole_one(tmp_path: Path) -> None:
    whole, broken = (pruner(tmp_path / name, auto_excludes=False) for name in ("whole", "broken"))
    expected = search(whole)
    calls = []

    def counted(model: nn.Module) -> float:
        calls.append(1)
        if len(calls) == 6:
            raise KilledError
        return spread(model, images())

    options = {"min_macs": 0.3, "max_macs": 0.7, "step": 0.1}
    size = broken.supernet.space.whole["macs"] / 1e6
    options = {name: share * size for name, share in options.items()}
    with pytest.raises(KilledError):
        broken.run_evolutionary_search(None, counted, evolution=SMALL, **options)
    found = broken.run_evolutionary_search(None, counted, evolution=SMALL, **options)
    assert found == expected
    file = "macs.once-for-all"
    assert broken.file(file).read_text() == whole.file(file).read_text()
    assert len(calls) == len(json.loads(whole.file(file).read_text())["scores"]) + 1


def test_wrong_use_is_met_with_a_sentence(tmp_path: Path) -> None:
    fresh = searched.made(OFAPruner, "chain", tmp_path)
    with pytest.raises(UsageError, match="call ofa_model"):
        fresh.sample_subnet("max")
    made = pruner(tmp_path)
    with pytest.raises(UsageError, match="'max', 'min' or 'random'"):
        made.sample_subnet("best")
    with pytest.raises(UsageError, match="a setting has"):
        made.get_static_subnet([1])
    with pytest.raises(UsageError, match="may keep"):
        made.get_static_subnet([1] * len(made.supernet.space.dials))
    with pytest.raises(PlanError, match="no subnet costs"):
        search(made, min_macs=0.001, max_macs=0.002)
    with pytest.raises(PlanError, match="from a lower"):
        search(made, min_macs=2, max_macs=1)
    with pytest.raises(PlanError, match="shares of a width"):
        made.ofa_model((0, 1))


def test_the_plan_of_a_subnet_serves_the_rest_of_zig(tmp_path: Path) -> None:
    """What the search found is a plan over groups, as from any other method."""
    made = pruner(tmp_path, auto_excludes=False)
    values = made.sample_subnet("min")
    made.choose(values)
    remove = made.plan().remove
    assert zig.cost(made.partition, remove)["macs"] == made.supernet.space.cost(made.supernet.setting, "macs")


def test_residual_streams_are_one_dial(tmp_path: Path) -> None:
    made = OFAPruner(randomised(Residual(8, 5)), torch.zeros(1, 1, 8, 8), folder=tmp_path)
    made.ofa_model(auto_excludes=False)
    assert [dial.options for dial in made.supernet.space.dials] == [(8, 6, 4), (16, 12, 8), (5, 3), (5, 3)]
