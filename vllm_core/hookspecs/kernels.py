"""Fast implementations of the op table and of sequence mixers."""

from __future__ import annotations

from typing import Any

from vllm_core.hookspecs.marker import hookspec
from vllm_core.interfaces.queries import MixerQuery, OpQuery
from vllm_core.plugin import Offer, Refusal


@hookspec
def op_kernel(query: OpQuery, settings: Any) -> Offer | Refusal | None:
    """Offer an implementation of an op of ``vllm_core.ops``, or of a whole layer.

    When     Once per distinct op, dtype and fixed shape of a model, in the parent process.
    query    ``op`` the name in the op table (``"rms_norm"``) or, for a fused layer, in the
             list of layers (``"decoder_attention"``); ``shape`` the sizes that do not change
             from step to step, in elements; ``dtype``; ``device``. A plugin answers those
             names it knows and returns None for all others. ``batch_invariant``: only offers
             with the capability of that name will be taken; what is slower for its sake need
             be offered then only.
    Returns  ``Offer`` whose target is an ``interfaces.op.OpKernel``: called with the query
             when the layer is bound, it returns the callable that is used in every step, with
             the signature and the meaning of the op's plain reference; one of ``linear`` may
             pack weights (``interfaces.op.PackingKernel``). For a layer the target is an
             ``interfaces.op.FusedLayer``. ``capabilities``: ``"graph"``,
             ``"batch_invariant"``. ``Refusal`` for shapes it cannot do.
    Choice   The highest rank wins; within a rank ``prefer.op_kernel``, recorded figures for
             this device and shape class, then an error. The core offers the plain reference
             of every op with rank REFERENCE; of layers it composes the ops.
    Errors   An exception counts as ``Refusal``.
    Since    Hook API 1.
    """
    return None


@hookspec
def mixer_kernel(query: MixerQuery, settings: Any) -> Offer | Refusal | None:
    """Offer the kernel of a sequence mixer: a state-space model, linear attention, ...

    When     Once per distinct mixer and shape of a model, in the parent process.
    query    ``mixer`` the name its layer asks for (``"mamba2"``), ``shape`` the sizes on this
             rank in elements, ``dtype`` of activations, ``device``.
    Returns  ``Offer`` whose target has the contract ``interfaces.mixer.MixerKernel``: made
             from the query, called once a layer and step with the inputs of the mixer and its
             state pages. ``capabilities``: ``"graph"``, ``"batch_invariant"``,
             ``"rollback"`` (stores a state after each draft).
    Choice   The highest rank wins; within a rank ``prefer.mixer_kernel``, recorded figures,
             then an error.
    Errors   An exception counts as ``Refusal``. A mixer nobody offers ends the start.
    Since    Hook API 1.
    """
    return None
