"""A process that can be killed: it takes trials by number, and what hangs or crashes costs only itself."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.damage import damaged

SECONDS = 6 * 60  # that a trial of some commands may take
MEMORY = 4 << 30  # bytes of address space that it may have
TRIALS = 200  # of one process: onnxruntime keeps a little of every model that it refuses
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Sandbox:
    """Runs trials of damaged models one after the other in a child, and starts another child where one is lost."""

    more: tuple[Path, ...] = ()
    child: subprocess.Popen[bytes] | None = field(default=None, init=False)
    trials: int = field(default=0, init=False)  # of this child

    def trial(self, number: int) -> tuple[str, list[str]]:
        """What was done to damaged model `number`, and all that the command did wrong with it."""
        child = self._ready()
        assert child.stdin
        assert child.stdout
        with contextlib.suppress(BrokenPipeError):  # it has ended already, as its answer will tell
            child.stdin.write(b"%d\n" % number)
            child.stdin.flush()
        if not select.select([child.stdout], [], [], SECONDS)[0]:
            self.close()
            return "", [f"hang: more than {SECONDS} s"]
        answer = child.stdout.readline()
        if not answer:
            code = child.wait()
            self.close()
            return "", [f"crash: the process ended with {code}"]
        what, wrong = json.loads(answer)
        return what, wrong

    def close(self) -> None:
        """End the child."""
        if self.child:
            self.child.kill()
            self.child.wait()
            for stream in (self.child.stdin, self.child.stdout):
                if stream:
                    with contextlib.suppress(BrokenPipeError):  # what was not read before it ended
                        stream.close()
            self.child = None

    def _ready(self) -> subprocess.Popen[bytes]:
        self.trials += 1
        if self.trials > TRIALS:
            self.close()
        if self.child is None:
            self.trials = 1
            path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
            environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
            command = [sys.executable, "-m", "fuzz.sandbox", *map(str, self.more)]
            self.child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
            )
        return self.child


EXAMPLES = 3  # of each kind that are printed


def fuzz(
    seed: int, seconds: float, most: int = 10**9, more: tuple[Path, ...] = (), keep: Path | None = None
) -> Counter[str]:
    """Damaged models through the command until the time is up; what went wrong, by its kind, and how many there were.

    The first model of each kind is written to the folder `keep`, since its number means another one once the tests of
    operators change.
    """
    sandbox, found = Sandbox(more), Counter[str]()
    end = time.monotonic() + seconds
    try:
        for number in range(seed, seed + most):
            if time.monotonic() > end:
                break
            found["inputs"] += 1
            what, wrong = sandbox.trial(number)
            for one in wrong:
                kind = re.sub(r"'[^']*'|[0-9]+", "#", one)[:250]
                found[kind] += 1
                if found[kind] <= EXAMPLES:
                    print(f"{number} ({what}): {one}", flush=True)
                if found[kind] == 1 and keep:
                    folder = keep / str(number)
                    folder.mkdir(parents=True, exist_ok=True)
                    damaged(number, folder, more)
    finally:
        sandbox.close()
    return found


def serve(more: tuple[Path, ...]) -> None:
    """The child: a number in, a line of JSON out."""
    import resource

    from fuzz.command import trial

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            what = damaged(int(line), Path(folder), more)
            os.chdir(folder)
            wrong = trial("bad.onnx")
            os.chdir(ROOT)
        print(json.dumps([what, wrong]), file=answers, flush=True)


if __name__ == "__main__":
    serve(tuple(Path(argument) for argument in sys.argv[1:]))
