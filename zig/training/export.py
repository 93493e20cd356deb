"""From torch to ONNX without losing a parameter.

Both exporters of torch fold, transpose and rename weights by default; the dynamo exporter even keeps the *name* of a
weight that it has fused with a BatchNorm. Here every parameter keeps its name and its value:

    exporter      how nothing is folded
    dynamo        exported without optimisation, then simplified while the weights are graph inputs of unknown value,
                  which can't be folded: shape arithmetic goes, weights stay
    torchscript   `do_constant_folding=False`, which also keeps BatchNorm, then the same simplification
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import optimizer
from torch import Tensor, nn

from zig.errors import ExportError, UsageError
from zig.files import write

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]
DynamicAxes = Mapping[str, Mapping[int, str]]
Exporter = Literal["auto", "dynamo", "torchscript"]

LOSSLESS = "zig.export"  # the metadata key that says: every parameter of the torch model is in this file as it was
_CHATTY = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")
_MACHINE = ("pkg.torch.onnx.stack_trace", "pkg.torch.onnx.fx_node")


def export(
    model: nn.Module,
    inputs: Inputs,
    path: str | os.PathLike[str] | None = None,
    *,
    keywords: Mapping[str, Any] | None = None,
    dynamic_axes: DynamicAxes | None = None,
    dynamic_batch: bool = True,
    opset: int = 18,
    exporter: Exporter = "auto",
) -> ir.Model:
    """Export a torch model so that each parameter and buffer it uses keeps its name, shape and value.

    The model is exported in evaluation mode and given back in the mode, and on the device, in which it came.

    Args:
        model: The model, on any device.
        inputs: What the model reads: one tensor, a sequence of arguments, or a mapping of keyword arguments. Tensors
            follow the model to its device.
        keywords: Keyword arguments, where there are others too.
        dynamic_axes: Further axes to leave free: by argument name, a name for each axis, as {"image": {2: "height"}}.
        path: Where to save the file, if anywhere; written beside and then renamed, so never left half-written.
        dynamic_batch: Leave the first axis free in every input that shares the first input's batch size. A model that
            can't be exported so is exported with the batch size of `inputs`.
        opset: ONNX opset version, 18 or newer for dynamo.
        exporter: `dynamo`, `torchscript`, or `auto`: dynamo, and torchscript where that fails.

    Returns:
        The model, with weights of its own: training the torch model later does not change them.

    Raises:
        ExportError: No exporter could do it, or the file can't be written.
    """
    arguments, named = arguments_of(model, inputs, keywords)
    attempts = {
        "dynamo": [(_dynamo, True), (_dynamo, False)],
        "torchscript": [(_torchscript, True)],
        "auto": [(_dynamo, True), (_dynamo, False), (_torchscript, True)],
    }
    if exporter not in attempts:
        raise ExportError(f"there is no exporter '{exporter}'; choose auto, dynamo or torchscript")
    reasons = []
    for run, dynamic in attempts[exporter]:
        if dynamic > dynamic_batch and run is _dynamo:
            continue
        try:
            with evaluation(model), _quiet():
                exported = run(model, arguments, named, opset, dynamic and dynamic_batch, dynamic_axes or {})
                _simplify(exported)
        except RuntimeError as error:  # torch.onnx derives all its errors from it
            reasons.append((f"{run.__name__[1:]}: {_reason(error)}", error))
        else:
            _forget_the_machine(exported)
            exported.metadata_props[LOSSLESS] = run.__name__[1:]
            if path is not None:
                save(exported, path)
            return exported
    said = "; ".join(dict.fromkeys(reason for reason, _ in reasons))
    raise ExportError(f"{type(model).__name__} can't be exported to ONNX ({said})") from reasons[0][1]


def save(model: ir.Model, path: str | os.PathLike[str]) -> None:
    """Write a model beside its target, then rename it; weights beyond 2 GiB go to a file beside it.

    Raises:
        ExportError: The target can't be written.
    """
    try:
        write(model, Path(path), external=False)
    except UsageError as error:
        raise ExportError(str(error)) from error


def _dynamo(
    model: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], opset: int, dynamic: bool,
    axes: DynamicAxes,
) -> ir.Model:  # fmt: skip
    batch = _batch(arguments, keywords) if dynamic else None
    if batch == 1:  # torch.export takes a size of 1 for a constant and writes it into shapes
        arguments, keywords, batch = _doubled(arguments), _doubled(keywords), 2
    free = _free(model, arguments, keywords, batch, axes)
    shapes = (free if keywords else tuple(free.values())) if dynamic or axes else None
    program = torch.onnx.export(
        model, arguments, kwargs=keywords, dynamo=True, optimize=False, verbose=False, opset_version=opset,
        dynamic_shapes=shapes,
    )  # fmt: skip
    assert program is not None  # dynamo returns a program; only the TorchScript exporter returns nothing
    return program.model


def _torchscript(
    model: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], opset: int, dynamic: bool,
    axes: DynamicAxes,
) -> ir.Model:  # fmt: skip
    free = _free(model, arguments, keywords, _batch(arguments, keywords) if dynamic else None, axes)
    named = {name: shape for name, shape in free.items() if shape and all(isinstance(key, int) for key in shape)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        torch.onnx.export(
            _training_root(model), arguments, file, kwargs=keywords, dynamo=False, do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE, opset_version=opset, input_names=list(free), dynamic_axes=named,
        )  # fmt: skip
        return ir.external_data.load_to_model(ir.load(file))


def _training_root(model: nn.Module) -> nn.Module:
    """A module with the parameters of `model` that does what it does, and says that it is in training mode.

    The TorchScript exporter merges parameters of equal value (all zero biases, say) unless its root is in training
    mode; setting that on the model itself would change what it computes.
    """
    root = nn.Module()
    root._parameters, root._buffers, root._modules = model._parameters, model._buffers, model._modules
    root.forward = functools.wraps(model.forward)(functools.partial(model))
    return root


def _simplify(model: ir.Model) -> None:
    """Fold shape arithmetic but no weight, and give the model copies of the weights (torch shares its memory).

    For the optimizer the weights are graph inputs of unknown value: were they only listed as inputs too, it would still
    drop a bias that happens to be zero before training.
    """
    graph = model.graph
    weights: list[tuple[ir.Value, ir.Tensor[Any]]] = []
    for value in list(graph.initializers.values()):
        shared = value.const_value
        assert shared is not None  # an exporter's initializer has a value
        copy = ir.Tensor(np.array(shared.numpy()), shared.dtype, name=value.name)
        value.const_value = copy
        if copy.dtype.is_floating_point():
            weights.append((value, copy))
            del graph.initializers[str(value.name)]
            value.const_value = None
            graph.inputs.append(value)
    optimizer.optimize(model)
    for value, copy in weights:
        graph.inputs.remove(value)
        if value.uses() or value.is_graph_output():
            value.const_value = copy
            graph.initializers.add(value)


def _forget_the_machine(model: ir.Model) -> None:
    """Drop what the exporter notes about files on this machine; the module path of each node stays."""
    for node in model.graph.all_nodes():
        for key in _MACHINE:
            node.metadata_props.pop(key, None)


def _device(model: nn.Module) -> torch.device | None:
    return next((p.device for p in (*model.parameters(), *model.buffers())), None)


def arguments_of(
    model: nn.Module, inputs: Inputs, keywords: Mapping[str, Any] | None = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a model, on its device."""
    named = {**inputs, **(keywords or {})} if isinstance(inputs, Mapping) else dict(keywords or {})
    arguments = () if isinstance(inputs, Mapping) else (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    moved: tuple[tuple[Any, ...], dict[str, Any]] = _to((arguments, named), _device(model))
    return moved


def _to(value: Any, device: torch.device | None) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _to(v, device) for name, v in value.items()}
    return type(value)(_to(v, device) for v in value) if type(value) in (list, tuple) else value


