"""What a plugin's command imports that builds an engine or has flags of its own. Imports no torch."""

from __future__ import annotations

from vllm_core.cli.engine_flags import add_engine_flags, check_plugins, engine_settings, tell, words_of
from vllm_core.cli.errors import UsageError
from vllm_core.config.convert import Given
from vllm_core.config.engine import EngineSettings
from vllm_core.config.errors import SettingError
from vllm_core.config.flags import add_flags, given_flags
from vllm_core.config.load import Loaded, load
from vllm_core.config.own import own_settings
from vllm_core.config.plugins import plugin_settings
from vllm_core.config.vllm_names import explain_unknown
from vllm_core.plugins import load_catalog, read_policy

__all__ = [
    "EngineSettings", "Given", "Loaded", "SettingError", "UsageError", "add_engine_flags", "add_flags",
    "check_plugins", "engine_settings", "explain_unknown", "given_flags", "load", "load_catalog",
    "own_settings", "plugin_settings", "read_policy", "tell", "words_of",
]  # fmt: skip
