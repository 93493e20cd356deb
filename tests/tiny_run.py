"""A small run on digits, as a file that tests change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from rich.console import Console

if TYPE_CHECKING:
    from zig.runs.loop import Trainer

TINY: dict[str, Any] = {
    "model": {"name": "dropping:Dropping"},
    "data": {"kind": "digits", "limit": 128, "augment": ["shift"]},
    "method": {"name": "hesso", "variant": "adamw", "lr": 0.003, "target_macs": 0.4},
    "training": {"epochs": 4, "batch_size": 32},
}

Write = Callable[..., Path]


DIGITNET = {"name": "zig.training.demo:DigitNet", "options": {"width": 8}}  # with BatchNorm and residuals


def fitted(path: Path, until: int | None = None) -> Trainer:
    """A run that is trained, with all that it writes but the models."""
    from zig.runs.config import Run, load
    from zig.runs.loop import Trainer
    from zig.runs.processes import join

    run = load(path, Run)
    with join(run.training) as processes:
        trainer = Trainer(run, processes, Console(quiet=True))
        trainer.resume()
        trainer.fit(until)
    return trainer


@pytest.fixture
def config(tmp_path: Path) -> Write:
    """Writes a file of a tiny run, with what it is told in place; its folder is `tmp_path`/NAME."""
    from zig.runs.config import merged

    def write(name: str = "run", **changes: Any) -> Path:
        content = merged({"out": str(tmp_path / name), **TINY}, changes)
        file = tmp_path / f"{name}.yml"
        file.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        return file

    return write
