"""From a request's parameters to what its row is told, checked against this engine's model and settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import attrs
from msgspec import structs

from vllm_core.engine.bad_words import bad_word_ids
from vllm_core.engine.choose_grammars import GrammarChoices
from vllm_core.engine.sampling_params import SamplingParams
from vllm_core.engine.structured_outputs import StructuredOutputsParams
from vllm_core.interfaces.grammar import GrammarSpec
from vllm_core.interfaces.queries import LogitsProcessorQuery
from vllm_core.interfaces.steps import RowSampling
from vllm_core.interfaces.tokenizer import Tokenizer

__all__ = ["RowSamplings"]


class Processor(Protocol):
    """A logits processor of this engine (``runner.build.Chosen``)."""

    name: str
    query: LogitsProcessorQuery

    def load(self) -> Any: ...


@attrs.frozen(kw_only=True)
class RowSamplings:
    """vocab_size    tokens that the model gives logits for
    max_logprobs     likeliest tokens reported a position, at most; -1: all
    """

    vocab_size: int
    max_logprobs: int
    eos_token_ids: frozenset[int]
    tokenizer: Tokenizer | None
    processors: Sequence[Processor] = ()
    policy: Any = None  # as a processor, of the order of requests; None: it looks at no parameters
    grammars: GrammarChoices | None = None

    def of(self, params: SamplingParams, fallback_seed: int) -> RowSampling:
        """``ValueError`` for what cannot be done here. ``fallback_seed`` serves requests that bring none."""
        grammar = None if params.structured_outputs is None else self._grammar(params.structured_outputs)
        for name in ("logprobs", "prompt_logprobs"):
            self._check_width(name, getattr(params, name))
        words = bad_word_ids(params.bad_words, self.tokenizer)
        self._check_ids("stop_token_ids", params.stop_token_ids)
        self._check_ids("allowed_token_ids", params.allowed_token_ids or ())
        self._check_ids("logit_bias", params.logit_bias or ())
        self._check_ids("bad_words", (token for word in words for token in word))
        row = params.for_row(
            fallback_seed,
            stop_ids=sorted(self.eos_token_ids.union(params.stop_token_ids)) if params.min_tokens else (),
            bad_words=words,
            processors=self._affecting(params),
        )
        if grammar is None or params.structured_outputs is None or self.grammars is None:
            return row
        reasoning = None if self.grammars.config.enable_in_reasoning else params.structured_outputs.reasoning
        return structs.replace(row, grammar=grammar, reasoning=None if reasoning is None else dict(reasoning))

    def _grammar(self, wanted: StructuredOutputsParams) -> GrammarSpec:
        if self.grammars is None or self.tokenizer is None:
            raise ValueError("structured_outputs: grammars are about text, and this engine has no tokenizer")
        if not self.eos_token_ids:
            raise ValueError("structured_outputs: this model has no token that ends a text, so no grammar could end")
        if wanted.kind not in self.grammars.backends:
            raise ValueError(f"structured_outputs: {self.grammars.refusals[wanted.kind]}")
        config = self.grammars.config
        return wanted.spec(
            fallback=not config.disable_fallback,
            any_whitespace=not config.disable_any_whitespace,
            closed=config.disable_additional_properties,
        )

    def _check_ids(self, field: str, ids: Iterable[int]) -> None:
        largest = max(ids, default=-1)
        if largest >= self.vocab_size:
            raise ValueError(f"{field}: token id {largest} is not in the vocabulary of {self.vocab_size} tokens")

    def _check_width(self, field: str, k: int | None) -> None:
        asked = self.vocab_size if k == -1 else k or 0
        if asked > self.max_logprobs >= 0:
            raise ValueError(
                f"{field}={k} asks for {asked} tokens a position, and this engine gives at most {self.max_logprobs}"
                f" (--max-logprobs {-1 if k == -1 else asked} allows it)"
            )

    def _affecting(self, params: SamplingParams) -> list[str]:
        """The logits processors that change this request's logits."""
        extra = params.extra_args or {}
        if extra and not self.processors and self._ordering() is None:
            raise ValueError(
                f"extra_args={extra!r:.80} are parameters of logits processors, and this engine has none"
                " (--logits-processors names some)"
            )
        affecting = []
        for processor in self.processors:
            try:
                if processor.load().check(extra, processor.query):
                    affecting.append(processor.name)
            except Exception as error:
                what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                raise ValueError(f'extra_args: logits processor "{processor.name}": {what}') from error
        return affecting

    def order_args(self, params: SamplingParams) -> dict[str, Any]:
        """Those of the request's parameters that decide when it runs."""
        check, extra = self._ordering(), params.extra_args or {}
        try:
            return dict(extra) if check is not None and check(extra, self.policy.query) else {}
        except Exception as error:
            what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ValueError(f'extra_args: scheduler policy "{self.policy.name}": {what}') from error

    def _ordering(self) -> Any:
        """What tells whether a request's parameters matter to the policy; None: they do not."""
        return None if self.policy is None else getattr(self.policy.load(), "check", None)
