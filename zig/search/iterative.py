"""Iterative pruning: how much each node group may lose, measured once; then networks for any budget, in rounds.

Every node group is pruned alone, at some shares, and the network is evaluated (sensitivity analysis, Li et al.,
1608.08710). A budget then goes to all node groups by one threshold: each loses as many groups as it may before its own
damage passes it. The steps of all node groups stand in the order of their damage, so a threshold is a rung of a ladder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from zig.errors import PlanError, UsageError
from zig.groups.partition import Mask
from zig.plan import Plan, rank
from zig.search.network import Mode
from zig.search.pruner import Pruner
from zig.search.record import Best, Evaluate, Progress, Record, Trial, better, evaluate, read
from zig.search.space import Choice, Floats, Space, every_width

RATIOS = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
_BASELINE = "baseline"
_KIND = "sensitivity"
_TINY = 1e-5  # added to a baseline that is divided by


@dataclass(frozen=True)
class Sensitivity:
    """What the metric becomes when one node group alone loses a share.

    Attributes:
        baseline: The metric of the whole network.
        best: Whether more or less of the metric is better.
        ratios: Shares removed, ascending, float64[R].
        metrics: By node group, float64[F, R]; nan where a node group was excluded.
    """

    baseline: float
    best: Best
    ratios: Floats
    metrics: Floats

    @property
    def damage(self) -> Floats:
        """How much worse the metric is, as a share of the baseline; never less at a larger share. float64[F, R]."""
        worse = self.baseline - self.metrics if self.best == "max" else self.metrics - self.baseline
        worse = np.where(np.isnan(self.metrics), np.inf, worse)
        return np.maximum.accumulate(np.maximum(worse, 0) / (abs(self.baseline) + _TINY), axis=1)

    def keys(self, space: Space) -> Floats:
        """The damage at each step of each dial, between the measured shares by straight lines, float64[P]."""
        keys = np.full(len(space.dial), np.inf)
        for i, dial in enumerate(space.dials):
            mine = space.dial == i
            curve = np.concatenate([[0.0], self.damage[dial.family]])
            here = np.interp(space.gone[mine], np.concatenate([[0.0], self.ratios]), curve)
            keys[mine] = np.where(space.gone[mine] > self.ratios[-1] + 1e-9, np.inf, here)
        return keys


class IterativePruner(Pruner):
    """Prunes by sensitivity, in as many rounds as retraining asks for.

    A round: `prune` with a larger ratio than before, then train what it gives. The next round starts from what was
    trained: load it into the model that the pruner was made with, or make a pruner for it; the analysis is the same.
    """

    sensitivity: Sensitivity | None = None
    _record: Record | None = None  # the file that the sensitivity is from

    def analyze(  # noqa: PLR0913 - each one is a setting of the search
        self, eval_fn: Evaluate, args: Sequence[Any] = (), *, best: Best = "max", ratios: Sequence[float] = RATIOS,
        excludes: Iterable[Any] = (), calibration_fn: Evaluate | None = None, calib_args: Sequence[Any] = (),
        forced: bool = False, path: str | os.PathLike[str] | None = None, jobs: int = 1,
        progress: Progress | None = None,
    ) -> Sensitivity:  # fmt: skip
        """Measure the sensitivity of every node group; what a file from before has is not measured again.

        A file is of the weights that it was measured with, and of what training made of a model that `prune` gave: the
        rounds of iterative pruning share it.

        Args:
            eval_fn: Called with the model and `args`, returns the metric. It costs 1 + F * R of these calls.
            args: Further arguments.
            best: The direction of the metric: "max" for accuracy, "min" for a loss.
            ratios: The shares of a node group to remove, R of them in (0, 1).
            excludes: What is not measured and never pruned: modules, paths, or patterns of parameter names.
            calibration_fn: Called with each pruned model and `calib_args` first, as `zig.search.recalibrate`. Without
                fresh BatchNorm statistics the score of a pruned network says more about its scale than its use.
            calib_args: Its further arguments.
            forced: Whether to begin anew.
            path: The file; else one in the pruner's folder.
            jobs: Processes, see `zig.search.record.evaluate`.
            progress: Called with the number of evaluations done, to do, and the last metric.

        Raises:
            UsageError: The file is of another network, other weights, other input sizes or another direction.
            PlanError: Nothing can be pruned, or everything is excluded.
        """
        better(best)
        shares = sorted({float(ratio) for ratio in ratios})
        if not shares or not 0 < shares[0] <= shares[-1] < 1:
            raise PlanError(f"ratios must lie between 0 and 1, not {list(ratios)}")
        without = self.network.families_of(excludes)
        self._made(every_width(self.partition, without=without), every_width(self.partition), 1)
        file = self.file("sensitivity") if path is None else Path(path)
        about = {"zig": _KIND, **self.identity, "best": best, "calibrated": calibration_fn is not None}
        record = Record(file, {**about, **({} if forced else self._ancestor(file))}, anew=forced)
        removes = self._removes(shares, without)
        if any(name not in record.scores for name in removes):  # a part of it was measured with these weights, or none
            record = Record(file, about, anew=forced)
            trial = Trial(eval_fn, args, calibration_fn, calib_args)
            evaluate(self.network.masked, removes, record, trial, jobs=jobs, progress=progress)
            self._note(record, shares)
        if record.notes.get("excluded") != sorted(without):
            record.notes["excluded"] = sorted(without)
            record.save()
        return self._remembered(record, shares, best)

    def recall(self, path: str | os.PathLike[str] | None = None) -> Sensitivity:
        """Take what an earlier `analyze` of this network measured, perhaps in another process, and what it excluded.

        Args:
            path: The file; else the one in the pruner's folder.

        Raises:
            UsageError: There is no such file, it was not finished, or it is of another network, other weights or other
                input sizes.
        """
        file = self.file("sensitivity") if path is None else Path(path)
        known = read(file)
        if unlike := self.unlike(known):
            raise UsageError(f"{file} is of {unlike}; call analyze with another file, or anew with forced=True")
        try:
            about = {name: known[name] for name in ("zig", *self.identity, "best", "calibrated")}
            shares, self._whole = [float(r) for r in known["ratios"]], frozenset(map(int, known["excluded"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{file} was not finished; the analysis goes on with the same arguments") from error
        better(about["best"])
        return self._remembered(Record(file, about), shares, about["best"])

    def unlike(self, known: Mapping[str, Any]) -> str:
        """As of `Pruner`; what was retrained after `prune` is no other weights."""
        if known.get("zig") != _KIND:
            return "something else than sensitivity"
        said = super().unlike(known)
        descends = known.get("weights") != self.network.weights_digest() and self._descends(known)
        return super().unlike({**known, "weights": self.network.weights_digest()}) if said and descends else said

    def _ancestor(self, file: Path) -> dict[str, Any]:
        """The weights of a file that these weights come from by pruning and training."""
        known = read(file) if file.exists() else {}
        return {"weights": known.get("weights")} if known and not self.unlike(known) else {}

    def _descends(self, known: Mapping[str, Any]) -> bool:
        """Whether everything that one of the file's plans removed is zero: training leaves it so."""
        zero = self.network.magnitude() == 0
        plans = (_unpacked(text, len(zero)) for text in known.get("pruned", ()))
        return any(remove.any() and not (remove & ~zero).any() for remove in plans)

    def _remembered(self, record: Record, ratios: Sequence[float], best: Best) -> Sensitivity:
        self._whole = frozenset(record.notes["excluded"])
        self._record, self.sensitivity = record, self._gathered(record, ratios, best)
        return self.sensitivity

    def _take(self, space: Space, choice: Choice) -> None:
        """As of `Pruner`; the file of the analysis notes what goes, to know the weights again that come of it."""
        super()._take(space, choice)
        packed = np.packbits(self.plan().remove).tobytes().hex()
        if self._record is not None and packed not in self._record.notes.get("pruned", ()):
            self._record.notes["pruned"] = [*self._record.notes.get("pruned", ()), packed]
            self._record.save()

    def _removes(self, ratios: Sequence[float], without: frozenset[int]) -> dict[str, Mask]:
        """What to evaluate, by name: the whole network, then each node group alone at each share."""
        place, removes = rank(self.partition, self.scores), {_BASELINE: np.zeros(len(self.partition), bool)}
        for group in self.partition.node_groups:
            for ratio in ratios if group.id not in without and group.size > 1 else ():
                kept = max(1, round(group.size * (1 - ratio)))
                mask = np.zeros(len(self.partition), bool)
                mask[group.groups[place[group.groups] >= kept]] = True
                removes[_key(group.id, ratio)] = mask
        return removes

    def _gathered(self, record: Record, ratios: Sequence[float], best: Best) -> Sensitivity:
        metrics = [[record.scores.get(_key(g.id, r), np.nan) for r in ratios] for g in self.partition.node_groups]
        table = np.array(metrics, np.float64).reshape(len(metrics), len(ratios))
        return Sensitivity(record.scores[_BASELINE], best, np.array(ratios), table)

    def _note(self, record: Record, ratios: Sequence[float]) -> None:
        """Beside the metrics, what each node group's shares cost: for people, and for the report."""
        place, budget = rank(self.partition, self.scores), Space(self.partition, self.scores, []).budget
        curves = []
        for group in self.partition.node_groups:
            costs = []
            for ratio in (0.0, *ratios):
                mask = np.zeros(len(self.partition), bool)
                mask[group.groups[place[group.groups] >= max(1, round(group.size * (1 - ratio)))]] = True
                costs.append(budget.price(mask))
            metrics = [record.scores.get(_key(group.id, ratio)) for ratio in ratios]
            curves.append({
                "id": group.id, "name": group.name, "size": group.size, "ratios": [0.0, *ratios],
                "metrics": [record.scores[_BASELINE], *metrics],
                "macs": [macs for _, macs in costs], "params": [params for params, _ in costs],
            })  # fmt: skip
        record.notes |= {"ratios": list(ratios), "node_groups": curves}
        record.save()

    def prune(
        self, removal_ratio: float | None = None, *, threshold: float | None = None,
        spec: str | os.PathLike[str] | Mapping[str, Any] | None = None, of: str = "macs", excludes: Iterable[Any] = (),
        round_to: int = 1, mode: Mode = "sparse",
    ) -> nn.Module:  # fmt: skip
        """The pruned model; `choice` says what was reached.

        Args:
            removal_ratio: The share to remove. What comes nearest is taken, and a warning says where that is not it.
            threshold: In its place, the damage that no node group may pass, as a share of the baseline.
            spec: In its place, the plan that an earlier `prune` wrote.
            of: What the ratio is a share of: `macs`, `params` or `latency`.
            excludes: Modules, paths of modules, or patterns of parameter names whose node groups stay whole.
            round_to: Widths are whole or multiples of this.
            mode: `sparse` keeps the shape and has `slim_state_dict()`, for further rounds; `slim` is the small module.

        Raises:
            UsageError: Not exactly one of the three is given, or there is no analysis.
            PlanError: The ratio is out of range.
        """
        self.decide(removal_ratio, threshold=threshold, spec=spec, of=of, excludes=excludes, round_to=round_to)
        return self._result(mode)

    def decide(
        self, removal_ratio: float | None = None, *, threshold: float | None = None,
        spec: str | os.PathLike[str] | Mapping[str, Any] | None = None, of: str = "macs", excludes: Iterable[Any] = (),
        round_to: int = 1,
    ) -> Plan:  # fmt: skip
        """The plan alone, as for an ONNX file; arguments as of `prune`."""
        if sum(given is not None for given in (removal_ratio, threshold, spec)) != 1:
            raise UsageError("give one of removal_ratio, threshold and spec")
        space = self.space(excludes=excludes, round_to=round_to)
        if spec is not None:
            self._take(space, self._given(space, spec))
        elif removal_ratio is not None:
            self._take(space, space.climb(self._known().keys(space), removal_ratio, of))
        else:
            assert threshold is not None
            self._take(space, self._below(space, threshold, of))
        return self.plan()

    def _below(self, space: Space, threshold: float, of: str) -> Choice:
        """Everything whose damage is within a threshold."""
        gone = (self._known().keys(space) <= threshold) & ~space.late
        setting = np.bincount(space.dial[gone], minlength=len(space.dials))
        return space.choice(setting, space.removed(setting, of), of)

    def _known(self) -> Sensitivity:
        if self.sensitivity is None:
            raise UsageError("the sensitivity of the node groups is not known yet; call analyze first")
        return self.sensitivity


def _unpacked(text: str, groups: int) -> Mask:
    """The plan of a line of hexadecimal digits; one that removes nothing where it is no such line."""
    try:
        packed = np.frombuffer(bytes.fromhex(text), np.uint8)
    except (TypeError, ValueError):
        return np.zeros(groups, bool)
    return np.unpackbits(packed, count=groups).astype(bool)


def _key(family: int, ratio: float) -> str:
    return f"{family} without {ratio:g}"
