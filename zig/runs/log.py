"""Where a run writes what it reaches: log.csv for people and plots, log.jsonl for the app, TensorBoard if asked for."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

from zig.atomic import write
from zig.packages import importing


class Log:
    """One line for each measurement; a run that goes on takes out the lines of steps that it will take again."""

    def __init__(self, folder: Path, columns: list[str], step: int, tensorboard: bool = False):
        """Begin, or go on after `step`.

        Args:
            folder: Where log.csv lies, made where it is missing.
            columns: Of the table; the first is the step.
            step: How many steps are taken.
            tensorboard: Whether to write for TensorBoard too, in folder/tensorboard.

        Raises:
            UsageError: TensorBoard is not installed.
        """
        self.path, self.columns = folder / "log.csv", columns
        folder.mkdir(parents=True, exist_ok=True)
        lines = self.path.read_text(errors="replace").splitlines() if step and self.path.exists() else []
        kept = [line for line in lines[1:] if line.count(",") == len(columns) - 1 and _step(line) <= step]
        write(self.path, "".join(f"{line}\n" for line in [",".join(columns), *kept]))
        self._board: Any = _board(folder / "tensorboard", step) if tensorboard else None

    def write(self, row: dict[str, float]) -> None:
        """Add a line."""
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow([row[name] for name in self.columns])
        with self.path.open("a") as file:
            file.write(line.getvalue())
        if self._board is not None:
            for name, number in row.items():
                self._board.add_scalar(name, number, row["step"])
            self._board.flush()

    def close(self) -> None:
        """Let TensorBoard write what it holds."""
        if self._board is not None:
            self._board.close()


def _step(line: str) -> float:
    """The step of a line; of one that was damaged, infinity."""
    first = line.partition(",")[0]
    return int(first) if first.isdecimal() else math.inf


def check_tensorboard() -> Any:
    """The writer of torch for TensorBoard.

    Raises:
        UsageError: TensorBoard is not installed.
    """
    with importing("training.tensorboard"):
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - imports a package that need not be there
    return SummaryWriter


def _board(folder: Path, step: int) -> Any:
    return check_tensorboard()(str(folder), purge_step=step + 1)
