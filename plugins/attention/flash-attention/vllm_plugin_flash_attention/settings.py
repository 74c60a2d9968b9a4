"""Settings of [plugin.flash-attention]."""

import attrs

from vllm_core.config.setting import setting


@attrs.frozen(kw_only=True)
class Settings:
    engine: str = setting(
        "auto",
        choices=("auto", "flash-attn-4", "torch"),
        help="Whose kernels run. auto: flash-attn-4's where they can, else torch's.",
    )
