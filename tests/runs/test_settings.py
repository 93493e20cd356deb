"""What a file may say: mistakes are told in one sentence, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_run import TINY, Write

from zig.errors import PlanError, UsageError, ZigError
from zig.runs.__main__ import page
from zig.runs.config import Run, load, merged
from zig.runs.schedule import factor
from zig.runs.train import train

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(set(ROOT.glob("samples/configs/*.yml")) - set(ROOT.glob("samples/configs/search_*.yml")))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methd": {}}, "methd is no key; did you mean 'method'?"),
        ({"training": {"epochs": 1, "batchsize": 2}}, "training.batchsize is no key; did you mean 'batch_size'?"),
        ({"method": {"lamda": 1}}, "method.lamda is no key; there is betas, "),
        ({"method": {"name": "dhspg", "lamda": 1}}, "method.lamda is no key; did you mean 'lmbda'?"),
        ({"method": {"name": "hspeg"}}, "method.name is 'hspeg'; did you mean 'hspg'?"),
        ({"data": {"kind": "cifar"}}, "data.kind is 'cifar'; did you mean 'cifar10'?"),
        ({"data": None}, "data is missing; what it learns from"),
        ({"training": {"epochs": "many"}}, "training.epochs is 'many': input should be a valid integer"),
        ({"training": {"epochs": 0}}, "training.epochs is 0: input should be greater than or equal to 1"),
        ({"training": {"schedule": {"name": "stairs"}}}, "training.schedule.name is 'stairs': input should be 'cons"),
        ({"method": {"start": 0.7, "pruning": 0.6}}, "start 0.7 and pruning 0.6 are more than the whole training"),
        ({"smoke": {"training": {"epoch": 1}}}, "training.epoch is no key; did you mean 'epochs'?"),
    ],
)
def test_a_mistake_is_one_sentence(config: Write, changes: dict[str, Any], said: str) -> None:
    path = config(**changes)
    with pytest.raises(UsageError) as error:
        load(path, Run)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"data": {"kind": "mnist"}}, UsageError, "data.path is missing; give the folder of the mnist files"),
        ({"data": {"kind": "cifar10", "path": "nowhere"}}, UsageError, "there is no folder nowhere"),
        (
            {"data": {"kind": "squad", "path": "nowhere"}},
            UsageError,
            "data.path: nowhere must hold vocab.txt, train-v1.1.json, dev-v1.1.json; missing: nowhere/vocab.txt (data.",
        ),
        ({"data": {"mean": [0.1, 0.2]}}, UsageError, "data.mean has 2 numbers, but the images have 1 channels"),
        ({"model": {"name": "resnet18"}}, UsageError, "model.name is 'resnet18'; it must be torchvision/NAME, "),
        ({"model": {"name": "nothing.here:Net"}}, UsageError, "there is no module nothing"),
        (
            {"model": {"name": "zig.training.demo:DigitsNet"}},
            UsageError,
            "no 'DigitsNet' to call; did you mean 'DigitN",
        ),
        ({"model": {"name": "builtins:dict"}}, UsageError, "model.name: builtins:dict gives a dict, no torch module"),
        ({"model": {"options": {"wide": 3}}}, UsageError, "model.options: dropping:Dropping refuses them: "),
        ({"model": {"weights": "nowhere.pt"}}, UsageError, "nowhere.pt can't be read: No such file"),
        ({"model": {"name": "zig.runs.networks:vgg16"}}, UsageError, "can't read the data (image [2, 1, 8, 8]): "),
        ({"method": {"target_macs": 0.001}}, PlanError, "target_macs 0.001 can't be reached; the smallest network"),
        ({"method": {"momentum": 0.9}}, PlanError, "HESSO with adamw has no option 'momentum'"),
        ({"training": {"batch_size": 500}}, UsageError, "only 128 examples"),
        ({"training": {"accumulate": 3}}, UsageError, "batch_size 32 can't be shared out evenly"),
        ({"training": {"device": "gpu"}}, UsageError, "training.device is gpu: "),
        (
            {"training": {"parallel": "fsdp"}},
            UsageError,
            "training.parallel is fsdp: FSDP2 gives each process some rows",
        ),
    ],
)
def test_what_can_not_be_is_told_before_training(
    config: Write, tmp_path: Path, changes: dict[str, Any], kind: type[ZigError], said: str, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    other = {"model": {"name": "zig.runs.networks:vgg16", "options": {"width": 0.1}}}
    changes = merged(changes, other) if changes.get("model", {}).get("name", "").endswith("vgg16") else changes
    with pytest.raises(kind) as error:
        train(config(**changes))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_network_without_groups_is_refused(config: Write) -> None:
    model = {"name": "torch.nn:Sequential", "options": {}}
    with pytest.raises(
        UsageError, match=r"the data have 10 classes, but the network gives outputs of shape \[1, 8, 8\]"
    ):
        train(config(model=model))
    with pytest.raises(PlanError, match="no group of this model can be pruned"):
        train(config(model={"name": "ungrouped:Ungrouped", "options": {}}))


def test_files_extend_one_another(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("out: a\nextends: b.yml\n")
    (tmp_path / "b.yml").write_text("extends: a.yml\n")
    with pytest.raises(UsageError, match="extends itself"):
        load(tmp_path / "a.yml", Run)
    for content, said in (
        ("a: [", "is not YAML"), ("- a", "must hold keys and values"), ("a: " + "[" * 5000, "is nested too deeply"),
    ):  # fmt: skip
        (tmp_path / "c.yml").write_text(content)
        with pytest.raises(UsageError, match=said):
            load(tmp_path / "c.yml", Run)
    with pytest.raises(UsageError, match="can't be read: No such file"):
        load(tmp_path / "d.yml", Run)


def test_another_kind_drops_the_keys_of_the_first() -> None:
    first = {"data": {"kind": "folder", "size": 64}, "a": {"b": 1, "c": 2}}
    assert merged(first, {"data": {"kind": "mnist"}, "a": {"c": 3}}) == {
        "data": {"kind": "mnist"},
        "a": {"b": 1, "c": 3},
    }


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configurations_of_training_runs_are_right(path: Path) -> None:
    assert load(path, Run).out.startswith("runs/")
    load(path, Run, smoke=True)


def test_every_key_is_documented() -> None:
    assert (ROOT / "docs" / "run-keys.md").read_text() == page()
    assert "|  |" not in page()


@pytest.mark.parametrize(
    ("name", "at_steps"),
    [
        ("constant", {0: 1, 99: 1}),
        ("step", {0: 1, 24: 1, 25: 0.1, 74: 0.01, 75: 0.001}),
        ("cosine", {0: 1, 50: 0.5, 100: 0}),
        ("linear", {0: 1, 50: 0.5, 100: 0}),
        ("one_cycle", {0: 0.04, 30: 1, 65: 0.5, 100: 0}),
    ],
)
def test_learning_rates(name: str, at_steps: dict[int, float]) -> None:
    schedule = load_schedule(name=name, milestones=[0.25, 0.5, 0.75])
    for step, rate in at_steps.items():
        assert factor(schedule, step, 100) == pytest.approx(rate, abs=1e-12)
    warm = load_schedule(name="constant", warmup=0.1)
    assert [factor(warm, step, 100) for step in (0, 4, 9, 50)] == pytest.approx([0.1, 0.5, 1, 1])


def load_schedule(**options: Any) -> Any:
    from zig.runs.config import Schedule

    return Schedule(**options)


def test_the_tiny_run_is_right(config: Write) -> None:
    assert load(config(), Run).method.target_macs == TINY["method"]["target_macs"]
