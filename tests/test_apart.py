"""What runs in a process of its own answers as if it had run in this one, and ends nothing but itself."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from zig.errors import ModelError, VerifyError
from zig.host.isolate import apart, is_safe
from zig.proof import verify as verifying
from zig.proof.verify import verify

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing runs apart where no fork is safe")

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """
import os, sys
from zig.proof import verify as verifying
from zig.proof.verify import verify
answer = verify(sys.argv[1], sys.argv[1], alone=True)
assert "onnxruntime" not in sys.modules
assert answer == verify(sys.argv[1], sys.argv[1])
"""


@pytest.fixture(autouse=True)
def _fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is run here has no use for the onnxruntime that this process may have loaded."""
    monkeypatch.setattr("zig.host.isolate.is_safe", lambda: True)


def test_what_comes_back() -> None:
    assert apart(lambda: [1, "two"], "x") == [1, "two"]
    assert apart(os.getpid, "x") != os.getpid()


def test_errors_come_back_with_their_trace() -> None:
    def fail() -> None:
        raise VerifyError("they differ")

    with pytest.raises(VerifyError, match="they differ") as caught:
        apart(fail, "x")
    assert "in fail" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (os.abort, r"breaks down \(SIGABRT\)"),
        (lambda: os.kill(os.getpid(), signal.SIGFPE), r"breaks down \(SIGFPE\)"),
        (lambda: os._exit(3), "ends its process with 3"),
    ],
)
def test_an_end_without_an_answer_is_told(
    end: Callable[[], object], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match=f"^bad.onnx: onnxruntime {words} on it or the model .* again$"):
        apart(end, "bad.onnx")
    assert capfd.readouterr() == ("", "")


class OddError(Exception):
    """One that can't be sent."""

    def __init__(self, text: str, more: object):
        super().__init__(text)
        self.more = more


def test_an_error_that_cannot_be_sent_comes_back_as_text() -> None:
    def fail() -> None:
        raise OddError("it is odd", lambda: None)

    with pytest.raises(RuntimeError, match="OddError: it is odd"):
        apart(fail, "x")


def test_a_process_that_was_killed_blames_no_model() -> None:
    with pytest.raises(ModelError, match=r"x: .* was killed, perhaps for want of memory"):
        apart(lambda: os.kill(os.getpid(), signal.SIGKILL), "x")


def test_an_interrupt_ends_it_at_once() -> None:
    start = time.monotonic()

    def alarm(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            apart(partial(time.sleep, 60), "x")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - start < 30  # it does not wait for the minute to end


def test_a_process_that_may_have_no_children_does_it_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(multiprocessing.current_process(), "_config", {"daemon": True})
    assert not is_safe()
    assert apart(os.getpid, "x") == os.getpid()


def test_models_are_compared_apart(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, "-c", SCRIPT, model_path], check=True, cwd=ROOT)
    pair = verifying._Pair
    monkeypatch.setattr(pair, "compare", lambda *_: os.abort())
    with pytest.raises(ModelError, match=r"^[^ ]*network.onnx: onnxruntime breaks down \(SIGABRT\)"):
        verify(model_path, model_path, alone=True)
