"""The contract of platforms: facts about a kind of device, and the defaults that follow from them. No torch."""

from __future__ import annotations

from typing import Protocol

from vllm_core.interfaces.device import Device


class Platform(Protocol):
    """``Target()``, made in the parent and in each worker. No call makes a device context.

    Streams and events are made by the runner, with torch, from the type of the device.
    """

    def facts(self) -> Device:
        """The devices visible to this process; ``RuntimeError`` if there is none, with the reason."""

    def torch_device(self, rank: int) -> str:
        """What ``torch.device`` takes for the local rank's device: ``"cuda:1"``."""

    def dtype(self, checkpoint_dtype: str) -> str:
        """The dtype to compute in for a checkpoint of this one, if the user named none."""

    def default_step_tokens(self, parameters: int) -> int:
        """Tokens a step, so that it lasts at most about 0.2 s for a model of so many parameters."""

    def default_cache_bytes(self, weight_bytes: int) -> int:
        """Bytes for the KV cache of one device, beside so many bytes of weights."""
