"""What one browser session has open and chosen; no other session sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from . import sample
from .jobs import Job
from .opened import Opened
from .workspace import Workspace


@dataclass
class Look:
    """How the graph is looked at."""

    expanded: set[str] = field(default_factory=set)
    flat: bool = False
    selected: str = ""
    query: str = ""
    focus: list[int] = field(default_factory=list)
    overlay: str = ""
    centre: int = 0  # counts up whenever the view should move to the selection

    def reveal(self, model: Opened, key: str) -> None:
        """Select a node or module and open what it is in."""
        if key in model.positions or key in model.containers:
            self.expanded.update(model.above(key))
            self.selected = key
            self.centre += 1

    def show_group(self, model: Opened, group: int) -> None:
        """Fade all but one node group, and go to where it begins."""
        self.focus = [group]
        first = next((item.key for item in model.net.items if group in item.writes), "")
        self.reveal(model, first)

    def toggle(self, model: Opened, key: str) -> None:
        """Open a closed module, or close an open one with all that is in it."""
        if key in self.expanded:
            self.expanded -= {name for name in self.expanded if name == key or key in model.above(name)}
        elif key in model.containers:
            self.expanded |= {key, *model.above(key)}


@dataclass
class Session:
    """Everything of one browser session."""

    workspace: Workspace
    model: Opened | None = None
    smaller: Opened | None = None  # the model to compare with
    looks: dict[str, Look] = field(default_factory=dict)  # of each graph: graph, groups, before, after
    job: Job | None = None
    results: dict[str, Any] = field(default_factory=dict)  # what jobs on this model have found, by task
    group: int = 0
    unit: int = 0

    def open(self, path: Path) -> Opened:
        """Open a model in the place of the one that was open.

        Raises:
            ModelError: It can't be read; what was open stays.
        """
        model = Opened(path, self.workspace.shown(path))
        self.cancel()
        self.model, self.smaller = model, None
        self.looks = {name: Look(set(model.first_open())) for name in ("graph", "groups", "before", "after")}
        self.results, self.group, self.unit = {}, 0, 0
        return model

    def open_text(self, text: str) -> Opened:
        """Open a model by what the user typed.

        Raises:
            ModelError: There is no such model, or it can't be read.
            UsageError: It lies outside the chosen folder.
        """
        return self.open(self.workspace.resolve(text))

    def open_upload(self, files: list[tuple[str, BinaryIO]]) -> Opened:
        """Open an uploaded model; its external data come as further files.

        Raises:
            ModelError: None of the files is a model, or it can't be read.
            UsageError: A file is too large, or of a kind that the app doesn't read.
        """
        paths = [self.workspace.receive(name, content) for name, content in files]
        models = [path for path in paths if path.suffix == ".onnx"]
        return self.open(models[0] if models else paths[0])

    def open_sample(self) -> Opened:
        """Make the sample model and open it."""
        return self.open(sample.write(self.workspace.scratch / "sample.onnx"))

    def compare_with(self, path: Path) -> Opened:
        """Open the second model.

        Raises:
            ModelError: It can't be read.
        """
        model = Opened(path, self.workspace.shown(path))
        self.smaller = model
        self.looks["after"] = Look({key for key in self.looks["before"].expanded if key in model.containers})
        return model

    def cancel(self) -> None:
        """Stop the job that runs."""
        if self.job is not None:
            self.job.cancel()
            self.job = None
