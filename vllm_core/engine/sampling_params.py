"""How the tokens of one request are chosen, and when it ends. Names and defaults are vLLM's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from vllm_core.engine import field_checks as check
from vllm_core.engine.errors import nearest
from vllm_core.engine.structured_outputs import StructuredOutputsParams, read_structured_outputs
from vllm_core.interfaces.steps import RowSampling

__all__ = ["SamplingParams", "unmet_defaults"]

# The device has float32. At these temperatures and penalties nothing changes any more.
HOTTEST = 1e30
STRONGEST = 1e6

# Fields of vLLM's SamplingParams that do not exist here yet, with the value that changes nothing.
NOT_YET: dict[str, Any] = {
    "best_of": 1,
    "logits_processors": None,
    "guided_decoding": None,
    "flat_logprobs": False,
    "output_kind": None,
    "skip_clone": False,
}
INSTEAD = {
    "guided_decoding": "structured_outputs takes its place in vLLM, too",
    "logits_processors": "name plugins in the engine's setting logits_processors, parameters in extra_args",
}

# Keys of generation_config.json that say how to sample, and what they are called here.
GENERATION_KEYS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "max_new_tokens": "max_tokens",
}
COUNTS = ("top_k", "max_tokens")
GENERATION_KEYS_NOT_YET: dict[str, float] = {
    "encoder_repetition_penalty": 1.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}


def unmet_defaults(generation_config: Mapping[str, Any]) -> list[str]:
    """What the model's authors recommend and nobody here can do yet, a line each."""
    return [
        f"generation_config.json asks for {key}={generation_config[key]}, which is not supported yet"
        for key, neutral in GENERATION_KEYS_NOT_YET.items()
        if generation_config.get(key, neutral) not in (neutral, None)
    ]


def _field(default: Any, validator: Any, converter: Any = None) -> Any:
    return attrs.field(default=default, validator=validator, converter=converter)


