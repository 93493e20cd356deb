"""Prune, operate by hand with onnx-graphsurgeon, then compress: for those who prepare models for TensorRT.

    python samples/edit_by_hand.py model.onnx small.onnx

The edit here is one that many deployments ask for: the last Softmax goes, so that the model gives logits. zig takes the
edited graph as it takes a file; what it says about nodes, shapes and weights is kept. Needs
`pip install 'onnx-zig[graphsurgeon]'`.
"""

from __future__ import annotations

import sys

import onnx_graphsurgeon as gs

import zig


def give_logits(graph: gs.Graph) -> bool:
    """Let the model give what it gave to its last Softmax; whether it had one."""
    for index, output in enumerate(graph.outputs):
        if output.inputs and output.inputs[0].op == "Softmax":
            logits = output.inputs[0].inputs[0]
            logits.dtype, logits.shape = output.dtype, output.shape
            graph.outputs[index] = logits
            graph.cleanup()  # drops the Softmax, which nobody reads any more
            return True
    return False


def main(source: str, target: str) -> None:
    """Prune half of the parameters of a model, edit it, and write what is left."""
    graph = zig.to_graphsurgeon(source)
    print("logits in place of probabilities" if give_logits(graph) else "there is no Softmax at the end")
    partition = zig.analyze(graph)
    report = zig.compress(graph, target, zig.prune(partition, ratio=0.5))
    print(f"{target}: {report.before['parameters']:,} -> {report.after['parameters']:,} parameters")


if __name__ == "__main__":
    main(*sys.argv[1:])
