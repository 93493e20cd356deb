"""Commands in processes of their own that kill themselves between two steps of writing, or at a random moment."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

STEPS = ("replace", "rename", "link", "unlink", "rmdir", "mkdir", "fsync")
SAID = "said"  # what it says where it finds no room
PRELOADED = ["zig.cli", "zig.surgery.compress", "zig.proof.verify"]  # by what all children are forked from
HERE = Path(__file__).resolve().parent


def killed_at(number: int, folder: Path, *line: object) -> bool:
    """Run `zig` and kill it before a step of its writing; whether it had as many."""
    child = process(folder, line, number)
    child.join(300)
    assert child.exitcode in (0, -signal.SIGKILL), child.exitcode
    return child.exitcode != 0


def process(folder: Path, line: Any, number: int = 0, room: int = 0) -> BaseProcess:
    """`zig` in a folder, started; it kills itself before a step, or finds no room for larger files, in bytes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent)])
    child = context.Process(target=_run, args=(number, room, str(folder), [str(part) for part in line]))
    child.start()
    return child


def _run(number: int, room: int, folder: str, line: list[str]) -> None:
    import resource

    from zig.cli import main

    os.chdir(folder)
    if number:
        arm(number)
    if room:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = open(SAID if room else os.devnull, "w")  # noqa: SIM115
    main(line)


def arm(number: int) -> None:
    """Let this process kill itself before the step of this number."""
    owner, count = os.getpid(), iter(range(1, 1 << 30))

    def wrapped(step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def counted(*arguments: Any, **options: Any) -> Any:
            if os.getpid() == owner and next(count) == number:
                os.kill(owner, signal.SIGKILL)
            return step(*arguments, **options)

        return counted

    for name in STEPS:
        setattr(os, name, wrapped(getattr(os, name)))
