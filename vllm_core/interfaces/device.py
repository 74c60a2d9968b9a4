"""Facts about the device an engine runs on, as plain data. No torch."""

from __future__ import annotations

from collections.abc import Iterable

import attrs


def _names(names: Iterable[str]) -> frozenset[str]:
    return frozenset(names)


@attrs.frozen
class Device:
    """Read by a platform plugin (or a worker), never from a CUDA context in the parent."""

    type: str  # "cpu", "cuda": what torch.device() takes
    name: str = ""  # as the vendor prints it
    count: int = 1
    memory: int = 0  # bytes of one device
    capability: tuple[int, int] | None = None  # CUDA compute capability
    features: frozenset[str] = attrs.field(default=frozenset(), converter=_names)  # "bf16", "avx512_bf16", ...
