"""ATO: a controller network that learns what to prune while the model trains (see docs/controller.md)."""

from zig.controller.ato import ATO
from zig.controller.optimizer import ATOOptimizer
from zig.controller.report import report

__all__ = ["ATO", "ATOOptimizer", "report"]
