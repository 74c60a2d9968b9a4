"""What was chosen to be made where steps run: named, and not yet imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from vllm_core.interfaces.proposer import Proposer
from vllm_core.plugin import load_target

__all__ = ["Chosen", "ProposerChoice"]


@attrs.frozen(kw_only=True)
class ProposerChoice:
    """The draft proposer that was chosen."""

    target: str
    num_drafts: int  # tokens a step
    config: Mapping[str, Any]

    def make(self) -> Proposer:
        return load_target(self.target)(self.num_drafts, self.config)


@attrs.frozen
class Chosen:
    """What is made once an engine from a query: the sampler, a logits processor."""

    name: str
    target: str
    query: Any
    capabilities: frozenset[str] = frozenset()

    def load(self) -> Any:
        return load_target(self.target)

    def make(self) -> Any:
        return self.load()(self.query)
