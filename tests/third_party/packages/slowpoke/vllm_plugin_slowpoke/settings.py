import attrs

from vllm_core.config.setting import setting


@attrs.frozen(kw_only=True)
class Settings:
    pause_ms: float = setting(0.0, low=0.0, unit="ms", help="Pause before each step.")
    windows: bool = setting(False, help="Serve layers that see a window only.")
    log: str = setting("", help="File to write a line to for every backend made.")
