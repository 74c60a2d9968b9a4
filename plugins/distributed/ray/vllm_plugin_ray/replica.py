"""A replica of an application on Ray Serve: one engine in a process of its own, the server's application in this one.

Ray Serve makes a class of its own out of `Replica` and pickles that; what stands here it imports.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

import ray

from vllm_core.commands import SettingError, check_plugins
from vllm_plugin_ray.serve_settings import ServeSettings, read

if TYPE_CHECKING:
    from vllm_plugin_server.mounted import Mounted

__all__ = ["Replica", "application", "check_devices"]

log = logging.getLogger(__name__)
_here: Mounted | None = None  # of this process, which is one replica


class Replica:
    def __init__(self, arguments: dict[str, Any]) -> None:
        global _here
        from vllm_plugin_server.mounted import Mounted

        settings = read(arguments)
        check_devices(settings, ray.cluster_resources().get("GPU", 0))
        # The engine's process finds this cluster, should its ranks be actors.
        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        self._mounted = _here = Mounted(settings.engine, settings.server, check_plugins(settings.loaded))

    async def check_health(self) -> None:
        """Ray Serve puts another replica in the place of one where this raises three times."""
        await self._mounted.check()

    async def __del__(self) -> None:
        """Ray Serve calls it when the requests of the replica have ended, or when it could not be made."""
        if hasattr(self, "_mounted"):
            await self._mounted.end()


def application() -> Any:
    """Called by Ray Serve when there is the process's `Replica`."""
    assert _here is not None
    mounted = _here

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _live(mounted, receive, send)
            return
        # The application's route prefix, which the server need not know.
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        await mounted.app({**scope, "path": path, "raw_path": path.encode(), "root_path": ""}, receive, send)

    return application


async def _live(mounted: Mounted, receive: Any, send: Any) -> None:
    await receive()
    await mounted.begin()
    leaving = asyncio.create_task(_leave(mounted))
    await send({"type": "lifespan.startup.complete"})
    await receive()
    leaving.cancel()
    await send({"type": "lifespan.shutdown.complete"})


async def _leave(mounted: Mounted) -> None:
    """End with the engine, and at once: what comes then is sent to other replicas."""
    log.critical("the replica ends, because its engine has ended: %s", await mounted.until_dead())
    await mounted.end()
    logging.shutdown()
    os._exit(1)


def check_devices(settings: ServeSettings, gpus: float) -> None:
    """A replica sees the GPUs that it has asked for, and its engine would run on the CPU without a word."""
    asked = settings.replica.gpus_per_replica
    if asked and settings.engine.distributed_executor_backend == "ray":
        raise SettingError(
            "ranks as actors on GPUs are not built under Ray Serve: the replica would hold GPUs beside theirs.\n"
            "  instead leave distributed_executor_backend out, and the ranks are processes of the replica's host"
        )
    if gpus and not asked and settings.engine.device != "cpu":
        raise SettingError(
            f"the cluster has {gpus:g} GPUs, and this replica asks for none.\n"
            "  instead gpus_per_replica=N, as many as the engine has ranks, or device=cpu"
        )
