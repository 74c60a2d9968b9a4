"""Configuration files: which are read, and their tables.

Without ``--config``, ``$XDG_CONFIG_HOME/vllm-core/vllm.toml`` and then ``./vllm.toml``, whose
keys win. With it, that file alone: TOML, or YAML with the same tables.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from vllm_core.config.errors import SettingError, did_you_mean

__all__ = ["TABLES", "Tables", "read_files"]

TABLES = ("engine", "plugin", "plugins")
"""[engine]: EngineSettings. [plugin.NAME]: a plugin's own. [plugins]: allow, block, require, prefer."""


@attrs.frozen
class Tables:
    """The content of one file."""

    shown: str  # how messages call it: "./vllm.toml"
    tables: Mapping[str, Mapping[str, Any]]

    @property
    def policy(self) -> dict[str, Any]:
        """[plugins] as ``read_policy`` takes it of a file given by name."""
        return {"file": {"name": self.shown, "table": dict(self.tables.get("plugins", {}))}}


def read_files(
    file: str | os.PathLike[str] | None = None,
    *,
    folder: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> list[Tables]:
    """The files that apply, lowest first. ``file`` must exist; the others may be absent."""
    if file is not None:
        path = Path(file)
        if not path.is_file():
            raise SettingError(f"{path} is not a file (--config)")
        return [_read(path, str(path))]
    environ = os.environ if environ is None else environ
    home = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "vllm-core" / "vllm.toml"
    here = (folder or Path()) / "vllm.toml"
    return [_read(path, shown) for path, shown in ((home, str(home)), (here, "./vllm.toml")) if path.is_file()]


def _read(path: Path, shown: str) -> Tables:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{shown} cannot be read: {error}") from None
    content = _parse(path.suffix.lower(), text, shown)
    for name, table in content.items():
        if name not in TABLES:
            raise SettingError(f'"{name}" in {shown} is not known{_where_it_belongs(name)}')
        if not isinstance(table, dict):
            raise SettingError(f'"{name}" in {shown} must be a table: [{name}]')
    for name, table in content.get("plugin", {}).items():
        if not isinstance(table, dict):
            raise SettingError(f'"plugin.{name}" in {shown} must be a table: [plugin.{name}]')
    return Tables(shown, content)


def _parse(suffix: str, text: str, shown: str) -> dict[str, Any]:
    if suffix == ".toml":
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SettingError(f"{shown} is not valid TOML: {error}") from None
    if suffix in (".yaml", ".yml"):
        try:
            import yaml
        except ImportError:
            raise SettingError(f"{shown} needs PyYAML: pip install pyyaml, or write it as TOML") from None
        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SettingError(f"{shown} is not valid YAML: {error}") from None
        if not isinstance(content, dict | None):
            raise SettingError(f"{shown} must hold the tables {', '.join(TABLES)}, not {type(content).__name__}")
        return content or {}
    raise SettingError(f"{shown} must end in .toml, .yaml or .yml")


def _where_it_belongs(name: str) -> str:
    from vllm_core.config.declared import declared
    from vllm_core.config.engine import EngineSettings

    if name.replace("-", "_") in declared(EngineSettings):
        return f': settings of the engine stand in the table "engine", as {name.replace("-", "_")}'
    return did_you_mean(name, TABLES) or f"; the tables are {', '.join(TABLES)}"
