"""Once-for-all pruning: train a network together with its subnets, then search among them for any budget.

Training follows the sandwich rule (Yu and Huang, 1903.05134; Cai et al., 1908.09791): each step trains the largest, the
smallest and some random subnets, and lets them imitate the network that it began with. The search is an evolution
(Real et al., 1802.01548) over settings: the best subnets within each step of the budget have children.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from zig.errors import PlanError, UsageError, ZigWarning
from zig.groups.partition import Partition
from zig.latency import fastest
from zig.search.network import Forward, Network, digest_of
from zig.search.pruner import Pruner
from zig.search.record import Best, Evaluate, Progress, Record, Trial, better, evaluate
from zig.search.space import Choice, Dial, Ints, Space, some_widths
from zig.search.supernet import Kind, Supernet, kernel_sizes
from zig.surgery.compress import Report
from zig.training.export import Inputs

UNITS = {"macs": 1e6, "params": 1e6, "latency": 1.0}  # what one of a budget's numbers means
RATIOS = (0.5, 0.75, 1.0)
_LAYERS = (("Conv", "ConvTranspose"), ("Gemm", "MatMul"))


@dataclass(frozen=True)
class Subnet:
    """A subnet that was scored.

    Attributes:
        values: What each dial keeps: groups of a node group, or a kernel's size.
        score: What the evaluation said.
        costs: MACs, parameters, and milliseconds where they are known.
        born: In which generation, and how: `0 random`, `3 mutation`, `3 crossover`.
    """

    values: tuple[int, ...]
    score: float
    costs: dict[str, float]
    born: str


@dataclass(frozen=True)
class Evolution:
    """How the search for subnets goes.

    Attributes:
        population: Random subnets to begin with.
        generations: How often the best have children.
        mutations: Children of one parent in each generation.
        crossovers: Children of two.
        probability: That a mutation turns a dial.
        seed: Of everything random.
    """

    population: int = 16
    generations: int = 10
    mutations: int = 8
    crossovers: int = 4
    probability: float = 0.2
    seed: int = 0


@dataclass(frozen=True)
class Static:
    """A subnet of its own.

    Attributes:
        module: The small torch module.
        report: Sizes, and the comparison of the full and the small file.
        values: What each dial keeps.
        costs: MACs, parameters, and milliseconds where they are known.
    """

    module: nn.Module
    report: Report
    values: tuple[int, ...]
    costs: dict[str, float]


class OFAPruner(Pruner):
    """Makes a supernet of a torch model, trains it, and finds subnets for budgets.

    Attributes:
        random: Where random subnets come from.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, **options: Any):
        """See `zig.search.pruner.Pruner`."""
        super().__init__(model, inputs, **options)
        self._supernet: Supernet | None = None
        self.random = np.random.default_rng(0)

    @property
    def made(self) -> bool:
        """Whether there is a supernet yet."""
        return self._supernet is not None

    @property
    def supernet(self) -> Supernet:
        """The supernet that `ofa_model` made.

        Raises:
            UsageError: There is none yet.
        """
        if self._supernet is None:
            raise UsageError("there is no supernet yet; call ofa_model first")
        return self._supernet

    def ofa_model(
        self, ratios: Sequence[float] = RATIOS, *, kernels: bool = True, excludes: Iterable[Any] = (),
        auto_excludes: bool = True, round_to: int = 1, seed: int = 0,
    ) -> Supernet:  # fmt: skip
        """Make the supernet, a copy of the model; train it as any module, with `sample_subnet` or `train_step`.

        Args:
            ratios: The shares of a node group's size that a subnet may keep.
            kernels: Whether odd kernels larger than 3 may shrink, where their padding allows it.
            excludes: Modules, paths of modules, or patterns of parameter names that stay whole.
            auto_excludes: Whether the node groups of the first and last layers (convolutions where there are any) stay
                whole too.
            round_to: Widths are whole or multiples of this, where the width allows.
            seed: Of the random subnets.

        Raises:
            PlanError: Nothing is left to prune.
        """
        network, excludes = self._network, list(excludes)
        ends = ends_of(self.partition) if auto_excludes else frozenset()
        without = network.families_of(excludes) | families_of_weights(self.partition, ends)
        dials = some_widths(self.partition, ratios, round_to=round_to, without=without)
        weights = {
            link.parameter: name
            for name, links in network.oto.links.links.items()
            for link in links
            if link.how == "same" and name not in ends
        }
        sizes = {f"{path}.weight".lstrip("."): kernel_sizes(part) for path, part in network.model.named_modules()}
        held = network.parameters_of(excludes)
        elastic = {w: s for w, s in sizes.items() if kernels and len(s) > 1 and w in weights and w not in held}
        dials += [Dial(weights[weight], options) for weight, options in elastic.items()]
        free = some_widths(self.partition, ratios, round_to=round_to)
        space = self._made(dials, free, round_to, "by excludes, or as first or last layers")
        names = {weights[weight]: weight for weight in elastic}
        self._space, self.random = space, np.random.default_rng(seed)
        self._supernet = Supernet(network.model, network.rows, space, names)
        return self._supernet

    @property
    def _network(self) -> Network:
        if not isinstance(self.network, Network):
            raise UsageError("once-for-all pruning trains; give a torch model, not a file")
        return self.network

    def _kernels(self) -> dict[str, Sequence[int]]:
        dials = self._supernet.space.dials if self._supernet is not None else ()
        return {dial.name: dial.options[1:] for dial in dials if dial.family < 0}

    def predicted_and_measured(self, runs: int = 30) -> tuple[float, float]:
        """As of `Pruner`, with the kernels of the subnet that `get_static_subnet` gave last."""
        if self.latency is None or self.choice is None:
            return super().predicted_and_measured(runs)  # which says what is missing
        values = self.supernet.space.values(self.choice.setting)
        with tempfile.TemporaryDirectory() as folder:
            static = self.get_static_subnet(values, out_dir=folder)
            small = Path(folder, f"{self.network.name}_compressed.onnx")
            return static.costs["latency"], fastest(small, runs, self.latency.provider)

    # --- training --------------------------------------------------------------------------------------------------

    def sample_subnet(self, kind: Kind) -> tuple[int, ...]:
        """Choose the subnet that the supernet runs: `max`, `min` or `random`; returns what each dial keeps."""
        return self.supernet.space.values(self.supernet.sample(kind, self.random))

    def train_step(  # noqa: PLR0913 - each one is a setting of the training
        self, images: Any, targets: Any, optimizer: torch.optim.Optimizer, *, random_subnets: int = 2,
        loss: Callable[[Any, Any], Tensor] = functional.cross_entropy, teacher: nn.Module | None = None,
        imitate: Callable[[Any, Any], Tensor] | None = None, forward: Forward | None = None, clip: float | None = 1.0,
    ) -> float:  # fmt: skip
        """One step by the sandwich rule: the largest, the smallest and random subnets, then one step of the optimizer.

        Args:
            images: What the model reads.
            targets: What the loss compares with.
            optimizer: Of the supernet's parameters.
            random_subnets: How many besides the two.
            loss: Of an output and the targets.
            teacher: Whom subnets imitate; the model that the pruner was made with, if not given.
            imitate: Loss of an output and the teacher's; the cross-entropy with its probabilities, if not given.
            forward: How a network reads `images`, called with both, where it is not simply called.
            clip: The largest absolute value that a gradient's element may have; None for any.

        Returns:
            The mean loss of the subnets.
        """
        teacher = (self._network.model if teacher is None else teacher).eval()
        read = forward or nn.Module.__call__
        with torch.no_grad():
            wanted = read(teacher, images)
        self.supernet.train()
        optimizer.zero_grad()
        kinds: list[Kind] = ["max", "min", *(["random"] * random_subnets)]  # type: ignore[list-item]
        total = 0.0
        for kind in kinds:
            self.sample_subnet(kind)
            output = read(self.supernet, images)
            both = loss(output, targets) + (imitate or soft_cross_entropy)(output, wanted)
            torch.autograd.backward(both)
            total += float(both.detach())
        if clip is not None:
            nn.utils.clip_grad_value_(self.supernet.parameters(), clip)
        optimizer.step()
        return total / len(kinds)

    # --- search ----------------------------------------------------------------------------------------------------

    def run_evolutionary_search(  # noqa: PLR0913 - each one is a setting of the search
        self, calibration_fn: Evaluate | None, eval_fn: Evaluate, *, calib_args: Sequence[Any] = (),
        eval_args: Sequence[Any] = (), min_macs: float, max_macs: float, step: float = 10.0, of: str = "macs",
        best: Best = "max", evolution: Evolution = Evolution(), forced: bool = False,
        path: str | os.PathLike[str] | None = None, jobs: int = 1, progress: Progress | None = None,
    ) -> dict[str, Subnet]:  # fmt: skip
        """Search subnets within a budget's range; what a file from before has is not scored again.

        Args:
            calibration_fn: Called with each subnet and `calib_args` before it is scored, as `zig.search.recalibrate`.
            eval_fn: Called with each subnet and `eval_args`, returns the score.
            calib_args: Further arguments of `calibration_fn`.
            eval_args: Further arguments of `eval_fn`.
            min_macs: The least that a subnet may cost, in millions of MACs; of `params` in millions, of `latency` in
                milliseconds.
            max_macs: The most.
            step: Subnets whose cost rounds to the same multiple of this compete.
            of: `macs`, `params` or `latency`.
            best: The direction of the score.
            evolution: How the search goes.
            forced: Whether to begin anew.
            path: The file; else one in the pruner's folder.
            jobs: Processes, see `zig.search.record.evaluate`.
            progress: Called with the number of subnets scored, an estimate of how many will be, and the last score.

        Returns:
            The best subnet by multiple of `step`.

        Raises:
            PlanError: No subnet lies within the range.
            UsageError: The file is of another search.
        """
        key = better(best)
        if not step > 0 or not 0 <= min_macs <= max_macs:
            raise PlanError(f"the range must be from a lower to a higher cost, not {min_macs:g} to {max_macs:g}")
        supernet, space = self.supernet, self.supernet.space
        about = {
            "zig": "once-for-all", **self.identity, "weights": digest_of(supernet.network),
            "calibrated": calibration_fn is not None, "of": of, "range": [min_macs, max_macs, step], "best": best,
            "evolution": vars(evolution) | {}, "dials": [[d.name, list(d.options)] for d in space.dials],
            "order": space.digest,
        }  # fmt: skip
        record = Record(self.file(f"{of}.once-for-all") if path is None else path, about, anew=forced)
        trial = Trial(eval_fn, eval_args, calibration_fn, calib_args)
        expected = evolution.population + evolution.generations * (evolution.mutations + evolution.crossovers)
        low, high = (bound * UNITS[of] for bound in (min_macs, max_macs))
        found: dict[str, Subnet] = {}
        winners: dict[str, Subnet] = {}
        for generation in range(evolution.generations + 1):
            parents = [np.array(space.setting(winners[bucket].values)) for bucket in sorted(winners, key=float)]
            drawn = _Breeding(space, evolution, (low, high, of), generation).children(parents)
            born = {name: (setting, how) for setting, how in drawn if (name := _name(space, setting)) not in found}
            if not born and not found:
                raise PlanError(self._out_of_range(low, high, of))

            def tell(done: int, _: int, score: float, before: int = len(found)) -> None:
                if progress is not None:
                    progress(before + done, expected, score)

            settings = {name: setting for name, (setting, _) in born.items()}
            evaluate(supernet, settings, record, trial, jobs=jobs, progress=tell)
            for name, (setting, how) in born.items():
                subnet = Subnet(space.values(setting), record.scores[name], space.costs(setting), f"{generation} {how}")
                found[name] = subnet
                bucket = f"{round(subnet.costs[of] / UNITS[of] / step) * step:g}"
                if bucket not in winners or key(subnet.score) > key(winners[bucket].score):
                    winners[bucket] = subnet
        winners = dict(sorted(winners.items(), key=lambda item: float(item[0])))
        record.notes = {
            "best": best,
            "pareto": {bucket: _line(subnet) for bucket, subnet in winners.items()},
            "subnets": [_line(subnet) for subnet in found.values()],
        }
        record.save()
        if len(found) < expected:
            warnings.warn(
                f"{len(found)} different subnets were scored, not {expected}: the others were the same again, or "
                "nothing brings them within the range",
                ZigWarning,
                stacklevel=2,
            )
        return winners

    def _out_of_range(self, low: float, high: float, of: str) -> str:
        space = self.supernet.space
        least, most = (space.cost(s, of) / UNITS[of] for s in (space.counts - 1, space.full))
        return (
            f"no subnet costs {low / UNITS[of]:g} to {high / UNITS[of]:g} of {of}; the smallest costs {least:.4g}, the "
            f"largest {most:.4g}"
        )

    def choose(self, values: Sequence[int], of: str = "macs") -> None:
        """Take a subnet as the choice, for `plan` and what follows from it."""
        space = self.supernet.space
        setting = space.setting(values)
        self._space, self.choice = space, space.choice(setting, space.removed(setting, of), of)

    # --- results ---------------------------------------------------------------------------------------------------

    def get_static_subnet(
        self, setting: Sequence[int] | None = None, *, calibration_fn: Evaluate | None = None,
        calib_args: Sequence[Any] = (), out_dir: str | os.PathLike[str] | None = None,
    ) -> Static:  # fmt: skip
        """A subnet of its own: the same outputs, checked by onnxruntime.

        Args:
            setting: What each dial keeps (`Subnet.values`); the subnet that is chosen now, if not given.
            calibration_fn: Called with the subnet and `calib_args` first, to take its BatchNorm statistics anew.
            calib_args: Its further arguments.
            out_dir: Where to leave `<name>_full.onnx` and `<name>_compressed.onnx`, if anywhere.

        Raises:
            UsageError: The setting is not one of this supernet.
            VerifyError: The outputs differ.
        """
        supernet, space = self.supernet, self.supernet.space
        chosen = supernet.setting if setting is None else space.setting(setting)
        with supernet.subnet(chosen):
            if calibration_fn is not None:
                calibration_fn(supernet, *calib_args)
            model = supernet.static()
        model.train(supernet.training)
        remove = space.remove(chosen)
        module, report = self._network.like(model).slim(remove, out_dir)
        self.choose(space.values(chosen))
        return Static(module, report, space.values(chosen), space.costs(chosen))


