"""What the file of a run may say: every key, its type, its meaning and its default.

A file is YAML. `extends: other.yml` takes another file as its start, relative to itself; `smoke:` says what `--smoke`
puts in place of the rest. A key that does not exist is an error with a suggestion. Nothing here imports torch, so a
mistake is told at once.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from zig.errors import UsageError

Share = Annotated[float, Field(ge=0, le=1)]
SHOWN = 16  # names that a message lists
Path_ = str | os.PathLike[str]


class Section(BaseModel):
    """Base of every part of a file: unknown keys are errors, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(Section):
    """The network."""

    name: str = Field(
        description="`torchvision/NAME`, `timm/NAME`, `transformers/CLASS`, or `package.module:factory` for any "
        "function or class that returns a module"
    )
    options: dict[str, Any] = Field(
        default={}, description="keyword arguments of the factory (transformers: of the class's configuration)"
    )
    weights: str | None = Field(
        default=None,
        description="weights to start from: a state dict saved by `torch.save`, a checkpoint of zig, or (transformers) "
        "a folder of `save_pretrained`; nothing is ever downloaded",
    )


class Jitter(Section):
    """By how much the colours of a training image change, at random and in random order."""

    brightness: float = Field(default=0.0, ge=0, description="times 1 - this to 1 + this")
    contrast: float = Field(default=0.0, ge=0, description="likewise, about the mean of the grey image")
    saturation: float = Field(default=0.0, ge=0, description="likewise, about the grey image; of three channels")
    hue: float = Field(default=0.0, ge=0, le=0.5, description="turns of the colour circle; of three channels")


class Images(Section):
    """Images in classes."""

    kind: Literal["digits", "mnist", "cifar10", "cifar100", "folder"] = Field(
        description="`digits` (scikit-learn's, needs no path), `mnist` (idx files, .gz or not), `cifar10` and "
        "`cifar100` (the binary version), `folder` (train/CLASS/IMAGE and val/CLASS/IMAGE)"
    )
    path: str = Field(default="", description="folder of the files")
    size: int | None = Field(
        default=None, ge=8, description="of `folder`: height and width of what the network sees; 224"
    )
    augment: list[Literal["shift", "crop", "flip", "resized_crop"]] = Field(
        default=[],
        description="what is done to training images: `shift` by up to one pixel, `crop` after padding by an eighth, "
        "`flip`, `resized_crop` (8 to 100 % of the area; of `folder`)",
    )
    jitter: Jitter | None = Field(default=None, description="random changes of colour, after `augment`")
    mix_up: float | None = Field(
        default=None, gt=0, description="alpha of mix-up: training images are blended by shares from Beta(alpha, alpha)"
    )
    label_smoothing: float | None = Field(
        default=None, ge=0, lt=1, description="share of the label that all classes get alike, in training alone; 0"
    )
    mean: list[float] | None = Field(default=None, description="subtracted from each channel, values being in [0, 1]")
    std: list[float] | None = Field(default=None, description="each channel is divided by it")
    limit: int | None = Field(default=None, ge=1, description="use only so many images of each part")


class Questions(Section):
    """Extractive question answering, in the format of SQuAD v1.1."""

    kind: Literal["squad"] = Field(description="`squad`")
    path: str = Field(default="", description="folder of the two files")
    train: str = Field(default="train-v1.1.json", description="questions to learn from")
    held_out: str = Field(default="dev-v1.1.json", description="questions to be measured by")
    vocabulary: str = Field(default="vocab.txt", description="WordPiece vocabulary, a token a line; relative to `path`")
    lower_case: bool = Field(default=True, description="whether the vocabulary knows no capitals and accents")
    length: int = Field(default=384, ge=16, description="tokens of a question with a window of its text")
    stride: int = Field(default=128, ge=1, description="how many tokens the windows of a long text lie apart")
    question_length: int = Field(default=64, ge=1, description="longer questions are cut")
    answer_length: int = Field(default=30, ge=1, description="longest answer that is given, in tokens")
    best: int = Field(default=20, ge=1, description="so many starts and ends are combined to answers")
    limit: int | None = Field(default=None, ge=1, description="use only so many questions of each file")


Data = Annotated[Images | Questions, Field(discriminator="kind")]


