"""Where default sampling parameters come from: generation_config.json, another folder's, the user, or nowhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vllm_core.config.engine import EngineSettings
from vllm_core.config.errors import SettingError, did_you_mean
from vllm_core.engine.sampling_params import GENERATION_KEYS, GENERATION_KEYS_NOT_YET, SamplingParams

__all__ = ["generation_configs"]

FILE = "generation_config.json"
NOTHING = ("none", "vllm")  # the second is vLLM's word for it


def generation_configs(
    settings: EngineSettings, of_model: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """(how to sample, what tells the tokens that end a text), both as generation_config.json writes it.

    of_model   content of the checkpoint's generation_config.json, {} without one

    Raises for what cannot be a default, so that it is told before a weight is read.
    """
    override = settings.override_generation_config
    _check_override(override)
    source = settings.generation_config
    ending = of_model if source in ("auto", *NOTHING) else _of_folder(source)
    sampling = {**({} if source in NOTHING else ending), **override}
    SamplingParams.from_defaults(sampling)
    return sampling, {**ending, **override}


def _of_folder(named: str) -> Mapping[str, Any]:
    folder = Path(named).expanduser()
    file = folder / FILE
    if not file.is_file():
        why = f"that folder has no {FILE}" if folder.is_dir() else "there is no such folder"
        hint = did_you_mean(named, ("auto", *NOTHING))
        raise SettingError(
            f"generation_config is {named!r}, and {why}{hint}\n  instead auto, none, or a folder with a {FILE}"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(f"generation_config: {file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise SettingError(f"generation_config: {file} must hold an object, not {content!r:.80}")
    return content


def _check_override(override: Mapping[str, Any]) -> None:
    known = (*GENERATION_KEYS, "eos_token_id")
    for name in override:
        if name in GENERATION_KEYS_NOT_YET:
            raise SettingError(f'override_generation_config: "{name}" is not supported yet')
        if name not in known:
            hint = did_you_mean(name, known) or f"; it takes {', '.join(known)}"
            raise SettingError(f'override_generation_config has no "{name}"{hint}')
    try:
        SamplingParams.from_defaults({k: v for k, v in override.items() if k in GENERATION_KEYS})
    except ValueError as error:
        raise SettingError(f"override_generation_config: {error.__cause__ or error!s}") from error
