import attrs

from vllm_core.config.setting import setting


@attrs.frozen(kw_only=True)
class Settings:
    default_ms: float = setting(60_000.0, low=0.0, unit="ms", help="Deadline of requests that bring none.")
