"""Settings of the plugin: the table [plugin.ray]."""

from __future__ import annotations

import attrs

from vllm_core.config.setting import setting


@attrs.frozen(kw_only=True)
class Settings:
    address: str = setting(
        "auto",
        help="The cluster, as ray.init takes it. auto: RAY_ADDRESS, or a cluster that runs on this host, or else one"
        " that is started here and ends with the engine. local: always such a one.",
    )
    cpus_per_rank: int = setting(
        1, low=1, high=1024, unit="cores", help="What each rank asks of the cluster; on CPUs also its threads."
    )
    placement: str = setting(
        "PACK",
        help="Placement group's strategy: PACK (as few hosts as there is room on), STRICT_PACK (one host), SPREAD or"
        " STRICT_SPREAD (a host each).",
    )
    start_timeout: float = setting(
        60.0, low=1, unit="seconds", help="How long to wait until the cluster has room for all ranks."
    )
