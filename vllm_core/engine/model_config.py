"""The model's config.json as the engine takes it: the user's fields on top, and wrong ones refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

__all__ = ["ModelConfigError", "explain_config", "model_config", "plain_overrides"]

ALIKE = 0.9  # a new field whose name is so like one of config.json's is taken for a slip
REPLACED = {"rope_scaling": "rope_parameters", "rope_theta": "rope_parameters", "torch_dtype": "dtype"}
"""Older names of fields, without effect where config.json has the newer one."""


class ModelConfigError(ValueError):
    """What config.json and hf_overrides say cannot be."""


def model_config(stored: Mapping[str, Any], overrides: Mapping[str, Any] | Callable[[Any], Any]) -> dict[str, Any]:
    """config.json with ``hf_overrides``. ``ModelConfigError`` for an override that could not have an effect.

    overrides   fields, merged into tables where both have one; or a function of the configuration
    """
    overrides = plain_overrides(stored, overrides)
    config = _merged(stored, overrides)
    for name in overrides:
        newer = REPLACED.get(name)
        if newer is not None and newer in stored and newer not in overrides:
            raise ModelConfigError(
                f'hf_overrides: "{name}" has no effect, because config.json has "{newer}", which goes first.\n'
                f'  instead {{"{newer}": ...}}; it is {stored[newer]!r:.200} now'
            )
    _refuse_slips(stored, overrides)
    named = config.get("architectures") or []
    if not isinstance(named, list | tuple) or not all(isinstance(name, str) for name in named):
        raise ModelConfigError(f'"architectures" in config.json must be a list of names, not {named!r:.80}')
    return config


def plain_overrides(stored: Mapping[str, Any], overrides: Mapping[str, Any] | Callable[[Any], Any]) -> dict[str, Any]:
    """``hf_overrides`` as fields, which other processes and the lock can hold: what a function of it changes."""
    return _changes(stored, _called(stored, overrides)) if callable(overrides) else dict(overrides)


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What to merge into ``old`` for ``new``. A field that is gone becomes None."""
    found: dict[str, Any] = {name: None for name in old if name not in new and old[name] is not None}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            if changes := _changes(before, value):
                found[name] = changes
        elif name not in old or before != value:
            found[name] = value
    return found


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    joined = dict(below)
    for name, value in above.items():
        old = below.get(name)
        joined[name] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return joined


def _refuse_slips(stored: Mapping[str, Any], overrides: Mapping[str, Any], where: str = "") -> None:
    for name, value in overrides.items():
        alike = [] if name in stored else get_close_matches(name, list(stored), n=1, cutoff=ALIKE)
        if alike:
            raise ModelConfigError(
                f'hf_overrides: config.json has no "{where}{name}"; did you mean "{where}{alike[0]}"?'
            )
        old = stored.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            _refuse_slips(old, value, f"{where}{name}.")


class ConfigObject(dict[str, Any]):
    """config.json for functions written for transformers' configurations: fields are attributes as well as keys."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        super().__init__({k: ConfigObject(v) if isinstance(v, Mapping) else v for k, v in content.items()})

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f'config.json has no "{name}"') from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        del self[name]

    def to_dict(self) -> dict[str, Any]:
        return {k: v.to_dict() if isinstance(v, ConfigObject) else v for k, v in self.items()}


def _called(stored: Mapping[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    named = f"hf_overrides: the function {getattr(function, '__qualname__', repr(function))}"
    try:
        result = function(ConfigObject(copy.deepcopy(dict(stored))))
    except Exception as error:
        raise ModelConfigError(f"{named} failed: {type(error).__name__}: {error}") from error
    if hasattr(result, "to_dict"):
        result = result.to_dict()
    if not isinstance(result, Mapping):
        raise ModelConfigError(f"{named} must return the configuration that it was given, not {result!r:.80}")
    return ConfigObject(result).to_dict()


@contextmanager
def explain_config(architecture: str, owner: str) -> Iterator[None]:
    """A model that cannot be constructed: most often its config holds what nobody expected."""
    try:
        yield
    except (TypeError, ArithmeticError, LookupError, RuntimeError, AssertionError) as error:
        raise ModelConfigError(
            f"{architecture} cannot be built from this config.json: {type(error).__name__}: {error}\n  by      {owner}"
        ) from error
