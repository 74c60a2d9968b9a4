"""Names of models split over several files, as llama-gguf-split gives them: NAME-00001-of-00003.gguf."""

from __future__ import annotations

import re
from collections.abc import Sequence

_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.gguf)", re.IGNORECASE | re.DOTALL)


def all_parts(name: str) -> list[str]:
    """The names of all parts of the model that the part belongs to, in order; [] if it is no part's name."""
    found = _PART.fullmatch(name)
    if found is None:
        return []
    stem, _, count, ending = found.groups()
    return [f"{stem}-{n:05}-of-{count}{ending}" for n in range(1, int(count) + 1)]


def first_part(names: Sequence[str]) -> str:
    """The first of the names in order if they are parts of one model, one or more of them; else ""."""
    parts = all_parts(names[0])
    return min(names) if parts and set(names) <= set(parts) else ""
