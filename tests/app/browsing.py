"""`zig view` in a process of its own, and a browser that looks at it; also for benchmarks/app.py and the pictures of docs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZE = {"width": 1280, "height": 800}


def program() -> str | None:
    """The path of a browser."""
    return next((path for path in map(shutil.which, PROGRAMS) if path), None)


@contextmanager
def served(start: Path) -> Iterator[str]:
    """The address of `zig view` with a model or a folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))
    command = [sys.executable, "-m", "zig", "view", str(start), "--port", str(port), "--headless"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=start.parent,
                          env={**os.environ, "PYTHONPATH": path}) as process:  # fmt: skip
        try:
            _wait(f"http://127.0.0.1:{port}/_stcore/health", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def _wait(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("zig view did not answer")


@contextmanager
def browser() -> Iterator[Browser]:
    """Debian's chromium, driven by playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program(), args=["--no-sandbox"])
        yield opened
        opened.close()


def go(page: Page, name: str) -> None:
    """Turn to a page of the app."""
    page.get_by_role("link", name=name, exact=True).click()


def canvas(page: Page, number: int = 0) -> Locator:
    """The graph, once it is drawn."""
    found = page.locator("canvas.main[data-ready=yes]").nth(number)
    found.wait_for(timeout=60_000)
    return found


def state(graph: Locator) -> dict[str, str]:
    """What the canvas says of itself: zoom, place, boxes, selection, time of the last redraw in ms."""
    found: dict[str, str] = graph.evaluate("c => ({...c.dataset})")
    return found


def keys(graph: Locator) -> list[str]:
    """The keys of all boxes."""
    found: list[str] = graph.evaluate("c => c.view.s.key")
    return found


def place(graph: Locator, key: str) -> tuple[float, float]:
    """Where a box is on the page, moved into view."""
    graph.evaluate("(c, key) => c.view.centre(c.view.number.get(key))", key)
    found: list[Any] = graph.evaluate("(c, key) => c.view.locate(key)", key)
    return found[0], found[1]
