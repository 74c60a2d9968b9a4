"""The contract of platforms: facts about a kind of device, and what the core must do on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from vllm_core.interfaces.device import Device

if TYPE_CHECKING:
    import torch


class Platform(Protocol):
    """``Target()``; made in the parent for the facts, and in each worker for the rest.

    The first group may be called in the parent: it makes no device context. The second is for
    the process that owns the device.

    The host waits for steps by ``Event`` of the device's module in torch (``torch.get_device_module``). A module
    without one says that work is done when a call returns, as on a CPU.
    """

    name: str  # "cpu"

    def facts(self) -> Device:
        """The devices visible to this process; all alike, or ``RuntimeError`` says which differ."""

    def dtypes(self) -> tuple[str, ...]:
        """dtypes that models can be computed in, fastest first."""

    def token_budget(self, parameters: int) -> int:
        """Default tokens a step, so that it lasts at most about 0.2 s for so many parameters."""

    def max_rows(self) -> int:
        """Default number of requests that run at the same time."""

    def cache_memory(self, taken: int) -> int:
        """Default bytes for the KV cache of one device, beside so many bytes of weights and all else.

        A platform may also have ``process_memory()``: bytes of a device that a process takes beside
        its tensors, for a driver's context and libraries.
        """

    def world_limit(self) -> int:
        """Most ranks that one host can run."""

    def torch_device(self, rank: int) -> torch.device:
        """The device of a local rank. Makes it the current one."""

    def free_memory(self, rank: int) -> int:
        """Bytes that can still be allocated."""

    def stream(self) -> Any | None:
        """A new stream (a context manager with ``synchronize``), or None: work is done when called."""

    def event(self) -> Any | None:
        """A new event (``record()``, ``query()``, ``synchronize()``), or None, as for streams."""

    def pinned(self) -> bool:
        """Whether copies from pinned host memory run beside computation."""

    def synchronize(self) -> None:
        """Wait for all work on the current device."""
