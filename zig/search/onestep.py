"""One-step pruning: many networks of one budget, judged as they are; the best is retrained once.

Each candidate loses random shares of its node groups, scaled until the budget is met; none is drawn in vain. It is
scored without training, after its BatchNorm statistics were taken anew (EagleEye, Li et al., 2007.02491).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from zig.errors import PlanError, UsageError, ZigWarning
from zig.search.network import Mode
from zig.search.pruner import Pruner
from zig.search.record import Best, Evaluate, Progress, Record, Trial, better, evaluate, read
from zig.search.space import Choice, Space, every_width

_KIND = "one-step"
_SPREAD = 0.3  # the largest standard deviation of the logarithm of node groups' strengths


@dataclass(frozen=True)
class Candidate:
    """A network of the wanted budget.

    Attributes:
        number: Which draw it is; 0 loses the same share everywhere.
        score: What the evaluation said.
        choice: Its widths, and what they reach.
    """

    number: int
    score: float
    choice: Choice


class OneStepPruner(Pruner):
    """Prunes to a budget at once, by the best of many candidates."""

    candidates: tuple[Candidate, ...] = ()

    def search(  # noqa: PLR0913 - each one is a setting of the search
        self, calibration_fn: Evaluate | None, eval_fn: Evaluate, *, num_subnets: int = 100,
        removal_ratio: float = 0.5, calib_args: Sequence[Any] = (), eval_args: Sequence[Any] = (), of: str = "macs",
        best: Best = "max", excludes: Iterable[Any] = (), round_to: int = 1, seed: int = 0, forced: bool = False,
        path: str | os.PathLike[str] | None = None, jobs: int = 1, progress: Progress | None = None,
    ) -> tuple[Candidate, ...]:  # fmt: skip
        """Score candidates; what a file from before has is not scored again.

        Args:
            calibration_fn: Called with each candidate and `calib_args` before it is scored, as
                `zig.search.recalibrate`, to take its BatchNorm statistics anew; None for none.
            eval_fn: Called with each candidate and `eval_args`, returns the score.
            num_subnets: How many are drawn; where the same is drawn twice, it is scored once.
            removal_ratio: The share to remove.
            calib_args: Further arguments of `calibration_fn`.
            eval_args: Further arguments of `eval_fn`.
            of: What the ratio is a share of: `macs`, `params` or `latency`.
            best: The direction of the score.
            excludes: Modules, paths of modules, or patterns of parameter names whose node groups stay whole.
            round_to: Widths are whole or multiples of this.
            seed: Of the draws.
            forced: Whether to begin anew.
            path: The file; else one in the pruner's folder.
            jobs: Processes, see `zig.search.record.evaluate`.
            progress: Called with the number of candidates scored, drawn, and the last score.

        Returns:
            The candidates, best first.

        Raises:
            UsageError: The file is of another search.
            PlanError: The ratio is out of range, or nothing can be pruned, or everything is excluded.
        """
        key = better(best)
        if num_subnets < 1:
            raise PlanError(f"num_subnets must be at least 1, not {num_subnets}")
        excludes = list(excludes)
        space = self.space(excludes=excludes, round_to=round_to)
        drawn = self._drawn(space, num_subnets, removal_ratio, of, seed)
        about = {
            "zig": _KIND, **self.identity, "of": of, "removal_ratio": removal_ratio, "best": best,
            "calibrated": calibration_fn is not None, "round_to": round_to, "seed": seed,
            "excludes": sorted(self.network.families_of(excludes)),
        }  # fmt: skip
        record = Record(self._place(of, removal_ratio, path), about, anew=forced)
        removes = {str(number): space.remove(choice.setting) for number, choice in drawn.items()}
        trial = Trial(eval_fn, eval_args, calibration_fn, calib_args)
        evaluate(self.network.masked, removes, record, trial, jobs=jobs, progress=progress)
        found = [Candidate(number, record.scores[str(number)], choice) for number, choice in drawn.items()]
        self.candidates = tuple(sorted(found, key=lambda c: (-key(c.score), c.number)))
        self._space = space
        lines = [self._line(space, candidate) for candidate in self.candidates]
        record.notes = {"num_subnets": num_subnets, "candidates": lines}
        record.save()
        self._tell(num_subnets, removal_ratio)
        return self.candidates

    def _tell(self, asked: int, ratio: float) -> None:
        """Warn where there are fewer candidates than asked for, or some of them miss the budget."""
        count, missed = len(self.candidates), sum(not c.choice.met for c in self.candidates)
        if count < asked:
            warnings.warn(
                f"{count} different candidates were scored, not {asked}: the widths that meet {ratio:.2%} are few",
                ZigWarning,
                stacklevel=3,
            )
        if missed:
            nearest = min((c.choice for c in self.candidates), key=lambda choice: abs(choice.reached - ratio))
            warnings.warn(
                f"{missed} of {count} candidates miss the budget; of the nearest, {nearest.sentence}",
                ZigWarning,
                stacklevel=3,
            )

    def recall(
        self, removal_ratio: float, *, of: str = "macs", path: str | os.PathLike[str] | None = None
    ) -> tuple[Candidate, ...]:
        """Take what an earlier `search` of this network found, perhaps in another process.

        Args:
            removal_ratio: That of the search.
            of: As of `search`.
            path: The file; else the one in the pruner's folder.

        Raises:
            UsageError: There is no such file, it was not finished, or it is of another network, other weights or other
                input sizes.
        """
        file = self._place(of, removal_ratio, path)
        known = read(file)
        if unlike := self.unlike(known):
            raise UsageError(f"{file} is of {unlike}; call search with another file, or anew with forced=True")
        try:
            found = [(int(line["number"]), line["widths"]) for line in known["candidates"]]
            without, asked = frozenset(known["excludes"]), (float(known["removal_ratio"]), str(known["of"]))
            dials = every_width(self.partition, round_to=int(known["round_to"]), without=without)
            space = self._made(dials, dials, 1)
            self.candidates = tuple(
                Candidate(n, float(known["scores"][str(n)]), space.choice(space.setting(widths), *asked))
                for n, widths in found
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{file} was not finished; the search goes on with the same arguments") from error
        self._space = space
        return self.candidates

    def unlike(self, known: Mapping[str, Any]) -> str:
        """As of `Pruner`."""
        return super().unlike(known) if known.get("zig") == _KIND else "something else than one-step pruning"

    def _place(self, of: str, ratio: float, path: str | os.PathLike[str] | None) -> Path:
        return self.file(f"{of}-{ratio:g}.one-step") if path is None else Path(path)

    def _drawn(self, space: Space, count: int, ratio: float, of: str, seed: int) -> dict[int, Choice]:
        """Different candidates by number; draw i has a seed of its own, so more can be drawn later."""
        drawn: dict[int, Choice] = {}
        seen = set()
        for number in range(count):
            random = np.random.default_rng([seed, number])
            spread = random.uniform(0, _SPREAD) if number else 0.0
            strength = np.exp(spread * random.standard_normal(len(space.dials)))
            choice = space.climb(space.gone / strength[space.dial], ratio, of)
            if choice.setting.tobytes() not in seen:
                seen.add(choice.setting.tobytes())
                drawn[number] = choice
        return drawn

    @staticmethod
    def _line(space: Space, candidate: Candidate) -> dict[str, Any]:
        """A candidate as plain data."""
        setting = candidate.choice.setting
        score = candidate.score if np.isfinite(candidate.score) else None
        return {
            "number": candidate.number, "score": score, "reached": candidate.choice.reached, **space.costs(setting),
            "widths": list(space.values(setting)),
        }  # fmt: skip

    def prune(self, index: int | None = None, *, mode: Mode = "slim") -> nn.Module:
        """A candidate as a model; BatchNorm statistics are those of the whole network until it is retrained.

        Args:
            index: Its place among the candidates, 0 and None for the best.
            mode: `slim` is the small module; `sparse` keeps the shape and has `slim_state_dict()`.

        Raises:
            UsageError: There was no search, or there is no such candidate.
        """
        self.decide(index)
        return self._result(mode)

    def decide(self, index: int | None = None) -> Any:
        """The plan of a candidate alone, as for an ONNX file; `index` as of `prune`."""
        if not self.candidates or self._space is None:
            raise UsageError("there are no candidates yet; call search first")
        if not 0 <= (index or 0) < len(self.candidates):
            raise UsageError(f"there are candidates 0 to {len(self.candidates) - 1}, not {index}")
        self._take(self._space, self.candidates[index or 0].choice)
        return self.plan()
