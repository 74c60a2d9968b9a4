"""The OpenAI-compatible server under Ray Serve: ``serve run vllm_plugin_ray.serve:build model=MODEL replicas=2``."""

from __future__ import annotations

import os
from typing import Any

from vllm_core.commands import check_plugins
from vllm_plugin_ray.replica import Replica, application
from vllm_plugin_ray.serve_settings import read

__all__ = ["build"]

NAME = "vllm-core"  # of the deployment
HEALTH_PERIOD = 2.0  # seconds between two looks of Ray Serve at a replica
SPARE = 10.0  # seconds for the end of a replica beyond what its requests may take
KEY = "VLLM_API_KEY"  # in the environment here, and then in that of the replicas


def build(args: dict[str, Any]) -> Any:
    """An application of ``args["replicas"]`` engines; the rest are the settings of ``vllm-core serve``.

    They are checked here, before anything is started. Needs the extra ``vllm-plugin-ray[serve]``.
    """
    from ray import serve

    settings = read(args)
    check_plugins(settings.loaded)
    options = {
        "num_cpus": settings.replica.cpus_per_replica,
        "num_gpus": settings.replica.gpus_per_replica,
        "runtime_env": {"env_vars": {KEY: os.environ[KEY]} if KEY in os.environ else {}},
    }
    deployment = serve.deployment(
        name=NAME,
        num_replicas=settings.replica.replicas,
        max_ongoing_requests=settings.server.max_concurrent_requests,
        graceful_shutdown_timeout_s=settings.server.shutdown_timeout + SPARE,
        health_check_period_s=HEALTH_PERIOD,
        ray_actor_options=options,
    )
    return deployment(serve.ingress(application)(Replica)).bind(dict(args))
