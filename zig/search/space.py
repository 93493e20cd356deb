"""What a search chooses from, and how a choice meets a budget.

Every method turns the same **dials**: one for each node group, with the widths that it may have, from the largest down,
and one for each convolution whose kernel may shrink. A **setting** is an option number for each dial; a width w keeps
the w most important groups of its node group, so a setting is a plan over groups.

A method says in which order the dials' steps are to be taken. A ladder that takes one step more on each rung loses
something on each rung, so the rung nearest to a budget is found by bisection, and a few single steps around it come
nearer still. Nothing is drawn and rejected, and nothing loops without a bound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from zig.errors import PlanError, UsageError
from zig.groups.budget import Budget, nearest
from zig.groups.importance import Scores
from zig.groups.partition import Mask, Partition
from zig.plan import portions, rank

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Timing = Callable[[Mask, Mapping[str, int]], float]

MEASURES = ("macs", "params", "latency")
TOLERANCE = 0.01  # of what is to be left: a budget is met within this
MOST = 0.9  # the share of a dial that goes before its last steps wait for everything else
_REPAIRS = 64  # steps that may follow the bisection, each nearer than the one before


class Dial(NamedTuple):
    """What may be chosen at one place.

    Attributes:
        name: Of the node group, or of the weight whose kernel it is.
        options: What may be kept, from all of it down: groups of the node group, or kernel sizes.
        family: The node group; -1 for a kernel.
    """

    name: str
    options: tuple[int, ...]
    family: int = -1


@dataclass(frozen=True)
class Choice:
    """A setting that was found for a budget.

    Attributes:
        setting: Option number of each dial, int64[D].
        asked: The share that was to be removed.
        reached: The share that is removed.
        of: What the share is of.
        least: Whether this is the smallest that the dials allow.
    """

    setting: Ints
    asked: float
    reached: float
    of: str
    least: bool

    @property
    def met(self) -> bool:
        """Whether what is left is within 1 % of what was asked to be left."""
        return abs(self.reached - self.asked) <= TOLERANCE * (1 - self.asked)

    @property
    def sentence(self) -> str:
        """What was reached, and what hinders more."""
        said = f"{self.reached:.2%} of {self.of} removed"
        if self.met:
            return said
        why = "the smallest network that is allowed" if self.least else "the nearest that single widths allow"
        return f"{said}, not {self.asked:.2%}: this is {why}"


class Space:
    """All settings of a network's dials, and what each costs."""

    def __init__(
        self, partition: Partition, scores: Scores, dials: Sequence[Dial], *, timing: Timing | None = None,
        most: float = MOST,
    ):  # fmt: skip
        """Lay out the dials' steps end to end.

        Args:
            partition: G groups.
            scores: Importance of each group, float64[G]; the most important of a node group are kept longest.
            dials: What may be chosen; a node group without a dial stays whole.
            timing: Milliseconds of a plan, where latency is a budget.
            most: Steps that leave less than 1 - `most` of a dial wait until everything else has gone.
        """
        self.partition, self.dials = partition, tuple(dials)
        self.budget = Budget(partition)
        self.rank = rank(partition, scores)
        self.sizes = np.bincount(partition.node_group)
        self.counts = np.array([len(dial.options) for dial in self.dials], np.int64)
        self.dial = np.repeat(np.arange(len(self.dials)), self.counts - 1)
        left = [kept / dial.options[0] for dial in self.dials for kept in dial.options[1:]]
        self.gone = 1 - np.array(left, np.float64)
        self.late = self.gone > most + 1e-9
        self.full = np.zeros(len(self.dials), np.int64)
        self.whole: dict[str, float] = {}
        self.time_by(timing)

    @property
    def digest(self) -> str:
        """A number for what settings mean: the dials, and the order in which groups go."""
        dials = repr([(dial.name, dial.options) for dial in self.dials])
        return hashlib.blake2b(dials.encode() + self.rank.tobytes(), digest_size=8).hexdigest()

    def time_by(self, timing: Timing | None) -> None:
        """Let latency be a budget."""
        self.timing = timing
        self.whole = {of: self.cost(self.full, of) for of in MEASURES if of != "latency" or timing}

    # --- settings --------------------------------------------------------------------------------------------------

    def values(self, setting: Ints) -> tuple[int, ...]:
        """What each dial keeps."""
        return tuple(dial.options[option] for dial, option in zip(self.dials, setting.tolist(), strict=True))

    def setting(self, values: Sequence[int]) -> Ints:
        """The setting in which each dial keeps some value.

        Raises:
            UsageError: There are more or fewer dials, or one has no such option.
        """
        if len(values) != len(self.dials):
            raise UsageError(f"a setting has {len(self.dials)} values, one for each dial, not {len(values)}")
        for dial, value in zip(self.dials, values, strict=True):
            if value not in dial.options:
                raise UsageError(f"{dial.name} can't keep {value}; it may keep {', '.join(map(str, dial.options))}")
        return np.array([d.options.index(v) for d, v in zip(self.dials, values, strict=True)], np.int64)

    def kept(self, setting: Ints) -> Ints:
        """How many groups of each node group stay."""
        kept = self.sizes.copy()
        for dial, option in zip(self.dials, setting, strict=True):
            if dial.family >= 0:
                kept[dial.family] = dial.options[option]
        return kept

    def remove(self, setting: Ints) -> Mask:
        """The plan of a setting, bool[G]."""
        return np.asarray(self.rank >= self.kept(setting)[self.partition.node_group])

    def kernels(self, setting: Ints) -> dict[str, int]:
        """The kernel sizes that a setting makes smaller, by weight."""
        chosen = zip(self.dials, setting, strict=True)
        return {dial.name: dial.options[option] for dial, option in chosen if dial.family < 0 and option}

    def shares(self, setting: Ints) -> dict[str, float]:
        """The share of each slice that a smaller kernel leaves of a weight."""
        largest = {dial.name: dial.options[0] for dial in self.dials if dial.family < 0}
        rank_ = {name: len(self.partition.graph.initializers[name].dims) - 2 for name in largest}
        return {name: (k / largest[name]) ** rank_[name] for name, k in self.kernels(setting).items()}

    # --- costs -----------------------------------------------------------------------------------------------------

    def cost(self, setting: Ints, of: str) -> float:
        """MACs, parameters, or milliseconds of a setting.

        Raises:
            PlanError: There is no such measure, or no latency was measured.
        """
        if of not in MEASURES or (of == "latency" and self.timing is None):
            way = "call measure_latency first" if of in MEASURES else f"choose {', '.join(MEASURES)}"
            raise PlanError(f"the {of} of this network is not known; {way}")
        remove = self.remove(setting)
        if of == "latency":
            assert self.timing is not None
            return self.timing(remove, self.kernels(setting))
        parameters, macs = self.budget.price(remove, self.shares(setting))
        return float(macs if of == "macs" else parameters)

    def removed(self, setting: Ints, of: str) -> float:
        """The share that a setting removes."""
        return 1 - self.cost(setting, of) / max(self.whole[of], 1e-12)

    def costs(self, setting: Ints) -> dict[str, float]:
        """All measures of a setting that are known."""
        return {of: self.cost(setting, of) for of in self.whole}

    # --- budgets ---------------------------------------------------------------------------------------------------

    def even(self) -> Floats:
        """The order in which all dials lose the same share: a key for each step, float64[P]."""
        return self.gone.copy()

    def climb(self, keys: Floats, ratio: float, of: str = "macs") -> Choice:
        """The setting that removes a share, its steps taken in the order of their keys.

        Args:
            keys: For each step of each dial, float64[P]; a dial's later step never goes before its earlier one.
            ratio: The share to remove, in [0, 1).
            of: `macs`, `params` or `latency`.

        Raises:
            PlanError: The ratio is out of range, or the measure is not known.
        """
        if not 0 <= ratio < 1:
            raise PlanError(f"removal_ratio must lie between 0 and 1, not {ratio:g}")
        order = self._order(keys)

        def setting(rung: int) -> Ints:
            return np.bincount(self.dial[order[:rung]], minlength=len(self.dials))

        rung = nearest(lambda rung: self.removed(setting(rung), of), ratio, len(order))
        return self.choice(self._repaired(setting(rung), ratio, of), ratio, of)

    def choice(self, setting: Ints, asked: float, of: str) -> Choice:
        """A setting with what it reaches."""
        return Choice(setting, asked, self.removed(setting, of), of, bool((setting == self.counts - 1).all()))

    def _order(self, keys: Floats) -> Ints:
        """The steps by key; of equal keys the one that leaves more; the last steps of a dial after all others."""
        keys = keys.copy()
        for start, stop in zip(starts := np.searchsorted(self.dial, np.arange(len(self.dials))),
                               [*starts[1:], len(keys)], strict=True):  # fmt: skip
            keys[start:stop] = np.maximum.accumulate(keys[start:stop])
        return np.lexsort((self.gone, keys, self.late))

    def _repaired(self, setting: Ints, ratio: float, of: str) -> Ints:
        """A step of one dial, or of two, at a time, that comes nearest, while a budget is missed by more than 1 %."""
        error = abs(self.removed(setting, of) - ratio)
        for _ in range(_REPAIRS):
            for neighbours in (self._one_step, self._two_steps):
                if error <= TOLERANCE * (1 - ratio):
                    return setting
                near = neighbours(setting)
                errors = [abs(self.removed(other, of) - ratio) for other in near]
                if errors and min(errors) < error:
                    error, setting = min(errors), near[int(np.argmin(errors))]
                    break
            else:
                break
        return setting

    def _one_step(self, setting: Ints) -> list[Ints]:
        """The settings that are one step of one dial away."""
        moves = np.concatenate([np.eye(len(self.dials), dtype=np.int64) * sign for sign in (-1, 1)])
        near = setting + moves
        return list(near[((near >= 0) & (near < self.counts)).all(axis=1)])

    def _two_steps(self, setting: Ints) -> list[Ints]:
        """The settings that are a step of each of two dials away, or two steps of one."""
        near = {tuple(second.tolist()) for first in self._one_step(setting) for second in self._one_step(first)}
        return [np.array(other, np.int64) for other in sorted(near)]


