"""Scores that were measured, in a file that survives a kill at any moment: whoever comes back measures the rest.

A search is a function of its candidates' scores, and candidates are numbered and drawn by seeds of their own. So a
search that is begun again finds the same candidates, takes the scores that are there, and ends with the same result.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from zig.errors import UsageError
from zig.host import atomic
from zig.search.network import Subject

Best = Literal["max", "min"]
Evaluate = Callable[..., Any]
Progress = Callable[[int, int, float], None]


class Record:
    """A JSON file of scores by the name of what was scored.

    Attributes:
        path: The file.
        about: What the scores are of; a file that says otherwise is refused.
        scores: What was measured.
        notes: What else people may want to read.
    """

    def __init__(self, path: str | os.PathLike[str], about: Mapping[str, Any], *, anew: bool = False):
        """Begin, or go on with what is there.

        Args:
            path: The file.
            about: What the scores are of, plain data.
            anew: Whether to forget what is there.

        Raises:
            UsageError: The file is of something else, or is no record.
        """
        self.path, self.about = Path(path), json.loads(json.dumps(about))
        self.scores: dict[str, float] = {}
        self.notes: dict[str, Any] = {}
        if self.path.exists() and not anew:
            known = read(self.path)
            if not isinstance(known["scores"], dict):
                raise UsageError(f"{self.path}: its scores have no names; name another file")
            for name, value in self.about.items():
                if known.get(name) != value:
                    raise UsageError(
                        f"{self.path}: its {name} is {_short(known.get(name))}, and now it would be {_short(value)}; "
                        "name another file, or begin anew with forced=True"
                    )
            self.scores = {name: float(score) for name, score in known["scores"].items()}
            self.notes = {name: note for name, note in known.items() if name not in {*self.about, "scores"}}

    def add(self, scores: Mapping[str, float]) -> None:
        """Take down scores, in the file too."""
        self.scores.update(scores)
        self.save()

    def save(self) -> None:
        """Write the file, which is whole at any moment.

        Raises:
            UsageError: It can't be written.
        """
        content = {**self.about, "scores": {n: s if math.isfinite(s) else str(s) for n, s in self.scores.items()}}
        write_json(self.path, {**content, **self.notes})


def read(path: Path, part: str = "scores") -> dict[str, Any]:
    """The content of a file that a search wrote.

    Args:
        path: The file.
        part: What it must have.

    Raises:
        UsageError: It can't be read, or is none.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: can't be read as JSON ({error}); name another file") from error
    if not isinstance(content, dict) or not isinstance(content.get(part), (dict, list)):
        raise UsageError(f"{path}: is no file of a search, it has no {part}; name another file")
    return content


def write_json(path: Path, content: Any) -> None:
    """Write plain data for people and programs; the file is whole at any moment.

    Raises:
        UsageError: It can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: can't be written ({error.strerror})") from error
    atomic.write(path, _text(content) + "\n")


@dataclass(frozen=True)
class Trial:
    """How a candidate is scored.

    Attributes:
        eval_fn: Called with the candidate and `args`, returns a number.
        args: Its further arguments.
        prepare: Called before, such as for adaptive BatchNorm.
        prepare_args: Its further arguments.
    """

    eval_fn: Evaluate
    args: Sequence[Any] = ()
    prepare: Evaluate | None = None
    prepare_args: Sequence[Any] = ()

    def scores(self, subject: Subject, candidates: Sequence[tuple[str, Any]]) -> dict[str, float]:
        """The scores of some candidates, by name."""
        found = {}
        for name, candidate in candidates:
            with subject.subnet(candidate) as model:
                if self.prepare is not None:
                    self.prepare(model, *self.prepare_args)
                found[name] = float(self.eval_fn(model, *self.args))
        return found


def evaluate(
    subject: Subject, candidates: Mapping[str, Any], record: Record, trial: Trial, *, jobs: int = 1,
    progress: Progress | None = None,
) -> None:  # fmt: skip
    """Score every candidate that has no score yet.

    Args:
        subject: What the candidates are candidates of.
        candidates: What is to be scored, by name.
        record: Takes the scores, and has those that are known.
        trial: How a candidate is scored.
        jobs: Processes of joblib, -1 for as many as there are cores; `joblib.parallel_config` chooses the back end,
            such as Dask or Ray for several machines.
        progress: Called with the number of scores, of candidates, and the last score.
    """
    missing = [(name, candidate) for name, candidate in candidates.items() if name not in record.scores]
    done = len(candidates) - len(missing)
    for found in _batches(subject, missing, trial, jobs):
        record.add(found)
        done += len(found)
        if progress is not None:
            progress(done, len(candidates), next(reversed(found.values())))


def _batches(
    subject: Subject, missing: Sequence[tuple[str, Any]], trial: Trial, jobs: int
) -> Iterator[dict[str, float]]:
    """Scores as they come in: one at a time, or from all processes at once."""
    if jobs == 1:
        for pair in missing:
            yield trial.scores(subject, [pair])
        return
    from joblib import Parallel, delayed, effective_n_jobs  # type: ignore[import-untyped]  # noqa: PLC0415

    workers = max(effective_n_jobs(jobs), 1)
    left = iter(missing)
    while portion := list(islice(left, 2 * workers)):
        shares = [portion[i::workers] for i in range(min(workers, len(portion)))]
        parts = Parallel(n_jobs=jobs)(delayed(trial.scores)(subject, share) for share in shares)
        yield {name: score for part in parts for name, score in part.items()}


def better(best: Best) -> Callable[[float], float]:
    """A key by which the best score is the largest; what is no number is worst.

    Raises:
        UsageError: `best` is neither "max" nor "min".
    """
    if best not in ("max", "min"):
        raise UsageError(f"best must be 'max' or 'min', the direction of the metric, not '{best}'")
    sign = 1.0 if best == "max" else -1.0
    return lambda score: -math.inf if math.isnan(score) else sign * score


def _text(content: Any, deep: int = 2) -> str:
    """JSON with an entry a line in the first levels; json's own indentation is ten times slower."""
    if not deep or not isinstance(content, (dict, list)) or not content:
        return json.dumps(content)
    space, (first, last) = " " * (3 - deep), "{}" if isinstance(content, dict) else "[]"
    if isinstance(content, dict):
        lines = [f"{json.dumps(str(key))}: {_text(value, deep - 1)}" for key, value in content.items()]
    else:
        lines = [_text(value, deep - 1) for value in content]
    return f"{first}\n{space}" + f",\n{space}".join(lines) + f"\n{space[1:]}{last}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
