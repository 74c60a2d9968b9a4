"""Which part of a layer's output or input a rank holds."""

from __future__ import annotations

import attrs

from vllm_core.interfaces.group import ProcessGroup


@attrs.frozen
class Shard:
    """``start`` to ``stop`` of ``full`` elements are this rank's, which has room for ``size``.

    ``size`` is larger than ``stop - start`` where ranks are padded to equal sizes.
    """

    full: int
    start: int
    stop: int
    size: int = attrs.field()

    @size.default
    def _exact(self) -> int:
        return self.stop - self.start


class CannotSplit(ValueError):
    """A size does not allow so many ranks; the message says which would do."""


def whole(size: int) -> Shard:
    return Shard(size, 0, size)


def split(size: int, group: ProcessGroup, what: str) -> Shard:
    """An equal share a rank, in rank order. ``what`` names the size in the error."""
    share, rest = divmod(size, group.size)
    if rest:
        raise CannotSplit(f"{what} = {size} cannot be split over {group.size} ranks: it is not divisible")
    return Shard(size, group.rank * share, (group.rank + 1) * share)


def split_heads(heads: int, head_dim: int, group: ProcessGroup, what: str) -> Shard:
    """As `split`, in whole heads; ranks beyond the number of heads share one: rank r has head r * heads // ranks."""
    if group.size <= heads:
        shard = split(heads, group, what)
    elif group.size % heads:
        raise CannotSplit(f"{what} = {heads} cannot be repeated over {group.size} ranks: they are not a multiple of it")
    else:
        head = group.rank * heads // group.size
        shard = Shard(heads, head, head + 1)
    return Shard(heads * head_dim, shard.start * head_dim, shard.stop * head_dim)


def split_padded(size: int, group: ProcessGroup) -> Shard:
    """As `split`, for any size: the last ranks' shares end in padding."""
    share = -(-size // group.size)
    start = min(group.rank * share, size)
    return Shard(size, start, min(start + share, size), share)
