"""`zig view`: starts streamlit with the app, on this machine alone."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from zig.errors import UsageError
from zig.packages import importing

from .workspace import UPLOAD_LIMIT

ADDRESS = "127.0.0.1"
START = "ZIG_VIEW_START"  # the environment variable that tells the app what it was started with


def launch(start: Path, port: int, headless: bool) -> int:
    """Serve the app until it is interrupted.

    Args:
        start: The model to open, or the folder whose models may be opened.
        port: The port to listen on; where it is taken, the error says so.
        headless: Whether to leave the browser alone.

    Returns:
        The exit code.

    Raises:
        UsageError: streamlit is missing, there is no such file or folder, or the port is taken.
    """
    if not start.exists():
        raise UsageError(f"{start}: there is no such file or folder; name an ONNX file, or a folder that has some")
    with importing("zig view", "'onnx-zig[app]'"):
        from streamlit.web.cli import main  # noqa: PLC0415, TID251 - a second that only this command needs
    _check_free(port)
    os.environ[START] = str(start.resolve())
    settings = {
        "server.address": ADDRESS,
        "server.port": port,
        "server.headless": str(headless).lower(),
        "server.maxUploadSize": UPLOAD_LIMIT >> 20,
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "viewer",
        "client.showErrorDetails": "type",
        "theme.light.primaryColor": "#3b6fa8",
        "theme.dark.primaryColor": "#6aa5e0",
    }
    options = [f"--{name}={value}" for name, value in settings.items()]
    return int(main(["run", str(Path(__file__).with_name("main.py")), *options], standalone_mode=False) or 0)


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as error:
            raise UsageError(f"port {port} can't be used ({error.strerror}); choose another by --port") from error
