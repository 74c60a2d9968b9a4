"""The parent's side of probing: run children, survive what plugins do to them, keep the results."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence

import attrs

from vllm_core.plugins import cache
from vllm_core.plugins.checks import absent
from vllm_core.plugins.errors import PluginError
from vllm_core.plugins.records import Found, Probed

__all__ = ["probe_all"]

_START_SECONDS = 20.0  # for the child's interpreter and the core's own modules, on a busy machine


def probe_all(plugins: Sequence[Found], timeout: float, *, reprobe: bool = False) -> dict[Found, Probed]:
    """What each plugin's import shows, from the cache where nothing has changed. ``timeout`` seconds a plugin."""
    kept = {} if reprobe else cache.load(plugins)
    missing = [plugin for plugin in plugins if plugin not in kept]
    if missing:
        fresh = _run(missing, timeout)
        cache.store(fresh)
        kept = {**kept, **fresh}
    return {plugin: kept[plugin] for plugin in plugins}


def _run(plugins: list[Found], timeout: float) -> dict[Found, Probed]:
    results: dict[Found, Probed] = {}
    while len(results) < len(plugins):
        rest = plugins[len(results) :]
        child = _Child([plugin.module for plugin in rest])
        try:
            child.line(_START_SECONDS)
            for plugin in rest:
                results[plugin] = _with_remedy(plugin, Probed.from_plain(json.loads(child.line(timeout))))
        except TimeoutError:
            if child.lines_read == 0:
                raise PluginError(f"the child that imports plugins did not start in {_START_SECONDS:g} s.") from None
            results[rest[child.lines_read - 1]] = Probed(
                reason=f"importing it had not ended after {timeout:g} s, and was killed",
                remedy="report it; --reprobe tries again, import_timeout_s under [plugins] in vllm.toml waits longer",
            )
        except EOFError:
            how, last = child.death()
            if child.lines_read == 0:
                raise PluginError(f"the child that imports plugins {how}.", why=last) from None
            results[rest[child.lines_read - 1]] = Probed(
                reason=f"importing it {how}" + (f": {last}" if last else ""),
                remedy=f"python -c 'import {rest[child.lines_read - 1].module}' shows it; report it",
            )
        finally:
            child.kill()
    return results


def _with_remedy(plugin: Found, probed: Probed) -> Probed:
    """If a module is not there, perhaps it is of a package that the plugin declares."""
    if "ModuleNotFoundError" not in probed.reason or not (missing := absent(plugin)):
        return probed
    install = " ".join(f'"{requirement}"' for requirement in missing)
    return attrs.evolve(probed, remedy=f"it declares what is not installed: pip install {install}")


class _Child:
    """A child process in a group of its own, read line by line against the clock."""

    def __init__(self, modules: list[str]) -> None:
        import subprocess
        import tempfile

        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "vllm_core.plugins.probe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # so that what a plugin starts is killed with it
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
        )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once: the first read says so
            self._process.stdin.write(json.dumps({"modules": modules}).encode())
            self._process.stdin.close()
        self._buffer = b""
        self.lines_read = 0

    def line(self, timeout: float) -> str:
        """The next line. ``TimeoutError`` when it does not come, ``EOFError`` when the child ended."""
        import select

        deadline = time.monotonic() + timeout
        fd = self._process.stdout.fileno()  # type: ignore[union-attr]
        readable = select.poll()
        readable.register(fd, select.POLLIN | select.POLLHUP)
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not readable.poll(left * 1000):
                raise TimeoutError
            chunk = os.read(fd, 1 << 16)
            if not chunk:
                raise EOFError
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        self.lines_read += 1
        return line.decode()

    def death(self) -> tuple[str, str]:
        """How the child ended, and the last line it wrote to standard error."""
        code = self._process.wait(timeout=5)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended the process with exit code {code}"
        self._errors.seek(0)
        lines = self._errors.read()[-4000:].decode(errors="replace").strip().splitlines()
        return how, lines[-1].strip() if lines else ""

    def kill(self) -> None:
        """End the child and everything it started; return its resources."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]
        self._errors.close()
