"""The probed child: ``python -m vllm_core.plugins.probe`` imports plugins so that the parent need not risk it.

Standard input: JSON ``{"modules": [...]}``. Standard output: one JSON line ``{}`` when
ready, then one for each plugin, in order: ``{"hooks", "listings", "deprecated", "reason", "remedy"}``. A plugin that
hangs or dies ends this process; the parent knows whose turn it was.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from typing import Any

import attrs
import pluggy

from vllm_core.plugin import load_target
from vllm_core.plugins.deprecated import gathered
from vllm_core.plugins.errors import did_you_mean
from vllm_core.plugins.hooks import make_manager
from vllm_core.plugins.records import LISTINGS, lines_of, plain_value


class Unfit(Exception):
    """What is wrong with a plugin, and the remedy."""

    def __init__(self, reason: str, remedy: str = "report it to the plugin's author") -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


class ForbidTorch:
    """Stands before all finders: torch can be found (that is cheap) but not imported (that takes seconds)."""

    def __init__(self) -> None:
        self.culprit = ""  # file:line of the first import

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "torch":
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None:
            spec.loader = self  # type: ignore[assignment]
        return spec

    def create_module(self, spec: Any) -> None:
        frame: Any = sys._getframe()
        while frame and (frame.f_code.co_filename == __file__ or "importlib" in frame.f_code.co_filename):
            frame = frame.f_back
        self.culprit = self.culprit or (f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "unknown place")
        raise ImportError("a plugin module must not import torch")

    def exec_module(self, module: Any) -> None:
        raise AssertionError("create_module raises")


def probe(module: str, manager: pluggy.PluginManager, torch: ForbidTorch) -> dict[str, Any]:
    """Import one plugin, check its hooks and take its listings."""
    torch.culprit = ""
    try:
        try:
            plugin = import_module(module)
            with gathered() as deprecated:
                hooks = check_hooks(plugin, manager)
            said = list(dict.fromkeys(str(one.message) for one in deprecated))
            return {"hooks": hooks, "listings": take_listings(plugin, manager), "deprecated": said}
        finally:
            if torch.culprit:
                raise Unfit(
                    f"importing it imports torch ({torch.culprit})",
                    "import torch where it is used, in the modules that records name as targets",
                )
    except Unfit as unfit:
        return {"reason": unfit.reason, "remedy": unfit.remedy}
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # SystemExit too: a plugin must not end the engine
        return {
            "reason": f"importing it raised {type(error).__name__}: {error}",
            "remedy": f"python -c 'import {module}' shows where",
        }


def check_hooks(plugin: Any, manager: pluggy.PluginManager) -> list[str]:
    """The names of the hooks a module implements. Raises ``Unfit`` for one the core does not know."""
    hooks = []
    for attribute in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, attribute)
        if options is None:
            continue
        hook = options.get("specname") or attribute
        known = [name for name in vars(manager.hook) if not name.startswith("_")]
        if hook not in known:
            raise Unfit(f'it implements the hook "{hook}", which does not exist{did_you_mean(hook, known)}')
        for option in ("tryfirst", "trylast", "hookwrapper", "wrapper"):
            if options.get(option):
                raise Unfit(f"its {hook} is marked {option}; order comes from ranks and the user's prefer list only")
        hooks.append(hook)
    try:
        manager.register(plugin)
    except pluggy.PluginValidationError as error:
        raise Unfit(f"its hooks do not fit their specification: {' '.join(str(error).split())}") from None
    finally:
        if manager.is_registered(plugin):
            manager.unregister(plugin)
    return sorted(set(hooks))


def take_listings(plugin: Any, manager: pluggy.PluginManager) -> dict[str, Any]:
    """Call the hooks that list records and return the records as plain data."""
    listings: dict[str, Any] = {}
    seen: set[str] = set()
    for attribute in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, attribute)
        hook = options.get("specname") or attribute if options else attribute
        if options is None or (hook not in LISTINGS and hook != "settings"):
            continue
        try:
            found = getattr(plugin, attribute)()
        except Exception as error:
            raise Unfit(f"its {hook}() raised {type(error).__name__}: {error}") from None
        if hook == "settings":
            listings[hook] = check_settings(found)
        else:
            listings.setdefault(hook, []).extend(check_records(hook, found, seen, manager))
    return listings


def check_settings(target: Any) -> list[str]:
    if target is None:
        return []
    if not isinstance(target, str) or target.count(":") != 1:
        raise Unfit(f"its settings() returned {target!r}, not 'package.module:Class' or None")
    try:
        found = load_target(target)
    except Exception as error:
        raise Unfit(f"its settings {target} cannot be imported: {type(error).__name__}: {error}") from None
    if not (isinstance(found, type) and attrs.has(found)):
        raise Unfit(f"its settings {target} is no attrs class")
    for field in attrs.fields(found):
        if "setting" not in field.metadata or field.default is attrs.NOTHING:
            raise Unfit(f"its settings {target} declare {field.name} without setting(default, ...)")
    return [target]


def check_records(hook: str, found: Any, seen: set[str], manager: Any) -> list[dict[str, Any]]:
    record: Any = LISTINGS[hook]
    if not isinstance(found, list | tuple):
        raise Unfit(f"its {hook}() returned {found!r:.80}, not a list of {record.__name__}")
    for entry in found:
        if type(entry) is not record:
            raise Unfit(f"its {hook}() lists {entry!r:.80}, which is no {record.__name__}")
        if hook == "provides":
            known = [name for name, info in vars(manager.hook).items() if _asks(info)]
            if entry.kind not in known:
                raise Unfit(f'its provides() lists the kind "{entry.kind}", no hook{did_you_mean(entry.kind, known)}')
        lines = lines_of(hook, entry)
        if twice := seen.intersection(lines):
            raise Unfit(f"it lists {min(twice)} twice")
        seen.update(lines)
    return [attrs.asdict(entry, value_serializer=plain_value) for entry in found]


def _asks(hook: Any) -> bool:
    """Whether a hook takes a query, and so can be the kind of an offer."""
    return getattr(hook, "spec", None) is not None and "query" in hook.spec.argnames


def main() -> None:
    request = json.loads(sys.stdin.read())
    # What a plugin prints must not mix with the results, and nothing may wait for input.
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    torch = ForbidTorch()
    sys.meta_path.insert(0, torch)
    manager = make_manager()
    print("{}", file=results, flush=True)
    for module in request["modules"]:
        print(json.dumps(probe(module, manager, torch)), file=results, flush=True)
    os._exit(0)  # threads that a plugin started must not keep the child alive


if __name__ == "__main__":
    main()
