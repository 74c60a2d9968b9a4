"""Changed logits, drawn from: through rows and steps, with drafts as without, and in the right distribution."""

import msgspec
import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from vllm_core.interfaces.steps import RowInit, RowSampling, StepPlan

from .proposers import HiddenHead, PromptLookup
from .statistics import agrees
from .test_runner import PROMPTS
from .toy import VOCAB, Driver, Request, make_runner

ASKED = [
    RowSampling(temperature=0.0, repetition_penalty=1.4, frequency_penalty=0.6),
    RowSampling(temperature=0.9, top_k=12, seed=7, presence_penalty=1.0, bad_words=[[3], [4, 5], [1, 1, 1]]),
    RowSampling(temperature=1.3, seed=8, min_p=0.05, logit_bias={2: 2.0, 9: -3.0}, frequency_penalty=-0.7),
    RowSampling(temperature=0.7, top_p=0.8, seed=-3, allowed_ids=list(range(3, 17)), min_tokens=9, stop_ids=[4, 6]),
]


def requests():
    return [Request(i, list(p), s) for i, (p, s) in enumerate(zip(PROMPTS, ASKED, strict=True))]


@pytest.fixture(scope="module")
def plain():
    return Driver(make_runner()).generate(requests(), 24)


def test_the_changes_matter_to_every_row(plain):
    without = [
        msgspec.structs.replace(RowSampling(), temperature=s.temperature, top_k=s.top_k, top_p=s.top_p, seed=s.seed)
        for s in ASKED
    ]
    free = [Request(i, list(p), s) for i, (p, s) in enumerate(zip(PROMPTS, without, strict=True))]
    assert all(a != b for a, b in zip(Driver(make_runner()).generate(free, 24), plain, strict=True))


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("chunk", [1000, 3])
@pytest.mark.parametrize("make", [lambda k: PromptLookup(k, {"ngram": 1}), lambda k: HiddenHead(k, {})])
def test_tokens_with_drafts_are_those_without(plain, make, k, chunk):
    proposer = make(k)
    runner = make_runner(proposer, k)
    proposer.bind(runner.model, None)
    driver, lengths = Driver(runner), []
    run = driver.run
    driver.run = lambda *plan: lengths.extend(map(len, emitted := run(*plan))) or emitted
    assert driver.generate(requests(), 24, chunk=chunk) == plain
    assert max(lengths) > 1  # some drafts stood


def test_a_row_taken_again_goes_on_as_if_nothing_had_happened(plain):
    for cut in (1, 7, 20):
        again = [Request(i, p + plain[i][:cut], ASKED[i]) for i, p in enumerate(PROMPTS)]
        driver = Driver(make_runner())
        for request, prompt in zip(again, PROMPTS, strict=True):
            request.prompt = len(prompt)
        assert driver.generate(again, 24, chunk=5) == plain


def test_a_mixture_is_drawn_from_the_distribution_that_transformers_makes_of_it():
    """Thousands of rows, alike but for their seeds, draw one token each."""
    count, ids = 6000, [3, 1, 4, 1, 5]
    asked = RowSampling(
        temperature=1.6, top_k=14, top_p=0.93, min_p=0.02, repetition_penalty=1.3, bad_words=[[7], [2, 9]],
        frequency_penalty=0.4, presence_penalty=0.3, logit_bias={0: 1.0, 11: -1.0},
    )  # fmt: skip
    runner = make_runner(max_rows=count, max_model_len=8, num_pages=count * 7 + 1)
    pages = [[[1 + 7 * i, 2 + 7 * i], [3 + 7 * i + j for j in range(4)]] for i in range(count)]
    # Two tokens of the prompt, three of output.
    inits = [RowInit(i, ids, 0, pages[i], with_seed(asked, i), num_prompt=2) for i in range(count)]
    plan = StepPlan(1, inits, [], [], list(range(count)), [5] * count, [0] * count, [True] * count, [5] * count)
    tokens = runner.execute(plan).token_ids[:, 0].long()

    known = torch.tensor([ids])
    scores = runner.model.whole(ids)[-1:].float()
    scores = NoBadWordsLogitsProcessor([[7]])(known, scores)
    scores[0, 0] += 1
    scores[0, 11] -= 1
    scores = RepetitionPenaltyLogitsProcessor(1.3)(known, scores)
    counts = torch.bincount(known[0, 2:], minlength=VOCAB)
    scores = scores - 0.4 * counts - 0.3 * (counts > 0)
    for warp in (TemperatureLogitsWarper(1.6), MinPLogitsWarper(0.02), TopKLogitsWarper(14), TopPLogitsWarper(0.93)):
        scores = warp(known, scores)
    assert agrees(tokens, scores.softmax(-1)[0])


def with_seed(sampling, seed):
    return msgspec.structs.replace(sampling, seed=seed)


class Ban:
    """Bans a token of each row; the rows and ends it saw."""

    keeps_argmax, needs_ids = False, False

    def __init__(self, needs_ids=False, keeps_argmax=False):
        self.needs_ids, self.keeps_argmax = needs_ids, keeps_argmax
        self.token, self.seen = {}, []

    def take(self, row, params, prompt_ids):
        self.token[row] = params["ban"]

    def apply(self, logits, rows, ends, view, ids):
        assert logits.dtype == torch.float32
        for i, (row, end) in enumerate(zip(rows.tolist(), ends.tolist(), strict=True)):
            logits[i, self.token[row]] = float("-inf")
            device = view.token_ids[row, :end].tolist()
            self.seen.append((row, device, None if ids is None else list(ids[i])))
        return logits


@pytest.mark.parametrize("drafts", [0, 2])
def test_a_processor_that_reads_on_the_host_reads_what_is_on_the_device(drafts):
    ban = Ban(needs_ids=True)
    proposer = PromptLookup(drafts, {"ngram": 1}) if drafts else None
    driver = Driver(make_runner(proposer, drafts, processors={"ban": ban}))
    work = [
        Request(i, list(p), RowSampling(temperature=0.5, seed=i, processors=["ban"] * (i < 3), extra_args={"ban": i}))
        for i, p in enumerate(PROMPTS)
    ]
    outputs = driver.generate(work, 15)
    assert all(i not in outputs[i] for i in range(3))
    assert {row for row, _, _ in ban.seen} == {0, 1, 2}
    for row, device, host in ban.seen:
        assert [t for t in device[len(PROMPTS[row]) :] if t >= 0] == host
    # The rows are taken by others, with outputs from before.
    ban.seen.clear()
    again = [Request(i, PROMPTS[3 - i] + [8, 9], work[i].sampling) for i in range(4)]
    for request in again:
        request.prompt -= 2
    driver.generate(again, 6)
    for row, device, host in ban.seen:
        assert [t for t in device[len(PROMPTS[3 - row]) :] if t >= 0] == host
        assert host[:2] == [8, 9]
