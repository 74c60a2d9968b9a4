import attrs

from vllm_core.config.setting import setting


@attrs.frozen(kw_only=True)
class Settings:
    file: str = setting("", help="File that lines are added to; none: nothing is written.")
