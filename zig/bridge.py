"""The way to onnx-graphsurgeon and back, for people who operate on graphs by hand.

GraphSurgeon leaves metadata and doc strings behind, and looks for external data in the current folder. Both are carried
along here: a graph remembers what it was made from, and its weights, unread until somebody asks, where they lie.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from zig.errors import UsageError

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs  # noqa: TID251 - the one place, here and below

_CARRIED = "carried_by_zig"  # the attribute of a GraphSurgeon graph


@dataclass(frozen=True)
class _Carried:
    """What a GraphSurgeon graph has no place for: the model without its graph, and what is said about each node."""

    model: onnx.ModelProto
    folder: Path
    nodes: dict[str, onnx.NodeProto]  # by the first output


def is_graphsurgeon(source: object) -> bool:
    """Whether something is a GraphSurgeon graph; the package is not imported for the answer."""
    package = sys.modules.get("onnx_graphsurgeon")
    return package is not None and isinstance(source, package.Graph)


def to_graph(model: onnx.ModelProto, folder: Path) -> gs.Graph:
    """A GraphSurgeon graph of a model; weights stay where they are until their `values` are read.

    Args:
        model: The model.
        folder: Where its external data lie.

    Raises:
        UsageError: onnx-graphsurgeon is not installed.
    """
    try:
        import onnx_graphsurgeon as gs  # noqa: TID251, PLC0415 - an extra of its own
    except ModuleNotFoundError as error:
        raise UsageError("this needs onnx-graphsurgeon; install it by pip install 'onnx-zig[graphsurgeon]'") from error

    graph = gs.import_onnx(model)
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Constant) and tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.values = _beside(tensor._values.tensor, folder)
    shell = onnx.ModelProto()
    shell.CopyFrom(onnx.ModelProto(
        domain=model.domain, model_version=model.model_version, doc_string=model.doc_string,
        metadata_props=model.metadata_props, graph=onnx.GraphProto(metadata_props=model.graph.metadata_props),
    ))  # fmt: skip
    said = {node.output[0]: _said(node) for node in model.graph.node if node.output}
    setattr(graph, _CARRIED, _Carried(shell, folder, said))
    return graph


def to_model(graph: gs.Graph) -> tuple[onnx.ModelProto, Path | None]:
    """The ONNX model of a GraphSurgeon graph, with what it could not carry, and the folder of its external data.

    What was said about a node that is still there, by its first output, is said again.

    Raises:
        UsageError: GraphSurgeon can't export it, for example since an output has no type.
    """
    import onnx_graphsurgeon as gs  # noqa: TID251, PLC0415

    try:
        model: onnx.ModelProto = gs.export_onnx(graph)
    except (gs.OnnxGraphSurgeonException, AssertionError, TypeError, ValueError) as error:
        what = " ".join(str(error).split())
        raise UsageError(f"onnx-graphsurgeon can't export the graph '{graph.name}' ({what}); mend it first") from error
    for tensor in model.graph.initializer:  # values that were read are in the model now, whatever GraphSurgeon says
        if tensor.data_location == onnx.TensorProto.EXTERNAL and not tensor.external_data:
            tensor.ClearField("data_location")
    carried = getattr(graph, _CARRIED, None) if _CARRIED in vars(graph) else None
    if carried is None:
        return model, None
    model.MergeFrom(carried.model)
    for node in model.graph.node:
        said = carried.nodes.get(node.output[0]) if node.output else None
        if said is not None:
            node.MergeFrom(said)
    return model, carried.folder


def _said(node: onnx.NodeProto) -> onnx.NodeProto:
    """What a node tells about itself."""
    return onnx.NodeProto(doc_string=node.doc_string, metadata_props=node.metadata_props)


def _beside(tensor: onnx.TensorProto, folder: Path) -> Any:
    """Values that are read, once they are asked for, from the folder of the model."""
    from onnx_graphsurgeon.ir.tensor import LazyValues  # noqa: TID251, PLC0415

    class Beside(LazyValues):  # type: ignore[misc] # GraphSurgeon asks for its own class, and writes back what is unread
        def load(self) -> Any:
            return onnx.numpy_helper.to_array(self.tensor, str(folder))

    return Beside(tensor)
