"""Mixture of experts: who is asked, and who computes. How tokens travel is ``all_to_all``."""

from __future__ import annotations

from typing import Any

from vllm_core.hookspecs.marker import hookspec
from vllm_core.interfaces.queries import ExpertsQuery, RouterQuery
from vllm_core.plugin import Offer, Refusal


@hookspec
def moe_router(query: RouterQuery, settings: Any) -> Offer | Refusal | None:
    """Offer the rule by which tokens choose experts.

    When     Once per distinct router of a model, in the parent process.
    query    ``router``: the rule's name as the model's file gives it (``"softmax"``,
             ``"grouped_sigmoid"``); ``num_experts`` of the layer over all ranks, ``top_k``
             chosen per token, ``params`` the rule's numbers (groups, renormalization, scale),
             ``device``.
    Returns  ``Offer`` whose target has the contract ``interfaces.experts.Router``: made from
             the query, called with router logits [T, E]; ``Refusal`` naming the parameter it
             cannot do; ``None`` for other rules.
    Choice   The highest rank wins; within a rank ``prefer.moe_router``, recorded figures, then
             an error.
    Errors   An exception counts as ``Refusal``. A rule nobody offers ends the start.
    Since    Hook API 1.
    """
    return None


@hookspec
def expert_kernel(query: ExpertsQuery, settings: Any) -> Offer | Refusal | None:
    """Offer to compute the experts' feed-forward networks.

    When     Once per distinct shape of experts of a model, in the parent process.
    query    ``num_experts`` on this rank, ``top_k`` per token, ``hidden`` and ``intermediate``
             in elements, ``quantization`` the method's name or "", ``router``, ``dtype`` of
             activations, ``device``.
    Returns  ``Offer`` whose target has the contract ``interfaces.experts.ExpertKernel``.
             ``takes={"moe.activation": ("tokens",) or ("batched",), "moe.weights": (...)}``:
             the order in which tokens arrive and the layouts of the matrices it multiplies.
             ``Refusal`` for shapes it cannot do; ``None`` when not meant for this plugin.
    Choice   The set of router, dispatch, kernel and quantization that agree on the formats,
             with the highest ranks; within a rank ``prefer.expert_kernel``, recorded figures,
             then an error.
    Errors   An exception counts as ``Refusal``. A refusal may name the partner it lacks.
    Since    Hook API 1.
    """
    return None