class Method(Section):
    """What every method can be told; what is not given takes the default of the optimizer."""

    variant: Literal["sgd", "adam", "adamw"] = Field(default="sgd", description="the step that pruning builds on")
    lr: float | None = Field(default=None, gt=0, description="learning rate: 0.1 for sgd, else 0.001")
    weight_decay: float | None = Field(default=None, ge=0, description="0; decoupled and 0.01 for adamw")
    momentum: float | None = Field(default=None, ge=0, description="of sgd; 0")
    nesterov: bool | None = Field(default=None, description="of sgd; false")
    betas: tuple[float, float] | None = Field(default=None, description="of adam and adamw; [0.9, 0.999]")
    eps: float | None = Field(default=None, gt=0, description="of adam and adamw; 1e-8")
    target_group_sparsity: float | None = Field(default=None, description="share of all groups that goes; 0.5")
    target_macs: float | None = Field(default=None, description="in its place: share of the MACs that is left")
    target_params: float | None = Field(default=None, description="in its place: share of the parameters that is left")
    round_to: int | None = Field(default=None, ge=1, description="widths stay whole or multiples of this; 1")
    start: Share = Field(default=0.25, description="share of the training that is over when pruning starts")
    pruning: Share = Field(default=0.5, gt=0, description="share of the training that pruning takes; the rest recovers")
    decay: Share | None = Field(
        default=None, description="last share of pruning, in which what is left is led to zero; 0.5 (not of hesso)"
    )

    @model_validator(mode="after")
    def _fits(self) -> Method:
        if self.start + self.pruning > 1:
            raise ValueError(f"start {self.start:g} and pruning {self.pruning:g} are more than the whole training")
        return self

    @property
    def held_back(self) -> float:
        """The share of the training examples that the method keeps for itself."""
        return 0.0


class HSPG(Method):
    """OTO (2021)."""

    name: Literal["hspg"] = Field(description="`hspg`")
    lmbda: float | None = Field(default=None, ge=0, description="weight of the penalty on all groups; 0.001")
    epsilon: float | None = Field(default=None, ge=0, lt=1, description="of the half-space; 0")
    adapt_epsilon_steps: int | None = Field(default=None, ge=1, description="epsilon grows where sparsity does not")
    upper_group_sparsity: float | None = Field(
        default=None, description="in place of a target: never more than this share of the groups"
    )


class DHSPG(Method):
    """OTOv2."""

    name: Literal["dhspg"] = Field(description="`dhspg`")
    lmbda: float | None = Field(default=None, ge=0, description="weight of the penalty: 0.001 for sgd, else 0.01")
    lmbda_amplify: float | None = Field(
        default=None, description="how far the penalty rises above the least that works"
    )
    hat_lmbda_coeff: float | None = Field(default=None, description="its cap, as a multiple of `lmbda`")
    epsilon: float | None = Field(default=None, ge=0, lt=1, description="of the half-space; 0")
    warm_up_steps: int | None = Field(default=None, ge=0, description="first steps of pruning without projection; 0")
    scope: Literal["local", "global"] | None = Field(default=None, description="where scores compete; `local`")


class HESSO(Method):
    """OTOv3."""

    name: Literal["hesso"] = Field(description="`hesso`")
    pruning_periods: int | None = Field(default=None, ge=1, description="in how many portions groups go; 1")
    saliency: dict[str, float] | None = Field(default=None, description="weight of each criterion; 0.2 each")
    scope: Literal["local", "global"] | None = Field(default=None, description="where scores compete; `local`")


class HESSOCRIC(Method):
    """HESSO with its corrective cycle."""

    name: Literal["hesso_cric"] = Field(description="`hesso_cric`")
    sampling_steps: int | None = Field(default=None, ge=1, description="length of a trial cycle")
    cycles: int | None = Field(default=None, ge=1, description="most trial cycles; 10")
    tolerance: int | None = Field(default=None, ge=0, description="the cycles end at no more new candidates; 0")
    loss_weight: float | None = Field(default=None, ge=0, description="weight of the loss trials; 1")
    saliency: dict[str, float] | None = Field(default=None, description="weight of each criterion; 0.2 each")
    scope: Literal["local", "global"] | None = Field(default=None, description="where scores compete; `local`")


