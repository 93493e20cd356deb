"""Weights that a module computes from other tensors: torch's parametrizations, and the older hooks.

Both norms of torch can be pruned while training: g v / |v| (weight norm) by zeros in g, W / s (spectral norm) by zero
rows of W. In the compressed module such a weight is a plain parameter: what is cut off v, or off the vectors of the
power iteration, would change the length that the rest is divided by.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from zig.errors import ExportError, LinkError, UsageError

Masks = Mapping[int, NDArray[np.bool_]]

_HOOKS: tuple[tuple[type[Any], tuple[str, ...]], ...] = (
    (WeightNorm, ("_g", "_v")),
    (SpectralNorm, ("_orig", "_u", "_v")),
)
_UNEXPORTABLE = (parametrizations._Orthogonal,)  # Householder products, which no exporter knows


class Computed(NamedTuple):
    """A weight that is no parameter.

    Attributes:
        path: Name of its module.
        name: Its own name in the module.
        sources: Names of the parameters and buffers that it is computed from, as in the state of the whole.
        by: What computes it.
    """

    path: str
    name: str
    sources: tuple[str, ...]
    by: str

    @property
    def full_name(self) -> str:
        """Its name as the name of a parameter."""
        return f"{self.path}.{self.name}" if self.path else self.name


def computed(module: nn.Module) -> Iterator[Computed]:
    """All weights that are computed from others."""
    for path, part in module.named_modules(remove_duplicate=True):
        prefix = f"{path}." if path else ""
        if parametrize.is_parametrized(part):
            assert isinstance(part.parametrizations, nn.ModuleDict)  # as torch makes it
            for name, chain in part.parametrizations.items():
                sources = tuple(f"{prefix}parametrizations.{name}.{each}" for each in chain.state_dict())
                yield Computed(path, name, sources, ", ".join(type(each).__name__ for each in chain.children()))
        for hook in part._forward_pre_hooks.values():
            for kind, suffixes in _HOOKS:
                if isinstance(hook, kind):
                    sources = tuple(f"{prefix}{hook.name}{suffix}" for suffix in suffixes)
                    yield Computed(path, hook.name, sources, kind.__name__)


def check_exportable(module: nn.Module) -> None:
    """Refuse a parametrization of which it is known that no exporter can write it.

    Raises:
        UsageError: There is one.
    """
    for path, part in module.named_modules():
        if isinstance(part, _UNEXPORTABLE):
            owner = f".{path}".partition(".parametrizations.")[0].removeprefix(".")
            raise UsageError(refusal(owner or type(module).__name__.removeprefix("Parametrized"), type(part).__name__))


def refusal(path: str, kind: str) -> str:
    """Why a parametrization is in the way, and what to do."""
    return (
        f"a weight of '{path}' is parametrised by {kind.lstrip('_')}, which can't be exported to ONNX; make it a plain "
        "weight by torch.nn.utils.parametrize.remove_parametrizations first"
    )


def blame(module: nn.Module, error: ExportError) -> Exception:
    """The error of an export, or the sentence about a parametrization of the user's own that may be the reason."""
    known = {"_WeightNorm", "_SpectralNorm", "WeightNorm", "SpectralNorm"}
    own = next((each for each in computed(module) if set(each.by.split(", ")) - known), None)
    return error if own is None else UsageError(f"{refusal(own.path or type(module).__name__, own.by)} ({error})")


def plain(module: nn.Module, which: Iterable[Computed]) -> nn.Module:
    """A copy of a module in which some computed weights are parameters of the values that they have."""
    made = replica(module)
    modes = {part: part.training for part in made.modules()}
    made.eval()  # a spectral norm goes on with its power iteration while it trains
    for each in which:
        part = made.get_submodule(each.path)
        if parametrize.is_parametrized(part, each.name):
            _take_own_class(part)
            parametrize.remove_parametrizations(part, each.name, leave_parametrized=True)
            continue
        for hook in list(part._forward_pre_hooks.values()):
            for kind, remove in (
                (WeightNorm, nn.utils.remove_weight_norm),
                (SpectralNorm, nn.utils.remove_spectral_norm),
            ):
                if isinstance(hook, kind) and hook.name == each.name:
                    remove(part, each.name)
    for part, training in modes.items():
        part.training = training
    return made


def _take_own_class(part: nn.Module) -> None:
    """Part a copy from its original: torch makes the weight a property of a class, and takes it off the class again."""
    shared = type(part)
    own = {name: value for name, value in vars(shared).items() if name not in ("__dict__", "__weakref__")}
    part.__class__ = type(shared.__name__, shared.__bases__, own)


def replica(module: nn.Module) -> nn.Module:
    """A deep copy, also of a module that holds what the older hooks computed in the last step."""
    held = (value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor))
    memo: dict[int, Any] = {id(value): value.detach().clone() for value in held if not value.is_leaf}
    return copy.deepcopy(module, memo)


def masks(each: Computed, weight: Tensor, shapes: Mapping[str, tuple[int, ...]], keep: Mapping[str, Masks]) -> Masks:
    """What stays of a computed weight along its axes: what stays of the tensors that lie along the same ones.

    Raises:
        LinkError: It has the shape of none of them.
    """
    alike = [name for name in each.sources if shapes.get(name) == tuple(weight.shape)]
    if not alike:
        raise LinkError(
            f"'{each.full_name}' is computed by {each.by} from tensors of other shapes and can't be cut; use the file"
        )
    found: dict[int, NDArray[np.bool_]] = {}
    for name in alike:
        for axis, mask in keep.get(name, {}).items():
            found[axis] = found.get(axis, mask) & mask
    return found


def is_cut(each: Computed, keep: Mapping[str, Masks]) -> bool:
    """Whether anything that a weight is computed from is cut."""
    return any(not mask.all() for name in each.sources for mask in keep.get(name, {}).values())
