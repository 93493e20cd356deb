"""Training logs: one JSON object a line, which the app's Training page reads (see docs/app.md)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from zig.training.grouped import GroupOptimizer


class TrainingLog:
    """Appends what is reached to a `.jsonl` file; a line is whole or not there."""

    def __init__(self, path: str | Path, optimizer: GroupOptimizer, names: Sequence[str]):
        """Begin a log, or go on with it where the optimizer has been resumed.

        Args:
            path: The file; its folder is made.
            optimizer: Whose steps and zero groups are told of.
            names: A name for each node group; where two are alike, their numbers stand for them.

        Raises:
            OSError: The file can't be written.
        """
        count = Counter(names)
        self.optimizer = optimizer
        self.names = [name if count[name] == 1 else str(number) for number, name in enumerate(names)]
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not optimizer.steps:
            self.path.write_text("")

    def write(self, **numbers: float) -> None:
        """Add a line: the step, these numbers (`loss`, `accuracy`, `epoch`, ...), the zero share of each node group."""
        shares = self.optimizer.node_group_sparsity
        sparsity = {name: round(float(share), 4) for name, share in zip(self.names, shares, strict=True)}
        line = json.dumps({"step": self.optimizer.steps, **numbers, "sparsity": sparsity})
        with self.path.open("a") as file:
            file.write(line + "\n")
