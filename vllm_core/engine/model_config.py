"""The model's config.json as the engine takes it: the user's fields on top, and wrong ones refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

__all__ = ["ModelConfigError", "explain_config", "model_config"]

ALIKE = 0.9  # a new field whose name is so like one of config.json's is taken for a slip
REPLACED = {"rope_scaling": "rope_parameters", "rope_theta": "rope_parameters", "torch_dtype": "dtype"}
"""Older names of fields, without effect where config.json has the newer one."""


class ModelConfigError(ValueError):
    """What config.json and hf_overrides say cannot be."""


def model_config(stored: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with ``hf_overrides``. ``ModelConfigError`` for an override that could not have an effect."""
    for name in overrides:
        newer = REPLACED.get(name)
        if newer is not None and newer in stored and newer not in overrides:
            raise ModelConfigError(
                f'hf_overrides: "{name}" has no effect, because config.json has "{newer}", which goes first.\n'
                f'  instead {{"{newer}": ...}}; it is {stored[newer]!r:.200} now'
            )
        alike = [] if name in stored else get_close_matches(name, list(stored), n=1, cutoff=ALIKE)
        if alike:
            raise ModelConfigError(f'hf_overrides: config.json has no "{name}"; did you mean "{alike[0]}"?')
    config = {**stored, **overrides}
    named = config.get("architectures") or []
    if not isinstance(named, list | tuple) or not all(isinstance(name, str) for name in named):
        raise ModelConfigError(f'"architectures" in config.json must be a list of names, not {named!r:.80}')
    return config


@contextmanager
def explain_config(architecture: str, owner: str) -> Iterator[None]:
    """A model that cannot be constructed: most often its config holds what nobody expected."""
    try:
        yield
    except (TypeError, ArithmeticError, LookupError, RuntimeError, AssertionError) as error:
        raise ModelConfigError(
            f"{architecture} cannot be built from this config.json: {type(error).__name__}: {error}\n  by      {owner}"
        ) from error
