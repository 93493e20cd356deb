"""The zoo: every architecture that zig promises to prune exactly, and the ways in which users export them.

`build(name)` gives a torch module whose weights and statistics are random yet alive, with example inputs;
`export(name, exporter, folder)` writes it as an ONNX file; `round_trip(name, exporter, folder)` prunes half of it at
random, compresses it, and measures with onnxruntime alone how far the results are apart.

A random network can hide every error: its output hardly depends on its input, so any damage passes. Hence `build`
randomises with care and *requires* that different inputs give clearly different outputs.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from architectures import (
    EVERY_WAY,
    TINY,
    ZOO,
    Architecture,
    Input,
    UnavailableError,
    architecture,
    load_torchvision,
    load_transformers,
    names,
    quiet,
    torchvision_models,
)
from torch import Tensor, nn

import zig

OPSET = 18
EXPORTERS = ("dynamo", "torchscript", "lossless", "torchscript-dynamic", "dynamo-23", "optimized")
LEAST_SENSITIVITY = 1e-3  # two inputs must move the output by this share of its size
LARGEST_OUTPUT = 1e3

# Opset 23 has single operators for what older ones spell out: attention, GELU, group and RMS normalisation.
NEWER = {
    name for name, a in ZOO.items() if a.kind == "transformer" or name in ("rmsnorm", "groupnorm", "mini_convnext")
}

# Nets in which onnxruntime's optimizer finds what it has operators of its own for: FusedConv, SkipLayerNormalization, ...
FUSED = {"mini_resnet", "mini_shufflenet", "mini_efficientnet", "mini_maxvit", "unet", "bert", "gpt2", "llama", "mamba"}

# What an exporter refuses, with its own reason; tests skip these.
NO_RMS = "torch's TorchScript exporter has no aten::rms_norm in opset 18"
REFUSED: dict[tuple[str, str], str] = {
    ("rmsnorm", "torchscript"): NO_RMS,
    ("rmsnorm", "torchscript-dynamic"): NO_RMS,
}


def pairs() -> list[tuple[str, str]]:
    """Every architecture with every exporter that makes a difference for it."""
    without = {"dynamo-23": ZOO.keys() - NEWER, "optimized": ZOO.keys() - FUSED}
    return [
        (name, exporter)
        for name in ZOO
        for exporter in (EXPORTERS if name not in TINY or name in EVERY_WAY else ("dynamo", "optimized"))
        if name not in without.get(exporter, ())
    ]


# --- random, yet alive -------------------------------------------------------------------------------------------

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)


def seed_of(name: str) -> int:
    """A seed that depends on the name alone."""
    return zlib.crc32(name.encode())


def sample(name: str, seed: int, batch: int = 1) -> list[np.ndarray]:
    """Draws one set of inputs for an architecture, in the order of its inputs."""
    random = np.random.default_rng([seed_of(name), seed])
    return [i.sample(random, batch) for i in architecture(name).inputs]


def tensors(name: str, seed: int, batch: int = 1) -> tuple[Tensor, ...]:
    """Like `sample`, as torch tensors."""
    return tuple(torch.from_numpy(x) for x in sample(name, seed, batch))


def randomise(module: nn.Module) -> None:
    """Gives every parameter random values of a healthy size, so that none of them is without effect.

    Matrices and kernels keep the variance of what passes (He et al. 2015); scales spread around 1; offsets, layer
    scales, tokens and tables, which many nets start at 0 or 1e-6, get values that matter. BatchNorm's offsets lie
    around 1: around 0, each BatchNorm and ReLU multiplies differences by 1.2 (Yang et al. 2019), and a deep net then
    turns the rounding of float32 into differences of 1e-4.
    """
    scales = {id(m.weight) for m in module.modules() if isinstance(m, (*NORMS, nn.PReLU)) and m.weight is not None}
    scales |= {id(p) for p in module.parameters() if p.numel() == max(p.shape, default=1) and bool((p == 1).all())}
    transposed = {id(m.weight) for m in module.modules() if isinstance(m, nn.ConvTranspose2d)}
    shifts = {id(m.bias) for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    kernels = {id(m.weight) for m in module.modules() if isinstance(m, nn.modules.conv._ConvNd)}
    for name, p in module.named_parameters():
        if id(p) in scales or name.endswith(("scale", "factor")):
            nn.init.uniform_(p, 0.5, 1.5)
        elif id(p) in shifts:
            nn.init.normal_(p, 1.0, 0.4)
        elif "layer_scale" in name:
            nn.init.uniform_(p, 0.2, 0.6)
        elif p.numel() == max(p.shape, default=1) or name.endswith(("bias", "offset")):
            nn.init.normal_(p, 0.0, 0.1)
        elif id(p) in tables or (p.ndim > 2 and id(p) not in kernels):
            nn.init.normal_(p, 0.0, 0.5)
        else:
            inputs = p.shape[0] if id(p) in transposed or "c_" in name else p[0].numel()
            nn.init.normal_(p, 0.0, ((2 if id(p) in kernels else 1) / inputs) ** 0.5)


def disturb(norm: nn.Module, inputs: tuple[Tensor]) -> None:
    """A pre-forward hook: sets BatchNorm statistics to those of what comes in, then disturbs them by about 20 %."""
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert norm.running_mean is not None
    x = inputs[0].transpose(0, 1).flatten(1)
    spread = x.std(1)
    spread = spread.clamp(min=0.5 * float(spread.mean()))  # a channel that is silent here must not be deafening later
    norm.running_mean.copy_(x.mean(1) + 0.2 * spread * torch.randn_like(spread))
    norm.running_var.copy_(spread.square() * (1 + 0.2 * (2 * torch.rand_like(spread) - 1)))


def calibrate(module: nn.Module, batch: tuple[Tensor, ...]) -> None:
    """Sets all BatchNorm statistics in one pass, each after the disturbances before it, so that they do not add up."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    hooks = [norm.register_forward_pre_hook(disturb) for norm in norms]
    if hooks:
        module(*batch)
    for hook in hooks:
        hook.remove()


