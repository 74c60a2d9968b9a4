"""Settings of [plugin.triton-attention]."""

import attrs

from vllm_core.config.setting import setting


@attrs.frozen(kw_only=True)
class Settings:
    batch_invariant: bool = setting(
        False,
        help="Compute each query in an order that depends on its own sequence alone, whatever else is in the step.",
        trade="True: equal results in any batch; one program reads a sequence's keys, so few long ones decode slowly.",
    )