def _batch(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> int | None:
    """The size of the first axis of the first tensor."""
    tensors = (v for v in (*arguments, *keywords.values()) if isinstance(v, Tensor) and v.ndim)
    return next((t.shape[0] for t in tensors), None)


def _doubled(value: Any) -> Any:
    """The same structure with each tensor of batch size 1 repeated once."""
    if isinstance(value, Tensor):
        return torch.cat([value, value]) if value.ndim and value.shape[0] == 1 else value
    if isinstance(value, dict):
        return {name: _doubled(v) for name, v in value.items()}
    return type(value)(_doubled(v) for v in value) if type(value) in (list, tuple) else value


def _free(
    model: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], batch: int | None, axes: DynamicAxes
) -> dict[str, Any]:
    """The free axes of each argument, by its name; None where there are none.

    Raises:
        UsageError: `axes` names an argument that is not given.
    """
    accepted = inspect.signature(model.forward).parameters
    names = [name for name, p in accepted.items() if p.kind is not p.VAR_KEYWORD]
    given = {**dict(zip(names, arguments, strict=False)), **keywords}
    if len(given) < len(arguments) + len(keywords) or axes.keys() - given.keys():
        if axes:
            raise UsageError(f"dynamic_axes must name some of {', '.join(given)}; they are the arguments of the model")
        given = {f"argument{i}": value for i, value in enumerate(arguments)}
    shapes = {name: _free_batch(value, batch) for name, value in given.items()}
    return {**shapes, **{name: {**(shapes[name] or {}), **free} for name, free in axes.items()}}


def _free_batch(value: Any, batch: int | None) -> Any:
    """The structure of `value` with {0: "batch"} for each tensor of that batch size, None for anything else."""
    if isinstance(value, Tensor):
        return {0: "batch"} if value.ndim and value.shape[0] == batch else None
    if isinstance(value, dict):
        return {name: _free_batch(v, batch) for name, v in value.items()}
    return type(value)(_free_batch(v, batch) for v in value) if type(value) in (list, tuple) else None


@contextlib.contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode; each module gets its own mode back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' prints, warnings and log lines to themselves: what matters is in the error."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """The first sentence of the error at the bottom of a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
