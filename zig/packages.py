"""Packages that need not be there, and packages that are there but do not load: told in one place, in one sentence.

What a package raises while it is imported can be anything: a torchvision that was built for another torch raises
RuntimeError, a missing shared library OSError or ImportError. What tells such an error from any other is where it comes
from, the body of a module.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from zig.errors import UsageError, ZigError

_SOLD_AS = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}  # where the name to install is another
_OURS = ("zig", "__main__", "importlib", "runpy")


@dataclass(frozen=True)
class Failure:
    """A package that could not be imported.

    Attributes:
        package: The name by which it is imported.
        missing: Whether it is not there at all.
        reason: What was said.
    """

    package: str
    missing: bool
    reason: str

    @property
    def installed(self) -> bool:
        """Whether pip knows of it; else it is a module of the user's."""
        return self.package in importlib.metadata.packages_distributions()

    def sentence(self, purpose: str, install: str | None = None) -> str:
        """What is needed, what is wrong with it, and how to mend that.

        Args:
            purpose: Who needs it, as "zig train".
            install: What pip is to install where it is missing; by default the package itself.
        """
        if self.missing:
            name = install or _SOLD_AS.get(self.package, self.package)
            return f"{purpose} needs {self.package}; install it by pip install {name}"
        return (
            f"{purpose} needs {self.package}, which is installed but does not load ({self.reason}); reinstall it with "
            f"what it builds on by pip install --force-reinstall {_distribution(self.package)}"
        )


def failure(error: BaseException) -> Failure | None:
    """The package whose import an error comes from, if it comes from an import."""
    while error.__cause__ is not None:  # transformers, for one, hides the error of a package that it imports
        error = error.__cause__
    if not isinstance(error, Exception):
        return None  # an interrupt, which turns into an ImportError while a compiled module loads
    name = _top(error.name or "") if isinstance(error, ImportError) else ""
    if isinstance(error, ModuleNotFoundError) and name and not _is_there(name):
        return Failure(name, True, str(error))
    package = _imported(error) or name or (_first_foreign(error) if isinstance(error, ImportError) else "")
    return Failure(package, False, reason(error)) if package not in ("", *_OURS) else None


def reason(error: BaseException) -> str:
    """What an error says, on one line."""
    text = " ".join(str(error).split())[:200].rstrip(".")
    plain = isinstance(error, ImportError | OSError | RuntimeError)
    return text if plain and text else f"{type(error).__name__}: {text}".rstrip(": ")


@contextlib.contextmanager
def importing(purpose: str, install: str | None = None) -> Iterator[None]:
    """Turn what goes wrong with an import into one sentence; see `Failure.sentence` for the arguments.

    Raises:
        UsageError: A package is missing, or does not load.
    """
    try:
        yield
    except ZigError:
        raise
    except Exception as error:
        if found := failure(error):
            raise UsageError(found.sentence(purpose, install)) from error
        raise


def _imported(error: Exception) -> str:
    """The package that was being imported, innermost: whose module's body it was that an error left."""
    bodies = [
        _top(str(frame.f_globals.get("__name__")))
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_name == "<module>"
    ]
    return next((name for name in reversed(bodies) if name not in _OURS), "")


def _first_foreign(error: Exception) -> str:
    """The package that was called, outermost: some leave an ImportError for the first use of what they lack."""
    names = (_top(str(frame.f_globals.get("__name__"))) for frame, _ in traceback.walk_tb(error.__traceback__))
    return next((name for name in names if name not in _OURS), "")


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # an entry in sys.modules that no import has made
        return False


def _distribution(package: str) -> str:
    """What pip calls a package."""
    names = importlib.metadata.packages_distributions().get(package, [_SOLD_AS.get(package, package)])
    return names[0]


def _top(module: str) -> str:
    return module.partition(".")[0]
