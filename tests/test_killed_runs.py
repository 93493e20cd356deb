"""Training and searching, killed between two steps of their writing again and again: every file is whole every time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import killing
import numpy as np
import onnx
import pytest
import yaml
from killing import killed_at
from tiny_run import DIGITNET, TINY

from zig.runs import checkpoint

RUNS = {
    "train": {**TINY, "model": DIGITNET, "training": {"epochs": 2, "batch_size": 32}},
    "search": {
        "model": DIGITNET,
        "data": {"kind": "digits", "limit": 200},
        "method": {"name": "one_step", "num_subnets": 3},
        "training": {"before": 1, "epochs": 1, "batch_size": 50, "lr": 0.003},
    },
}


def whole(folder: Path) -> None:
    """Read every file that is not hidden."""
    for file in folder.rglob("*"):
        if not any(part.startswith(".") for part in file.relative_to(folder).parts):
            if file.suffix == ".pt":
                checkpoint.read(file)
            elif file.suffix in (".json", ".latency"):
                json.loads(file.read_text())
            elif file.suffix == ".onnx":
                onnx.checker.check_model(onnx.load(file))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are killed as on Linux")
@pytest.mark.parametrize("command", list(RUNS))
def test_killed_between_steps_again_and_again(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(killing, "PRELOADED", ["zig.cli", "zig.runs.train", "zig.search.run"])
    out, file, random = tmp_path / "out", tmp_path / "run.yml", np.random.default_rng(0)
    file.write_text(yaml.safe_dump({"out": str(out), **RUNS[command]}))
    times = 0
    while killed_at(int(random.integers(10, 40)) + 12 * times, tmp_path, command, file, "--resume"):
        whole(out)
        times += 1
    print(f"{command}: killed {times} times")
    assert times > 1
    assert not list(out.rglob(".*"))
    assert json.loads((out / "report.json").read_text())["removed"]
    (out / "notes").write_text("kept")
    assert not killed_at(1 << 20, tmp_path, command, file, "--resume")
    assert (out / "notes").read_text() == "kept"
