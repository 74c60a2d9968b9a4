"""Where checkpoint tensors go in a bound layer's parameters."""

from __future__ import annotations

import attrs

from vllm_core.interfaces.weights import Slices


@attrs.frozen
class SlotRange:
    """One checkpoint tensor's place in a parameter, on this rank.

    A bound layer keeps ``layer.loads[parameter][slot]``; a parameter that is filled from one
    tensor has the single slot "". Slices are (start, stop) a dimension, () for all of it.
    """

    shape: tuple[int, ...]  # of the whole tensor in the checkpoint
    source: Slices = ()  # the part of it that this rank reads
    target: Slices = ()  # where that part goes in the parameter
