import attrs

from vllm_core.config.setting import setting


@attrs.frozen(kw_only=True)
class Settings:
    n: float = setting(0.0, low=0.0, help="Standard deviations below the best logit that a token may be; 0: any.")
