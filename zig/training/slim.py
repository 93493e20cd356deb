"""The compressed network as a torch module: same class, parameters cut as in the compressed file.

A module says its sizes twice: in its parameters, and in attributes such as `out_channels`. Parameters are cut by the
groups that the compressed file lost; attributes of torch's own modules follow from the cut parameters, those of
attention blocks from the share of heads that is left. What a `forward` has written in numbers can't follow, so the
result is always run against the file.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from zig.errors import ExportError, LinkError
from zig.groups.partition import Partition, analyze
from zig.groups.removable import choices, removable
from zig.groups.weights import Zeroed
from zig.model.graph import Graph
from zig.model.node import Node
from zig.proof.comparison import Tally
from zig.proof.session import Session
from zig.proof.verify import ATOL, RTOL
from zig.training.link import Links, link, load_of
from zig.training.parametrized import Computed, computed, is_cut, masks, plain, replica

Path_ = str | os.PathLike[str]
Keep = dict[str, dict[int, NDArray[np.bool_]]]

_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")
_HEAD_SIZES = ("head_dim", "attention_head_size", "head_size", "dim_head")
_WIDTHS = ("all_head_size", "inner_dim", "attn_dim", "split_size", "inner_size")
_BIASED = ("Conv", "ConvTranspose", "Gemm")


def slim_state_dict(module: nn.Module, full: Path_, small: Path_, **options: Any) -> dict[str, Tensor]:
    """The state of a module, cut as its compressed file is: for those who rebuild the module themselves.

    Args:
        module: The module, in the state in which `full` was exported.
        full: The file that `zig.training.export` wrote.
        small: What `zig.compress` made of it.
        **options: Of `zig.analyze`, if the groups were found with any.

    Returns:
        Tensors by the names of `module.state_dict()`, each with storage of its own; a weight that the module computes
        from others (weight norm, spectral norm) and that is cut stands under its own name, in their place.

    Raises:
        LinkError: The files are not of this module and of each other, or a weight of `small` has no place in it.
    """
    return _Slimmed(module, full, small, options).state


class _Slimmed:
    """What becomes of a module.

    Attributes:
        module: It, or a copy in which the computed weights that are cut are plain ones.
        state: The state of the small one.
        convolutions: The number of groups of each small convolution, by the name of its weight.
    """

    def __init__(self, module: nn.Module, full: Path_, small: Path_, options: Mapping[str, Any]):
        """Compare the files, and cut the state."""
        graph, compressed = load_of(full, module), load_of(small, module)
        links = link(graph, module)
        keep = _kept(analyze(graph, **options), compressed, links)
        first = {alias: name for name, aliases in links.aliases.items() for alias in (name, *aliases)}
        keep |= {alias: keep[name] for alias, name in first.items() if name in keep}
        made = [each for each in computed(module) if is_cut(each, keep)]
        self.module = plain(module, made) if made else module
        weights = dict(self.module.named_parameters(remove_duplicate=False))
        shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        for each in made:
            keep[each.full_name] = dict(masks(each, weights[each.full_name], shapes, keep))
        folded = _folded(graph, compressed, links)
        self.state = {}
        for name, tensor in self.module.state_dict().items():
            known = first.get(name, name)
            self.state[name] = folded[known].to(tensor) if known in folded else _cut(tensor, keep.get(name, {})).clone()
        self.convolutions = _convolutions(graph, compressed, made)


def _convolutions(graph: Graph, compressed: Graph, made: Sequence[Computed]) -> dict[str, int]:
    """The number of groups of each convolution of the compressed file, by the name of its weight in the module."""
    after = {node.outputs[0]: int(node.attribute("group", 1)) for node in compressed.nodes if "Conv" in node.op}
    makers = {name: node for node in graph.nodes for name in node.outputs}
    found: dict[str, int] = {}
    for node in graph.nodes:
        if node.outputs and node.outputs[0] in after:
            origins, group = _origins(node.inputs[1], makers), after[node.outputs[0]]
            names = (each.full_name for each in made if origins & set(each.sources))
            found |= dict.fromkeys((node.inputs[1], *names), group)
    return found


def _origins(name: str, makers: Mapping[str, Node]) -> set[str]:
    """The tensors that one is computed from and that nothing computes."""
    todo, seen = [name], {name}
    while todo:
        node = makers.get(todo.pop())
        news = {each for each in (node.inputs if node else ()) if each} - seen
        seen |= news
        todo += news
    return seen - makers.keys()


def slim(
    module: nn.Module, full: Path_, small: Path_, inputs: tuple[tuple[Any, ...], dict[str, Any]], **options: Any
) -> nn.Module:
    """A copy of a module that is as small as its compressed file, and gives the same outputs.

    Args:
        module: The module, in the state in which `full` was exported.
        full: The file that `zig.training.export` wrote.
        small: What `zig.compress` made of it.
        inputs: Arguments and keyword arguments to compare outputs on.
        **options: Of `zig.analyze`, if the groups were found with any.

    Raises:
        ExportError: The module can't run with the cut sizes, or runs and gives other outputs.
        LinkError: See `slim_state_dict`.
    """
    slimmed, error = _Slimmed(module, full, small, options), None
    for names in (_HEADS, _HEAD_SIZES):
        made = _rebuilt(slimmed.module, slimmed.state, slimmed.convolutions, names)
        try:
            _check(made, small, inputs)
        except ExportError as found:
            error = error or found
        else:
            return made
    assert error is not None  # each way that does not return leaves one
    raise error


# --- what is cut -----------------------------------------------------------------------------------------------------


def _kept(partition: Partition, compressed: Graph, links: Links) -> Keep:
    """Which indices stay, by parameter and axis, under the choice of forks that made the compressed file."""
    for candidate in dict.fromkeys((partition, *choices(partition))):
        loose, remove, _ = removable(candidate, Zeroed(partition.graph))
        if _made(loose, remove, compressed):
            keep: Keep = {}
            for row in links.rows(loose):
                gone = (row.groups >= 0) & np.append(remove, False)[row.groups]
                stays = keep.setdefault(row.parameter, {}).setdefault(row.axis, np.ones(len(gone), bool))
                stays &= ~gone
            return keep
    raise LinkError(f"{compressed.name} was not made from {partition.graph.name} as it is; compress it again")


def _made(partition: Partition, remove: NDArray[np.bool_], compressed: Graph) -> bool:
    """Whether the initializers of the compressed file have the sizes that this removal gives."""
    gone: dict[tuple[str, int], Any] = {}
    for row in (row for row in partition.rows if row.tensor in compressed.initializers):
        gone[row.tensor, row.axis] = np.append(remove, False)[row.groups] | gone.get((row.tensor, row.axis), False)
    return all(compressed.initializers[name].dims[axis] == (~lost).sum() for (name, axis), lost in gone.items())


def _folded(graph: Graph, compressed: Graph, links: Links) -> dict[str, Tensor]:
    """Biases that constants were folded into: they have another name in the compressed file, at the same place."""
    after = {node.outputs[0]: node for node in compressed.nodes if node.outputs}
    found = {}
    for node in graph.nodes:
        now = after.get(node.outputs[0]) if node.outputs else None
        if now is None or now.op != node.op:
            continue
        for old, new in zip(node.inputs, now.inputs, strict=False):
            linked = links.links.get(old, ())
            if old != new and new in compressed.initializers and len(linked) == 1 and linked[0].how == "same":
                found[linked[0].parameter] = torch.from_numpy(np.array(compressed.array(new)))
        if node.op in _BIASED and len(now.inputs) > len(node.inputs):
            raise LinkError(
                f"{node} needs a bias in {compressed.name}, for constants that pruning leaves behind, and its module "
                "has none; make the module with one"
            )
    return found


def _cut(tensor: Tensor, keep: Mapping[int, NDArray[np.bool_]]) -> Tensor:
    for axis, stays in keep.items():
        tensor = tensor.index_select(axis, torch.from_numpy(np.flatnonzero(stays)).to(tensor.device))
    return tensor


# --- the module ------------------------------------------------------------------------------------------------------


def _rebuilt(
    module: nn.Module, state: dict[str, Tensor], convolutions: dict[str, int], heads: tuple[str, ...]
) -> nn.Module:
    """A copy with the new state, its attributes brought in line."""
    made = replica(module)
    fresh: dict[int, nn.Parameter] = {}  # tied parameters stay one
    for path, part in made.named_modules(remove_duplicate=True):
        before = {name: tuple(p.shape) for name, p in _tensors(part)}
        for name, old in _tensors(part):
            new = state.get(f"{path}.{name}" if path else name)
            if new is None:
                continue
            if name in part._buffers:
                part._buffers[name] = new
            else:
                assert isinstance(old, nn.Parameter)  # what is no buffer is a parameter
                part._parameters[name] = fresh.setdefault(id(old), nn.Parameter(new, old.requires_grad))
        after = {name: tuple(p.shape) for name, p in _tensors(part)}
        if before != after:
            _follow(part, before, convolutions.get(f"{path}.weight" if path else "weight"))
    for (_, old_part), (_, part) in zip(module.named_modules(), made.named_modules(), strict=True):
        _follow_heads(old_part, part, heads)
    return made


def _tensors(part: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """A module's own parameters and buffers."""
    own = (*part._parameters.items(), *part._buffers.items())
    return ((name, tensor) for name, tensor in own if tensor is not None)


