"""A lack of memory at chosen places in a server's processes: for measurements only, and nothing of it in the server.

`environment` makes the surroundings of such a server: Python imports ``sitecustomize`` from PYTHONPATH in every process
that starts, and that one calls `arm`. Then a file that all of them have mapped says which place fails, and when.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import mmap
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs

__all__ = ["PLACES", "Place", "Shortage", "arm", "environment"]

VARIABLE = "SHORTAGES_UNDER_TEST"
SITE = f'''import os
if "{VARIABLE}" in os.environ:
    from vllm_plugin_server.testing.shortages import arm
    arm(os.environ["{VARIABLE}"])
'''
SHAPE = struct.Struct("<qqq")  # the place that fails (1 is the first; 0: none), in how many calls, how often it has


@attrs.frozen
class Place:
    part: str
    module: str
    name: str  # "function" or "Class.method"
    calls: int = 1  # within one request, about: where several are tried, one of these fails
    torch: bool = False  # as torch's allocator says it


def _of(part: str, module: str, *names: str, calls: int = 1, torch: bool = False) -> list[Place]:
    return [Place(part, module, name, calls, torch) for name in names]


PLACES: tuple[Place, ...] = (
    *_of("scheduler", "vllm_core.engine.scheduler", "Scheduler.schedule", "Scheduler.retire", calls=20),
    *_of("scheduler", "vllm_core.engine.scheduler", "Scheduler._decode", calls=20),
    *_of("scheduler", "vllm_core.engine.scheduler", "Scheduler._prefill"),
    *_of("scheduler", "vllm_core.engine.roster", "Roster.add", "Roster.start", "Roster.finish"),
    *_of("scheduler", "vllm_core.engine.roster", "Roster.take", calls=20),
    *_of("scheduler", "vllm_core.engine.cache.manager", "CacheManager.admit", "CacheManager.open"),
    *_of("scheduler", "vllm_core.engine.cache.manager", "CacheManager.close"),
    *_of("scheduler", "vllm_core.engine.cache.manager", "CacheManager.launched", "CacheManager.retired", calls=20),
    *_of("scheduler", "vllm_core.engine.core", "_update", "EngineCore._request"),
    *_of("scheduler", "vllm_core.engine.fronts", "Fronts.take"),
    *_of("worker", "vllm_core.runner.runner", "Runner.execute", "Runner._forward", calls=20),
    *_of("worker", "vllm_core.runner.runner", "Runner._forward", calls=20, torch=True),
    *_of("worker", "vllm_core.runner.inputs", "prepare", calls=20),
    *_of("worker", "vllm_core.runner.rows", "Rows.apply", calls=20, torch=True),
    *_of("worker", "vllm_core.runner.rows", "Rows._new_rows"),
    *_of("worker", "vllm_core.runner.verify", "sampling_tensors", calls=20, torch=True),
    *_of("worker", "vllm_core.runner.verify", "verify", "advance", calls=20),
    *_of("worker", "vllm_core.runner.output", "StepOutput.result", calls=20),
    *_of("wire", "vllm_core.engine.wire", "encode", "decode_up", "decode_down", calls=4),
    *_of("tokenizer", "vllm_core.engine.prompts", "read_prompt", "render_chat"),
    *_of("tokenizer", "vllm_core.engine.intake", "Intake.prepare"),
    *_of("tokenizer", "vllm_core.engine.detokenizer", "Detokenizer.__init__"),
    *_of("tokenizer", "vllm_core.engine.detokenizer", "Detokenizer.push", "Detokenizer._decode", calls=20),
    *_of("front", "vllm_core.engine.processor", "OutputProcessor.add"),
    *_of("front", "vllm_core.engine.processor", "OutputProcessor.take", calls=20),
    *_of("front", "vllm_core.engine.async_desk", "AsyncDesk._take", calls=20),
    *_of("front", "vllm_plugin_server.strict_json", "parse_object"),
    *_of("front", "vllm_plugin_server.body", "to_record"),
    *_of("front", "vllm_plugin_server.sampling", "sampling_params"),
    *_of("front", "vllm_plugin_server.stream", "event", calls=20),
    *_of("front", "vllm_plugin_server.stream", "json_answer"),
    *_of("grammar", "vllm_core.engine.grammars", "Grammars.ask", "Grammars._compile", "Grammars._run"),
    *_of("grammar", "vllm_core.engine.grammars", "Grammars._check_begins", "Grammars.start"),
    *_of("grammar", "vllm_core.runner.grammars", "GrammarRows._begin"),
    *_of("grammar", "vllm_core.runner.grammars", "GrammarRows._fill", "GrammarRows._feed", calls=8),
)


class Shortage:
    """The file that says which place fails next. A place fails once, then none does."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(SHAPE.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), SHAPE.size)

    def set(self, place: int, calls: int) -> None:
        SHAPE.pack_into(self._map, 0, place, calls, 0)

    @property
    def happened(self) -> bool:
        return SHAPE.unpack_from(self._map)[2] > 0

    def due(self, place: int) -> bool:
        """Called at each call of a place. Processes do not take turns: one may count a call for another's."""
        chosen, calls, _ = SHAPE.unpack_from(self._map)
        if chosen != place:
            return False
        SHAPE.pack_into(self._map, 0, place if calls > 1 else 0, calls - 1, int(calls <= 1))
        return calls <= 1


def environment(folder: Path) -> tuple[dict[str, str], Shortage]:
    """``folder``: an empty one."""
    (folder / "sitecustomize.py").write_text(SITE)
    shortage = Shortage(folder / "shortage")
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return {VARIABLE: str(folder / "shortage"), "PYTHONPATH": path}, shortage


def arm(path: str) -> None:
    """In a process that starts: let each place ask, from the moment that its module is there."""
    shortage = Shortage(Path(path))
    places: dict[str, list[tuple[int, Place]]] = {}
    for number, place in enumerate(PLACES, 1):
        places.setdefault(place.module, []).append((number, place))
    sys.meta_path.insert(0, _Finder(places, shortage))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, places: dict[str, list[tuple[int, Place]]], shortage: Shortage) -> None:
        self._places, self._shortage = places, shortage

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        if name not in self._places:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            for number, place in self._places[name]:
                _wrap(module, place, number, self._shortage)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _wrap(module: ModuleType, place: Place, number: int, shortage: Shortage) -> None:
    *owners, name = place.name.split(".")
    owner: Any = getattr(module, owners[0]) if owners else module
    real: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(real)
    def asks(*args: Any, **named: Any) -> Any:
        if shortage.due(number):
            if place.torch:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1")
            raise MemoryError(place.name)
        return real(*args, **named)

    setattr(owner, name, asks)
