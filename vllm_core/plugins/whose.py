"""Whose code went wrong: the plugin in whose files a call stood."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType

from vllm_core.plugins.lock import Lock
from vllm_core.plugins.source import locate

__all__ = ["blamed", "owners_of", "whose", "whose_error"]


def owners_of(lock: Lock) -> dict[str, str]:
    """Folder or file of what was chosen from plugins -> ``vllm-plugin-x 0.2.0``. The core's own is left out."""
    found = {}
    for record in lock.records:
        if record.distribution == "vllm-core":
            continue
        top = record.target.partition(":")[0].partition(".")[0]
        folder, name = os.path.split(locate(top))
        if name:
            place = folder + os.sep if name == "__init__.py" else os.path.join(folder, name)
            found[place] = f"{record.distribution} {record.version}"
    return found


def whose(files: Iterable[str], owners: Mapping[str, str]) -> str:
    """The plugin that the first of these files belongs to, of those that belong to any; "" if none does."""
    for file in files:
        for place, owner in owners.items():
            if file == place or (place.endswith(os.sep) and file.startswith(place)):
                return owner
    return ""


def whose_error(error: BaseException, owners: Mapping[str, str]) -> str:
    """Of an error and what it came from, the innermost call in a plugin."""
    return whose(_files(error), owners)


def blamed(error: BaseException, owners: Mapping[str, str]) -> str:
    """What went wrong, and in which plugin; where it was none of them, whose results it may be."""
    text = str(error) if isinstance(error, Exception) else f"{type(error).__name__}: {error}"
    if owner := whose_error(error, owners):
        return f"{text} (in {owner})"
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    if owners and isinstance(first, AttributeError | IndexError | TypeError | ValueError | RuntimeError):
        return f"{text} (in the core, perhaps over what came from {', '.join(sorted(set(owners.values())))})"
    return text


def _files(error: BaseException | None) -> Iterator[str]:
    """The cause's first: it was raised deeper."""
    if error is None:
        return
    yield from _files(error.__cause__)
    yield from reversed(list(_frames(error.__traceback__)))


def _frames(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        yield trace.tb_frame.f_code.co_filename
        trace = trace.tb_next
