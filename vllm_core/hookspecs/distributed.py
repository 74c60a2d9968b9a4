"""Communication: between ranks, and of cache pages between engines."""

from __future__ import annotations

from typing import Any

from vllm_core.hookspecs.marker import hookspec
from vllm_core.interfaces.queries import AllToAllQuery, CollectiveQuery, ConnectorQuery
from vllm_core.plugin import Offer, Refusal


@hookspec
def collective(query: CollectiveQuery, settings: Any) -> Offer | Refusal | None:
    """Offer a collective operation of a process group.

    When     Once per engine and operation of its tensor-parallel group, if that has more than
             one rank, in the parent process; all ranks use the same choice.
    query    ``op``: ``"all_reduce"`` or ``"all_gather"``, others may follow; ``group``:
             ``"tp"``; ``world_size`` of the group; ``dtype`` of the model; ``device``.
    Returns  ``Offer`` whose target has the contract ``interfaces.collective.Collective``, and
             whose ``options`` go to its constructor. Tensors that it does not take go to the
             next offer. ``capabilities``: ``"graph"``, ``"batch_invariant"``. ``Refusal`` for sizes or
             links it cannot do; ``None`` for other operations.
    Choice   By rank, then ``prefer.collective``, recorded figures, then an error. All offers
             are kept in that order, for the sizes that the first does not take. The core
             offers torch.distributed with rank REFERENCE.
    Errors   An exception counts as ``Refusal``.
    Since    Hook API 1.
    """
    return None


@hookspec
def all_to_all(query: AllToAllQuery, settings: Any) -> Offer | Refusal | None:
    """Offer to bring tokens to the ranks of their experts and back.

    When     Once per engine with expert parallelism, in the parent process.
    query    ``world_size`` ranks of the expert group, ``num_experts`` over all of them,
             ``top_k`` per token, ``hidden`` in elements, ``max_tokens`` a rank and step,
             ``dtype``, ``device``.
    Returns  ``Offer`` whose target has the contract ``interfaces.all_to_all.Dispatcher``;
             ``gives={"moe.activation": ("tokens",) or ("batched",)}``: the order in which
             tokens reach the kernel. ``Refusal`` for links it cannot do.
    Choice   With ``expert_kernel``, as a set that agrees on the order; within a rank
             ``prefer.all_to_all``, recorded figures, then an error.
    Errors   An exception counts as ``Refusal``.
    Since    Hook API 1.
    """
    return None


@hookspec
def kv_connector(query: ConnectorQuery, settings: Any) -> Offer | Refusal | None:
    """Offer to load cache pages from, and store them to, a place outside the engine.

    When     Once per engine with a connector in its settings, in the parent process.
    query    ``name`` the user asked for; ``role``: ``"producer"``, ``"consumer"`` or
             ``"both"``; ``config`` the connector's other keys, none of which may be ignored.
    Returns  ``Offer`` whose target has the contract ``interfaces.connector.Connector``: one half
             beside the scheduler, one on each worker, both at the granularity of blocks.
             ``takes={"kv.page_layout": (...)}`` if it reads pages in some layouts only.
    Choice   The connector is always named, so its plugin must offer; two with the same name:
             ``prefer.kv_connector``, then an error naming both.
    Errors   An exception is raised with the plugin's name and version, and ends the start.
             A failed transfer is recomputed, or fails its request, as the settings say.
    Since    Hook API 1.
    """
    return None
