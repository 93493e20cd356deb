"""zig makes neural networks smaller without changing what they compute.

    partition = zig.analyze("model.onnx")
    plan = zig.prune(partition, ratio=0.5)
    report = zig.compress("model.onnx", "small.onnx", plan)

Names are loaded when they are first used, so that `import zig` costs nothing and needs neither torch nor onnxruntime.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zig import process

process.begin()  # before anything that takes time to load

from zig.verify import Comparison, verify  # noqa: E402 - not lazy: the module has the function's name and would take its place

if TYPE_CHECKING:
    from zig.budget import Budget, cost
    from zig.explain import diff, why
    from zig.graph import Graph, load
    from zig.partition import NodeGroup, Partition, analyze
    from zig.plan import Plan, prune
    from zig.surgery import Report, compress, to_graphsurgeon, zero
    from zig.training.oto import OTO  # noqa: TID251 - a name only; the module is loaded when OTO is asked for

__version__ = "0.1.0"

_HOMES = {
    "OTO": "zig.training.oto",
    "Budget": "zig.budget", "cost": "zig.budget",
    "diff": "zig.explain", "why": "zig.explain",
    "Graph": "zig.graph", "load": "zig.graph",
    "NodeGroup": "zig.partition", "Partition": "zig.partition", "analyze": "zig.partition",
    "Plan": "zig.plan", "prune": "zig.plan",
    "Report": "zig.surgery", "compress": "zig.surgery", "zero": "zig.surgery",
    "to_graphsurgeon": "zig.surgery",
}  # fmt: skip
__all__ = [
    "OTO", "Budget", "Comparison", "Graph", "NodeGroup", "Partition", "Plan", "Report", "analyze", "compress", "cost",
    "diff", "load", "prune", "to_graphsurgeon", "verify", "why", "zero",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zig' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
