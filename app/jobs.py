"""Long work in a process of its own: it reports progress, can be cancelled, and dies with its session.

The process gets its orders as a JSON file and answers with one JSON object a line; nothing is pickled.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import zig
from zig.atomic import write
from zig.errors import ZigError

ORDER, ANSWERS, COMPLAINTS = "order.json", "answers.jsonl", "stderr.txt"


class Job:
    """A task that runs; `events` has one entry for each thing that it has told."""

    def __init__(self, folder: Path, task: str, **options: Any):
        """Start a task of `zig.app.work` in a folder of its own."""
        self.folder, self.task = folder, task
        write(folder / ORDER, json.dumps({"task": task, **options}))
        home = str(Path(zig.__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        with (folder / ANSWERS).open("wb") as answers, (folder / COMPLAINTS).open("wb") as complaints:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "zig.app.work", str(folder)],
                stdout=answers, stderr=complaints, stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        self._end = weakref.finalize(self, _stop, self._process)
        self.cancelled = False

    @property
    def events(self) -> list[dict[str, Any]]:
        """All that the task has told so far; a line that is still being written is left for later."""
        lines = (self.folder / ANSWERS).read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process.poll() is None

    @property
    def progress(self) -> float:
        """The share that is done, from 0 to 1."""
        return next((event["progress"] for event in reversed(self.events) if "progress" in event), 0.0)

    @property
    def log(self) -> list[str]:
        """One line for each step."""
        return [event["say"] for event in self.events if "say" in event]

    @property
    def result(self) -> dict[str, Any] | None:
        """What the task has found, once it is done."""
        return next((event["result"] for event in self.events if "result" in event), None)

    @property
    def error(self) -> str:
        """Why it failed, in one sentence; empty if it didn't."""
        told = next((event["error"] for event in self.events if "error" in event), "")
        if told or self.running or self.result is not None or self.cancelled:
            return str(told)
        complaint = (self.folder / COMPLAINTS).read_text(errors="replace").strip().splitlines()
        last = complaint[-1] if complaint else "it left no message; the machine may be out of memory"
        return f"the worker ended with code {self._process.returncode}: {last}"

    def wait(self, seconds: float) -> dict[str, Any]:
        """The result, waited for.

        Raises:
            ZigError: The task failed, or took longer.
        """
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.cancel()
            raise ZigError(f"{self.task} took more than {seconds:g} s") from None
        if self.result is None:
            raise ZigError(self.error)
        return self.result

    def cancel(self) -> None:
        """Stop the process; what it has written to its folder stays."""
        self.cancelled = True
        self._end()


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
