"""Prints the oldest version of each library that the core may be installed with, as pip takes them."""

from __future__ import annotations

import re
from pathlib import Path


def lowest(text: str) -> list[str]:
    """What `dependencies` in pyproject.toml allows, each at its lowest; the text is read as text, for Python 3.10."""
    (listed,) = re.findall(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    return [line.replace(">=", "==") for line in re.findall(r'^\s*"([^"]+)"', listed, re.MULTILINE)]


if __name__ == "__main__":
    print("\n".join(lowest((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text(encoding="utf-8"))))
