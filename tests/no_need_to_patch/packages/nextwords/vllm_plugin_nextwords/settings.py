import attrs

from vllm_core.config.setting import setting


@attrs.frozen(kw_only=True)
class Settings:
    most: int = setting(5, low=1, high=20, unit="tokens", help="Most tokens that a request may ask for.")
