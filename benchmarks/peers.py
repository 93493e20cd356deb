"""What other tools make of the same model: each takes its name and the folder with its files, and gives a few numbers.

`kept` is the share of parameters that are left, `seconds` what the tool took without reading and writing files, `error`
the largest difference to the zeroed model where the tool is meant to leave the outputs as they are. What a tool raises
is left to end the process: it is the tool's result.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import onnx
import torch
import zoo

Result = dict[str, Any]


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a function returns, and the seconds that it took."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def original(name: str, folder: Path) -> Path:
    """The model as it was exported, `<model>.<exporter>.onnx`, or the file itself."""
    return Path(name) if name.endswith(".onnx") else next(folder.glob("*.*.onnx"))


def inputs(name: str) -> zoo.Arrays | None:
    """One set of inputs by name; None for a file."""
    if name.endswith(".onnx"):
        return None
    names = (i.name for i in zoo.architecture(name).inputs)
    return dict(zip(names, zoo.sample(name, 11), strict=True))


def torch_pruning(name: str, folder: Path) -> Result:
    """Torch-Pruning on the module: half of the channels of every layer but the last, left to itself; it must run."""
    import torch_pruning as tp

    module, example = zoo.build(name)
    last = [m for m in module.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))][-1:]
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    before = count(module)
    pruner, first = timed(
        lambda: tp.pruner.BasePruner(module, example, importance, pruning_ratio=0.5, ignored_layers=last)
    )
    _, second = timed(pruner.step)
    module(*example)
    return {"kept": count(module) / before, "seconds": first + second}


def count(module: torch.nn.Module) -> int:
    """The number of parameters of a module."""
    return sum(p.numel() for p in module.parameters())


def openvino(name: str, folder: Path) -> Result:
    """OpenVINO's pruning pass on the zeroed file, after constant folding, without which it finds nothing."""
    from openvino import Core
    from openvino._offline_transformations import apply_pruning_transformation
    from openvino.passes import ConstantFolding, Manager

    core, manager = Core(), Manager()
    model = core.read_model(folder / "zeroed.onnx")
    manager.register_pass(ConstantFolding())
    manager.run_passes(model)
    before = weights(model)
    _, seconds = timed(lambda: apply_pruning_transformation(model))
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    result: Result = {"kept": weights(model) / before, "seconds": seconds}
    if feeds := inputs(name):
        (want,) = zoo.run(folder / "zeroed.onnx", [feeds])
        got = compiled({i.get_any_name(): feeds[i.get_any_name()] for i in compiled.inputs})
        result["error"] = zoo.apart(want, {output: got[place] for place, output in enumerate(want)})
    return result


def weights(model: Any) -> int:
    """The number of floating-point elements in the constants of an OpenVINO model."""
    nodes = (node for node in model.get_ops() if node.get_type_name() == "Constant")
    return sum(math.prod(n.get_output_shape(0)) for n in nodes if n.get_output_element_type(0).is_real())


def onnxsim(name: str, folder: Path) -> Result:
    """The structured pruning of onnxsim on the file as exported; onnxruntime must accept what it makes."""
    from onnxsim import apply_structured_pruning

    full, small = original(name, folder), folder / "onnxsim.onnx"
    model = onnx.load(full)
    pruned, seconds = timed(lambda: apply_structured_pruning(model, sparsity=0.5))
    onnx.save(pruned, small)
    if feeds := inputs(name):
        zoo.run(small, [feeds])
    return {"kept": zoo.parameters(small) / zoo.parameters(full), "seconds": seconds}


PEERS: dict[str, Callable[[str, Path], Result]] = {
    "torch_pruning": torch_pruning,
    "openvino": openvino,
    "onnxsim": onnxsim,
}


def installed(wanted: Iterable[str] | None) -> list[str]:
    """The peers to run: none without the option, all without names, and only what is installed."""
    if wanted is None:
        return []
    names = list(wanted) or list(PEERS)
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        print(f"not installed, so left out: {', '.join(missing)}")
    return [name for name in names if name not in missing]
