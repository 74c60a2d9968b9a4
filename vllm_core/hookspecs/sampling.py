"""What happens to logits and hidden states: drafts, sampling, grammars, pooling."""

from __future__ import annotations

from typing import Any

from vllm_core.hookspecs.marker import hookspec
from vllm_core.interfaces.queries import (
    GrammarQuery,
    LogitsProcessorQuery,
    PoolerQuery,
    ProposerQuery,
    SamplerQuery,
)
from vllm_core.plugin import Offer, Refusal


@hookspec
def draft_proposer(query: ProposerQuery, settings: Any) -> Offer | Refusal | None:
    """Offer to guess the next tokens, which the following step verifies.

    When     Once per engine with a ``speculative_config``, in the parent process.
    query    ``method`` as the user wrote it; ``num_drafts`` guesses a step; ``architecture``
             of the target model; ``config`` the other keys of ``speculative_config``, none of
             which may be ignored; ``device``.
    Returns  ``Offer`` whose target has the contract ``interfaces.proposer.Proposer``, or with
             caches of its own ``FollowingProposer``: it works on the device and never waits
             for it. Its ``config`` is the offer's ``options``
             with the user's keys over them. ``Refusal`` naming the key or the model it
             cannot do; ``None`` for other methods.
    Choice   The method is always named by the user, so its plugin must offer; two plugins with
             the same method: ``prefer.draft_proposer``, then an error naming both.
    Errors   An exception is raised with the plugin's name and version, and ends the start.
    Since    Hook API 1.
    """
    return None


@hookspec
def sampler(query: SamplerQuery, settings: Any) -> Offer | Refusal | None:
    """Offer to draw tokens from logits on the device.

    When     Once per engine, in the parent process.
    query    ``vocab_size`` in tokens, ``device``; ``batch_invariant``: only offers with the
             capability of that name will be taken. What the target is made from has the
             offer's ``options`` as well.
    Returns  ``Offer`` whose target has the contract ``interfaces.sampler.Sampler``: a function
             of logits, parameters and noise, without state, without synchronisation.
             ``capabilities``: ``"batch_invariant"`` if a line's token is the same bit for bit
             whatever other lines there are.
    Choice   One that the user named (``--sampler``) must offer. Else the highest rank wins; within a
             rank ``prefer.sampler``, recorded figures, then an error. The core offers its own with
             rank REFERENCE, and it goes before others of that rank: a sampler that draws otherwise
             than ``interfaces.sampler`` says has it, and works for those who name it.
    Errors   An exception counts as ``Refusal``, unless the sampler was named.
    Since    Hook API 1.
    """
    return None


@hookspec
def logits_processor(query: LogitsProcessorQuery, settings: Any) -> Offer | Refusal | None:
    """Offer a change to logits before tokens are drawn.

    When     Once per engine and name, for each name in the setting ``logits_processors``, in the
             parent process.
    query    ``name`` as the user wrote it, ``vocab_size`` in tokens, ``max_rows`` requests at
             a time, ``device``. What the target is made from has the offer's ``options`` as well.
    Returns  ``Offer`` whose target has the contract
             ``interfaces.logits_processor.LogitsProcessor``. ``Refusal`` with the reason;
             ``None`` for other names.
    Choice   By name. Two plugins with the same name: ``prefer.logits_processor``, then an
             error naming both. Several names apply in the order the user gave.
    Errors   An exception is raised with the plugin's name and version, and ends the start.
             An exception while a request is prepared, or inside a step, ends the requests
             that it is raised over, by the processor's name.
    Since    Hook API 1.
    """
    return None


@hookspec
def grammar_backend(query: GrammarQuery, settings: Any) -> Offer | Refusal | None:
    """Offer to restrict outputs to a schema, a regular expression or a grammar.

    When     Once per engine and kind, in the parent process. The target is imported when the
             first request comes that needs it.
    query    ``kind``: ``"json_schema"``, ``"json_object"``, ``"regex"``, ``"choice"``,
             ``"ebnf"``, ``"structural_tag"``; ``vocab_size`` in tokens.
    Returns  ``Offer`` whose target has the contract ``interfaces.grammar.GrammarBackend``: it
             compiles a specification (off the engine's loop, in limited time) to grammars that
             fill bit masks. ``Refusal`` for kinds it cannot do; ``None`` is the same without a
             reason.
    Choice   A backend that the user named (``backend`` in ``structured_outputs_config``) must
             offer some kind, and nobody else is asked to compile. Else the highest rank, then
             ``prefer.grammar_backend``; if these tell nothing apart, requests of that kind are
             refused naming the setting that decides. A specification the winner refuses goes to
             the next offer, unless ``disable_fallback`` was set.
    Errors   An exception counts as ``Refusal``. One while compiling, or in a step, belongs to
             that request.
    Since    Hook API 1.
    """
    return None


@hookspec
def pooler(query: PoolerQuery, settings: Any) -> Offer | Refusal | None:
    """Offer to turn hidden states into an embedding, classes or a score.

    When     Once per engine and task of a model that pools, in the parent process.
    query    ``task``: ``"embed"``, ``"classify"``, ``"score"``, ``"reward"``, ...;
             ``architectures`` and ``config`` as in config.json.
    Returns  ``Offer`` whose target has the contract ``interfaces.pooler.Pooler``. ``Refusal``
             when this model cannot do the task; ``None`` for other tasks.
    Choice   The plugin that serves the model goes before all others; then the highest rank,
             ``prefer.pooler``, and an error.
    Errors   An exception counts as ``Refusal``. A task nobody offers refuses its requests.
    Since    Hook API 1.
    """
    return None
