"""Training logs: one JSON object a line, which the app's Training page reads (see docs/app.md)."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from zig.host.atomic import write
from zig.training.grouped import GroupOptimizer


class TrainingLog:
    """Appends what is reached to a `.jsonl` file; a line is whole or not there."""

    def __init__(self, path: str | Path, optimizer: GroupOptimizer, names: Sequence[str]):
        """Begin a log, or go on with it where the optimizer has been resumed: lines of later steps are taken out.

        Args:
            path: The file; its folder is made.
            optimizer: Whose steps and zero groups are told of.
            names: A name for each node group; where two are alike, their numbers stand for them.

        Raises:
            UsageError: The file can't be written.
        """
        count = Counter(names)
        self.optimizer = optimizer
        self.names = [name if count[name] == 1 else str(number) for number, name in enumerate(names)]
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = self.path.read_text(errors="replace").splitlines() if optimizer.steps and self.path.exists() else []
        write(self.path, "".join(f"{line}\n" for line in lines if _step(line) <= optimizer.steps))

    def write(self, **numbers: float) -> None:
        """Add a line: the step, these numbers (`loss`, `accuracy`, `epoch`, ...), the zero share of each node group.

        A method that tells of itself (`GroupOptimizer.facts`) is heard too.
        """
        told = {"sparsity": self.optimizer.node_group_sparsity.tolist(), **self.optimizer.facts()}
        facts = {name: self._named(fact) if isinstance(fact, list) else fact for name, fact in told.items()}
        line = json.dumps({"step": self.optimizer.steps, **numbers, **facts})
        with self.path.open("a") as file:
            file.write(line + "\n")

    def _named(self, numbers: list[float]) -> dict[str, float]:
        """Numbers of node groups by their names."""
        return {name: round(number, 4) for name, number in zip(self.names, numbers, strict=True)}


def _step(line: str) -> float:
    """The step of a line; of one that is damaged, such as by a process that died, infinity."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
