"""Data of a run: examples by number, and the order in which training sees them.

Everything random about data is a function of the seed, the epoch and the number of the example. So a run that goes on
from any step, with any number of processes or workers, sees what an uninterrupted run would have seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from zig.errors import UsageError
from zig.runs.config import Data, Images

Batch = dict[str, Tensor]
Arrays = Sequence[NDArray[Any]]
PLAIN = -1  # the epoch of an example as it is, without augmentation


class Key(NamedTuple):
    """Which example, and as it is in which epoch."""

    epoch: int
    number: int


class Examples(Protocol):
    """A part of a data set."""

    def __len__(self) -> int:
        """The number of examples."""

    def __getitem__(self, key: Key) -> Batch:
        """The tensors of one example, without the batch axis."""


class Task(Protocol):
    """What a network is to learn, and how it is measured."""

    @property
    def train(self) -> Examples:
        """Examples to learn from; their labels are used by `loss` alone."""

    @property
    def held_out(self) -> Examples:
        """Examples that training never sees."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The tensors of an example that the network reads."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The numbers that `score` gives, shares in [0, 1]; the first is what matters."""

    def arguments(self, batch: Batch) -> Tensor | dict[str, Tensor]:
        """What the network is called with: a tensor, or keyword arguments."""

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Tensor, ...]:
        """What the network says to a batch."""

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """The mean loss over a batch, a scalar."""

    def prepared(self, batch: Batch, random: np.random.Generator) -> Batch:
        """A batch as training sees it: with what is done to whole batches."""

    def training_loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """What training descends, a scalar: `loss`, but for smoothed or mixed labels."""

    def score(self, outputs: Iterable[Arrays]) -> dict[str, float]:
        """The metrics, from the outputs for all of `held_out` in order, in any number of batches."""

    def check(self, outputs: tuple[Tensor, ...]) -> None:
        """Refuse a network whose outputs are not what the data ask for.

        Raises:
            UsageError: They are not.
        """


def load(section: Data, seed: int = 0) -> Task:
    """The data that a section names.

    Args:
        section: The `data` of a file.
        seed: Of the augmentation.

    Raises:
        UsageError: A file is missing or not what it should be.
    """
    from zig.runs.images import Classification  # noqa: PLC0415 - these build on this file
    from zig.runs.squad import QuestionAnswering  # noqa: PLC0415

    if isinstance(section, Images):
        return Classification.load(section, seed)
    return QuestionAnswering.load(section)


def of_step(seed: int, step: int, rank: int = 0) -> np.random.Generator:
    """Random numbers for the whole batch of a step, in one process."""
    return np.random.default_rng([seed, step, rank, 1])


@dataclass(frozen=True)
class Some:
    """Some of the examples; an `Examples`."""

    examples: Examples
    numbers: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.numbers)

    def __getitem__(self, key: Key) -> Batch:
        """The tensors of one example."""
        return self.examples[Key(key[0], int(self.numbers[key[1]]))]


def split(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """The examples without a random share of them, and that share."""
    permutation = order(len(examples), seed, PLAIN)
    count = round(share * len(examples))
    return (Some(examples, permutation[count:]) if count else examples), Some(examples, permutation[:count])


def order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of all examples in an epoch, int64[count]."""
    return np.random.default_rng([seed, epoch + 1]).permutation(count)


def steps_in_epoch(count: int, batch: int) -> int:
    """How many whole batches an epoch has; the examples that are left over are others in every epoch.

    Raises:
        UsageError: There is not one.
    """
    if count < batch:
        raise UsageError(f"batch_size is {batch}, but there are only {count} examples to learn from; choose fewer")
    return count // batch


def keys(count: int, batch: int, seed: int, steps: range, share: slice = slice(None)) -> Iterator[list[Key]]:
    """The examples of each step.

    Args:
        count: How many examples there are.
        batch: How many a step takes, over all processes.
        seed: Of the order.
        steps: Which steps, counted from the beginning of training.
        share: This process's part of a batch.
    """
    within = steps_in_epoch(count, batch)
    epoch, permutation = -1, np.empty(0, np.int64)
    for step in steps:
        if step // within != epoch:
            epoch = step // within
            permutation = order(count, seed, epoch)
        start = step % within * batch
        yield [Key(epoch, int(i)) for i in permutation[start : start + batch][share]]


def batches(examples: Examples, chosen: Iterable[list[Key]], workers: int = 0) -> Iterator[Batch]:
    """Batches of examples, read by other processes where `workers` is not 0."""
    loader: DataLoader[Any] = DataLoader(
        examples,  # type: ignore[arg-type]  # it asks for its own base class, and uses what Examples has
        batch_sampler=chosen,
        num_workers=workers,
        generator=torch.Generator(),  # else it draws from the one whose state a checkpoint holds
    )
    return iter(loader)


def in_order(examples: Examples, batch: int, workers: int = 0) -> Iterator[Batch]:
    """All examples as they are, in batches."""
    numbers = range(len(examples))
    return batches(examples, ([Key(PLAIN, i) for i in numbers[at : at + batch]] for at in numbers[::batch]), workers)
