"""A function in a process of its own: what ends that process ends nothing else.

onnxruntime checks less than it needs. Of some damaged models it divides by zero or runs into an assertion, and no
handler of the calling program sees that: its process is gone, without a word of what it was about.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]
from typing import TypeVar

from zig.errors import ModelError

T = TypeVar("T")


def apart(function: Callable[[], T], name: str) -> T:
    """What `function` returns or raises, from a fork of this process; where no fork is safe, from this one.

    Args:
        function: takes nothing; what it returns or raises can be pickled.
        name: what it works on, for the error.

    Raises:
        ModelError: the process ended before the function did.
    """
    if not is_safe():
        return function()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(function, sender), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the one that shows progress holds no lock
        process.start()
    sender.close()
    try:
        with receiver:
            value, error = receiver.recv()
    except EOFError as ended:
        process.join()
        which = "it or the model that it is compared with; export the one that is damaged again"
        raise ModelError(f"{name}: onnxruntime {_end(process)} on {which}") from ended
    finally:
        process.kill()  # it has answered, or nobody waits for it any more
        process.join()
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]


def is_safe() -> bool:
    """Whether this process can be forked: elsewhere system libraries do not survive it, nor does onnxruntime in use."""
    return sys.platform == "linux" and "onnxruntime" not in sys.modules


def _answer(function: Callable[[], object], sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while it computes Python would not hear of it
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what C++ says when it gives up
    faulthandler.disable()
    try:
        sender.send((function(), None))
    except Exception as error:  # for whoever waits for the answer
        sender.send((None, ExceptionWithTraceback(error, error.__traceback__)))


def _end(process: multiprocessing.process.BaseProcess) -> str:
    code = process.exitcode or 0
    return f"breaks down ({signal.Signals(-code).name})" if code < 0 else f"ends its process with {code}"
