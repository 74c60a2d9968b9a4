"""What a backend's offer declares is so: results that do not depend on the batch, and steps that a graph runs again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs
import pytest
import torch

from vllm_core.interfaces.attention import AttentionStep
from vllm_core.testing.attention_asked import AskedBackend
from vllm_core.testing.attention_cases import BATCHES, make_query
from vllm_core.testing.attention_trial import Layer, Trial, agree

Lengths = Sequence[tuple[int, int]]  # (tokens cached before, query tokens) of each sequence

STATIC: Mapping[str, tuple[Lengths, Lengths]] = {
    "decoding": ([(200, 1), (20, 1), (0, 1), (7, 1)], [(3, 1), (120, 1), (64, 1), (63, 1)]),
    "mixed": ([(200, 1), (20, 40), (0, 7), (0, 0)], [(3, 1), (0, 1), (100, 46), (0, 0)]),
    "drafts": ([(30, 4), (20, 4), (90, 4)], [(3, 4), (120, 4), (60, 4)]),
}
"""Name -> a step, and one of other lengths and as many tokens that takes its place in the same tensors."""

WIDTH = 256  # tokens that a sequence of a static step has room for


class AttentionDeclared:
    """Each test skips, and says so, where the offer declares nothing of it."""

    tolerance: ClassVar[Mapping[str, float]]
    plain: Any
    refused: Any

    @pytest.mark.parametrize("window", [None, 20])
    def test_a_sequence_has_the_same_bits_alone_and_in_a_batch_if_so_declared(
        self, asked: AskedBackend, window: int | None
    ) -> None:
        """The capability "batch_invariant", asked for as under --batch-invariant."""
        settings = {**self.plain(), "window": window}
        query = attrs.evolve(make_query(settings, asked.device), batch_invariant=True)
        answer = asked.answer(query)
        if self.refused(settings) or answer.offer is None or "batch_invariant" not in answer.offer.capabilities:
            pytest.skip('the offer does not declare "batch_invariant"')
        trial = Trial(asked, query)
        with torch.inference_mode():
            step, layers = trial.prepare(trial.batch(BATCHES["all at once"]))
            layer, pages = layers[0], trial.pages[0]
            trial.backend.write(layer.k, layer.v, pages, step)
            together = trial.backend.attend(layer.q, pages, step, trial.backend.begin_step(step), layer.sinks)
            for row, count in enumerate(step.query_lens):
                alone = _alone(step, row)
                start = int(step.query_starts[row])
                q = layer.q[start : start + count]
                got = trial.backend.attend(q, pages, alone, trial.backend.begin_step(alone), layer.sinks)
                assert torch.equal(got, together[start : start + count]), (
                    f"sequence {row}, {count} queries of {int(step.kv_lens[row])} tokens, has other bits alone than"
                    f' among {len(step.query_lens)}, and the offer declares "batch_invariant"'
                )

    @pytest.mark.parametrize("name", STATIC)
    def test_a_static_step_serves_other_lengths_if_so_declared(self, asked: AskedBackend, name: str) -> None:
        """The capabilities "graph" and "device_metadata": host lists are empty, and on a GPU a captured graph runs."""
        query = make_query(self.plain(), asked.device)
        if not {"graph", "device_metadata"} <= asked.offer(query).capabilities:
            pytest.skip('the offer does not declare both "graph" and "device_metadata"')
        first, second = STATIC[name]
        trial = Trial(asked, query)
        tolerance = self.tolerance[str(self.plain()["dtype"])]
        with torch.inference_mode():
            work = trial.batch(first)
            step, layers = trial.prepare(work)
            longest = max(count for _, count in (*first, *second))
            held = _static(trial, step, longest)
            run = _Runner(trial, held, layers[0])
            trial.backend.write(layers[0].k, layers[0].v, trial.pages[0], step)
            agree(run(layers[0]), layers[0].want, tolerance, step, f"a static step, {name}")
            later, more = trial.prepare(trial.batch(second))
            trial.backend.write(more[0].k, more[0].v, trial.pages[0], later)
            for old, new in ((held.query_starts, later.query_starts), (held.kv_lens, later.kv_lens)):
                old.copy_(new)
            held.slots.copy_(later.slots)
            _fill(held, later)
            agree(run(more[0]), more[0].want, tolerance, later, f"the same static step with other lengths, {name}")

    def test_sequences_that_share_the_pages_of_a_prefix_agree(self, asked: AskedBackend) -> None:
        """As where one request's prompt begins as another's: block tables hold a page twice."""
        settings = self.plain()
        trial = Trial(asked, make_query(settings, asked.device))
        ((first, _),) = trial.batch([(3 * trial.block, 0)])
        second, third = (trial.branch(first, blocks * trial.block) for blocks in (2, 3))
        tolerance = self.tolerance[str(settings["dtype"])]
        for number, work in enumerate(([(first, 5), (second, 9), (third, 1)], [(third, 1), (second, 1), (first, 1)])):
            trial.play(work, f"shared pages, step {number}", tolerance)


class _Runner:
    """The layer's attention in one place of memory: captured on a GPU, called elsewhere."""

    def __init__(self, trial: Trial, step: AttentionStep, layer: Layer) -> None:
        self.trial, self.step, self.q, self.graph = trial, step, layer.q.clone(), None
        self.sinks = layer.sinks
        if trial.device.type == "cuda":
            self._attend()  # what is compiled or allocated once happens here
            torch.cuda.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.out = self._attend()

    def _attend(self) -> torch.Tensor:
        backend = self.trial.backend
        return backend.attend(self.q, self.trial.pages[0], self.step, backend.begin_step(self.step), self.sinks)

    def __call__(self, layer: Layer) -> torch.Tensor:
        self.q.copy_(layer.q)
        if self.graph is None:
            return self._attend()
        self.out.fill_(torch.nan)
        self.graph.replay()
        return self.out


def _static(trial: Trial, step: AttentionStep, longest_query: int) -> AttentionStep:
    blocks = -(-WIDTH // trial.block)
    table = torch.zeros(len(step.kv_lens), blocks, dtype=torch.int32, device=trial.device)
    held = attrs.evolve(
        step,
        query_lens=[],
        kv_bounds=[],
        block_table=table,
        longest_query=longest_query,
        longest_kv=WIDTH,
        static=True,
    )
    _fill(held, step)
    return held


def _fill(held: AttentionStep, step: AttentionStep) -> None:
    width = min(held.block_table.shape[1], step.block_table.shape[1])
    held.block_table.zero_()
    held.block_table[:, :width] = step.block_table[:, :width]


def _alone(step: AttentionStep, row: int) -> AttentionStep:
    """One sequence of a step."""
    start, count = int(step.query_starts[row]), step.query_lens[row]
    return attrs.evolve(
        step,
        num_tokens=count,
        query_lens=[count],
        kv_bounds=[step.kv_bounds[row]],
        query_starts=torch.tensor([0, count], dtype=torch.int32, device=step.query_starts.device),
        kv_lens=step.kv_lens[row : row + 1],
        block_table=step.block_table[row : row + 1],
        slots=step.slots[start : start + count],
        longest_query=count,
        longest_kv=step.kv_bounds[row],
    )
