"""What the runners are given, in the forms that zig.search takes: models, excludes, words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from torch import nn

from zig.errors import UsageError
from zig.search.pruner import Pruner
from zig.training.export import Inputs

FOLDER = ".vai"
P = TypeVar("P", bound=Pruner)


def made(kind: type[P], model: nn.Module, inputs: Inputs) -> P:
    """A method for a model; `inputs` is what it reads.

    Raises:
        UsageError: It is no torch module.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"the model must be a torch module, not {type(model).__name__}; zig.search takes ONNX files")
    return kind(model, inputs, folder=FOLDER)


def excluded(excludes: Iterable[Any] | None) -> list[Any]:
    """Modules and paths; a name of a node in Vitis, such as `Net::Net/Block[layer]/Conv2d[conv]/x`, has them in it."""
    given = [excludes] if isinstance(excludes, (str, nn.Module)) else list(excludes or ())
    return [".".join(re.findall(r"\[([^]]+)]", e)) if isinstance(e, str) and "::" in e else e for e in given]


def one_of(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Refuse a value that an argument can't have.

    Raises:
        UsageError: It is none of those allowed.
    """
    if value not in allowed:
        raise UsageError(f"{name} must be {' or '.join(map(repr, allowed))}, not {value!r}")


__all__ = ["FOLDER", "excluded", "made", "one_of"]
