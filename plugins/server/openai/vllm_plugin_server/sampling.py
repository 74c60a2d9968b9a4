"""The fields of a body that say how tokens are chosen, and the ``SamplingParams`` made of them."""

from __future__ import annotations

from typing import Annotated, Any

import attrs
import msgspec

from vllm_core.interfaces.endpoint import ServerContext
from vllm_core.serving import SamplingParams
from vllm_plugin_server.errors import bad_request, name_fields, refusal
from vllm_plugin_server.limits import bound

__all__ = ["Sampling", "StreamOptions", "StructuredOutputs", "sampling_fields", "sampling_params", "structured"]

Text = Annotated[str, bound("label")]
Schema = Annotated[str, bound("schema_bytes")] | dict[str, Any]
Grammar = Annotated[str, bound("schema_bytes")]
Choices = Annotated[list[Text], bound("choice")]


class StreamOptions(msgspec.Struct, kw_only=True):
    """What a stream tells beside its text."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None  # usage in each chunk
    include_obfuscation: bool | None = None  # granted: nothing is obfuscated


class StructuredOutputs(msgspec.Struct, kw_only=True):
    """One of them: what the answer must conform to."""

    json: Schema | None = None
    regex: Grammar | None = None
    choice: Choices | None = None
    grammar: Grammar | None = None
    json_object: bool | None = None
    structural_tag: Grammar | dict[str, Any] | None = None
    disable_fallback: bool | None = None
    disable_any_whitespace: bool | None = None
    disable_additional_properties: bool | None = None
    whitespace_pattern: Text | None = None


class Sampling(msgspec.Struct, kw_only=True):
    """Shared by chats and completions: OpenAI's sampling fields, and vLLM's (``extra_body``). null: as if left out."""

    model: Annotated[str, bound("name")] | None = None
    n: Annotated[int, bound("n")] | None = None
    temperature: Annotated[float, bound("temperature")] | None = None
    top_p: Annotated[float, bound("top_p")] | None = None
    top_k: Annotated[int, bound("top_k")] | None = None
    min_p: Annotated[float, bound("min_p")] | None = None
    repetition_penalty: Annotated[float, bound("repetition_penalty")] | None = None
    presence_penalty: Annotated[float, bound("presence_penalty")] | None = None
    frequency_penalty: Annotated[float, bound("frequency_penalty")] | None = None
    logit_bias: Annotated[dict[str, float], bound("logit_bias")] | None = None
    allowed_token_ids: Annotated[list[Annotated[int, bound("token_id")]], bound("allowed_token_ids")] | None = None
    bad_words: Annotated[list[Annotated[str, bound("bad_word")]], bound("bad_words")] | None = None
    seed: Annotated[int, bound("seed")] | None = None
    stop: (
        Annotated[str, bound("stop_string")] | Annotated[list[Annotated[str, bound("stop_string")]], bound("stop")]
    ) | None = None
    stop_token_ids: Annotated[list[Annotated[int, bound("token_id")]], bound("stop_token_ids")] | None = None
    include_stop_str_in_output: bool | None = None
    max_tokens: Annotated[int, bound("max_tokens")] | None = None
    min_tokens: Annotated[int, bound("min_tokens")] | None = None
    ignore_eos: bool | None = None
    prompt_logprobs: Annotated[int, bound("prompt_logprobs")] | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    truncate_prompt_tokens: Annotated[int, bound("truncate_prompt_tokens")] | None = None
    structured_outputs: StructuredOutputs | None = None
    vllm_xargs: Annotated[dict[str, Any], bound("metadata")] | None = None
    priority: Annotated[int, bound("priority")] | None = None
    cache_salt: Annotated[str, bound("label")] | None = None
    add_special_tokens: bool | None = None
    best_of: Annotated[int, bound("best_of")] | None = None
    use_beam_search: bool | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    # Without effect: `ignored` says why.
    user: Text | None = None
    metadata: Annotated[dict[str, Any], bound("metadata")] | None = None
    store: bool | None = None
    service_tier: Text | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None
    prompt_cache_retention: Text | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    verbosity: Text | None = None
    moderation: dict[str, Any] | None = None
    length_penalty: Annotated[float, bound("length_penalty")] | None = None
    early_stopping: bool | None = None
    kv_transfer_params: dict[str, Any] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    media_io_kwargs: dict[str, Any] | None = None
    request_id: Text | None = None


_AS_IS = (
    "n", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
    "logit_bias", "allowed_token_ids", "bad_words", "seed", "stop", "stop_token_ids", "include_stop_str_in_output",
    "min_tokens", "ignore_eos", "prompt_logprobs", "skip_special_tokens", "spaces_between_special_tokens",
    "truncate_prompt_tokens",
)  # fmt: skip

# Fields of requests whose name in ``SamplingParams`` is another.
_OTHERWISE = {
    "vllm_xargs": "extra_args", "top_logprobs": "logprobs", "max_completion_tokens": "max_tokens",
    "response_format": "structured_outputs",
}  # fmt: skip


def sampling_fields(body: Sampling) -> dict[str, Any]:
    """What a body says for ``SamplingParams``, less what it leaves out."""
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise bad_request("best_of is not supported, unless it is n: ask for n outputs and choose", "best_of")
    if body.use_beam_search:
        raise bad_request("use_beam_search is not supported: outputs are sampled", "use_beam_search")
    if body.stop == "" or body.stop == []:
        body.stop = None
    if body.stream_options is not None and not body.stream:
        raise bad_request("stream_options is for streams: set stream to true, or leave it out", "stream_options")
    name_fields({name: field for field, name in _OTHERWISE.items() if getattr(body, field, None) is not None})
    found = {name: value for name in _AS_IS if (value := getattr(body, name)) is not None}
    if body.vllm_xargs:
        found["extra_args"] = body.vllm_xargs
    if body.structured_outputs is not None:
        found["structured_outputs"] = structured(body.structured_outputs)
    return found


def structured(given: StructuredOutputs) -> dict[str, Any]:
    """As ``StructuredOutputsParams`` takes it."""
    found = {name: value for name in given.__struct_fields__ if (value := getattr(given, name)) is not None}
    if found.get("json_object") is False:
        del found["json_object"]
    if isinstance(found.get("structural_tag"), dict):
        found["structural_tag"] = msgspec.json.encode(found["structural_tag"]).decode()
    return found


def sampling_params(context: ServerContext, fields: dict[str, Any], *, max_tokens: Any = ...) -> SamplingParams:
    """``fields`` on top of what the model's authors recommend. ``ApiError`` 400 names the field that is wrong.

    max_tokens   where neither the request nor the authors say one; None: all that fit
    """
    engine = context.engine
    given = dict(fields)
    if given.get("max_tokens") is None:
        given.pop("max_tokens", None)
        if max_tokens is not ... and "max_new_tokens" not in engine.generation_config:
            given["max_tokens"] = max_tokens
    try:
        SamplingParams(**given)  # a wrong value is named before a wrong pair of them
        return attrs.evolve(engine.get_default_sampling_params(), **given)
    except (ValueError, TypeError) as error:
        raise refusal(str(error)) from None
