"""Settings of a plugin whose own command has them as plain flags: ``serve --port 80`` is ``[plugin.server] port``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from vllm_core.config.convert import Given
from vllm_core.config.declared import declared
from vllm_core.config.errors import SettingError, did_you_mean
from vllm_core.config.flags import given_flags
from vllm_core.config.plugins import instance

if TYPE_CHECKING:
    from vllm_core.config.engine import EngineSettings
    from vllm_core.config.load import Loaded

__all__ = ["own_settings"]

T = TypeVar("T")


def own_settings(
    name: str,
    cls: type[T],
    loaded: Loaded[EngineSettings],
    args: argparse.Namespace,
    environ: Mapping[str, str] | None = None,
) -> tuple[T, EngineSettings]:
    """(the plugin's settings, the engine's without them, so that they reach no other process and no lock).

    In ascending order: ``[plugin.NAME]`` of files, ``VLLM_CORE_NAME_*``, ``--plugin.NAME.KEY``, the command's flags.
    """
    plugin = dict(loaded.settings.plugin)
    table: dict[str, Given] = plugin.pop(name, {})
    flags = {k: given for k, given in table.items() if given.source.startswith("--plugin.")}
    files = {k: given for k, given in table.items() if k not in flags}
    found = {**files, **_environment(name, cls, os.environ if environ is None else environ), **flags}
    settings = instance(name, cls, {**found, **given_flags(args, cls)})
    return settings, attrs.evolve(loaded.settings, plugin=plugin)


def _environment(name: str, cls: type, environ: Mapping[str, str]) -> dict[str, Given]:
    prefix = f"VLLM_CORE_{name.upper().replace('-', '_')}_"
    known: dict[str, Any] = {prefix + key.upper(): key for key in declared(cls)}
    found = {}
    for variable, text in environ.items():
        if variable.startswith(prefix):
            if variable not in known:
                hint = did_you_mean(variable, known)
                raise SettingError(f'the environment variable {variable} is no setting of plugin "{name}"{hint}')
            if text:  # empty means unset
                found[known[variable]] = Given(text, f"environment variable {variable}", text=True)
    return found
