"""What a collective's plugin says: which operations and dtypes are its own, and that it is light."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from vllm_core.testing.asked import Asked
from vllm_core.testing.plugin_module import assert_imports_light


class CollectiveOffers:
    """Tests of the plugin's hook."""

    collective: ClassVar[str]
    tolerance: ClassVar[Mapping[str, float]]
    cannot: ClassVar[Mapping[str, str]]
    query: Any

    def test_what_cannot_does_not_list_is_offered_and_all_else_refused(self, asked: Asked, world: int) -> None:
        for dtype in self.tolerance:
            answer = asked.answer(self.query(asked, world, dtype))
            if dtype in self.cannot:
                assert answer.offer is None, f"`cannot` lists {dtype}, and it is offered: take it off the list"
                assert answer.refusal.strip(), f"{dtype} is not refused with a reason, as `cannot` says"
            else:
                assert answer.offer is not None, (
                    f'"{self.collective}" does not offer {self.query(asked, world, dtype).op} of {dtype} over {world}'
                    f" ranks: {answer.refusal or 'None'}\n  instead if that is right, cannot = {{{dtype!r}: why}}"
                )
                assert answer.offer.name == self.collective, f"the offer is called {answer.offer.name}"

    def test_other_operations_are_left_to_others(self, asked: Asked) -> None:
        query = attrs.evolve(self.query(asked, 2, next(iter(self.tolerance))), op="no_such_operation")
        assert asked.answer(query).offer is None, f'"{self.collective}" offers an operation that nobody knows'

    def test_the_plugin_module_imports_without_torch(self, asked: Asked) -> None:
        assert_imports_light(asked.module)
