"""The contracts of mixture-of-experts layers: routers and kernels.

Letters: T tokens, E experts of the layer, E' of them on this rank, k experts a token,
H hidden size, I intermediate size, M room for tokens of one expert.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import attrs

from vllm_core.interfaces.queries import ExpertsQuery, RouterQuery

if TYPE_CHECKING:
    from torch import Tensor


@attrs.frozen
class Routed:
    """Who computes each token, and what the results count."""

    ids: Tensor  # int32 [T, k], numbers of experts of the layer
    weights: Tensor  # float32 [T, k]


class Router(Protocol):
    """Made once a layer. Load is counted by the layer, from the ids."""

    def __init__(self, query: RouterQuery) -> None: ...

    def __call__(self, logits: Tensor, bias: Tensor | None = None) -> Routed:
        """Choose ``top_k`` of E experts for each token.

        logits   [T, E], as the gate gives them.
        bias     float32 [E], added for the choice only, not for the weights; None without.
        """


@attrs.frozen(kw_only=True)
class ExpertWeights:
    """The matrices of this rank's experts, in the layout that ``format`` names.

    ``"dense"``: gate_up [E', 2 I, H], gate first, and down [E', H, I]. Other formats belong to
    quantization methods, which document them; a kernel's offer lists those it takes in the
    slot ``"moe.weights"``.
    """

    format: str
    gate_up: Tensor
    down: Tensor
    extra: Mapping[str, Tensor] = attrs.field(factory=dict)  # scales, zero points, biases


class ExpertKernel(Protocol):
    """Made once a layer: ``activation`` is the order of tokens, ``"tokens"`` or ``"batched"``."""

    def __init__(self, query: ExpertsQuery, activation: str, act: str) -> None:
        """``act`` names the activation between the matrices ("silu", "gelu")."""

    def prepare(self, weights: ExpertWeights) -> ExpertWeights:
        """Repack after loading; on a second call at the same addresses."""

    def tokens(self, x: Tensor, routed: Routed, weights: ExpertWeights) -> Tensor:
        """x [T, H] -> [T, H]: the weighted sum over the experts that are on this rank.

        ``routed.ids`` are numbers of this rank's experts here; -1 is another rank's, adding 0.
        """

    def batched(self, x: Tensor, counts: Tensor, weights: ExpertWeights) -> Tensor:
        """x [E', M, H] -> [E', M, H], unweighted; ``counts`` int32 [E'] rows are valid of each.

        The rest of the result is undefined.
        """