@attrs.frozen(init=False)
class SamplingParams:
    """One request's sampling and stopping. All by keyword; values out of range are refused by name."""

    n: int = _field(1, check.integer(1, check.MAX_SAMPLES))  # outputs a prompt; with a seed, output i has seed + i
    temperature: float = _field(1.0, check.number(0, math.inf))  # 0: always the likeliest token
    top_p: float = _field(1.0, check.number(0, 1, open_low=True))  # share of the likeliest tokens; 1: all
    top_k: int = _field(0, check.integer(-1, 2**31 - 1))  # likeliest tokens; 0 or -1: all
    min_p: float = _field(0.0, check.number(0, 1))  # least share of the likeliest token's probability
    repetition_penalty: float = _field(1.0, check.number(0, math.inf, open_low=True))  # of prompt and output tokens
    presence_penalty: float = _field(0.0, check.number(-2, 2))  # of tokens in the output
    frequency_penalty: float = _field(0.0, check.number(-2, 2))  # of each time that a token is in the output
    logit_bias: dict[int, float] | None = _field(None, check.bias_map, check.biases)  # added to tokens' logits
    allowed_token_ids: tuple[int, ...] | None = _field(None, check.some_token_ids, check.optional_ids)  # None: all
    bad_words: tuple[str, ...] = _field((), check.texts(check.MAX_BAD_WORDS), check.strings)
    seed: int | None = _field(None, check.integer(-1, 2**63 - 1, optional=True))  # -1: none, as None

    stop: tuple[str, ...] = _field((), check.texts(check.MAX_STOPS), check.strings)
    stop_token_ids: tuple[int, ...] = _field((), check.token_ids(check.MAX_STOPS), check.ids)
    include_stop_str_in_output: bool = _field(False, check.boolean)
    max_tokens: int | None = _field(16, check.integer(1, 2**31 - 1, optional=True))  # None: all that fit
    min_tokens: int = _field(0, check.integer(0, 2**31 - 1))  # before anything but max_tokens may end the output
    ignore_eos: bool = _field(False, check.boolean)

    logprobs: int | None = _field(None, check.integer(-1, 2**31 - 1, optional=True), check.count)  # -1: all tokens'
    prompt_logprobs: int | None = _field(None, check.integer(-1, 2**31 - 1, optional=True), check.count)
    detokenize: bool = _field(True, check.boolean)  # False: no text
    skip_special_tokens: bool = _field(True, check.boolean)
    spaces_between_special_tokens: bool = _field(True, check.boolean)

    truncate_prompt_tokens: int | None = _field(None, check.truncation)  # the last so many; -1: what fits
    skip_reading_prefix_cache: bool | None = _field(None, check.optional_boolean)  # None: with prompt_logprobs
    structured_outputs: StructuredOutputsParams | None = attrs.field(default=None, converter=read_structured_outputs)
    extra_args: dict[str, Any] | None = _field(
        None, check.plain_data
    )  # for logits processors and the order of requests

    def __init__(self, **fields: Any) -> None:
        known = [a.name for a in attrs.fields(type(self))]
        for name in [n for n in fields if n not in known]:
            if name not in NOT_YET:
                raise TypeError(f"SamplingParams has no field {name!r}{nearest(name, [*known, *NOT_YET])}")
            # What changes nothing is granted, so that code written for vLLM runs.
            if (value := fields.pop(name)) not in (NOT_YET[name], None, [], {}):
                instead = INSTEAD.get(name, "leave it out")
                raise ValueError(f"SamplingParams: {name}={value!r:.80} is not supported yet; {instead}")
        self.__attrs_init__(**fields)
        if self.stop and not self.detokenize:
            raise ValueError("stop strings are searched in the text, so they need detokenize=True")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens={self.min_tokens} is more than max_tokens={self.max_tokens}")
        if self.n > 1 and self.temperature == 0:
            raise ValueError(f"n={self.n} outputs at temperature=0 would all be the same: ask for one, or raise it")

    @classmethod
    def from_defaults(cls, generation_config: Mapping[str, Any], **fields: Any) -> SamplingParams:
        """What the model's authors recommend in generation_config.json, with ``fields`` on top.

        ``ValueError`` if what they wrote is no sampling parameter.
        """
        given = {ours: generation_config.get(theirs) for theirs, ours in GENERATION_KEYS.items()}
        # JSON written by other tools has 50.0 for 50.
        given = {k: int(v) if isinstance(v, float) and k in COUNTS and v.is_integer() else v for k, v in given.items()}
        try:
            recommended = cls(**{k: v for k, v in given.items() if v is not None})
        except ValueError as error:
            raise ValueError(
                f"generation_config.json: {error}\n"
                '  instead generation_config="none" (--generation-config none) does without the file'
            ) from error
        return attrs.evolve(recommended, **fields)

    def changed(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        return {a.name: getattr(self, a.name) for a in attrs.fields(type(self)) if getattr(self, a.name) != a.default}

    @property
    def reads_prefix_cache(self) -> bool:
        """Positions of the prompt that are not computed have no log-probabilities."""
        skip = self.skip_reading_prefix_cache
        return self.prompt_logprobs is None and not skip

    def for_row(
        self,
        fallback_seed: int,
        *,
        stop_ids: Sequence[int] = (),
        bad_words: Sequence[Sequence[int]] = (),
        processors: Sequence[str] = (),
    ) -> RowSampling:
        """What the device needs.

        fallback_seed   for requests that bring none
        stop_ids        tokens that ``min_tokens`` holds back
        bad_words       ``self.bad_words`` as token ids
        processors      logits processors that affect the request
        """
        seed = fallback_seed if self.seed is None or self.seed == -1 else self.seed
        return RowSampling(
            temperature=min(float(self.temperature), HOTTEST),
            top_k=max(self.top_k, 0),
            top_p=float(self.top_p),
            seed=seed,
            min_p=float(self.min_p),
            repetition_penalty=float(min(max(self.repetition_penalty, 1 / STRONGEST), STRONGEST)),
            presence_penalty=float(self.presence_penalty),
            frequency_penalty=float(self.frequency_penalty),
            logit_bias=self.logit_bias or {},
            allowed_ids=list(self.allowed_token_ids or ()),
            bad_words=[list(word) for word in bad_words],
            min_tokens=self.min_tokens,
            stop_ids=list(stop_ids) if self.min_tokens else [],
            logprobs=self.logprobs,
            prompt_logprobs=self.prompt_logprobs,
            processors=list(processors),
            extra_args=(self.extra_args or {}) if processors else {},
        )
