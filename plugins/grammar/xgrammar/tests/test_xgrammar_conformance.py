"""xgrammar under the core's kit."""

from __future__ import annotations

from vllm_core.testing import GrammarConformance


class TestXGrammar(GrammarConformance):
    backend = "xgrammar"
    narrower = {
        "texts of a few characters": "texts with a limited length have no escapes",
        "constants": "constants that are tables or lists have no white space",
    }