@dataclass
class _Breeding:
    """The children of one generation, each brought within the range of the budget."""

    space: Space
    evolution: Evolution
    bounds: tuple[float, float, str]
    generation: int

    def children(self, parents: Sequence[Ints]) -> Iterator[tuple[Ints, str]]:
        """Random subnets without parents; with them, mutations and crossovers."""
        random = np.random.default_rng([self.evolution.seed, self.generation])
        counts = self.space.counts
        if not parents:
            wild = [(random.integers(counts), "random") for _ in range(self.evolution.population)]
        else:
            wild = [(self._mutated(random, parents), "mutation") for _ in range(self.evolution.mutations)]
            wild += [(self._crossed(random, parents), "crossover") for _ in range(self.evolution.crossovers)]
        for setting, how in wild:
            tame = self._within(random, setting)
            if tame is not None:
                yield tame, how

    def _mutated(self, random: np.random.Generator, parents: Sequence[Ints]) -> Ints:
        """A parent with some dials at another option."""
        parent, counts = parents[int(random.integers(len(parents)))], self.space.counts
        turned = random.random(len(parent)) < self.evolution.probability
        child: Ints = np.where(turned, (parent + random.integers(1, counts)) % counts, parent)
        return child

    @staticmethod
    def _crossed(random: np.random.Generator, parents: Sequence[Ints]) -> Ints:
        """Each dial as in one of two parents."""
        one, other = (parents[int(i)] for i in random.integers(len(parents), size=2))
        child: Ints = np.where(random.random(len(one)) < 0.5, one, other)
        return child

    def _within(self, random: np.random.Generator, setting: Ints) -> Ints | None:
        """The setting, or the one that turning dials from it on, in random order, leads to first; None for neither."""
        low, high, of = self.bounds
        if low <= self.space.cost(setting, of) <= high:
            return setting
        target = min(random.uniform(low, high), self.space.whole[of])
        option = 1 + np.arange(len(self.space.dial)) - np.searchsorted(self.space.dial, self.space.dial)
        keys = option - setting[self.space.dial] + random.random(len(setting))[self.space.dial]
        fitted = self.space.climb(keys, 1 - target / self.space.whole[of], of).setting
        return fitted if low <= self.space.cost(fitted, of) <= high else None


