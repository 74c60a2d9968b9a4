"""The kinds of plugin that the template has: a folder each, with a kind.toml that says what it is."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import attrs

from vllm_core.hookspecs import HOOKS
from vllm_core.plugins.errors import PluginError, did_you_mean

__all__ = ["COMMON", "Kind", "find_kind", "kinds", "template_folder"]

COMMON = "common"
"""The folder with what packages of every kind have."""


@attrs.frozen(kw_only=True)
class Kind:
    """One folder of the template."""

    name: str  # as --kind takes it
    folder: Path
    hook: str
    about: str  # one line
    use: str  # the command that shows the plugin at work
    dependencies: tuple[str, ...] = attrs.field(default=(), converter=tuple)  # beside vllm-core
    test_dependencies: tuple[str, ...] = attrs.field(default=(), converter=tuple)  # beside pytest


def template_folder() -> Path:
    """In the installed package, or in a checkout of the repository beside it."""
    package = Path(__file__).parents[2]
    places = (package / "_plugin_template", package.parent / "plugin_template")
    for place in places:
        if place.joinpath(COMMON, "copier.yml").is_file():
            return place
    raise PluginError(
        "the template of plugins is not where it should be.",
        looked=[str(place) for place in places],
        instead="pip install --force-reinstall --no-deps vllm-core",
    )


def kinds() -> dict[str, Kind]:
    """All kinds by name."""
    files = sorted(template_folder().glob("*/kind.toml"))
    return {file.parent.name: _read(file) for file in files}


def find_kind(name: str) -> Kind:
    """The kind; `PluginError` says what else there is, and of hooks that nobody asks that they have none."""
    known = kinds()
    if name in known:
        return known[name]
    hook = name.replace("-", "_")
    of_hook = [kind.name for kind in known.values() if hook in (kind.hook, kind.hook.rstrip("s"))]
    why = ""
    if hook in HOOKS and not HOOKS[hook].asked:
        why = f"this version asks the hook {hook} of nobody: a plugin of that kind would never be used"
    elif hook in HOOKS and not of_hook:
        why = f"{hook} is a hook that plugins of other kinds have, too; docs/hooks.md says what it is"
    hint = f'; did you mean "{of_hook[0]}"?' if of_hook else did_you_mean(name, known)
    raise PluginError(f'there is no kind of plugin "{name}"{hint or "."}', why=why, known=", ".join(known))


def _read(file: Path) -> Kind:
    found: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    fields = {a.name for a in attrs.fields(Kind)} - {"name", "folder"}
    if unknown := found.keys() - fields:
        raise PluginError(f"{file}: {min(unknown)} is not known.", known=", ".join(sorted(fields)))
    if lacking := {"hook", "about", "use"} - found.keys():
        raise PluginError(f"{file} lacks {min(lacking)}.")
    if found["hook"] not in HOOKS:
        raise PluginError(f'{file}: there is no hook "{found["hook"]}".', known=", ".join(HOOKS))
    return Kind(name=file.parent.name, folder=file.parent, **found)