class ATO(Method):
    """Auto-Train-Once: a controller network learns what goes."""

    name: Literal["ato"] = Field(description="`ato`")
    keep: Share | None = Field(default=None, description="share of the whole cost that is left; this or `p`")
    p: Share | None = Field(default=None, description="share of the prunable cost that is left, as the paper has it")
    of: Literal["macs", "params"] | None = Field(default=None, description="what the cost is: `macs`, or `params`")
    start: Share = Field(default=0.2, description="share of the training that is over when projection starts")
    pruning: Share = Field(default=0.55, gt=0, description="from there, share of the training until the mask is zero")
    start_controller: Share | None = Field(
        default=None, description="share of the training that is over when the controller starts; half of `start`"
    )
    freeze: Share | None = Field(
        default=None, description="share of the training that is over when the mask is final; the middle of pruning"
    )
    apart: Share = Field(
        default=0.05, gt=0, description="share of the training examples that only the controller learns from"
    )
    unprunable: list[str] = Field(default=[], description="patterns of parameter names that stay, as `head.*`")
    controller: Literal["gru", "logits", "none"] = Field(
        default="gru", description="`gru`; `logits` has no network; `none` goes by norms"
    )
    rank: int | None = Field(default=None, ge=0, description="of the controller's heads; full, or 16 of > 10^5 units")
    controller_lr: float | None = Field(default=None, gt=0, description="0.001, of `logits` 0.1")
    weight: float | None = Field(default=None, ge=0, description="how much the budget counts beside the loss; 4")
    base: float | None = Field(default=None, description="how much units stay at first; 3")
    temperature: float | None = Field(default=None, gt=0, description="how soft gates are; 0.4")
    every: int | None = Field(
        default=None, ge=1, description="steps between lessons of the controller; so many that it has 2,000, at most 20"
    )
    lmbda: tuple[float, float] | None = Field(
        default=None, description="strength of projection before and after the mask is final; [10, 1000]"
    )
    projection: Literal["lasso", "half_space"] = Field(default="lasso", description="how groups go to zero")

    @property
    def held_back(self) -> float:
        """What only the controller learns from."""
        return 0.0 if self.controller == "none" else self.apart


AnyMethod = Annotated[HSPG | DHSPG | HESSO | HESSOCRIC | ATO, Field(discriminator="name")]


class Schedule(Section):
    """The learning rate over the training, as a multiple of `method.lr`."""

    name: Literal["constant", "step", "cosine", "linear", "one_cycle"] = Field(
        default="constant",
        description="`step` (times `gamma` at each milestone), `cosine` and `linear` (to zero at the end), `one_cycle` "
        "(up in the first three tenths, then to zero)",
    )
    milestones: list[Share] = Field(default=[], description="of `step`: shares of the training, as [0.25, 0.5, 0.75]")
    gamma: float = Field(default=0.1, gt=0, description="of `step`")
    warmup: Share = Field(default=0.0, description="first share of the training, in which the rate rises from zero")


class Training(Section):
    """How long, and with what."""

    epochs: int = Field(ge=1, description="how often training sees the data")
    batch_size: int = Field(ge=1, description="examples of an optimizer step, over all processes")
    accumulate: int = Field(default=1, ge=1, description="into how many parts a batch is cut, to need less memory")
    schedule: Schedule = Field(default=Schedule(), description="the learning rate over time")
    clip: float | None = Field(default=None, gt=0, description="largest norm of the gradient")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32", description="`bf16` and `fp16` compute by torch.amp, fp16 with scaled gradients"
    )
    device: str = Field(default="auto", description="`auto` (cuda where there is one), `cpu`, `cuda`, `cuda:1`")
    parallel: Literal["ddp", "fsdp"] = Field(
        default="ddp", description="under torchrun; `fsdp` is refused: it shards what groups must see whole"
    )
    compile: str | None = Field(default=None, description="backend of torch.compile, as `inductor`; none")
    workers: int = Field(default=0, ge=0, description="processes that read data")
    checkpoint_steps: int | None = Field(default=None, ge=1, description="steps between checkpoints; an epoch")
    evaluation_epochs: int = Field(default=1, ge=1, description="epochs between measurements on held-out data")
    tensorboard: bool = Field(default=False, description="also log for TensorBoard, in `out`/tensorboard")


class Run(Section):
    """A training run."""

    out: str = Field(description="folder of checkpoints, logs and models")
    seed: int = Field(default=0, ge=0, description="of everything random")
    model: ModelSection = Field(description="the network")
    data: Data = Field(description="what it learns from")
    method: AnyMethod = Field(description="how it is pruned")
    training: Training = Field(description="how long, and with what")


def suggestion(name: str, known: list[str]) -> str:
    """What may have been meant: ` (did you mean 'x'?)`, or the list of what there is."""
    near = difflib.get_close_matches(name, known, 1, 0.6)
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return f"did you mean '{near[0]}'?" if near else f"there is {', '.join(sorted(known)[:SHOWN])}{more}"


S = TypeVar("S", bound=Section)


