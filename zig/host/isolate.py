"""A function in a process of its own: what ends that process ends nothing else.

onnxruntime checks less than it needs. Of some damaged models it divides by zero or runs into an assertion, and no
handler of the calling program sees that: its process is gone, without a word of what it was about.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
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
        function: takes nothing; what it returns can be pickled.
        name: what it works on, for the error.

    Raises:
        ModelError: the process ended before the function did.
    """
    if not is_safe():
        return function()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(function, sender, receiver), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the one that shows progress holds no lock
        process.start()
    sender.close()
    try:
        with receiver:
            value, error = receiver.recv()
    except (EOFError, OSError) as ended:
        process.join()
        raise ModelError(f"{name}: {_end(process.exitcode or 0)}") from ended
    finally:
        process.kill()  # it has answered, or nobody waits for it any more
        process.join()
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]


def is_safe() -> bool:
    """Whether this process can be forked: elsewhere system libraries do not survive it, nor does onnxruntime in use."""
    free = not multiprocessing.current_process().daemon and "onnxruntime" not in sys.modules
    return sys.platform == "linux" and free


def _answer(function: Callable[[], object], sender: Connection, receiver: Connection) -> None:
    receiver.close()  # else nothing would tell that nobody reads the answer
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # while it computes Python would not hear of it
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what C++ says when it gives up
    faulthandler.disable()
    answer: tuple[object, Exception | None]
    try:
        answer = (function(), None)
    except Exception as error:  # for whoever waits for the answer
        answer = (None, _carried(error))
    sender.send(answer)


def _carried(error: Exception) -> Exception:
    """The error in a form that can be sent, with its traceback."""
    carried = ExceptionWithTraceback(error, error.__traceback__)
    try:
        pickle.loads(pickle.dumps(carried))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return carried  # type: ignore[no-any-return]


def _end(code: int) -> str:
    """What the end of a process means."""
    if code == -signal.SIGKILL:
        return "the process that ran it under onnxruntime was killed, perhaps for want of memory; use a larger machine"
    named = next((each.name for each in signal.Signals if each == -code), f"signal {-code}")
    end = f"breaks down ({named})" if code < 0 else f"ends its process with {code}"
    return f"onnxruntime {end} on it or the model that it is compared with; export the one that is damaged again"
