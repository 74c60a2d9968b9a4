"""The surface of a model: what the runner calls and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from vllm_core.interfaces.batch import Batch
    from vllm_core.interfaces.plan import Plan
    from vllm_core.weights.rules import Rule


class Model(Protocol):
    """Constructed from its config on the meta device, bound to a plan, then filled with weights."""

    weights: list[Rule]  # checkpoint names -> parameters
    vocab_size: int

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Model:
        """Read the fields of config.json that this architecture uses; ``ValueError`` names a bad one."""

    def bind(self, plan: Plan, path: str = "") -> None:
        """Make parameters and bind every layer."""

    def embed(self, ids: Tensor, batch: Batch) -> Tensor:
        """ids int64 [T] -> [T, hidden]."""

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """[T, hidden] -> [T, hidden], final norm included. Never synchronises with the host.

        On a pipeline stage behind the first ``x`` is what the stage before returned, and stages before the
        last return it without the norm. There ``logits`` is not called.
        """

    def logits(self, hidden: Tensor) -> Tensor:
        """[N, hidden] -> [N, vocab_size]."""
