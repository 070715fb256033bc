"""A server in a process of its own, with a model that no framework runs."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["HEAD", "ROOT", "Server"]

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from tests.core.served_models import embedder
from xlmr_core.serving import Settings, serve
model = embedder()
model.runner.pause = {pause}
serve([model], Settings({settings}), port={port}, ready=lambda url: print(url, flush=True))
print("ended", flush=True)
"""
HEAD = "POST {} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"


class Server:
    """A running one.

    Args:
        pause: seconds that a batch takes.
        settings: arguments of ``Settings``.
        port: of its own, or 0.
    """

    def __init__(self, pause: float = 0.0, settings: str = "", port: int = 0) -> None:
        script = SCRIPT.format(root=str(ROOT), pause=pause, settings=settings, port=port)
        self.process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        url = urlsplit(self.process.stdout.readline().strip())
        assert url.hostname and url.port, self.process.communicate()[1]
        self.address = (url.hostname, url.port)

    def ask(self, inputs: object, path: str = "/embed") -> tuple[int, object]:
        with contextlib.closing(http.client.HTTPConnection(*self.address, timeout=60)) as connection:
            connection.request("POST", path, json.dumps({"inputs": inputs}), {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=20)

    def end(self, number: int = signal.SIGTERM) -> str:
        """End it, and give what it wrote on standard error."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=30)
        return errors
