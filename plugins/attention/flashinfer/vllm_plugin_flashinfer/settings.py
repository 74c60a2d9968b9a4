"""Settings of [plugin.flashinfer]."""

import attrs

from vllm_core.config.setting import setting


@attrs.frozen(kw_only=True)
class Settings:
    workspace_mib: int = setting(
        0,
        low=0,
        unit="MiB",
        help="Device memory for partial results, shared by all layers. 0: as much as the heads may need.",
        trade="What is lower than the heads may need is refused at the start.",
    )
