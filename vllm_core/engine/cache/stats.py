"""What the prefix cache has been good for."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class CacheStats:
    """Counts since the start."""

    queries: int  # prompt tokens of admitted sequences that could have been found
    hits: int  # of those, tokens that were found
    evictions: int  # cached pages given up for room
