"""What an application on Ray Serve is told: one table of the engine's, the server's and the application's settings."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import attrs

from vllm_core.commands import EngineSettings, Given, Loaded, SettingError, explain_unknown, load, own_settings
from vllm_core.config.setting import setting

__all__ = ["ReplicaSettings", "ServeSettings", "read"]

PROXY = "Ray Serve's proxy listens, as http_options of the Serve config or of serve.start say"
ANY_REPLICA = "the request that follows may come to another replica, which has not stored the response"
# Settings of the server that mean nothing here, and why.
REFUSED = {
    "host": PROXY,
    "port": PROXY,
    "uds": PROXY,
    "ssl_keyfile": PROXY,
    "ssl_certfile": PROXY,
    "root_path": "it is the application's route_prefix",
    "api_server_count": "each replica has one process that speaks HTTP; replicas=N adds replicas",
    "response_store": ANY_REPLICA,
    "response_store_mib": ANY_REPLICA,
}
# Settings that Ray Serve's own ways of starting things take the place of.
ALTERED = {"engine_restarts": 0, "response_store": 0}


@attrs.frozen(kw_only=True)
class ReplicaSettings:
    """Of the application itself."""

    replicas: int = setting(1, low=1, help="Engines, each in a replica of its own.")
    cpus_per_replica: float = setting(
        1.0, low=0, unit="cores", help="What each replica asks of the cluster; on CPUs also the engine's threads."
    )
    gpus_per_replica: float = setting(
        0.0, low=0, unit="GPUs", help="What each replica asks of the cluster: as many as its engine has ranks."
    )


@attrs.frozen
class ServeSettings:
    engine: EngineSettings
    loaded: Loaded[EngineSettings]  # the engine's with their sources
    server: Any  # of vllm_plugin_server, which is here with the extra "serve"
    replica: ReplicaSettings


def read(arguments: Mapping[str, Any]) -> ServeSettings:
    """Text means what it would mean as a flag. No file and no environment is read: replicas run on any host.

    ``SettingError`` names what is not a setting, with the nearest that is, or has no meaning here.
    """
    from vllm_plugin_server.settings import ServerSettings

    classes = (EngineSettings, ServerSettings, ReplicaSettings)
    names = {cls: [field.name for field in attrs.fields(cls)] for cls in classes}
    known = [name for group in names.values() for name in group if name not in REFUSED]
    for name in arguments:
        if name in REFUSED:
            raise SettingError(f"{name} has no effect under Ray Serve: {REFUSED[name]}\n  where   argument {name}")
        if name not in known:
            raise SettingError(f'"{name}" is not a setting{explain_unknown(name, known)}\n  where   argument {name}')
    given = {name: Given(value, f"argument {name}", isinstance(value, str)) for name, value in arguments.items()}
    engine = {name: given[name] for name in names[EngineSettings] if name in given}
    server = {name: given[name] for name in names[ServerSettings] if name in given}
    loaded = load(EngineSettings, env=False, files=(), overrides=engine)
    if not loaded.settings.model:
        raise SettingError("no model was named.\n  instead model=MODEL")
    if loaded.settings.skip_tokenizer_init:
        raise SettingError("the server needs a tokenizer: leave skip_tokenizer_init out")
    if beside := loaded.settings.plugin.get("server"):
        first = next(iter(beside))
        raise SettingError(f"the server's settings stand beside the engine's: {first}, not plugin.server.{first}")
    told = {name: Given(value, "Ray Serve") for name, value in ALTERED.items()} | server
    with_server = attrs.evolve(loaded.settings, plugin={**loaded.settings.plugin, "server": told})
    settings, _ = own_settings(
        "server", ServerSettings, attrs.evolve(loaded, settings=with_server), argparse.Namespace(), {}
    )
    replica = load(
        ReplicaSettings, env=False, files=(), overrides={n: given[n] for n in names[ReplicaSettings] if n in given}
    )
    return ServeSettings(loaded.settings, loaded, settings, replica.settings)
