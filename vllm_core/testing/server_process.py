"""``vllm-core serve`` in a process of its own, and a client of few words."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

__all__ = ["Answer", "ServerProcess"]

START_SECONDS = 180.0
SECONDS = 60.0  # that an answer may take


@attrs.frozen
class Answer:
    status: int
    headers: Mapping[str, str]  # names in small letters
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.status} {self.body[:500]!r}"


class ServerProcess:
    """On a free port of this machine. ``key``: the API key it wants, and `ask` brings."""

    def __init__(self, model: Path | str, words: Sequence[str] = (), *, key: str = "", folder: Path) -> None:
        self.key = key
        command = [sys.executable, "-m", "vllm_core", "serve", str(model), "--port", "0", *words]
        if key:
            command += ["--api-key", key]
        self.process: Any = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self._lines: list[str] = []
        self._ready = threading.Event()
        self.host, self.port = "", 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(START_SECONDS) or not self.port:
            self.process.kill()
            raise RuntimeError(f"the server did not start:\n{self.log}")

    @property
    def log(self) -> str:
        return "".join(self._lines)

    def _read(self) -> None:
        for line in self.process.stderr:
            self._lines.append(line)
            if found := re.search(r"serving .* at (http:\S+),", line):
                parts = urlsplit(found[1])
                self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
                self._ready.set()
        self._ready.set()

    def ask(self, method: str, path: str, body: Any = None, *, key: str | None = None, **headers: str) -> Answer:
        """``body``: bytes are sent as they are, all else as JSON. ``key``: "" brings none."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if key or (key is None and self.key):
            given["authorization"] = f"Bearer {key or self.key}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            given.setdefault("content-type", "application/json")
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=SECONDS)) as connection:
            connection.request(method, path, body=body, headers=given)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())

    def leave(self, method: str, path: str, body: bytes) -> None:
        """Ask, and hang up before there is an answer."""
        with closing(socket.create_connection((self.host, self.port), timeout=SECONDS)) as connection:
            head = (
                f"{method} {path} HTTP/1.1\r\nhost: {self.host}\r\ncontent-type: application/json\r\n"
                f"authorization: Bearer {self.key or 'none'}\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + body)

    def announce(self, method: str, path: str, length: int) -> bytes:
        """The first bytes of the answer to a request that says its body has ``length`` bytes, and sends none."""
        with closing(socket.create_connection((self.host, self.port), timeout=SECONDS)) as connection:
            head = (
                f"{method} {path} HTTP/1.1\r\nhost: {self.host}\r\ncontent-type: application/json\r\n"
                f"authorization: Bearer {self.key or 'none'}\r\ncontent-length: {length}\r\n\r\n"
            )
            connection.sendall(head.encode())
            return connection.recv(4096)

    def stop(self) -> None:
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(60)
        self.process.kill()
        self.process.wait()
        self._reader.join(10)
        self.process.stderr.close()
