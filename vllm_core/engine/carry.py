"""What another engine must do of a request that one engine has begun."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from vllm_core.engine.messages import NewRequest
from vllm_core.engine.processor import OutputProcessor

__all__ = ["named", "the_rest"]


def the_rest(requests: Sequence[NewRequest], running: Sequence[str], processor: OutputProcessor) -> list[NewRequest]:
    """The same requests, from the tokens on that are here; empty if that cannot be done.

    requests   a request's samples, as they were sent first
    running    those that have not ended

    Noise depends on seed and position only, so what is drawn goes on as it would have.
    """
    rest = []
    for request in requests:
        if request.request_id in running:
            tokens = processor.tokens(request.request_id)
            if tokens and request.sampling.prompt_logprobs is not None:  # some of them are here already
                return []
            ids = [*request.token_ids, *tokens]
            rest.append(structs.replace(request, token_ids=ids, num_output=len(tokens), sibling_of=""))
    return rest


def named(new: NewRequest, front: str) -> NewRequest:
    """The request under a name that no other front gives."""
    sibling = front + new.sibling_of if new.sibling_of else ""
    return structs.replace(new, request_id=front + new.request_id, sibling_of=sibling)
