"""Both fuzzers for as long as one likes: `python -m fuzz --seed 0 --seconds 60`, run in the folder of the tests."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fuzz import cutting, sandbox


def main() -> int:
    """Run both, half of the time each; 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", choices=("damage", "networks"))
    parser.add_argument("--inputs", type=int, default=10**9, help="at most so many damaged models")
    parser.add_argument("--keep", type=Path, help="a folder for the first model of each kind that goes wrong")
    parser.add_argument("files", nargs="*", type=Path, help="real models to damage as well")
    given = parser.parse_args()
    files, share = tuple(path.resolve() for path in given.files), given.seconds / (1 if given.only else 2)
    wrong = False
    if given.only != "networks":
        found = sandbox.fuzz(given.seed, share, given.inputs, files, given.keep)
        wrong = len(found) > 1
        show("damaged models", found)
    if given.only != "damage":
        found = cutting.fuzz(given.seed, share, given.keep)
        wrong |= any(kind.startswith("FAILED") for kind in found)
        show("random networks", found)
    return int(wrong)


def show(title: str, found: dict[str, int]) -> None:
    """What was found, the frequent first."""
    print(f"{title}:")
    for kind, count in sorted(found.items(), key=lambda pair: -pair[1]):
        print(f"{count:7} {kind}")


if __name__ == "__main__":
    sys.exit(main())
