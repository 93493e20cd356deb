"""Training and pruning at once: from torch to ONNX and its groups (the only package that knows torch)."""

from zig.training.dhspg import DHSPG
from zig.training.export import export
from zig.training.groups import GroupRows, GroupTable
from zig.training.hesso import HESSO
from zig.training.hesso_cric import HESSOCRIC
from zig.training.hspg import HSPG
from zig.training.link import Link, Links, link
from zig.training.oto import OTO
from zig.training.slim import slim_state_dict

__all__ = [
    "DHSPG", "HESSO", "HESSOCRIC", "HSPG", "OTO", "GroupRows", "GroupTable", "Link", "Links", "export", "link",
    "slim_state_dict",
]  # fmt: skip
