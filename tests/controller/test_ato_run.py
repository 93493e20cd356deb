"""`zig train` with `method: ato`, stopped and gone on with."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml  # type: ignore[import-untyped]
from rich.console import Console

from zig.errors import UsageError
from zig.runs.config import Run, load
from zig.runs.loop import Trainer
from zig.runs.processes import join
from zig.runs.train import train

CONFIGS = Path(__file__).resolve().parents[2] / "samples" / "configs"
RUN = {
    "model": {"name": "zig.training.demo:DigitNet", "options": {"width": 8}},
    "data": {"kind": "digits", "limit": 256, "augment": ["shift"]},
    "method": {"name": "ato", "variant": "adamw", "lr": 0.003, "keep": 0.6, "apart": 0.2, "unprunable": ["norm.*"]},
    "training": {"epochs": 5, "batch_size": 64},
}


def written(folder: Path, **changes: object) -> Path:
    path = folder / "run.yml"
    path.write_text(yaml.safe_dump({**RUN, "out": str(folder / "out"), **changes}))
    return path


def test_a_stopped_run_ends_with_the_same_mask_and_the_same_bits(tmp_path: Path) -> None:
    run, quiet = load(written(tmp_path), Run), Console(quiet=True)
    with join(run.training) as processes:
        whole = Trainer(run, processes, quiet)
        whole.fit()
        stopped = Trainer(run.model_copy(update={"out": str(tmp_path / "again")}), processes, quiet)
        stopped.fit(6)
        gone_on = Trainer(stopped.run, processes, quiet)
        assert gone_on.resume()
        gone_on.fit()
    np.testing.assert_array_equal(whole.oto.zero_groups(), gone_on.oto.zero_groups())
    assert whole.oto.zero_groups().any()
    for a, b in zip(whole.oto.model.parameters(), gone_on.oto.model.parameters(), strict=True):
        assert a.equal(b)
    left = whole.oto.compute_macs(compressed=True) / whole.oto.compute_macs()
    assert left == pytest.approx(0.6, abs=0.02)
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 5
    assert "blocks.0.first" in lines[-1]["gates"]
    assert "stem" not in lines[-1]["gates"]  # it is unprunable


@pytest.mark.parametrize("config", sorted(each.name for each in CONFIGS.glob("ato_*.yml")))
def test_the_samples_are_read(config: str) -> None:
    for smoke in (False, True):
        run = load(CONFIGS / config, Run, smoke=smoke)
        assert run.method.name == "ato"
        assert run.method.held_back > 0


def test_a_wrong_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"method\.temprature is no key; did you mean 'temperature'"):
        load(written(tmp_path, method={**RUN["method"], "temprature": 1.0}), Run)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", sorted(each.name for each in CONFIGS.glob("ato_*.yml")))
def test_the_samples_run_small(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = train(CONFIGS / config, smoke=True)
    assert result["compressed"]["macs"] < result["full"]["macs"]


def test_each_option_of_the_authors_command_line_is_on_the_page() -> None:
    page = (CONFIGS.parents[1] / "docs" / "controller.md").read_text()
    options = ("p", "gates", "grad_mul", "reg_w", "lmd", "mix_up", "start_epoch_hyper", "start_epoch_gl", "epoch")
    assert not [name for name in options if f"| `--{name}` |" not in page]


def test_the_samples_follow_the_published_recipe() -> None:
    smaller, larger, mobile = (
        load(CONFIGS / f"ato_{name}_imagenet.yml", Run) for name in ("resnet34", "resnet50", "mobilenetv2")
    )
    assert [(run.method.weight, run.training.batch_size) for run in (smaller, larger)] == [(4, 1024), (8, 512)]
    assert {run.data.label_smoothing for run in (smaller, larger, mobile)} == {0.1}
    assert smaller.data.jitter == larger.data.jitter != mobile.data.jitter is None
