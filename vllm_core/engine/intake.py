"""From what a caller asks to what the engine runs: every check that needs no engine is made here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from msgspec import structs

from vllm_core.engine.choose_grammars import GrammarChoices
from vllm_core.engine.errors import RequestError
from vllm_core.engine.messages import NewRequest
from vllm_core.engine.prompts import not_text
from vllm_core.engine.row_sampling import RowSamplings
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.interfaces.tokenizer import Tokenizer

__all__ = ["Intake"]

GOLDEN = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: spreads counts over all seeds
NO_LIMIT = 2**31 - 1
MAX_SALT = 1024  # characters


class Intake:
    """longest     tokens of a request, prompt and output together
    seed        decides, with the order of requests, the noise of those that bring no seed of their own
    processors  logits processors, ``runner.build.Chosen`` each
    policy      of the scheduler, likewise; None: one that looks at no parameters
    grammars    who compiles what outputs conform to; None: nobody
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        longest: int,
        seed: int,
        max_logprobs: int,
        eos_token_ids: Sequence[int] = (),
        tokenizer: Tokenizer | None = None,
        processors: Sequence[Any] = (),
        policy: Any = None,
        grammars: GrammarChoices | None = None,
    ) -> None:
        self.vocab_size, self.longest = vocab_size, longest
        self.eos_token_ids = frozenset(eos_token_ids)
        self._samplings = RowSamplings(
            vocab_size=vocab_size,
            max_logprobs=max_logprobs,
            eos_token_ids=self.eos_token_ids,
            tokenizer=tokenizer,
            processors=processors,
            policy=policy,
            grammars=grammars,
        )
        self._seed, self._count = seed, 0

    def prepare(
        self,
        request_id: str,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        stream: bool = False,
        priority: int = 0,
        arrival_time: float | None = None,
        cache_salt: str = "",
    ) -> list[NewRequest]:
        """What the engine runs: one request for each of ``params.n`` samples. Raises ``RequestError``.

        stream      outputs on the way, not only the last one
        cache_salt  cached prefixes are shared among requests with the same one only

        Several samples are called ``id/0``, ``id/1`` and so on. With a seed, sample i has ``seed + i``:
        it is what a request for one sample with that seed gets.
        """
        ids = self._check(request_id, prompt_token_ids)
        if not isinstance(params, SamplingParams):
            raise RequestError(f"sampling_params must be SamplingParams, not {type(params).__name__}", request_id)
        self._check_order(request_id, priority, cache_salt)
        try:
            sampling, order_args = self._samplings.of(params, 0), self._samplings.order_args(params)
        except ValueError as error:
            raise RequestError(str(error), request_id) from error
        ids = self._truncated(ids, params)
        if len(ids) >= self.longest:
            raise RequestError(
                f"the prompt has {len(ids)} tokens; with one token of output it must fit into {self.longest}",
                request_id,
            )
        # A grammar that is complete allows nothing but the end.
        runs_on = params.ignore_eos and sampling.grammar is None
        eos = frozenset() if runs_on else self.eos_token_ids
        first = NewRequest(
            request_id=request_id if params.n == 1 else f"{request_id}/0",
            token_ids=ids,
            sampling=structs.replace(sampling, seed=self._seed_of(params, 0)),
            stop_ids=sorted(eos.union(params.stop_token_ids)),
            own_stop_ids=list(params.stop_token_ids),
            max_total=NO_LIMIT if params.max_tokens is None else len(ids) + params.max_tokens,
            priority=priority,
            arrival_time=time.time() if arrival_time is None else arrival_time,
            reads_prefix=params.reads_prefix_cache,
            each_token=stream or bool(params.stop),
            salt=cache_salt.encode(),
            order_args=order_args,
        )
        return [first, *(self._sibling(request_id, first, params, i) for i in range(1, params.n))]

    def _sibling(self, request_id: str, first: NewRequest, params: SamplingParams, i: int) -> NewRequest:
        """Another sample of the same prompt, whose log-probabilities the first reports for all."""
        sampling = structs.replace(first.sampling, seed=self._seed_of(params, i), prompt_logprobs=None)
        return structs.replace(first, request_id=f"{request_id}/{i}", sampling=sampling, sibling_of=first.request_id)

    def _seed_of(self, params: SamplingParams, i: int) -> int:
        """The noise of sample i. Those without a seed of their own draw differently, and the same again tomorrow."""
        if params.seed is not None and params.seed != -1:
            return (params.seed + i) % 2**63
        self._count += 1
        return (self._seed + self._count * GOLDEN) % 2**63

    def _check_order(self, request_id: str, priority: int, cache_salt: str) -> None:
        if type(priority) is not int or not -(2**31) <= priority < 2**31:
            raise RequestError(f"priority must be a whole number of 32 bits, not {priority!r:.80}", request_id)
        if not isinstance(cache_salt, str) or len(cache_salt) > MAX_SALT or not_text(cache_salt):
            raise RequestError(
                f"cache_salt must be text of at most {MAX_SALT} characters, not {cache_salt!r:.80}", request_id
            )

    def _truncated(self, ids: list[int], params: SamplingParams) -> list[int]:
        """The prompt's last tokens, as many as the request wants."""
        most = params.truncate_prompt_tokens
        if most == -1:  # as many as leave room for the longest output
            most = max(1, self.longest - (params.max_tokens or 1))
        return ids if most is None else ids[-most:]

    def _check(self, request_id: str, ids: Sequence[int]) -> list[int]:
        if isinstance(ids, str | bytes | bytearray | memoryview) or not isinstance(ids, Sequence):
            hint = "; its .tolist() is one" if hasattr(ids, "tolist") else ""
            raise RequestError(f"a prompt's token ids must be a list of numbers, not {ids!r:.80}{hint}", request_id)
        if not ids:
            raise RequestError("the prompt is empty; give it at least one token", request_id)
        ids = list(ids)
        if set(map(type, ids)) != {int}:
            i, token = next((i, token) for i, token in enumerate(ids) if type(token) is not int)
            raise RequestError(f"token id {i} of the prompt must be a whole number, not {token!r:.80}", request_id)
        low, high = min(ids), max(ids)
        if low < 0 or high >= self.vocab_size:
            wrong = low if low < 0 else high
            raise RequestError(f"token id {wrong} is not in the vocabulary of {self.vocab_size} tokens", request_id)
        return ids
