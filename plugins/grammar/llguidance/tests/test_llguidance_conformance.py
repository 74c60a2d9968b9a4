"""llguidance under the core's kit."""

from __future__ import annotations

from vllm_core.testing import GrammarConformance


class TestLLGuidance(GrammarConformance):
    backend = "llguidance"
