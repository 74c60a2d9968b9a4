"""The contract of a plugin's own settings. No torch."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol


class PluginSettings(Protocol):
    """An attrs class, frozen, every field made by ``vllm_core.config.setting.setting``.

    Instances are made with keyword arguments only; each field has a default, so that
    ``Class()`` works. A field's annotation is the type that users' values are converted to.
    """

    __attrs_attrs__: ClassVar[tuple[Any, ...]]

    def __init__(self, **values: Any) -> None:
        """``ValueError`` names the field that is wrong."""