def flat(outputs: Any) -> list[Tensor]:
    """The tensors of a module's result."""
    outputs = list(outputs.values()) if isinstance(outputs, Mapping) else outputs
    return [outputs] if isinstance(outputs, Tensor) else [t for o in outputs for t in flat(o)]


def sensitivity(one: list[Tensor], two: list[Tensor]) -> float:
    """How far the outputs for two inputs are apart, relative to their size, where they are closest."""
    return min(float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, two, strict=True))


@torch.no_grad()
def build(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Builds an architecture with random weights that leave nothing hidden.

    Args:
        name: A key of `ZOO`, or a name with its library: `timm:vit_tiny_patch16_224`.

    Returns:
        The module in eval mode, and example inputs with a batch of one.

    Raises:
        UnavailableError: The library that defines the architecture can't be loaded here.
        AssertionError: Its output explodes or hardly depends on its input.
    """
    torch.manual_seed(seed_of(name))
    with quiet():
        module = architecture(name).module().eval()
    randomise(module)
    calibrate(module, tensors(name, 0, batch=32 if name in ZOO else 8))
    one, two = (flat(module(*tensors(name, seed))) for seed in (1, 2))
    largest, moved = max(float(o.abs().max()) for o in one), sensitivity(one, two)
    assert largest < LARGEST_OUTPUT, f"{name}: outputs as large as {largest:.3g}"  # also false for nan
    assert moved >= LEAST_SENSITIVITY, f"{name}: outputs move by only {moved:.1e} between two inputs"
    return module, tensors(name, 1)


# --- export ------------------------------------------------------------------------------------------------------


def export(name: str, exporter: str, folder: Path) -> Path:
    """Writes an architecture as `<folder>/<name>.<exporter>.onnx`.

    `dynamo` and `torchscript` are torch's two exporters as most users call them; `torchscript-dynamic` has a batch axis
    of unknown size; `dynamo-23` may use the Attention, RMSNormalization and Gelu operators of newer opsets; `lossless`
    keeps each parameter, and each BatchNorm, as it is in the module; `optimized` is what onnxruntime makes of `dynamo`.

    Raises:
        UnavailableError: The exporter is known to refuse this architecture, or its library can't be loaded here.
    """
    if (name, exporter) in REFUSED:
        raise UnavailableError(REFUSED[name, exporter])
    path = folder / f"{name.replace(':', '.')}.{exporter}.onnx"
    if exporter == "optimized":
        optimize(export(name, "dynamo", folder), path)
        return path
    module, inputs = build(name)
    names = [i.name for i in architecture(name).inputs]
    with quiet():
        if exporter.startswith("dynamo"):
            opset = 23 if exporter == "dynamo-23" else OPSET
            torch.onnx.export(module, inputs, path, opset_version=opset, input_names=names, dynamo=True, verbose=False)
        elif exporter == "lossless":
            export_lossless(module, inputs, path, names)
        else:
            batch = {n: {0: "batch"} for n in (*names, "output")} if exporter == "torchscript-dynamic" else None
            outputs = ["output"] if batch else None
            plain = {"opset_version": OPSET, "input_names": names, "do_constant_folding": True, "dynamo": False}
            torch.onnx.export(module, inputs, path, output_names=outputs, dynamic_axes=batch, **plain)
    return path


def optimize(path: Path, target: Path) -> None:
    """Writes a model as onnxruntime would run it on any machine: fused, but not for this processor."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def export_lossless(module: nn.Module, inputs: tuple[Tensor, ...], path: Path, names: list[str]) -> None:
    """Exports with every parameter kept: for the time of the optimizer they are inputs, which it can't fold."""
    from onnx_ir.passes.common import AddInitializersToInputsPass, RemoveInitializersFromInputsPass
    from onnxscript.optimizer import optimize

    program = torch.onnx.export(
        module, inputs, opset_version=OPSET, input_names=names, dynamo=True, optimize=False, verbose=False
    )
    assert program is not None
    AddInitializersToInputsPass()(program.model)
    optimize(program.model)
    RemoveInitializersFromInputsPass()(program.model)
    program.save(str(path), external_data=False)


# --- the round trip ----------------------------------------------------------------------------------------------

Arrays = dict[str, np.ndarray]
SCORES = ("Softmax", "Attention")  # their first input has the heads as its third axis from the end
CURVES = (
    "Erf",
    "FastGelu",
    "Gelu",
    "QuickGelu",
    "Relu",
    "Sigmoid",
    "Tanh",
)  # their input has the width of the MLP as its last axis


def run(path: Path, inputs: Iterable[Arrays], outputs: Iterable[str] = ()) -> list[Arrays]:
    """Runs a model under onnxruntime on one thread.

    Args:
        path: The model.
        inputs: Sets of values by input name; those that the exporter dropped are ignored.
        outputs: Inner tensors to give as well.

    Returns:
        For each set the model's outputs, and the inner tensors, by name.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    with TemporaryDirectory(dir=path.parent) as folder:
        if outputs:
            model = onnx.load(path)
            model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
            path = Path(folder) / "watched.onnx"
            onnx.save(model, path, save_as_external_data=True)
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    asked = [i.name for i in session.get_inputs()]
    names = [o.name for o in session.get_outputs()]
    return [dict(zip(names, session.run(names, {n: x[n] for n in asked}), strict=True)) for x in inputs]


def apart(one: Arrays, two: Arrays) -> float:
    """The largest difference of two results, relative to the largest value of the first, in the worst output."""
    assert one.keys() == two.keys(), f"outputs differ: {sorted(one)} and {sorted(two)}"
    shapes = [(n, one[n].shape, two[n].shape) for n in one if one[n].shape != two[n].shape]
    assert not shapes, f"shapes of outputs differ: {shapes}"
    return max(float(np.abs(one[n] - two[n]).max() / np.abs(one[n]).max()) for n in one)


def parameters(path: Path) -> int:
    """The number of floating-point elements in the initializers of a model."""
    model = onnx.load(path, load_external_data=False)
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    return sum(math.prod(t.dims) for t in model.graph.initializer if t.data_type in floats)


def attention(path: Path, inputs: Arrays) -> tuple[dict[str, int], dict[str, int]]:
    """Measures the heads of every attention, and the width under every curved activation, by running the model.

    Returns:
        Number of heads, and widths, each by the name of the node's output.
    """
    nodes = onnx.load(path, load_external_data=False).graph.node
    read = {n.output[0]: n.input[0] for n in nodes if n.op_type in SCORES + CURVES}
    (seen,) = run(path, [inputs], sorted(set(read.values())))
    scores = [n for n in nodes if n.op_type in SCORES and seen[n.input[0]].ndim > 2]  # a router's are no attention's
    heads = {n.output[0]: seen[n.input[0]].shape[-3] for n in scores}
    widths = {n.output[0]: seen[n.input[0]].shape[-1] for n in nodes if n.op_type in CURVES}
    return heads, widths


@dataclass(frozen=True)
class Trip:
    """One model on its way: the three files, what zig said, and what onnxruntime says.

    Attributes:
        groups: Number of zero-invariant groups, and of node groups.
        parameters: Those of the original (and zeroed) and of the compressed model.
        difference: Zeroed against compressed, relative; must vanish.
        effect: Original against zeroed, relative; must not vanish, or nothing was pruned.
        sensitivity: Zeroed, between different inputs; must not vanish, or any damage would pass.
        seconds: What `analyze`, `prune`, `zero` and `compress` took.
    """

    original: Path
    zeroed: Path
    compressed: Path
    inputs: tuple[Arrays, ...]
    groups: tuple[int, int]
    parameters: tuple[int, int]
    difference: float
    effect: float
    sensitivity: float
    seconds: float

    @property
    def lost(self) -> float:
        """The share of parameters that is gone."""
        return 1 - self.parameters[1] / self.parameters[0]


def round_trip(name: str, exporter: str, folder: Path, ratio: float = 0.5) -> Trip:
    """Exports, prunes at random, compresses, and compares on three random inputs without any help of zig.

    Raises:
        UnavailableError: The architecture can't be exported here.
    """
    original, zeroed, compressed = export(name, exporter, folder), folder / "zeroed.onnx", folder / "compressed.onnx"
    start = time.perf_counter()
    partition = zig.analyze(original)
    # In a stream of many channels a global draw may well leave all of a few heads: half of every node group instead.
    scope = "local" if architecture(name).kind == "transformer" else "global"
    plan = zig.prune(partition, ratio=ratio, criterion="random", scope=scope, seed=seed_of(name) % 2**31)
    zig.zero(plan, zeroed)
    zig.compress(zeroed, compressed, check=False)
    seconds = time.perf_counter() - start
    batch = 3 if exporter == "torchscript-dynamic" else 1
    names = [i.name for i in architecture(name).inputs]
    inputs = tuple(dict(zip(names, sample(name, seed, batch), strict=True)) for seed in (11, 12, 13))
    full, empty, small = (run(path, inputs) for path in (original, zeroed, compressed))
    return Trip(
        original,
        zeroed,
        compressed,
        inputs,
        groups=(len(partition), len(partition.node_groups)),
        parameters=(parameters(original), parameters(compressed)),
        difference=max(map(apart, empty, small)),
        effect=min(map(apart, full, empty)),
        sensitivity=min(apart(empty[0], empty[1]), apart(empty[0], empty[2])),
        seconds=seconds,
    )


__all__ = [
    "ZOO",
    "Architecture",
    "Input",
    "UnavailableError",
    "architecture",
    "load_torchvision",
    "load_transformers",
    "names",
    "quiet",
    "torchvision_models",
]
