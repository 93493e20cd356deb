"""Searching for a plan: iterative, one-step and once-for-all pruning."""

from zig.search.iterative import IterativePruner, Sensitivity
from zig.search.network import recalibrate
from zig.search.ofa import Evolution, OFAPruner, Static, Subnet
from zig.search.onestep import Candidate, OneStepPruner
from zig.search.space import Choice
from zig.search.supernet import Supernet

__all__ = [
    "IterativePruner", "OneStepPruner", "OFAPruner",
    "Candidate", "Choice", "Evolution", "Sensitivity", "Static", "Subnet", "Supernet", "recalibrate",
]  # fmt: skip
