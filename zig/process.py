"""The process of the `zig` command: how it begins, how signals end it, and what becomes of what it prints.

This module is loaded first, so it loads nothing itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, TextIO

INTERRUPTED = 128 + signal.SIGINT
UNREAD = 128 + 13  # what a shell says of a program whose reader is gone: SIGPIPE
ASKING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP


class Terminated(SystemExit):
    """The process was asked to end; it cleans up as after Ctrl-C, and leaves with 143 for SIGTERM, 129 for SIGHUP."""

    def __init__(self, number: int):
        """By the number of the signal."""
        self.exit_code = 128 + number
        super().__init__(self.exit_code)


def begin() -> None:
    """Where this process is the command, end it at once on Ctrl-C while modules load: there is nothing to clean up yet.

    No file that is opened may take the place of a stream that the caller has closed, either.
    """
    if not _is_command():
        return
    for stream in (0, 1, 2):
        try:
            os.fstat(stream)
        except OSError:  # what is printed would go to that file
            os.open(os.devnull, os.O_RDWR)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def _is_command() -> bool:
    """Whether this is `zig` or `python -m zig`, and not a program that uses zig."""
    first = os.path.basename(sys.argv[0]) if sys.argv else ""
    return sys.orig_argv[1:3] == ["-m", "zig"] if first == "-m" else first.removesuffix(".exe") in ("zig", "onnx-zig")


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the process as Ctrl-C does, by an exception; `nohup` and the like are respected."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    owner = os.getpid()

    def end(number: int, _: FrameType | None) -> None:
        if os.getpid() != owner:  # a fork has nothing to clean up
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise Terminated(number)

    usual = {number: signal.getsignal(number) for number in ASKING}
    for number, handler in usual.items():
        if handler is signal.SIG_DFL:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


class Stream:
    """A standard stream that may be closed or full: this stops no work, and is told at the end.

    Attributes:
        failure: What went wrong first.
        kept: Whether what it tells is only the word about a job whose result is elsewhere: in a file, in the exit code.
    """

    def __init__(self, inner: TextIO | None):
        """Around a stream; None is a closed one."""
        self.inner = inner or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - lives as long as the process
        self.kept, self._closed = False, inner is None
        self.failure: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def isatty(self) -> bool:
        """Whether people look at it."""
        return self.inner.isatty() and not self._closed

    def write(self, text: str) -> int:
        """Write, or remember why not."""
        if text and self._closed:
            self.failure = OSError("it is closed")
        elif self.failure is None:
            try:
                self.inner.write(text)
            except OSError as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Write what is not written yet, or remember why not."""
        if self.failure is None:
            try:
                self.inner.flush()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Remember it, and let what is left go nowhere, so that Python has nothing to complain of when it ends."""
        self.failure = error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, self.inner.fileno())
        except (OSError, ValueError):  # no stream of the system
            return
        finally:
            os.close(nowhere)


@contextlib.contextmanager
def streams() -> Iterator[Stream]:
    """What goes to stdout; stderr is one that fails nothing, too."""
    usual = sys.stdout, sys.stderr
    out, said = Stream(usual[0]), Stream(usual[1])
    sys.stdout, sys.stderr = out, said
    try:
        yield out
    finally:
        out.flush()
        said.flush()
        sys.stdout, sys.stderr = usual


def kept() -> None:
    """Say that the result of the command is not only what it prints."""
    if isinstance(sys.stdout, Stream):
        sys.stdout.kept = True
