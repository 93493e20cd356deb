"""Networks by name: torchvision's, timm's, those of transformers, and any factory."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zig.errors import UsageError
from zig.packages import failure, importing
from zig.runs.checkpoint import read, seed_all
from zig.runs.config import ModelSection, suggestion
from zig.runs.data import Task, in_order


def build(section: ModelSection, seed: int = 0) -> nn.Module:
    """Make the network that a section names, and load its weights if it has any.

    Args:
        section: The `model` of a file.
        seed: Of the random weights.

    Raises:
        UsageError: There is no such network, its package is missing, it refuses the options, or the weights don't fit.
    """
    seed_all(seed)
    library, slash, name = section.name.partition("/")
    made: Any
    if slash and library in _LIBRARIES:
        made = _LIBRARIES[library](section, name)
    elif ":" in section.name:
        made = _called(_factory(section.name), section)
    else:
        raise UsageError(
            f"model.name is '{section.name}'; it must be torchvision/NAME, timm/NAME, transformers/CLASS or "
            "package.module:factory"
        )
    if not isinstance(made, nn.Module):
        raise UsageError(f"model.name: {section.name} gives a {type(made).__name__}, no torch module")
    if section.weights and not Path(section.weights).is_dir():
        load_weights(made, section.weights)
    return made


def check(model: nn.Module, task: Task, name: str) -> None:
    """Run the network on two examples, before any training.

    Raises:
        UsageError: It can't read the data, or its outputs are not what they ask for.
    """
    batch = next(in_order(task.held_out, 2))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            task.check(task.forward(model, batch))
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
        shapes = ", ".join(f"{key} {list(batch[key].shape)}" for key in task.inputs)
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"{name} can't read the data ({shapes}): {said[0]}") from error
    finally:
        model.train(training)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a state dict, or the model of a checkpoint, from a file.

    Raises:
        UsageError: The file can't be read, or does not fit.
    """
    found = read(path)
    for key in ("model", "state_dict"):
        if isinstance(found.get(key), Mapping):
            found = found[key]
    state = {
        name.removeprefix("module."): value
        for name, value in found.items()
        if isinstance(value, Tensor) and isinstance(name, str)
    }
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise UsageError(f"{path} does not fit the network: {' '.join(lines[1:2]) or lines[0]}") from error


def _torchvision(section: ModelSection, name: str) -> Any:
    models = _package("torchvision.models", section)
    known = models.list_models(module=models)
    if name not in known:
        raise UsageError(f"model.name: torchvision has no model '{name}'; {suggestion(name, known)}")
    return _called(models.get_model_builder(name), section)


def _timm(section: ModelSection, name: str) -> Any:
    timm = _package("timm", section)
    if not timm.is_model(name.partition(".")[0]):
        raise UsageError(f"model.name: timm has no model '{name}'; {suggestion(name, timm.list_models())}")

    def make(**options: Any) -> Any:
        return timm.create_model(name, pretrained=False, **options)

    return _called(make, section)


def _transformers(section: ModelSection, name: str) -> Any:
    transformers = _package("transformers", section)
    with _for(section):  # its modules are imported when they are asked for
        made: Any = getattr(transformers, name, None)
        known = hasattr(made, "from_pretrained") and hasattr(made, "config_class")
    if not known:
        names = [each for each in dir(transformers) if "For" in each]
        raise UsageError(f"model.name: transformers has no model '{name}'; {suggestion(name, names)}")

    def make(**options: Any) -> Any:
        if section.weights and Path(section.weights).is_dir():
            return _pretrained(made, section.weights, options)
        return made(made.config_class(**options))

    return _called(make, section)


def _pretrained(made: Any, folder: str, options: dict[str, Any]) -> Any:
    """A network of transformers as a folder has it."""
    try:
        return made.from_pretrained(folder, local_files_only=True, **options)
    except (TypeError, ValueError, OSError, UsageError):  # against the options, or of a file that is missing
        raise
    except Exception as error:  # a damaged file makes its readers raise anything
        said = str(error).splitlines()[:1] or [type(error).__name__]
        raise UsageError(f"model.weights: {folder} can't be read ({said[0]}); take a copy that is whole") from error


_LIBRARIES: dict[str, Callable[[ModelSection, str], Any]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "transformers": _transformers,
}


def _package(name: str, section: ModelSection) -> Any:
    """A library that need not be installed."""
    with _for(section):
        return importlib.import_module(name)


def _for(section: ModelSection) -> contextlib.AbstractContextManager[None]:
    """Say which network it is that needs a package."""
    return importing(f"model.name is {section.name}, which")


def _factory(name: str) -> Callable[..., Any]:
    """What `package.module:factory` names; modules of the current folder are found too."""
    module, _, factory = name.partition(":")
    with _here(), importing(f"model.name is {name}, which"):
        found = _own(module)
    made = getattr(found, factory, None)
    if not callable(made):
        raise UsageError(f"model.name: {module} has no '{factory}' to call; {suggestion(factory, _callables(found))}")
    return made  # type: ignore[no-any-return]


def _own(module: str) -> Any:
    """A module of the user's, which is to be mended rather than installed where it can't be imported."""
    try:
        return importlib.import_module(module)
    except SyntaxError as error:
        raise UsageError(f"model.name: {error.filename}, line {error.lineno} is no Python ({error.msg})") from error
    except Exception as error:
        name = (error.name or "") if isinstance(error, ModuleNotFoundError) else ""
        if name and f"{module}.".startswith(f"{name}."):
            raise UsageError(f"model.name: there is no module {name}; {module} must be importable from here") from error
        found = failure(error)
        if found and found.package == module.partition(".")[0] and not found.installed:
            raise UsageError(f"model.name: module {module} can't be imported ({found.reason}); mend it") from error
        raise


def _callables(module: Any) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]


@contextlib.contextmanager
def _here() -> Iterator[None]:
    """Let the modules of the current folder be imported, as `python -m` does."""
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _called(factory: Callable[..., Any], section: ModelSection) -> Any:
    """The result of a factory; what it says against the options, as one sentence."""
    try:
        with _for(section):
            return factory(**section.options)
    except (TypeError, ValueError, OSError) as error:
        raise UsageError(f"model.options: {section.name} refuses them: {str(error).splitlines()[0]}") from error
