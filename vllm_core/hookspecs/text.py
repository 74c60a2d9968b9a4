"""Text to tokens: tokenizers and chat templates."""

from __future__ import annotations

from typing import Any

from vllm_core.hookspecs.marker import hookspec
from vllm_core.interfaces.queries import ChatQuery, TokenizerQuery
from vllm_core.plugin import Offer, Refusal


@hookspec
def tokenizer(query: TokenizerQuery, settings: Any) -> Offer | Refusal | None:
    """Offer to make the tokenizer of a model.

    When     Once per engine that has a tokenizer, in the process that renders prompts.
    query    ``mode``: ``"auto"``, or the name the user gave; ``path`` of the folder with its
             files ("" if they come out of the checkpoint); ``files`` in it, sorted;
             ``architectures`` of the model.
    Returns  ``Offer`` whose target has the contract ``interfaces.tokenizer.TokenizerFactory``:
             called with the ``TokenizerFiles``, it returns an
             ``interfaces.tokenizer.Tokenizer``. With mode "auto" offer only for files that no
             one else reads well; ``None`` otherwise.
    Choice   A named mode must be offered. Else the highest rank, ``prefer.tokenizer``, then an
             error. The core offers transformers' tokenizers with rank PORTABLE.
    Errors   An exception counts as ``Refusal``, unless the mode was named.
    Since    Hook API 1.
    """
    return None


@hookspec
def chat_renderer(query: ChatQuery, settings: Any) -> Offer | Refusal | None:
    """Offer to turn a list of messages into a prompt.

    When     Once per engine that answers chats, in the process that renders prompts.
    query    ``mode``: ``"auto"``, or the name the user gave; ``architectures`` of the model;
             ``template`` the chat template, the user's before the model's, "" if there is none.
    Returns  ``Offer`` whose target has the contract ``interfaces.tokenizer.RendererFactory``:
             called with the tokenizer, it returns an ``interfaces.tokenizer.ChatRenderer``. With
             mode "auto" offer only for models whose template cannot do it; else ``None``.
    Choice   A named mode must be offered. Else the highest rank, ``prefer.chat_renderer``, then
             an error. The core offers Jinja templates with rank PORTABLE, and is taken where the
             user gave a template.
    Errors   An exception counts as ``Refusal``, unless the mode was named. What the renderer
             raises belongs to the request.
    Since    Hook API 1.
    """
    return None
