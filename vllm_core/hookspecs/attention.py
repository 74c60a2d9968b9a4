"""Attention over paged caches, the layout of their pages, and rotary embeddings."""

from __future__ import annotations

from typing import Any

from vllm_core.hookspecs.marker import hookspec
from vllm_core.interfaces.queries import AttentionQuery, CacheLayoutQuery, RopeQuery
from vllm_core.plugin import Offer, Refusal


@hookspec
def attention_backend(query: AttentionQuery, settings: Any) -> Offer | Refusal | None:
    """Offer a paged-attention backend for one group of caches, or say why not.

    When     Once per distinct cache group (kind, head sizes of K and V, window, causality,
             dtype) of an engine, in the parent process, before any weight is read. Never per
             step: the winner is bound as a callable.
    query    Immutable. ``kind`` of the caches; ``k_dim``, ``v_dim`` in elements; ``num_heads``
             and ``num_kv_heads`` of one rank; ``window`` in tokens or None; ``causal``;
             ``soft_cap`` of the scores or None; ``sinks``: whether heads have one; ``dtype``
             of queries, ``kv_dtype`` of the cache, such as ``"float8_e4m3fn"``; ``device``;
             ``batch_invariant``: only offers with the capability of that name will be taken.
             No block size: the offer lists those it supports.
    Returns  ``Offer`` whose target has the contract ``interfaces.attention.AttentionBackend``.
             ``takes={"kv.page_layout": ("NHD", ...)}`` lists page layouts, best first, and
             ``options={"block_sizes": (16, 32)}`` the tokens a page may hold, best first (no
             such key: any); the target finds all options in ``AttentionConfig.options``.
             ``capabilities``: ``"lse"`` (fills ``attend(lse=)``), ``"graph"``
             (safe in a captured graph), ``"device_metadata"`` (made without host values),
             ``"batch_invariant"``, ``"tree"`` (several drafts a position).
             ``Refusal(reason)`` when the backend exists but cannot serve this query; ``None``
             when the question is not for this plugin.
    Choice   Every implementation is asked. A backend named by the user must offer or startup
             fails with its reason. Otherwise the highest rank (REFERENCE < PORTABLE < TUNED)
             wins, among sets that agree on a layout; within a rank the user's ``prefer``
             list, then recorded figures, then (at REFERENCE) the core's own, then an error
             naming both and the line that decides.
    Errors   An exception counts as ``Refusal``, unless the user named the plugin: then it is
             raised, with the plugin's name and version.
    Since    Hook API 1. Arguments may be added; implementations name only those they use.
    """
    return None


@hookspec
def kv_cache_layout(query: CacheLayoutQuery, settings: Any) -> Offer | Refusal | None:
    """Offer the views and the size of cache pages in a layout the core does not know.

    When     Once per cache group whose attention backend takes a layout other than "NHD" and
             "HND", in the parent process, before memory is planned.
    query    ``kind`` of the cache, ``layout`` the name an attention offer takes, ``dtype``
             of the entries, ``device``.
    Returns  ``Offer`` whose target has the contract ``interfaces.cache_layout.CacheLayout``:
             bytes of a page, and views on raw pages. ``gives={"kv.page_layout": (layout,)}``.
             ``Refusal`` when the layout is this plugin's and the dtype or device rules it
             out; ``None`` for other layouts.
    Choice   The highest rank wins; within a rank ``prefer.kv_cache_layout``, then an error. An
             attention offer whose layout nobody gives drops out.
    Errors   An exception counts as ``Refusal``.
    Since    Hook API 1.
    """
    return None


@hookspec
def rope_variant(query: RopeQuery, settings: Any) -> Offer | Refusal | None:
    """Offer the table of a rotary position embedding.

    When     Once per distinct set of rope parameters of a model, in the parent process.
    query    ``rope_type`` and ``params`` as in config.json "rope_parameters"; ``head_dim`` in
             elements; ``max_position``: positions run below it; ``max_model_len``: tokens of
             the longest sequence, a little less, as drafts need room beyond it.
    Returns  ``Offer`` whose target is an ``interfaces.rope.RopeVariant``, a function that
             makes the table of cosines and sines: its ``params`` are the query's with the
             offer's ``options`` over them; ``Refusal`` naming the field of ``params`` that is
             missing or wrong; ``None`` for other types.
    Choice   The highest rank wins; within a rank ``prefer.rope_variant``, then an error.
    Errors   An exception counts as ``Refusal``. A type nobody offers ends the start.
    Since    Hook API 1.
    """
    return None
