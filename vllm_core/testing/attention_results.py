"""What a backend answers: every case against float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from vllm_core.testing.attention_asked import AskedBackend, layouts_of
from vllm_core.testing.attention_cases import BATCHES, AttentionCase, make_query
from vllm_core.testing.attention_trial import Trial

SMALL_PAGES = (1, 4, 24, 48)  # tried where a backend takes pages of any size
LARGEST_PAGE = 256  # tokens, of those that are tried


class AttentionResults:
    """Pages are scattered and hold NaN wherever nothing was written; bounds lie above lengths."""

    tolerance: ClassVar[Mapping[str, float]]

    def test_it_agrees_with_float64(self, asked: AskedBackend, case: AttentionCase) -> None:
        trial = Trial(asked, case.query(asked.device), stale=case.stale)
        trial.play(trial.batch(BATCHES[case.batch]), str(case), self._tolerance(case.settings))

    def test_log_sum_exp_agrees_with_float64(self, asked: AskedBackend, lse_case: AttentionCase) -> None:
        trial = Trial(asked, lse_case.query(asked.device), stale=lse_case.stale)
        assert trial.lse, (
            f'the offer for {lse_case.name} lacks the capability "lse": attend fills `lse`, or `cannot` says why not'
        )
        trial.play(trial.batch(BATCHES[lse_case.batch]), str(lse_case), self._tolerance(lse_case.settings), lse=True)

    @pytest.mark.parametrize("window", [None, 20])
    def test_one_backend_serves_step_after_step(self, asked: AskedBackend, window: int | None) -> None:
        """Rows join and leave, others take their pages, windows pass: no step shows in a later one."""
        settings = {**self.plain(), "window": window}  # type: ignore[attr-defined]
        if self.refused(settings):  # type: ignore[attr-defined]
            settings = {**settings, "window": None}
        trial = Trial(asked, make_query(settings, asked.device))
        tolerance = self._tolerance(settings)
        a, b, c, d = (trial.sequence() for _ in range(4))
        steps = [[(a, 40), (b, 7)], [(a, 1), (b, 30), (c, 64)], [(b, 1), (a, 1), (c, 5)], [(c, 1), (a, 3)]]
        for number, work in enumerate(steps):
            trial.play(work, f"step {number}", tolerance)
        trial.finish(b)
        for number, work in enumerate([[(d, 90), (a, 1)], [(c, 1), (d, 1), (a, 1)], [(d, 2)], []]):
            trial.play(work, f"step {4 + number}", tolerance)

    def test_every_page_layout_it_takes_agrees(self, asked: AskedBackend) -> None:
        query = make_query(self.plain(), asked.device)  # type: ignore[attr-defined]
        for layout in layouts_of(asked.offer(query)):
            trial = Trial(asked, query, layout=layout)
            trial.play(trial.batch(BATCHES["all at once"]), f"pages in layout {layout}", self._tolerance(self.plain()))  # type: ignore[attr-defined]

    def test_every_page_size_it_takes_agrees(self, asked: AskedBackend) -> None:
        """And with a window, which begins inside a page and gives up those before it."""
        for window in (None, 20):
            settings = {**self.plain(), "window": window}  # type: ignore[attr-defined]
            if self.refused(settings):  # type: ignore[attr-defined]
                continue
            query = make_query(settings, asked.device)
            sizes = asked.offer(query).options.get("block_sizes") or SMALL_PAGES
            for size in [s for s in sizes if s <= LARGEST_PAGE] or sizes[:1]:
                trial = Trial(asked, query, block_size=size)
                what = f"pages of {size} tokens{'' if window is None else ', a window'}"
                trial.play(trial.batch(BATCHES["all at once"]), what, self._tolerance(settings))

    @pytest.mark.parametrize("rows", [[], [(0, 0), (9, 0)]], ids=["no rows", "idle rows"])
    def test_a_step_without_tokens_gives_nothing(self, asked: AskedBackend, rows: Any) -> None:
        trial = Trial(asked, make_query(self.plain(), asked.device))  # type: ignore[attr-defined]
        trial.play(trial.batch(rows), "a step without tokens", 0.0)

    def _tolerance(self, settings: Mapping[str, object]) -> float:
        return self.tolerance[str(settings["dtype"])]
