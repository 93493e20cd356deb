"""The whole story in a minute: learn to read handwriting, prune while learning, compress, verify, report.

The data are the 1,797 handwritten digits (8 x 8 grey values) of the UCI machine-learning repository that scikit-learn
carries in its wheel; nothing is downloaded. Every number in the table is measured: accuracies on digits that training
never saw, both models run by onnxruntime.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from zig.groups.partition import Partition, analyze
from zig.groups.picture import draw
from zig.host.atomic import write_json
from zig.host.locks import alone
from zig.proof.session import Session
from zig.proof.verify import latency
from zig.surgery.compress import Report, compress
from zig.training.export import export
from zig.training.oto import OTO

EPOCHS = 25
BATCH = 64
SPARSITY = 0.7
MULTIPLE = 8  # channels that a processor's vector instructions take at once
LEARNING_RATE = 3e-3


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        """A block that makes `outputs` channels from `inputs`."""
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, h, w) -> (batch, outputs, h / stride, w / stride)."""
        y = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(y)) + self.shortcut(x))


class DigitNet(nn.Module):
    """A small residual network: 8 x 8 grey values to the scores of ten digits."""

    def __init__(self, width: int = 64):
        """Stages of `width` and `2 * width` channels."""
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 2 * width, 1))
        self.head = nn.Linear(2 * width, 10)

    def forward(self, image: Tensor) -> Tensor:
        """(batch, 1, 8, 8) -> (batch, 10)."""
        x = self.blocks(functional.relu(self.norm(self.stem(image))))
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores


@dataclass(frozen=True)
class Digits:
    """Images float32 (n, 1, 8, 8) in [0, 1] and labels int64 (n,), for training and held out."""

    images: Tensor
    labels: Tensor
    held_out: NDArray[np.float32]
    truth: NDArray[np.int64]

    @classmethod
    def load(cls) -> Digits:
        """Hold out a fifth of the digits, the same share of each."""
        from sklearn.datasets import load_digits  # noqa: PLC0415 - a second that only the demo needs
        from sklearn.model_selection import train_test_split  # noqa: PLC0415

        digits = load_digits()
        images = (digits.images[:, None] / 16).astype(np.float32)
        here, there, known, truth = train_test_split(
            images, digits.target, test_size=0.2, random_state=0, stratify=digits.target
        )
        return cls(torch.from_numpy(here), torch.from_numpy(known), there, truth)


def run(
    out: str | os.PathLike[str] = "zig-demo", *, quick: bool = False, sketch: Callable[[Partition], str] | None = None
) -> dict[str, Any]:
    """Train, prune, compress, verify; leave `full.onnx`, `compressed.onnx`, `report.json` and `graph.svg` in a folder.

    Args:
        out: The folder, made where it is missing.
        quick: Train for a fifth of the epochs.
        sketch: What draws the picture where graphviz is missing, see `zig.groups.picture.draw`.

    Returns:
        The content of `report.json`.

    Raises:
        UsageError: The folder can't be written.
        VerifyError: The compressed model would not give the same outputs.
    """
    started = time.perf_counter()
    folder, say = Path(out), Console(stderr=True)
    with alone(folder, "demo"):
        return _told(folder, quick, sketch, started, say)


