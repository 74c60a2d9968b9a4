"""What users pass as prompts, brought into one form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from vllm_core.engine.errors import RequestError, nearest
from vllm_core.interfaces.tokenizer import ChatRenderer, Tokenizer

__all__ = ["Prompt", "as_list", "not_text", "read_chat", "read_prompt", "render_chat"]

KEYS = ("prompt", "prompt_token_ids", "cache_salt")
NOT_YET = ("multi_modal_data", "multi_modal_uuids", "mm_processor_kwargs", "prompt_embeds", "encoder_prompt",
           "decoder_prompt", "token_type_ids")  # fmt: skip

NOT_FOR_CHAT = {
    "mm_processor_kwargs": "images, audio and video are not supported yet",
    "tokenization_kwargs": "a chat template writes the special tokens itself; truncate with SamplingParams",
}
"""Arguments of vLLM's chat that only None is granted to."""


@attrs.frozen
class Prompt:
    text: str | None
    token_ids: list[int]
    cache_salt: str = ""  # cached prefixes are shared among prompts with the same one only


def as_list(prompts: Any) -> list[Any]:
    """One prompt or several, as several. A list of numbers is one prompt."""
    if isinstance(prompts, str | Mapping):
        return [prompts]
    if not isinstance(prompts, Sequence) or isinstance(prompts, bytes | bytearray | memoryview):
        raise TypeError(
            "prompts must be text, {'prompt': text}, {'prompt_token_ids': [...]} or a list of these, "
            f"not {type(prompts).__name__}"
        )
    return [prompts] if prompts and all(type(p) is int for p in prompts) else list(prompts)


def read_prompt(prompt: Any, tokenizer: Tokenizer | None, request_id: str, add_special_tokens: bool = True) -> Prompt:
    """Raises ``RequestError`` for what is no prompt. Ids are checked by the engine."""
    salt: Any = ""
    if isinstance(prompt, Mapping):
        for key in prompt:
            if key in NOT_YET:
                raise RequestError(f"{key!r} in a prompt is not supported yet", request_id)
            if key not in KEYS:
                raise RequestError(f"a prompt has no field {key!r}{nearest(str(key), KEYS)}", request_id)
        text, ids, salt = prompt.get("prompt"), prompt.get("prompt_token_ids"), prompt.get("cache_salt")
        salt = "" if salt is None else salt
    elif isinstance(prompt, str):
        text, ids = prompt, None
    else:
        text, ids = None, prompt
    if text is not None and not isinstance(text, str):
        raise RequestError(f"a prompt's text must be a string, not {text!r:.80}", request_id)
    if ids is not None:
        return Prompt(text, ids, salt)
    if text is None:
        raise RequestError("the prompt has neither text nor token ids", request_id)
    if tokenizer is None:
        raise RequestError(
            "skip_tokenizer_init leaves no tokenizer: pass {'prompt_token_ids': [...]} instead of text", request_id
        )
    try:
        return Prompt(text, tokenizer.encode(text, add_special_tokens=add_special_tokens), salt)
    except Exception as error:  # whatever it is, it is about this prompt
        raise RequestError(f"the prompt cannot be tokenized: {not_text(text) or error}", request_id) from error


def render_chat(messages: Any, renderer: ChatRenderer | None, options: Mapping[str, Any]) -> str:
    """The text of a conversation. ``ValueError`` for what the template refuses."""
    if renderer is None:
        raise ValueError("skip_tokenizer_init leaves no chat template: render and tokenize elsewhere")
    given = dict(options)
    for name, why in NOT_FOR_CHAT.items():
        if given.pop(name, None):
            raise ValueError(f"{name}: {why}")
    given.pop("tool_choice", None)  # no template's business: see ``tool_choice``
    more = given.pop("chat_template_kwargs", None) or {}
    return renderer.render(messages, **given, **more)


def read_chat(
    messages: Any,
    tokenizer: Tokenizer | None,
    renderer: ChatRenderer | None,
    request_id: str,
    options: Mapping[str, Any],
) -> Prompt:
    """As ``read_prompt``, of a conversation."""
    try:
        text = render_chat(messages, renderer, options)
    except ValueError as error:
        raise RequestError(str(error), request_id) from error
    # The template has written the special tokens already.
    return read_prompt(text, tokenizer, request_id, add_special_tokens=False)


def not_text(text: str) -> str:
    """What is wrong with a string that no encoding can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"character {error.start} is half of a surrogate pair ({text[error.start]!r})"
    return ""
