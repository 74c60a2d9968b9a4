"""Settings of [plugin.flex-attention]."""

import attrs

from vllm_core.config.setting import setting


@attrs.frozen(kw_only=True)
class Settings:
    compile: bool = setting(
        True, help="Compile the kernel when it is first used. False: torch's unfused version, which needs no compiler."
    )
