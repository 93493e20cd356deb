"""The task that the `data` section of a file names."""

from __future__ import annotations

from zig.runs.config import Data, Images
from zig.runs.data import Task
from zig.runs.images import Classification
from zig.runs.squad import QuestionAnswering


def load(section: Data, seed: int = 0) -> Task:
    """The data that a section names.

    Args:
        section: The `data` of a file.
        seed: Of the augmentation.

    Raises:
        UsageError: A file is missing or not what it should be.
    """
    if isinstance(section, Images):
        return Classification.load(section, seed)
    return QuestionAnswering.load(section)
