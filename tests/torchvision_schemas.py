"""Lets torchvision import beside a torch of another build, as pip installs them where only one has a CPU build.

Its compiled operators can't load there, and `import torchvision` fails where it says what shapes they give, since nobody
has declared them. All that the tests take from torchvision is its models and transforms, and those need no such
operator: declaring the two that are asked for is enough. They can't be run.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

SUPPRESSION = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[Any] = []  # torch forgets a declaration with the object that made it


def install() -> None:
    """Declare what `import torchvision` asks for; does nothing where it imports by itself, or is not installed."""
    if _declared or importlib.util.find_spec("torchvision") is None:
        return
    import torch

    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]  # half of it is imported
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(operator + SUPPRESSION)
        _declared.append(library)
