"""zig makes neural networks smaller without changing what they compute.

    partition = zig.analyze("model.onnx")
    plan = zig.prune(partition, ratio=0.5)
    report = zig.compress("model.onnx", "small.onnx", plan)

Names are loaded when they are first used, so that `import zig` costs nothing and needs neither torch nor onnxruntime.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zig.host import process

process.begin()  # where this is the command: before anything else is loaded

from zig.errors import (  # noqa: E402
    ExportError,
    LinkError,
    ModelError,
    PlanError,
    RuleError,
    RunError,
    UnchangedError,
    UsageError,
    VerifyError,
    ZigError,
)

if TYPE_CHECKING:
    from zig.groups.budget import Budget, cost
    from zig.groups.explain import diff, summary, why
    from zig.groups.partition import NodeGroup, Partition, analyze
    from zig.model.graph import Graph, load
    from zig.plan import Plan, prune
    from zig.proof.comparison import Comparison
    from zig.proof.verify import verify
    from zig.surgery.compress import Report, compress, to_graphsurgeon, zero
    from zig.training.oto import OTO

__version__ = "0.1.0"

_ROOMS = {
    "zig.groups.budget": ("Budget", "cost"),
    "zig.groups.explain": ("diff", "summary", "why"),
    "zig.groups.partition": ("NodeGroup", "Partition", "analyze"),
    "zig.model.graph": ("Graph", "load"),
    "zig.plan": ("Plan", "prune"),
    "zig.proof.comparison": ("Comparison",),
    "zig.proof.verify": ("verify",),
    "zig.surgery.compress": ("Report", "compress", "to_graphsurgeon", "zero"),
    "zig.training.oto": ("OTO",),
}
_HOMES = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = [
    "OTO", "Budget", "Comparison", "Graph", "NodeGroup", "Partition", "Plan", "Report", "analyze", "compress", "cost",
    "diff", "load", "prune", "summary", "to_graphsurgeon", "verify", "why", "zero",
    "ExportError", "LinkError", "ModelError", "PlanError", "RuleError", "RunError", "UnchangedError", "UsageError",
    "VerifyError", "ZigError",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zig' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