def _follow(part: nn.Module, before: dict[str, tuple[int, ...]], groups: int | None) -> None:
    """Bring the attributes of one of torch's modules in line with its parameters."""
    for kind, sizes in _SIZES:
        if isinstance(part, kind):
            if groups is not None:
                vars(part)["groups"] = groups
            vars(part).update(sizes(part, before))
            return


def _linear(m: Any, before: Any) -> dict[str, Any]:
    return {"in_features": m.weight.shape[1], "out_features": m.weight.shape[0]}


def _transposed(m: Any, before: Any) -> dict[str, Any]:
    return {"in_channels": m.weight.shape[0], "out_channels": m.weight.shape[1] * m.groups}


def _convolution(m: Any, before: Any) -> dict[str, Any]:
    return {"in_channels": m.weight.shape[1] * m.groups, "out_channels": m.weight.shape[0]}


def _batch_norm(m: Any, before: Any) -> dict[str, Any]:
    return {"num_features": len(next(t for _, t in _tensors(m) if t.ndim))}


def _group_norm(m: Any, before: Any) -> dict[str, Any]:
    channels = len(m.weight)
    return {"num_channels": channels, "num_groups": m.num_groups * channels // before["weight"][0]}


def _layer_norm(m: Any, before: Any) -> dict[str, Any]:
    return {"normalized_shape": tuple(m.weight.shape)}


def _embedding(m: Any, before: Any) -> dict[str, Any]:
    return {"num_embeddings": m.weight.shape[0], "embedding_dim": m.weight.shape[1]}


def _recurrent(m: Any, before: Any) -> dict[str, Any]:
    return {"input_size": m.weight_ih_l0.shape[1], "hidden_size": m.weight_hh_l0.shape[1]}


def _prelu(m: Any, before: Any) -> dict[str, Any]:
    return {"num_parameters": m.weight.numel()}


_SIZES: tuple[tuple[tuple[type[nn.Module], ...], Callable[[Any, Any], dict[str, Any]]], ...] = (
    ((nn.Linear,), _linear),
    ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    ((nn.modules.batchnorm._NormBase,), _batch_norm),
    ((nn.GroupNorm,), _group_norm),
    ((nn.LayerNorm, nn.RMSNorm), _layer_norm),
    ((nn.Embedding, nn.EmbeddingBag), _embedding),
    ((nn.LSTM, nn.GRU, nn.RNN), _recurrent),
    ((nn.PReLU,), _prelu),
)


def _follow_heads(old: nn.Module, new: nn.Module, heads: tuple[str, ...]) -> None:
    """Shrink an attention block's numbers as its first projection that was cut has shrunk."""
    widths = [
        (a.weight.shape[0], b.weight.shape[0])
        for a, b in zip(old.children(), new.children(), strict=True)
        if isinstance(a, nn.Linear) and isinstance(b, nn.Linear)
    ]
    for before, after in widths:
        names = [n for n in (*heads, *_WIDTHS) if type(getattr(old, n, None)) is int]
        if before != after and any(n in heads for n in names):
            for name in names:
                vars(new)[name] = getattr(old, name) * after // before
            return


# --- whether it does the same ----------------------------------------------------------------------------------------


@torch.no_grad()
def _check(made: nn.Module, small: Path_, inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    """Run the module and the file on random inputs like those given.

    Raises:
        ExportError: The module can't run, or gives other outputs.
    """
    session, kind = Session(small), type(made).__name__
    modes = {part: part.training for part in made.modules()}
    made.eval()
    random = torch.Generator().manual_seed(0)
    arguments, keywords = tree_map(lambda value: _random(value, random), inputs)
    try:
        outputs = [t for t in tree_leaves(made(*arguments, **keywords)) if isinstance(t, Tensor)]
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        raise ExportError(
            f"{kind} can't run with the cut sizes{_where(error)}; take sizes from tensors there, or use {small}"
        ) from error
    finally:
        for part, training in modes.items():
            part.training = training
    tensors = [t.cpu().numpy() for t in tree_leaves((arguments, keywords)) if isinstance(t, Tensor)]
    named = {name: value.cpu().numpy() for name, value in keywords.items() if isinstance(value, Tensor)}
    feeds = {n: named.get(n, t) for n, t in zip(session.inputs, tensors, strict=False)}
    expected, tally = session.run(feeds), Tally(str(small), kind, RTOL, ATOL)
    found = dict(zip(expected, (value.cpu().numpy() for value in outputs), strict=False))
    tally.add({name: value for name, value in expected.items() if name in found}, found, expected)
    comparison = tally.comparison(1, 1, sampled=False)
    if comparison.nothing:
        raise ExportError(f"{kind} runs with the cut sizes, but {comparison.nothing}; use {small}")
    if not comparison.equal:
        raise ExportError(f"{kind} runs with the cut sizes but gives other outputs than {small}; use the file")


def _random(value: Any, random: torch.Generator) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return torch.randn(value.shape, generator=random).to(value)
    return value


def _where(error: BaseException) -> str:
    """The innermost line of an error that is not torch's own."""
    own = Path(torch.__file__).parent
    frames = [f for f in traceback.extract_tb(error.__traceback__) if own not in Path(f.filename).parents]
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    line = next((f for f in reversed(frames) if Path(f.filename) != Path(__file__)), None)
    return f" ({said})" if line is None else f" at {Path(line.filename).name}:{line.lineno}, `{line.line}` ({said})"
