"""What a backend says about itself: it refuses what `cannot` lists, with a reason, and serves all else."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import ClassVar

from vllm_core.interfaces.queries import AttentionQuery
from vllm_core.testing.attention_asked import AskedBackend
from vllm_core.testing.attention_cases import FEATURES, make_query
from vllm_core.testing.plugin_module import assert_imports_light


class AttentionOffers:
    """Tests of the plugin's hook."""

    backend: ClassVar[str]
    tolerance: ClassVar[Mapping[str, float]]
    cannot: ClassVar[Mapping[str, str]]

    def test_what_cannot_does_not_list_is_offered(self, asked: AskedBackend, feature: str) -> None:
        answer = asked.answer(self._query(asked, feature))
        assert answer.offer is not None, (
            f'"{self.backend}" refuses {feature}: {answer.refusal}\n'
            f"  instead if that is right, cannot = {{{feature!r}: {answer.refusal!r}}}"
        )
        if feature == "lse":
            assert "lse" in answer.offer.capabilities, (
                'the offer lacks the capability "lse"\n'
                "  instead attend fills `lse` and the offer says so, or `cannot` gives the reason why not"
            )

    def test_what_cannot_lists_is_refused_with_a_reason(self, asked: AskedBackend, lacking: str) -> None:
        unknown = [name for name in lacking.split("+") if name not in FEATURES]
        if unknown:
            near = difflib.get_close_matches(unknown[0], FEATURES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(FEATURES)}"
            raise AssertionError(f"`cannot` lists {unknown[0]!r}, which no test asks for; {hint}")
        answer = asked.answer(self._query(asked, lacking))
        if "lse" in lacking.split("+"):
            assert answer.offer is None or "lse" not in answer.offer.capabilities, (
                f'`cannot` lists {lacking}, and the offer has the capability "lse": take it off the list'
            )
            return
        assert answer.offer is None, f'`cannot` lists {lacking}, and "{self.backend}" offers it: take it off the list'
        assert answer.refusal.strip(), f'"{self.backend}" refuses {lacking} and gives no reason'

    def test_the_plugin_module_imports_without_torch(self, asked: AskedBackend) -> None:
        assert_imports_light(asked.plugin.module)

    def _query(self, asked: AskedBackend, features: str) -> AttentionQuery:
        """A layer with these features (``a+b``) beside plain ones; later sizes go over earlier ones."""
        settings = dict(self.plain())  # type: ignore[attr-defined]
        for name in features.split("+"):
            settings |= FEATURES[name]
        return make_query(settings, asked.device)