def soft_cross_entropy(output: Any, wanted: Any) -> Tensor:
    """The cross-entropy of an output with a teacher's probabilities, both logits (batch, classes, ...), or some."""
    if isinstance(output, (tuple, list)):
        return torch.stack(
            [soft_cross_entropy(ours, theirs) for ours, theirs in zip(output, wanted, strict=True)]
        ).sum()
    loss: Tensor = -(wanted.softmax(1) * output.log_softmax(1)).sum(1).mean()
    return loss


def ends_of(partition: Partition) -> frozenset[str]:
    """The weights of the first and last layers: convolutions, or matrix products in a network that has none."""
    graph = partition.graph
    for operators in _LAYERS:
        layers = [
            n for n in graph.nodes if n.op in operators and len(n.inputs) > 1 and n.inputs[1] in graph.initializers
        ]
        if layers:
            inside = {node.name for node in layers}
            first = _unpreceded([(node, node.inputs, node.outputs) for node in graph.nodes], inside)
            last = _unpreceded([(node, node.outputs, node.inputs) for node in reversed(graph.nodes)], inside)
            return frozenset(node.inputs[1] for node in layers if node.name in first | last)
    return frozenset()


def _unpreceded(steps: Sequence[tuple[Any, Sequence[str], Sequence[str]]], layers: set[str]) -> set[str]:
    """The layers that no other layer comes before, in a walk over (node, where it reads, where it writes)."""
    behind: set[str] = set()
    found = set()
    for node, reads, writes in steps:
        after = any(name in behind for name in reads)
        if node.name in layers and not after:
            found.add(node.name)
        if after or node.name in layers:
            behind.update(writes)
    return found


def families_of_weights(partition: Partition, weights: Iterable[str]) -> frozenset[int]:
    """The node groups that some initializers have members of."""
    wanted, found = set(weights), set()
    for row in partition.rows:
        if row.tensor in wanted:
            found.update(partition.node_group[row.groups[row.member]].tolist())
    return frozenset(found)


def _name(space: Space, setting: Ints) -> str:
    return json.dumps(list(space.values(setting)))


def _line(subnet: Subnet) -> dict[str, Any]:
    """A subnet as plain data."""
    score = subnet.score if np.isfinite(subnet.score) else None
    return {"score": score, **subnet.costs, "born": subnet.born, "setting": list(subnet.values)}


__all__ = ["Choice", "Evolution", "OFAPruner", "Static", "Subnet", "ends_of", "soft_cross_entropy"]
