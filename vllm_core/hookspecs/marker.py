"""The marker of hook specifications, and how one says that it goes."""

from __future__ import annotations

import pluggy

__all__ = ["HookDeprecation", "hookspec"]

hookspec = pluggy.HookspecMarker("vllm_core")


class HookDeprecation(DeprecationWarning):
    """What pluggy warns of when a plugin implements a hook, or takes an argument of one, that goes.

    ``@hookspec(warn_on_impl=HookDeprecation('hook "old"', instead="implement new", goes="0.4"))``, for an argument
    ``@hookspec(warn_on_impl_args={"speed": HookDeprecation('argument "speed" of hook "new"', ...)})``.

    what      is deprecated
    instead   what a plugin does in its place
    goes      the release of vllm-core that has it no more
    """

    def __init__(self, what: str, *, instead: str, goes: str) -> None:
        super().__init__(f"{what} is deprecated and goes in vllm-core {goes}: {instead}")
        self.what, self.instead, self.goes = what, instead, goes
