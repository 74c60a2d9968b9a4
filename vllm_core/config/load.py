"""The values of a class of settings, from files, the environment and flags, each with its source."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import attrs

from vllm_core.config.convert import Given, convert
from vllm_core.config.declared import declared
from vllm_core.config.errors import SettingError, did_you_mean
from vllm_core.config.files import Tables, read_files
from vllm_core.config.vllm_names import explain_unknown

__all__ = ["Loaded", "from_kwargs", "load", "load_settings"]

T = TypeVar("T")
ENVIRONMENT = "VLLM_CORE_"
OTHERS = ("VLLM_CORE_PLUGINS_", "VLLM_CORE_SERVER_")  # read elsewhere: the policy of plugins, flags of a command

MERGED = {"plugins": 1, "plugin": 2}  # tables that sources add to, and how deep: the rest are replaced


@attrs.frozen
class Loaded(Generic[T]):
    """Settings and where each value came from."""

    settings: T
    sources: Mapping[str, str]  # for every field; "default" where nobody said anything

    @property
    def given(self) -> dict[str, Any]:
        """Only what somebody set, as keyword arguments."""
        return {name: getattr(self.settings, name) for name, source in self.sources.items() if source != "default"}


def load(
    cls: type[T],
    *,
    file: str | os.PathLike[str] | None = None,
    env: bool = True,
    overrides: Mapping[str, Any] | None = None,
    files: Sequence[Tables] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded[T]:
    """Values of ``cls``: [engine] of the files, then the environment, then ``overrides``; the last wins.

    ``overrides`` maps fields to values, or to ``Given`` with the source to name (a flag).
    ``files`` are tables already read, instead of ``file`` or the usual places.
    """
    environ = os.environ if environ is None else environ
    layers = [
        _known(cls, layer)
        for read in (read_files(file, environ=environ) if files is None else files)
        for layer in _from_tables(cls, read, explicit=file is not None)
    ]
    if env:
        layers.append(_from_environment(cls, environ))
    given = {k: v if isinstance(v, Given) else Given(v, f"argument {k}") for k, v in (overrides or {}).items()}
    layers.append(_known(cls, given))
    return _build(cls, layers)


def load_settings(
    cls: type[T],
    *,
    file: str | os.PathLike[str] | None = None,
    env: bool = True,
    overrides: Mapping[str, Any] | None = None,
) -> T:
    """As ``load``, without the sources."""
    return load(cls, file=file, env=env, overrides=overrides).settings


def from_kwargs(cls: type[T], kwargs: Mapping[str, Any]) -> T:
    """Settings from the arguments of ``LLM(...)`` alone: no file and no environment is read."""
    return load(cls, env=False, overrides=kwargs, files=()).settings


def _known(cls: type, given: Mapping[str, Given]) -> dict[str, Given]:
    names = declared(cls)
    for name, value in given.items():
        if name not in names:
            raise SettingError(f'"{name}" is not a setting{explain_unknown(name, names)}\n  where   {value.source}')
    return dict(given)


def _from_tables(cls: type, read: Tables, explicit: bool) -> list[dict[str, Given]]:
    """One layer a table. [plugins] only of a file given by name: the policy reads the usual places itself.

    It goes to the policy as one value, with its name: there it stands below the environment.
    """
    engine = {key: Given(value, f"[engine] of {read.shown}") for key, value in read.tables.get("engine", {}).items()}
    layers = [engine]
    if "plugin" in declared(cls):
        for name, table in read.tables.get("plugin", {}).items():
            layers.append({"plugin": Given({name: table}, f"[plugin.{name}] of {read.shown}")})
    if explicit and "plugins" in declared(cls):
        layers.append({"plugins": Given(read.policy, f"[plugins] of {read.shown}")})
    return layers


def _from_environment(cls: type, environ: Mapping[str, str]) -> dict[str, Given]:
    by_variable = {setting.variable: name for name, setting in declared(cls).items()}
    found = {}
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT) or variable.startswith(OTHERS):
            continue
        if variable not in by_variable:
            note = explain_unknown(variable.removeprefix(ENVIRONMENT).lower(), ())
            raise SettingError(
                f"the environment variable {variable} is not a setting{note or did_you_mean(variable, by_variable)}"
            )
        if text:  # empty means unset, as for PATH and its like
            found[by_variable[variable]] = Given(text, f"environment variable {variable}", text=True)
    return found


def _build(cls: type[T], layers: Sequence[Mapping[str, Given]]) -> Loaded[T]:
    values: dict[str, Any] = {}
    sources: dict[str, str] = dict.fromkeys(declared(cls), "default")
    for layer in layers:
        for name, given in layer.items():
            value = convert(declared(cls)[name], given)
            if name in MERGED:
                value = _merged(values.get(name, {}), value, given.source, MERGED[name])
            values[name] = value
            sources[name] = given.source
    return Loaded(cls(**values), sources)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any], source: str, depth: int) -> dict[str, Any]:
    """Tables joined key by key. In plugins' own settings each value keeps its source for later messages."""
    if depth == 1:
        return {**below, **above}
    joined = {name: dict(table) for name, table in below.items()}
    for name, table in above.items():
        told = {k: v if isinstance(v, Given) else Given(v, source) for k, v in table.items()}
        joined.setdefault(name, {}).update(told)
    return joined
