"""What the three methods share: the network, its importance, its files, and the way from a choice to a result."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from zig.errors import PlanError, UsageError, ZigWarning
from zig.groups.importance import Scores
from zig.groups.partition import Partition
from zig.latency import Latency
from zig.plan import Plan
from zig.search.network import File, Mode, Network, sizes_of
from zig.search.record import read, write_json
from zig.search.space import Choice, Dial, Space, every_width
from zig.surgery.compress import Report
from zig.training.export import Inputs

SPEC = "zig plan"
_UNLIKE = {
    "network": "another model", "digest": "another model", "inputs": "other input sizes", "weights": "other weights",
    "importance": "other scores of importance",
}  # fmt: skip
Tell = Callable[[int, int], None]


class Pruner:
    """A network, and what a search found for it.

    Attributes:
        network: The torch model or ONNX file with its groups.
        folder: Where files of searches lie.
        choice: What the last budget led to.
        latency: Times of plans, once `measure_latency` was called.
    """

    def __init__(
        self, model: nn.Module | str | os.PathLike[str], inputs: Inputs | None = None, *,
        folder: str | os.PathLike[str] = ".zig", scores: Scores | None = None, forks: str = "heads",
        keep: Iterable[str] = (), **options: Any,
    ):  # fmt: skip
        """Find the groups of a model.

        Args:
            model: A torch model, or the path of an ONNX file; an evaluation then gets the path of a file with zeros.
            inputs: What a torch model reads, as for `zig.OTO`.
            folder: Where files of searches go.
            scores: Importance of each group, float64[G]; else the magnitude of its weights.
            forks: As for `zig.analyze`.
            keep: As for `zig.analyze`.
            **options: `keywords` and `dynamic_axes` of `zig.OTO`.

        Raises:
            UsageError: There are no inputs for a torch model.
            ExportError: The model can't be exported without loss.
            ModelError: The file can't be read.
        """
        self.network: Network | File
        if isinstance(model, nn.Module):
            if inputs is None:
                raise UsageError("a torch model needs inputs to be exported; give a tensor as it reads")
            self.network = Network(model, inputs, forks=forks, keep=keep, **options)
        else:
            self.network = File(model, forks=forks, keep=keep)
        self.folder, self._scores = Path(folder), scores
        self.choice: Choice | None = None
        self.latency: Latency | None = None
        self._space: Space | None = None
        self._whole: frozenset[int] = frozenset()  # node groups that stay whole in any case

    @property
    def partition(self) -> Partition:
        """The groups."""
        return self.network.partition

    @property
    def scores(self) -> Scores:
        """The importance of each group as the weights are now, float64[G]."""
        return self.network.magnitude() if self._scores is None else np.asarray(self._scores, np.float64)

    @property
    def identity(self) -> dict[str, Any]:
        """What a file of scores must agree with to be of this network as it is now."""
        given = None if self._scores is None else hashlib.blake2b(self.scores.tobytes(), digest_size=16).hexdigest()
        return {
            "network": self.network.name, "digest": self.network.digest, "inputs": sizes_of(self.partition),
            "weights": self.network.weights_digest(), "importance": given,
        }  # fmt: skip

    def unlike(self, known: Mapping[str, Any]) -> str:
        """What a file of scores is of instead of this network; empty where it is of this one.

        Args:
            known: The content of the file.
        """
        mine = self.identity
        return next((said for name, said in _UNLIKE.items() if known.get(name) != mine[name]), "")

    def file(self, kind: str) -> Path:
        """Where this network's file of some kind lies; other networks of the same class have other files."""
        return self.folder / f"{self.network.name}-{self.network.digest[:8]}.{kind}.json"

    # --- latency ---------------------------------------------------------------------------------------------------

    def measure_latency(
        self, provider: str = "cpu", *, runs: int = 15, forced: bool = False, progress: Tell | None = None
    ) -> Latency:
        """Measure the times of the network's layers on this machine, so that latency can be a budget.

        Args:
            provider: Where onnxruntime runs: `cpu`, `cuda`, ...
            runs: How many runs a time is the fastest of.
            forced: Whether to measure anew what a file from before has; what is of other sizes, or lacks layers or
                kernels of this network, is measured anew in any case.
            progress: Called with the number of kinds of layers measured, and to measure.

        Raises:
            UsageError: The provider is missing here.
        """
        file = self.file(f"{provider}.latency")
        self.latency = None if forced else self._timed_before(file)
        if self.latency is None:
            self.latency = Latency.measure(
                self.partition, provider=provider, runs=runs, kernels=self._kernels(), progress=progress
            )
            about = {"zig": "latency", "network": self.network.name, "inputs": sizes_of(self.partition)}
            write_json(file, {**about, **self.latency.to_dict()})
        if self._space is not None:
            self._space.time_by(self.latency)
        return self.latency

    def _timed_before(self, file: Path) -> Latency | None:
        """The times in a file, where they are of the layers, kernels and input sizes that the network has now."""
        if not file.exists():
            return None
        known, sizes = read(file, "tables"), sizes_of(self.partition)
        if known.get("inputs", sizes) != sizes:  # an older zig noted no sizes; then its layers tell
            return None
        found = Latency.from_dict(self.partition, known)
        return found if found.covers(self._kernels()) else None

    def _kernels(self) -> dict[str, Sequence[int]]:
        """Kernel sizes that a weight may have besides its own."""
        return {}

    def predicted_and_measured(self, runs: int = 30) -> tuple[float, float]:
        """Milliseconds of what was chosen last: by the tables, and by onnxruntime on this machine.

        Raises:
            UsageError: Nothing is chosen yet, or nothing measured.
        """
        if self.latency is None:
            raise UsageError("no latency is known yet; call measure_latency first")
        remove = self.plan().remove
        return self.latency(remove), self.latency.timed(remove, runs)

    # --- from a choice to a result ---------------------------------------------------------------------------------

    def space(self, *, excludes: Iterable[Any] = (), round_to: int = 1) -> Space:
        """All widths that may be chosen.

        Args:
            excludes: Modules, paths of modules, or patterns of parameter names whose node groups stay whole.
            round_to: Widths are whole or multiples of this.

        Raises:
            UsageError: Something excluded is no part of the network.
            PlanError: Nothing is left to prune.
        """
        without = self.network.families_of(excludes) | self._whole
        dials = every_width(self.partition, round_to=round_to, without=without)
        return self._made(dials, every_width(self.partition, round_to=round_to), round_to)

    def _made(self, dials: list[Dial], free: list[Dial], round_to: int, excluded: str = "by excludes") -> Space:
        """The space of some dials; where there are none, the error says whether excludes, rounding or the graph did it.

        Args:
            dials: What may be chosen.
            free: The node groups' dials if nothing were excluded.
            round_to: What widths are multiples of.
            excluded: By what node groups are excluded.
        """
        if not dials:
            name = self.network.name
            if free:
                raise PlanError(
                    f"nothing of {name} is left to prune: all of its node groups that can be pruned ({len(free)}) are "
                    f"excluded {excluded}"
                )
            if every_width(self.partition):
                raise PlanError(f"nothing of {name} can be pruned: no width has a smaller multiple of {round_to}")
            raise PlanError(f"nothing of {name} can be pruned; `zig analyze` says what fixes each part")
        return Space(self.partition, self.scores, dials, timing=self.latency)

    def plan(self) -> Plan:
        """The plan that the last choice means.

        Raises:
            UsageError: Nothing was chosen yet.
        """
        if self.choice is None or self._space is None:
            raise UsageError("nothing is chosen yet; call prune first")
        return Plan(self.partition, self._space.remove(self.choice.setting))

    def compress(self, target: str | os.PathLike[str], model: nn.Module | None = None) -> Report:
        """Write the small ONNX file, compared with the full one by onnxruntime.

        Args:
            target: For an ONNX file, the file to write; for a torch model, a folder for `<name>_full.onnx` and
                `<name>_compressed.onnx`.
            model: A sparse model that was retrained; else the plan is applied to the network as it is.

        Raises:
            UsageError: Nothing was chosen yet.
            VerifyError: The outputs differ.
        """
        if isinstance(self.network, File):
            return self.network.compress(self.plan().remove, target)
        return self.network.compress(model, target) if model is not None else self._slim(target)[1]

    def _slim(self, target: str | os.PathLike[str] | None = None) -> tuple[nn.Module, Report]:
        assert isinstance(self.network, Network)
        return self.network.slim(self.plan().remove, target)

    def _take(self, space: Space, choice: Choice) -> None:
        """Remember a choice, and write it down for people and for `spec=`."""
        self._space, self.choice = space, choice
        write_json(self.file(f"{choice.of}-{choice.asked:g}.plan"), self._spec(space, choice))

    def _spec(self, space: Space, choice: Choice) -> dict[str, Any]:
        kept = space.kept(choice.setting)
        widths = [
            {"id": g.id, "name": g.name, "size": g.size, "kept": int(kept[g.id])} for g in self.partition.node_groups
        ]
        costs = {of: [space.whole[of], cost] for of, cost in space.costs(choice.setting).items()}
        return {
            "zig": SPEC, "network": self.network.name, "digest": self.network.digest, "of": choice.of,
            "asked": choice.asked, "reached": choice.reached, "met": choice.met, "costs": costs, "node_groups": widths,
        }  # fmt: skip

    def _given(self, space: Space, spec: str | os.PathLike[str] | Mapping[str, Any]) -> Choice:
        """The choice that a file of an earlier `prune` holds, or its content.

        Raises:
            UsageError: It is of another network, or of widths that are excluded now.
        """
        content = dict(spec) if isinstance(spec, Mapping) else read(Path(spec), "node_groups")
        if content.get("zig") != SPEC or content.get("digest") != self.network.digest:
            raise UsageError(f"this plan is for another network than {self.network.name}; make it anew")
        wanted = {entry["id"]: entry["kept"] for entry in content["node_groups"]}
        setting = space.full.copy()
        for i, dial in enumerate(space.dials):
            if wanted.get(dial.family, dial.options[0]) not in dial.options:
                raise UsageError(
                    f"the plan keeps {wanted[dial.family]} of {dial.name}; with what is asked for now it may keep "
                    f"{', '.join(map(str, dial.options))}"
                )
            setting[i] = dial.options.index(wanted.get(dial.family, dial.options[0]))
        return space.choice(setting, content["asked"], content["of"])

    def _result(self, mode: Mode) -> nn.Module:
        """The model without what the choice removes; a budget that is missed is told.

        Raises:
            UsageError: The network is a file.
        """
        if self.choice is not None and not self.choice.met:
            warnings.warn(self.choice.sentence, ZigWarning, stacklevel=3)
        if isinstance(self.network, File):
            raise UsageError(f"{self.network.model} is a file; take plan(), or write the small file with compress()")
        return self.network.pruned(self.plan().remove, mode)