def _told(
    folder: Path, quick: bool, sketch: Callable[[Partition], str] | None, started: float, say: Console
) -> dict[str, Any]:
    torch.manual_seed(0)
    digits, model = Digits.load(), DigitNet()
    say.print(
        f"a small residual network learns {len(digits.labels)} handwritten digits; {len(digits.truth)} are held out"
    )
    oto = OTO(model, digits.images[:1])
    train(oto, digits, EPOCHS // 5 if quick else EPOCHS, folder / "log.jsonl", say)
    full, small = folder / "full.onnx", folder / "compressed.onnx"
    export(model, digits.images[:1], full)
    report = compress(full, small, data={"image": digits.held_out[None]})
    note = draw(analyze(full), folder / "graph.svg", sketch=sketch)
    content = measure(full, small, report, digits) | {"seconds": round(time.perf_counter() - started, 1)}
    write_json(folder / "report.json", content)
    Console().print(table(content))
    for line in filter(
        None, (note, f"full.onnx, compressed.onnx, report.json, log.jsonl and the picture are in {folder}")
    ):
        say.print(line, soft_wrap=True, highlight=False)
    return content


def train(oto: OTO, digits: Digits, epochs: int, log: Path, say: Console) -> None:
    """Train as usual, with an optimizer that prunes meanwhile: a quarter plain, half pruning, a quarter to recover."""
    steps = len(digits.labels) // BATCH
    total = steps * epochs
    optimizer = oto.dhspg(
        "adamw", lr=LEARNING_RATE, target_group_sparsity=SPARSITY, epochs=epochs, batches=steps, round_to=MULTIPLE
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=total)
    history = oto.log(log)
    oto.model.train()
    for epoch in track(range(epochs), "training and pruning", console=say, disable=not say.is_terminal):
        order = torch.randperm(len(digits.labels))
        for batch in torch.split(order[: steps * BATCH], BATCH):
            optimizer.zero_grad()
            loss = functional.cross_entropy(oto.model(shifted(digits.images[batch])), digits.labels[batch])
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
        history.write(epoch=epoch, loss=loss.item(), accuracy=accuracy(oto.model, digits))
    oto.model.eval()


def accuracy(model: nn.Module, digits: Digits) -> float:
    """The share of the held-out digits that a network in training already tells right."""
    model.eval()
    with torch.no_grad():
        found = model(torch.from_numpy(digits.held_out)).argmax(1).numpy()
    model.train()
    return float((found == digits.truth).mean())


def shifted(images: Tensor) -> Tensor:
    """The images, all moved by the same random step of at most one pixel."""
    down, right = (int(i) for i in torch.randint(0, 3, (2,)))
    return functional.pad(images, (1, 1, 1, 1))[:, :, down : down + images.shape[2], right : right + images.shape[3]]


def measure(full: Path, small: Path, report: Report, digits: Digits) -> dict[str, Any]:
    """What there is to compare, by model; predictions are onnxruntime's, latency is of one image on one thread."""
    comparison = report.comparison
    assert comparison is not None  # `compress` was not told to skip it
    predictions = [Session(path).run({"image": digits.held_out}) for path in (full, small)]
    classes = [next(iter(outputs.values())).argmax(1) for outputs in predictions]
    models = {
        name: {
            "accuracy": float((found == digits.truth).mean()),
            "parameters": sizes["parameters"],
            "macs": sizes["macs"],
            "bytes": sizes["bytes"],
            "milliseconds": latency(path, runs=200),
        }
        for name, found, sizes, path in (
            ("full", classes[0], report.before, full),
            ("compressed", classes[1], report.after, small),
        )
    }
    return {
        **models,
        "groups": report.groups,
        "removed": report.removed,
        "held_out": len(digits.truth),
        "same_predictions": int((classes[0] == classes[1]).sum()),
        "largest_difference": comparison.max_abs,
        "largest_relative_difference": comparison.max_rel,
    }


def table(content: dict[str, Any]) -> Table:
    """The table of before and after."""
    full, small = content["full"], content["compressed"]
    removed, groups, digits = content["removed"], content["groups"], content["held_out"]
    made = Table(title=f"{removed} of {groups} groups removed ({removed / groups:.1%})", title_justify="left")
    for heading in ("", "full", "compressed", ""):
        made.add_column(heading, justify="left" if heading == "" else "right", no_wrap=True)
    agree = "all" if content["same_predictions"] == digits else f"{content['same_predictions']} of {digits}"
    made.add_row(
        "accuracy, held-out digits", f"{full['accuracy']:.2%}", f"{small['accuracy']:.2%}", f"{agree} answers the same"
    )
    for name, key, form, scale in (
        ("parameters", "parameters", "{:,.0f}", 1),
        ("multiply-adds", "macs", "{:,.0f}", 1),
        ("file, kB", "bytes", "{:,.1f}", 1e-3),
        ("onnxruntime, ms", "milliseconds", "{:.3f}", 1),
    ):
        before, after = full[key] * scale, small[key] * scale
        made.add_row(name, form.format(before), form.format(after), f"{before / after:.1f} x less")
    relative = f"{content['largest_relative_difference']:.0e} of the largest"
    made.add_row("largest output difference", "", f"{content['largest_difference']:.1e}", relative)
    return made
