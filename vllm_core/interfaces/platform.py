"""The contract of platforms: what one kind of device is and which defaults suit it."""

from __future__ import annotations

from typing import Protocol

from vllm_core.interfaces.device import Device


class Platform(Protocol):
    """Made once an engine, in the parent: ``Target()``. Imports torch, starts no context on a device."""

    def facts(self) -> Device:
        """What is there. Raises ``RuntimeError`` with the reason when the device cannot be used."""

    def torch_device(self, rank: int) -> str:
        """What ``torch.device`` takes for the rank-th device of this host: ``"cpu"``, ``"cuda:0"``."""

    def dtype(self, checkpoint_dtype: str) -> str:
        """The number format for ``dtype="auto"``, given that of the checkpoint (torch names)."""

    def default_step_tokens(self, parameters: int) -> int:
        """Token budget of a step for a model of so many parameters: steps of about 0.2 s."""

    def default_cache_bytes(self, weight_bytes: int) -> int:
        """Memory for the KV cache when the user sets none, given the weights' size."""
