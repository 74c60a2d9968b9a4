"""Log-probabilities of a step: of drawn tokens and of prompts, against the toy model without pages."""

import pytest
import torch

from vllm_core.interfaces.steps import RowInit, RowSampling, StepPlan
from vllm_core.runner import logprobs
from vllm_core.runner.logprobs import token_logprobs

from .proposers import PromptLookup
from .test_runner import PROMPTS
from .toy import VOCAB, Driver, Request, make_runner

WIDTHS = [(0, None), (3, 2), (None, -1), (-1, 2)]  # (logprobs, prompt_logprobs) of each row


def width(k):
    return VOCAB if k == -1 else k


class Watching(Driver):
    """Keeps what each row was told: its output lines, and its prompt's by position."""

    def __init__(self, runner):
        super().__init__(runner)
        self.sampled, self.prompts = {}, {}

    def run(self, inits, work):
        execute = self.runner.execute

        def watched(plan):
            output = execute(plan)
            self.take_in(plan, output.result(plan.step))
            return output

        self.runner.execute = watched
        try:
            return super().run(inits, work)
        finally:
            self.runner.execute = execute

    def take_in(self, plan, result):
        for kind, groups in (("sampled", result.logprobs), ("prompt", result.prompt_logprobs)):
            for lines in groups:
                assert sum(lines.counts) == len(lines.token_ids) == len(lines.logprobs) == len(lines.ranks)
                at = 0
                for i, count, first in zip(lines.rows, lines.counts, lines.first, strict=True):
                    for j in range(at, at + count):
                        line = (lines.token_ids[j], lines.logprobs[j], lines.ranks[j])
                        if kind == "prompt":
                            known = self.prompts.setdefault(plan.rows[i], {})
                            assert first + j - at not in known, "reported twice"
                            known[first + j - at] = line
                        elif lines.token_ids[j, 0] >= 0:
                            self.sampled.setdefault(plan.rows[i], []).append(line)
                    at += count


def check(line, exact, token, k):
    ids, values, rank = line
    assert len(ids) == 1 + k
    assert ids[0] == token
    torch.testing.assert_close(torch.from_numpy(values).double(), exact[ids], rtol=0, atol=1e-5)
    assert ids[1:].tolist() == exact.argsort(descending=True)[:k].tolist()
    assert rank == 1 + int((exact > exact[token]).sum())


def requests():
    samplings = [
        RowSampling(temperature=i * 0.4, seed=i, logprobs=k, prompt_logprobs=p, presence_penalty=0.5 * i)
        for i, (k, p) in enumerate(WIDTHS)
    ]
    return [Request(i, list(p), s) for i, (p, s) in enumerate(zip(PROMPTS, samplings, strict=True))]


@pytest.mark.parametrize("chunk", [1000, 3, 1])
@pytest.mark.parametrize("drafts", [0, 2])
@pytest.mark.parametrize("size", [1 << 23, 2 * VOCAB])
def test_each_position_is_reported_once_with_the_models_own_probabilities(chunk, drafts, size, monkeypatch):
    monkeypatch.setattr(logprobs, "SLICE", size)
    driver = Watching(make_runner(PromptLookup(drafts, {"ngram": 1}) if drafts else None, drafts))
    work = requests()
    driver.generate(work, 12, chunk=chunk)
    for row, (k, p) in enumerate(WIDTHS):
        ids, prompt = work[row].ids, PROMPTS[row]
        exact = driver.runner.model.whole(ids).log_softmax(-1)
        lines = driver.sampled.get(row, [])
        assert len(lines) == (0 if k is None else len(ids) - len(prompt))
        for i, line in enumerate(lines):
            check(line, exact[len(prompt) - 1 + i], ids[len(prompt) + i], width(k))
        reported = driver.prompts.get(row, {})
        assert sorted(reported) == ([] if p is None else list(range(1, len(prompt))))
        for position, line in reported.items():
            check(line, exact[position - 1], prompt[position], width(p))


@pytest.mark.parametrize(
    ("computed", "report_from", "expected"), [(0, 1, 6), (0, 4, 3), (4, 1, 2), (2, 6, 1), (6, 1, 0)]
)
def test_a_row_taken_again_reports_what_was_not_reported_yet(computed, report_from, expected):
    driver = Watching(make_runner())
    ids = [5, 6, 7, 8, 9, 10, 11, 12, 13]  # 7 of the prompt, 2 outputs
    request = Request(0, ids, computed=computed)
    plan = driver.plan([], [])
    pages = [driver.take(3), driver.take(5)]
    init = RowInit(0, ids, computed, pages, RowSampling(prompt_logprobs=1), num_prompt=7, report_from=report_from)
    count = len(ids) - request.computed
    plan = StepPlan(1, [init], [], [], [0], [count], [0], [True], [len(ids)])
    driver.take_in(plan, driver.runner.execute(plan).result(1))
    assert sorted(driver.prompts.get(0, {})) == list(range(7 - expected, 7))


def test_a_row_that_asks_for_nothing_inherits_nothing():
    driver = Watching(make_runner())
    driver.generate(requests(), 3)
    driver.sampled.clear()
    driver.prompts.clear()
    driver.generate([Request(i, list(p)) for i, p in enumerate(PROMPTS)], 3)
    assert not driver.sampled
    assert not driver.prompts


def test_a_certain_token_has_probability_one_and_an_impossible_one_none():
    logits = torch.full((1, 4), float("-inf"))
    logits[0, 2] = 7.0
    found = token_logprobs(logits, torch.tensor([2]), 1)
    assert found.logprobs.tolist() == [[0.0, 0.0]]
    assert token_logprobs(logits, torch.tensor([1]), 0).logprobs.tolist() == [[float("-inf")]]
