"""Checks that need no import: each returns what is wrong and what to do about it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vllm_core import __version__
from vllm_core.plugin import HOOK_API, OLDEST_HOOK_API
from vllm_core.plugins.discovery import canonical
from vllm_core.plugins.records import CORE, Found
from vllm_core.plugins.source import read_hook_api

__all__ = ["Problem", "absent", "check", "collisions", "known_bad"]

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


class Problem(NamedTuple):
    reason: str
    remedy: str


def known_bad() -> list[dict[str, str]]:
    """Releases known not to work: distribution, versions (a specifier), reason, remedy."""
    return json.loads(Path(__file__).with_name("known_bad.json").read_text())


def check(
    plugin: Found, *, core_version: str = __version__, bad: Sequence[Mapping[str, str]] | None = None
) -> Problem | None:
    """The first thing wrong with a plugin that can be seen from outside."""
    whose = f"{plugin.distribution} {plugin.version}"
    if not _NAME.fullmatch(plugin.name):
        return Problem(f'its name "{plugin.name}" has other characters than a-z, 0-9 and -', f"report it to {whose}")
    if plugin.name == CORE and plugin.distribution != "vllm-core":
        return Problem('the name "core" is reserved for vllm-core itself', f"report it to {whose}")
    if plugin.name != CORE and plugin.module.partition(".")[0] == "vllm_core":
        return Problem(f'its module "{plugin.module}" is one of vllm-core itself', f"report it to {whose}")
    if not plugin.file:
        return Problem(f'its module "{plugin.module}" is not there', f"pip install --force-reinstall {whose}")
    return (
        _hook_api(plugin)
        or _requirement(plugin, core_version)
        or _listed_as_bad(plugin, known_bad() if bad is None else bad)
    )


def _hook_api(plugin: Found) -> Problem | None:
    api = read_hook_api(plugin.file)
    if api is None or api < 1:
        return Problem(
            f"{plugin.file} has no literal HOOK_API",
            f"a plugin module states the hook API it uses: HOOK_API = {HOOK_API}",
        )
    if api > HOOK_API:
        return Problem(
            f"it is written for hook API {api}, this core speaks {HOOK_API}",
            "upgrade vllm-core: pip install -U vllm-core",
        )
    if api < OLDEST_HOOK_API:
        return Problem(
            f"it is written for hook API {api}, the oldest that this core speaks is {OLDEST_HOOK_API}",
            f"upgrade it: pip install -U {plugin.distribution}",
        )
    return None


def _requirement(plugin: Found, core_version: str) -> Problem | None:
    for line in plugin.requires:
        name = re.match(r"[\w.-]+", line)
        if not name or canonical(name[0]) != "vllm-core":
            continue
        from packaging.requirements import InvalidRequirement, Requirement

        try:
            wanted = Requirement(line)
        except InvalidRequirement as error:
            return Problem(f"its requirement {line!r} cannot be read: {error}", f"report it to {plugin.distribution}")
        if wanted.marker and not wanted.marker.evaluate():
            continue
        if not wanted.specifier.contains(core_version, prereleases=True):
            return Problem(
                f"it asks for vllm-core{wanted.specifier}, installed is {core_version}",
                f'pip install "vllm-core{wanted.specifier}", or another release of {plugin.distribution}',
            )
    return None


def absent(plugin: Found) -> list[str]:
    """What the plugin declares that it needs, always, and that is not installed here."""
    import importlib_metadata
    from packaging.requirements import InvalidRequirement, Requirement

    found = []
    for line in plugin.requires:
        try:
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                importlib_metadata.version(wanted.name)
        except InvalidRequirement:
            continue
        except importlib_metadata.PackageNotFoundError:
            found.append(f"{wanted.name}{wanted.specifier}")
    return found


def _listed_as_bad(plugin: Found, bad: Sequence[Mapping[str, str]]) -> Problem | None:
    for row in bad:
        if canonical(row["distribution"]) != plugin.distribution:
            continue
        from packaging.specifiers import SpecifierSet

        if SpecifierSet(row["versions"]).contains(plugin.version, prereleases=True):
            return Problem(f"{row['reason']} (known of {plugin.distribution}{row['versions']})", row["remedy"])
    return None


def collisions(plugins: Iterable[Found]) -> dict[Found, Problem]:
    """Plugins that share an entry-point name or a module: none of them wins until the user says which."""
    problems: dict[Found, Problem] = {}
    plugins = list(plugins)
    for what in ("module", "name"):
        groups = defaultdict(list)
        for plugin in plugins:
            groups[getattr(plugin, what)].append(plugin)
        for shared, group in groups.items():
            for plugin in group if len(group) > 1 else ():
                others = [p for p in group if p is not plugin]
                problems[plugin] = Problem(
                    f'its {what} "{shared}" is also that of ' + ", ".join(f"{p.name} in {p.owner}" for p in others),
                    "keep one: " + " or ".join(_keep(plugin, p) for p in others),
                )
    return problems


def _keep(plugin: Found, other: Found) -> str:
    if plugin.distribution == other.distribution:
        return f'block = ["{other.name}"] under [plugins] in vllm.toml keeps {plugin.name}'
    return f'block = ["{other.distribution}"] under [plugins] in vllm.toml keeps {plugin.distribution}'
