"""What the file of a search may say: every key, its type, its meaning and its default; see `zig.runs.config`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from zig.runs.config import Data, ModelSection, Schedule, Section
from zig.search.backend import Name

Measure = Literal["macs", "params", "latency"]
Ratio = Annotated[float, Field(gt=0, lt=1)]


class Method(Section):
    """What every method can be told."""

    removal_ratio: Ratio = Field(default=0.5, description="the share of `of` to remove")
    of: Measure = Field(default="macs", description="`macs`, `params`, or `latency` under onnxruntime on this machine")
    provider: str = Field(default="cpu", description="where latency is measured: `cpu`, `cuda`, ...")
    round_to: int = Field(default=1, ge=1, description="widths stay whole or multiples of this; 8 for latency")
    excludes: list[str] = Field(default=[], description="paths of modules, or patterns of parameters, that stay whole")
    held_back: Ratio = Field(
        default=0.1, description="share of the training examples that is kept from training, to score candidates by"
    )
    examples: int = Field(default=2048, ge=1, description="the most of these that a candidate is scored by")
    calibration_batches: int = Field(
        default=16, ge=0, description="batches that a candidate's BatchNorm statistics are taken from; 0 for none"
    )
    jobs: int | None = Field(
        default=None, description="processes that score candidates, -1 for all there are; 1, and -1 of `dask` and `ray`"
    )
    backend: Name = Field(default="loky", description="where: `loky` (processes here), `dask` or `ray`")
    address: str | None = Field(default=None, description="of Dask's scheduler or Ray's cluster; one on this machine")

    @property
    def processes(self) -> int:
        """How many processes score candidates."""
        return self.jobs if self.jobs is not None else 1 if self.backend == "loky" else -1


class Iterative(Method):
    """Sensitivity analysis, then rounds of pruning and retraining."""

    name: Literal["iterative"] = Field(description="`iterative`")
    ratios: list[Ratio] = Field(
        default=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], description="shares at which each node group is tried"
    )
    rounds: int = Field(default=1, ge=1, description="in how many rounds the ratio is reached, each one retrained")


class OneStep(Method):
    """The best of many candidates of the budget."""

    name: Literal["one_step"] = Field(description="`one_step`")
    num_subnets: int = Field(default=100, ge=1, description="how many candidates are scored")


class OnceForAll(Method):
    """A supernet, and an evolution among its subnets."""

    name: Literal["once_for_all"] = Field(description="`once_for_all`")
    ratios: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default=[0.5, 0.75, 1.0], description="shares of a width that a subnet may keep"
    )
    kernels: bool = Field(default=True, description="whether kernels larger than 3 may shrink")
    auto_excludes: bool = Field(default=True, description="whether the first and last layers stay whole")
    epochs: int = Field(ge=1, description="how long the supernet trains; a step trains `random_subnets` and two more")
    random_subnets: int = Field(default=2, ge=0, description="random subnets in a step, beside largest and smallest")
    within: Ratio = Field(
        default=0.05, description="subnets may cost up to this share of the whole network less than the budget"
    )
    population: int = Field(default=16, ge=1, description="random subnets to begin with")
    generations: int = Field(default=10, ge=0, description="how often the best have children")
    mutations: int = Field(default=8, ge=0, description="children of one parent in each generation")
    crossovers: int = Field(default=4, ge=0, description="children of two")


AnyMethod = Annotated[Iterative | OneStep | OnceForAll, Field(discriminator="name")]


class Training(Section):
    """How the network is trained before the search, and what is left of it after."""

    epochs: int = Field(ge=0, description="how long the pruned network trains; with rounds, in each of them")
    before: int = Field(default=0, ge=0, description="how long the network trains first, where it has no weights yet")
    batch_size: int = Field(default=64, ge=1, description="examples of a step")
    variant: Literal["sgd", "adamw"] = Field(default="adamw", description="`sgd` (with momentum 0.9) or `adamw`")
    lr: float = Field(default=1e-3, gt=0, description="learning rate")
    weight_decay: float = Field(default=1e-4, ge=0, description="of the optimizer")
    schedule: Schedule = Field(default=Schedule(name="cosine"), description="the learning rate over time")
    mode: Literal["slim", "sparse"] = Field(
        default="slim",
        description="`slim` trains the small network; `sparse` the large one with zeros, which always works",
    )
    device: str = Field(default="auto", description="`auto` (cuda where there is one), `cpu`, `cuda`, `cuda:1`")
    workers: int = Field(default=0, ge=0, description="processes that read data")


class Search(Section):
    """A search."""

    out: str = Field(description="folder of checkpoints, scores, models and the report")
    seed: int = Field(default=0, ge=0, description="of everything random")
    model: ModelSection = Field(description="the network")
    data: Data = Field(description="what it learns from")
    method: AnyMethod = Field(description="how it is pruned")
    training: Training = Field(description="how it is trained")
