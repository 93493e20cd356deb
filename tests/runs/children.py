"""Runs in processes of their own, which start fast: they are forked from one that has imported torch and zig."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def start(config: Path, *, said: Path | None = None, resume: bool = False, **environment: Any) -> BaseProcess:
    """A process that trains as the file says; it ends with the code that the command would."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warm"])
    # The process that is forked from does not look for modules where this one does.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent.parent)])
    child = context.Process(target=_run, args=(str(config), resume, str(said or os.devnull), environment))
    child.start()
    return child


def _run(config: str, resume: bool, said: str, environment: dict[str, Any]) -> None:
    from zig.cli import main

    os.environ.update({name: str(value) for name, value in environment.items()})
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(Path(said).open("w", buffering=1))
        stack.enter_context(contextlib.redirect_stderr(output))
        stack.enter_context(contextlib.redirect_stdout(output))
        main(["train", config, *(["--resume"] if resume else [])])
