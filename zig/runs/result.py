"""The end of a run: the compressed model, verified, and what both models reach on held-out data."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import nn

from zig.host.atomic import write_json
from zig.proof.session import Session
from zig.runs.data import Arrays, Batch, Task, in_order
from zig.training.export import evaluation
from zig.training.oto import OTO

SAMPLES, EACH = 3, 2  # real inputs that `compress` compares the outputs on, and examples in each

Outputs = Callable[[Batch], Arrays]


def measured(task: Task, outputs: Outputs, batch_size: int, workers: int = 0) -> dict[str, float]:
    """The metrics of a network on all held-out examples."""
    return task.score(outputs(batch) for batch in in_order(task.held_out, batch_size, workers))


def torch_outputs(task: Task, model: nn.Module, device: torch.device) -> Outputs:
    """What a torch module says to a batch, in evaluation mode."""

    def outputs(batch: Batch) -> Arrays:
        with torch.no_grad(), evaluation(model):
            found = task.forward(model, {name: value.to(device) for name, value in batch.items()})
        return [each.float().cpu().numpy() for each in found]

    return outputs


def onnx_outputs(task: Task, path: Path) -> Outputs:
    """What a file says to a batch under onnxruntime."""
    session = Session(path)
    names = _names(task, list(session.inputs))
    return lambda batch: list(session.run({name: batch[key].numpy() for name, key in names.items()}).values())


def _names(task: Task, inputs: list[str]) -> dict[str, str]:
    """The tensor of an example for each input of a file: of the same name, or at the same place."""
    return {name: name if name in task.inputs else task.inputs[place] for place, name in enumerate(inputs)}


def finish(oto: OTO, task: Task, out: Path, batch_size: int, workers: int = 0) -> dict[str, Any]:
    """Write both models, compare their outputs, measure both on all held-out data, and leave `report.json`.

    Args:
        oto: The trained model.
        task: Its data.
        out: Folder of the files.
        batch_size: Examples at a time.
        workers: Processes that read data.

    Returns:
        The content of `report.json`: sizes and metrics, `full` and `compressed`, and how they were compared.

    Raises:
        VerifyError: The outputs differ; the compressed model is not written.
    """
    name = type(oto.model).__name__
    names = _names(task, list(oto.partition.graph.inputs))
    report = oto.compress(out, name, data=_real(task, names), samples=SAMPLES)
    files = {"full": out / f"{name}_full.onnx", "compressed": out / f"{name}_compressed.onnx"}
    sizes = {"full": report.before, "compressed": report.after}
    comparison = report.comparison
    assert comparison is not None  # `compress` was not told to skip it
    none = [] if report.removed else ["no group of the trained network is zero, so nothing was removed"]
    content: dict[str, Any] = {
        kind: {"file": file.name, **sizes[kind], **measured(task, onnx_outputs(task, file), batch_size, workers)}
        for kind, file in files.items()
    }
    content |= {
        "metrics": list(task.metrics),
        "groups": report.groups,
        "removed": report.removed,
        "held_out": len(task.held_out),
        "largest_difference": comparison.max_abs,
        "largest_relative_difference": comparison.max_rel,
        "warnings": [*none, *comparison.warnings],
    }
    write_json(out / "report.json", content)
    return content


def _real(task: Task, names: dict[str, str]) -> dict[str, Any]:
    """Some held-out examples for each input of a file, (samples, examples, ...)."""
    count = min(SAMPLES * EACH, len(task.held_out))
    batch = next(in_order(task.held_out, count))
    samples = max(1, count // EACH)
    found = {name: batch[key].numpy() for name, key in names.items()}
    return {name: np.stack(np.array_split(value[: samples * EACH], samples)) for name, value in found.items()}


def table(content: dict[str, Any]) -> Table:
    """The table of before and after."""
    full, small = content["full"], content["compressed"]
    share = content["removed"] / max(content["groups"], 1)
    title = f"{content['removed']} of {content['groups']} groups removed ({share:.1%})"
    made = Table(title=title, title_justify="left")
    for heading in ("", "full", "compressed", ""):
        made.add_column(heading, justify="left" if heading == "" else "right", no_wrap=True)
    for metric in content["metrics"]:
        same = "the same" if full[metric] == small[metric] else f"{small[metric] - full[metric]:+.2%}"
        made.add_row(f"{metric.replace('_', ' ')}, held-out", f"{full[metric]:.2%}", f"{small[metric]:.2%}", same)
    for name, key in (("parameters", "parameters"), ("multiply-adds", "macs"), ("file, bytes", "bytes")):
        less = f"{full[key] / small[key]:.2f} x less" if small[key] else ""
        made.add_row(name, f"{full[key]:,}", f"{small[key]:,}", less)
    relative = content["largest_relative_difference"]
    said = f"{relative:.0e} of the largest" if math.isfinite(relative) else ""
    made.add_row("largest output difference", "", f"{content['largest_difference']:.1e}", said)
    return made
