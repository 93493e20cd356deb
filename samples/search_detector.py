"""Prune a detection network from its ONNX file alone: no labels, no training code, any framework.

Each node group is tried at some shares, and the metric is how far the outputs move on a few real images. The file is
then pruned where they move least, and both files are compared by onnxruntime. A stopped analysis goes on where it was.

python samples/search_detector.py detector.onnx images.npz small.onnx [0.2]

`images.npz` holds the network's inputs by name, samples along the first axis, as `zig verify --data` wants them.
"""

import sys
from pathlib import Path

import numpy as np

from zig.proof.session import Session
from zig.search import IterativePruner


def outputs(path: Path, images: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What a file says to each sample, all outputs in one row."""
    session = Session(path)
    samples = zip(*images.values(), strict=True)
    runs = (session.run(dict(zip(images, sample, strict=True))) for sample in samples)
    return [np.concatenate([np.ravel(value).astype(np.float64) for value in run.values()]) for run in runs]


def distance(path: Path, images: dict[str, np.ndarray], whole: list[np.ndarray]) -> float:
    """How far the outputs of a file are from those of the whole network, relative to their size."""
    pairs = zip(outputs(path, images), whole, strict=True)
    return float(np.mean([np.linalg.norm(a - b) / np.linalg.norm(b) if a.shape == b.shape else 1.0 for a, b in pairs]))


def main(source: str, data: str, target: str, ratio: str = "0.2") -> None:
    """Analyse, prune, write."""
    images = dict(np.load(data))
    pruner = IterativePruner(source)
    pruner.analyze(
        distance, (images, outputs(Path(source), images)), best="min", ratios=(0.1, 0.3, 0.5),
        progress=lambda done, of, last: print(f"{done} of {of}: {last:.3f}", file=sys.stderr),
    )  # fmt: skip
    pruner.decide(float(ratio), round_to=8)
    report = pruner.compress(target)
    assert pruner.choice is not None
    print(pruner.choice.sentence)
    print(f"parameters: {report.before['parameters']:,} -> {report.after['parameters']:,}")


if __name__ == "__main__":
    main(*sys.argv[1:])
