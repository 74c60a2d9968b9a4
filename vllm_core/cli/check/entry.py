"""Checks of a plugin's module: found, of a known hook API, quick to import, the same every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vllm_core.cli.doctor.finding import Finding
from vllm_core.plugin import HOOK_API
from vllm_core.plugins.digest import digest
from vllm_core.plugins.source import read_hook_api

if TYPE_CHECKING:
    from vllm_core.cli.check.subject import Subject
    from vllm_core.plugins.records import PluginStatus

__all__ = ["entry", "probed"]

SECONDS = 60  # that a child may take; a quick one takes a tenth of a second
SLOW = 0.5  # seconds: every command of every user waits as long
HEAVY = ("torch", "transformers")
_IMPORT = """
import importlib, json, sys, time
import vllm_core.plugin
before, start = set(sys.modules), time.perf_counter()
importlib.import_module(sys.argv[1])
seconds = time.perf_counter() - start
print(json.dumps([seconds, sorted({name.partition(".")[0] for name in set(sys.modules) - before})]))
"""


def entry(subject: Subject) -> Iterator[Finding]:
    for plugin in subject.plugins:
        name = plugin.name
        if plugin.state != "active":
            yield _finding(
                f"entry point {name}", "fail", f"{plugin.state}: {plugin.reason or 'as settings say'}", plugin.remedy
            )
        else:
            yield _finding(f"entry point {name}", "ok", f"{plugin.module}, used by this core")
        api = read_hook_api(plugin.file) if plugin.file else None
        known = api is not None and 1 <= api <= HOOK_API
        says = f"{api}, read without importing; this core speaks up to {HOOK_API}"
        remedy = "" if known else f"a literal at the top of {plugin.module}: HOOK_API = {HOOK_API}"
        yield _finding(
            "HOOK_API", "ok" if known else "fail", says if api is not None else "no literal found", remedy=remedy
        )
        if plugin.file:
            yield _light(plugin)
            yield _stable(plugin)


def probed(plugin: PluginStatus, seed: str = "0") -> dict[str, Any]:
    """What a fresh child process says of the plugin: hooks and listings, or the reason why not."""
    command = [sys.executable, "-P", "-m", "vllm_core.plugins.probe"]
    done = _child(command, json.dumps({"modules": [plugin.module]}), PYTHONHASHSEED=seed)
    try:
        return json.loads(done.stdout.splitlines()[1])
    except (IndexError, ValueError):
        return {"reason": f"importing it ended the process with exit code {done.returncode}"}


def _light(plugin: PluginStatus) -> Finding:
    done = _child([sys.executable, "-P", "-c", _IMPORT, plugin.module])
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return _finding("light import", "fail", f"importing {plugin.module} failed: {last}")
    seconds, modules = json.loads(done.stdout.splitlines()[-1])
    says = f"{plugin.module} in {seconds:.2f} s"
    facts = {"seconds": round(seconds, 4), "modules": modules}
    remedy = 'name targets by strings, "package.module:Class", and import what is heavy only in those modules'
    if heavy := [name for name in HEAVY if name in modules]:
        return _finding("light import", "fail", f"{says}; it imports {', '.join(heavy)}", remedy, facts)
    if seconds > SLOW:
        return _finding("light import", "warn", f"{says}: every vllm-core command waits for it", remedy, facts)
    return _finding("light import", "ok", says, facts=facts)


def _stable(plugin: PluginStatus) -> Finding:
    """Workers build from the parent's record, and refuse another digest."""
    first, second = (probed(plugin, seed) for seed in ("1", "2"))
    if reason := first.get("reason") or second.get("reason"):
        return _finding("stable digest", "fail", reason, str(first.get("remedy", "")))
    found = [digest(one) for one in (first, second)]
    if found[0] == found[1]:
        return _finding("stable digest", "ok", f"{found[0][:12]}, from two processes", facts={"digest": found[0]})
    remedy = "lists whose order does not come from a set, the clock or a random number"
    return _finding("stable digest", "fail", "two processes get different listings from it", remedy)


def _finding(name: str, verdict: Any, says: str, remedy: str = "", facts: dict[str, Any] | None = None) -> Finding:
    return Finding("module", name, verdict, says, remedy=remedy, facts=facts or {})


def _child(command: list[str], given: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(p or os.getcwd() for p in sys.path)
    env = {**os.environ, "PYTHONPATH": path, **environ}
    try:
        return subprocess.run(command, input=given, capture_output=True, text=True, timeout=SECONDS, env=env)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"it had not ended after {SECONDS} s")
