"""Parsers of generated text: tool calls and reasoning."""

from __future__ import annotations

from typing import Any

from vllm_core.hookspecs.marker import hookspec
from vllm_core.interfaces.queries import ParserQuery
from vllm_core.plugin import Offer, Refusal


@hookspec
def tool_parser(query: ParserQuery, settings: Any) -> Offer | Refusal | None:
    """Offer to read tool calls out of a model's text.

    When     Once per server or ``LLM`` with tools, in the process that renders prompts; the
             target is made anew for each request.
    query    ``name`` the user asked for, or "" to choose by the model; ``architectures`` and
             ``chat_template`` (its text) of the model.
    Returns  ``Offer`` whose name is the parser's and whose target has the contract
             ``interfaces.tool_parser.ToolParser``: whole and streamed text give the same
             calls at every cut. The offer's ``options`` are its further keyword arguments. With
             ``name`` "" offer only if the template or architecture leaves no doubt; else ``None``.
    Choice   A named parser must be offered. Else the highest rank, ``prefer.tool_parser``,
             then an error that lists the names. The core offers ``none`` at the lowest rank.
    Errors   An exception counts as ``Refusal``, unless the parser was named. An exception
             while parsing belongs to that request; its text is then given unparsed.
    Since    Hook API 1.
    """
    return None


@hookspec
def reasoning_parser(query: ParserQuery, settings: Any) -> Offer | Refusal | None:
    """Offer to separate a model's reasoning from its answer.

    When     Once per server or ``LLM``, in the process that renders prompts, if a parser was
             named or is chosen by the model; the target is made anew for each request.
    query    ``name`` the user asked for, or "" to choose by the model; ``architectures`` and
             ``chat_template`` (its text) of the model.
    Returns  ``Offer`` whose name is the parser's and whose target has the contract
             ``interfaces.reasoning_parser.ReasoningParser``. The offer's ``options`` are its
             further keyword arguments. With ``name`` "" offer only if the template or
             architecture leaves no doubt; else ``None``.
    Choice   A named parser must be offered. Else the highest rank, ``prefer.reasoning_parser``,
             then an error that lists the names. The core offers ``none`` at the lowest rank.
    Errors   An exception counts as ``Refusal``, unless the parser was named. An exception
             while parsing belongs to that request; its text is then given unparsed.
    Since    Hook API 1.
    """
    return None
