"""Training and pruning at once: from torch to ONNX and its groups (the only package that knows torch)."""

from zig.training.dhspg import DHSPG
from zig.training.export import export
from zig.training.groups import GroupRows, GroupTable
from zig.training.link import Link, Links, link
from zig.training.oto import OTO

__all__ = ["DHSPG", "OTO", "GroupRows", "GroupTable", "Link", "Links", "export", "link"]
