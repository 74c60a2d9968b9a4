"""What a plugin says about its kernels: it offers what the test claims, and refuses all else with a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs
import pytest

from vllm_core.interfaces.queries import OpQuery
from vllm_core.ops import LAYER_OPS, OPS
from vllm_core.plugin import Offer, load_target
from vllm_core.testing.asked import Asked
from vllm_core.testing.kernel_case import DTYPES, OpCase
from vllm_core.testing.plugin_module import assert_imports_light


class KernelOffers:
    """Tests of the plugin's hook."""

    kernel: ClassVar[str]
    ops: ClassVar[Sequence[str]]
    elsewhere: ClassVar[Mapping[str, str]]
    cannot: ClassVar[Mapping[str, str]]
    cases: Any
    refused: Any
    query: Any

    def test_what_is_claimed_is_offered(self, asked: Asked, case: tuple[OpCase, str]) -> None:
        offer: Offer = asked.offer(self.query(asked, *case))
        assert offer.name == self.kernel, f"the offer is called {offer.name}, not {self.kernel}"
        assert callable(load_target(offer.target))

    def test_what_cannot_lists_is_refused_with_a_reason(self, asked: Asked, lacking: str) -> None:
        all_cases = [(c, d) for c, d in self._every_case() if self.refused(c, d) == lacking]
        if not all_cases:
            names = sorted({*DTYPES, *(c.op for c, _ in self.cases()), *(c.name for c, _ in self.cases())})
            pytest.skip(f"{lacking!r} is none of the kit's cases, which are {', '.join(names)}: it is printed only")
        for case, dtype in all_cases:
            answer = asked.answer(self.query(asked, case, dtype))
            assert answer.offer is None, f"`cannot` lists {lacking}, and {case} of {dtype} is offered: take it off"
            assert answer.refusal.strip(), f"{case} of {dtype} is not refused with a reason, as `cannot` says"

    def test_ops_that_are_not_its_own_are_left_to_others(self, asked: Asked) -> None:
        """An op that is offered and not tested could be anything."""
        known = {*self.ops, *self.elsewhere, *(name for name in self.cannot if name in OPS)}
        shapes: dict[str, Mapping[str, Any]] = {c.op: c.shape for c, _ in self._every_case(every_op=True)}
        for op in [*OPS, "no_such_op"]:
            if op in known:
                continue
            query = OpQuery(op=op, dtype="float32", device=asked.device, shape=shapes.get(op, {}))
            assert asked.answer(query).offer is None, (
                f'"{self.kernel}" offers {op}, which no test covers: add it to `ops`, or to `elsewhere` with the place'
            )
        empty = [name for name, place in self.elsewhere.items() if not place.strip()]
        assert not empty, f"`elsewhere` does not say where {', '.join(empty)} is tested"
        unknown = [name for name in self.elsewhere if name not in OPS and name not in LAYER_OPS]
        assert not unknown, f"`elsewhere` names {', '.join(unknown)}, which is no op"

    def test_a_dtype_that_no_kernel_knows_is_not_offered(self, asked: Asked) -> None:
        """A plugin that offers whatever it is asked for fails when the engine runs."""
        for op in self.ops:
            cases = [(c, d) for c, d in self.cases() if c.op == op]
            assert cases, f"{op} has no case of the dtypes in `tolerance`"
            case, dtype = cases[0]
            if not case.typed:
                continue
            answer = asked.answer(attrs.evolve(self.query(asked, case, dtype), dtype="complex64"))
            assert answer.offer is None, f"{op} is offered for complex64, which no layer has"

    def test_the_plugin_module_imports_without_torch(self, asked: Asked) -> None:
        assert_imports_light(asked.module)

    def _every_case(self, every_op: bool = False) -> list[tuple[OpCase, str]]:
        """Of the ops that are tested (or of all), in every dtype that layers ask for."""
        from vllm_core.testing.kernel import all_cases

        return [(c, d) for c in all_cases() if every_op or c.op in self.ops for d in c.dtypes]
