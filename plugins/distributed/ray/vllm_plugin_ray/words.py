"""What ranks say, and the last words of those that cannot go on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import ray

from vllm_core.executors import Failed, Report, decode_up
from vllm_plugin_ray.cluster import get, wait

LAST_WORDS = 1.0  # seconds in which other ranks may tell what happened, once one has


def heard(reference: Any) -> Any:
    """`Started`, `Result`, or a `Report` of a rank that has failed or ended. Raises what is wrong with Ray itself."""
    try:
        said = decode_up(get(reference))
    except ray.exceptions.RayActorError as error:
        first = str(error).strip().splitlines()[0]
        return Report(ended=f"has ended: {first}")
    except ray.exceptions.RaySystemError:
        raise
    except ray.exceptions.RayError as error:
        return Report(str(error).strip().splitlines()[-1], type(error).__name__)
    return Report(said.error, said.kind, said.waited, said.step) if isinstance(said, Failed) else said


def all_reports(first: Mapping[int, Report], left: Mapping[Any, int]) -> dict[int, Report]:
    """Something has gone wrong: hear the others, who may know more than one that has waited for them in vain.

    first   {rank: what it has said}
    left    {reference: rank} by which others may speak
    """
    reports = dict(first)
    silent = {reference: rank for reference, rank in left.items() if rank not in reports}
    deadline = time.monotonic() + LAST_WORDS
    while silent and all(r.waited for r in reports.values()) and (rest := deadline - time.monotonic()) > 0:
        for reference in wait(list(silent), timeout=rest)[0]:
            rank = silent.pop(reference)
            if isinstance(message := heard(reference), Report):
                reports[rank] = message
    return reports