def every_width(partition: Partition, *, round_to: int = 1, without: frozenset[int] = frozenset()) -> list[Dial]:
    """A dial for each node group, with every multiple of `round_to` as its options.

    Args:
        partition: The groups.
        round_to: Widths are whole or multiples of this.
        without: Node groups that stay whole.
    """
    steps = portions(partition, round_to)
    return [
        Dial(group.name, (group.size, *range((group.size - 1) // step * step, 0, -step)), group.id)
        for group, step in zip(partition.node_groups, steps.tolist(), strict=True)
        if group.id not in without and group.size > step
    ]


def some_widths(
    partition: Partition, ratios: Sequence[float], *, round_to: int = 1, without: frozenset[int] = frozenset()
) -> list[Dial]:
    """A dial for each node group, with some shares of its size as options.

    Args:
        partition: The groups.
        ratios: Shares that may be kept, in (0, 1].
        round_to: Widths are whole or multiples of this, where the width allows.
        without: Node groups that stay whole.

    Raises:
        PlanError: A share is out of range.
    """
    if not ratios or not all(0 < ratio <= 1 for ratio in ratios):
        raise PlanError(f"the shares of a width that may be kept must lie in (0, 1], not {list(ratios)}")
    dials = []
    for group, step in zip(partition.node_groups, portions(partition, round_to).tolist(), strict=True):
        widths = {min(group.size, max(step, round(group.size * ratio / step) * step)) for ratio in ratios}
        options = tuple(sorted(widths | {group.size}, reverse=True))
        if group.id not in without and len(options) > 1:
            dials.append(Dial(group.name, options, group.id))
    return dials