def load(path: Path_, section: type[S], *, smoke: bool = False) -> S:
    """Read a file and check it.

    Args:
        path: The YAML file.
        section: What it must be.
        smoke: Put what stands under `smoke` in place of the rest.

    Raises:
        UsageError: The file can't be read, or a key or value is wrong; the first one is named.
    """
    given = read(path)
    changes = given.pop("smoke", None) or {}
    checked(merged(given, changes), section, path)  # a mistake under `smoke` is told even when it is not used
    return checked(merged(given, changes) if smoke else given, section, path)


def checked(given: Mapping[str, Any], section: type[S], path: Path_) -> S:
    """A mapping as a section.

    Raises:
        UsageError: A key or a value is wrong.
    """
    try:
        return section.model_validate(given)
    except ValidationError as error:
        raise UsageError(f"{os.fspath(path)}: {next(_sentences(error, section))}") from error


def read(path: Path_, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A YAML file with what it extends, as plain values.

    Raises:
        UsageError: It can't be read, is no YAML, or extends itself.
    """
    file = Path(path)
    if file.resolve() in below:
        raise UsageError(f"{file} extends itself; take out one `extends`")
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} can't be read: {getattr(error, 'strerror', None) or 'it is no text'}") from error
    except RecursionError as error:
        raise UsageError(f"{file} is nested too deeply to be a file of settings") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(given, dict):
        raise UsageError(f"{file} must hold keys and values, such as `out: runs/mine`")
    start = given.pop("extends", None)
    return merged(read(file.parent / str(start), (*below, file.resolve())), given) if start else given


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The first mapping with the values of the second; mappings in both are merged, unless they choose another kind."""
    result = dict(first)
    for key, value in second.items():
        here = result.get(key)
        if isinstance(here, Mapping) and isinstance(value, Mapping) and not _other(here, value):
            result[key] = merged(here, value)
        else:
            result[key] = value
    return result


def _other(here: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    """Whether the second says it is of another kind or name, so that the options of the first don't belong to it."""
    return any(key in there and there[key] != here.get(key) for key in ("kind", "name"))


def _sentences(error: ValidationError, section: type[Section]) -> Iterator[str]:
    """What is wrong, the unknown keys first: they explain what is missing."""
    for found in sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden"):
        place, kind, context = [str(part) for part in found["loc"]], found["type"], found.get("ctx", {})
        *outer, last = place
        if kind == "extra_forbidden":
            within, keys = _keys(section, outer)
            yield f"{'.'.join([*within, last])} is no key; {suggestion(last, keys)}"
        elif kind == "missing":
            yield f"{'.'.join([*_keys(section, outer)[0], last])} is missing; {_meaning(section, place)}"
        elif kind == "union_tag_not_found":
            yield f"{'.'.join(place)}.{_bare(context['discriminator'])} is missing; it says which keys there are"
        elif kind == "union_tag_invalid":
            known = [_bare(tag) for tag in context["expected_tags"].split(", ")]
            where = f"{'.'.join(place)}.{_bare(context['discriminator'])}"
            yield f"{where} is {context['tag']!r}; {suggestion(context['tag'], known)}"
        else:
            said = found["msg"].removeprefix("Value error, ")
            where = ".".join(_keys(section, place)[0]) or "the file"
            yield f"{where} is {found['input']!r}: {said[:1].lower()}{said[1:]}"


def _bare(quoted: str) -> str:
    return quoted.strip("'")


def _keys(section: type[BaseModel], place: list[str]) -> tuple[list[str], list[str]]:
    """The place without the names of alternatives that pydantic puts in it, and the keys that there are there."""
    within: list[str] = []
    here: list[type[BaseModel]] = [section]
    for part in place:
        fields = [model.model_fields[part] for model in here if part in model.model_fields]
        if fields:
            within.append(part)
            here = [model for field in fields for model in sections(field.annotation)]
        elif chosen := [model for model in here if _chosen(model, part)]:
            here = chosen
        else:
            within.append(part)
            here = []
    return within, sorted({key for model in here for key in model.model_fields})


def _chosen(section: type[BaseModel], name: str) -> bool:
    """Whether a section is the alternative of this name."""
    return any(
        name in getattr(field.annotation, "__args__", ())
        for key, field in section.model_fields.items()
        if key in ("kind", "name")
    )


def sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in sections(part)]


def _meaning(section: type[BaseModel], place: list[str]) -> str:
    """The description of a key."""
    *outer, last = place
    here: list[type[BaseModel]] = [section]
    for part in outer:
        fields = [model.model_fields[part] for model in here if part in model.model_fields]
        here = [model for field in fields for model in sections(field.annotation)] or here
    described = (model.model_fields[last].description for model in here if last in model.model_fields)
    return next((text for text in described if text), "give it")
