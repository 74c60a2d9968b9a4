"""Lossless verification: with drafts, tokens and distributions are those of plain decoding."""

import pytest
import torch

from vllm_core.interfaces.proposer import Drafts
from vllm_core.interfaces.steps import RowSampling

from .proposers import HiddenHead, PromptLookup
from .statistics import agrees
from .test_runner import PROMPTS, requests
from .toy import VOCAB, Driver, Request, make_runner


def runner_with(proposer, k, **sizes):
    runner = make_runner(proposer, k, **sizes)
    proposer.bind(runner.model, runner.model.plan)
    return runner


class Fixed:
    """Drafts that a test fixes beforehand: right up to a point, or wrong, or none."""

    taps: tuple[int, ...] = ()
    needs_hidden = False

    def __init__(self, num_drafts, truth, right):
        self.num_drafts, self.truth, self.right = num_drafts, truth, right

    def bind(self, model, plan):
        pass

    def propose(self, rows, view, hidden, taps):
        ids = torch.full((len(rows), self.num_drafts), -1, dtype=torch.int32)
        for n, row in enumerate(rows.tolist()):
            done = int(view.num_tokens[row]) - len(PROMPTS[row])
            for j in range(self.num_drafts):
                token = self.truth[row][done + j] if done + j < len(self.truth[row]) else 0
                ids[n, j] = token if j < self.right else (token + 1) % VOCAB
        return Drafts(ids=ids)


@pytest.mark.parametrize(
    "make",
    [
        lambda k: PromptLookup(k, {}),
        lambda k: PromptLookup(k, {"ngram": 1}),
        lambda k: HiddenHead(k, {}),
        lambda k: HiddenHead(k, {"taps": [0, 1]}),
    ],
    ids=["lookup", "lookup of one token", "hidden", "hidden and taps"],
)
@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("chunk", [1000, 3])
def test_outputs_with_certain_drafts_equal_plain_decoding_token_for_token(make, k, chunk):
    plain = Driver(make_runner()).generate(requests(), 24)
    driver = Driver(runner_with(make(k), k))
    assert driver.generate(requests(), 24, chunk=chunk) == plain
    decoding_alone = Driver(make_runner())
    decoding_alone.generate(requests(), 24, chunk=chunk)
    assert driver.step < decoding_alone.step  # some drafts were accepted


@pytest.mark.parametrize("right", [0, 1, 2, 3])
def test_the_right_beginning_of_the_drafts_is_accepted_and_no_more(right):
    k, tokens = 3, 13
    plain = Driver(make_runner()).generate(requests(), tokens + k)
    driver = Driver(make_runner(Fixed(k, plain, right), k))
    work = requests()
    driver.run(work, [(r, len(r.ids), 0, True) for r in work])
    while len(work[0].ids) - work[0].prompt < tokens:
        emitted = driver.run([], [(r, 1 + k, k, True) for r in work])
        assert [len(e) for e in emitted] == [right + 1] * 4
    assert [r.ids[r.prompt :][:tokens] for r in work] == [p[:tokens] for p in plain]


def test_a_proposer_sees_the_hidden_state_and_taps_that_the_last_token_was_sampled_from():
    class Watching(Fixed):
        needs_hidden, taps = True, (0,)

        def propose(self, rows, view, hidden, taps):
            last = view.num_tokens[rows].long() - 1
            ids = view.token_ids[rows].long()
            assert self.model.logits(hidden).argmax(-1).tolist() == ids.gather(1, last[:, None])[:, 0].tolist()
            batch = type("At", (), {"positions": last - 1})
            read = ids.gather(1, last[:, None] - 1)[:, 0]
            assert torch.equal(taps[0], self.model.embed(read, batch))
            self.seen += 1
            return super().propose(rows, view, hidden, taps)

    work = [Request(i, list(p)) for i, p in enumerate(PROMPTS)]
    plain = Driver(make_runner()).generate(work, 15)
    proposer = Watching(3, plain, 2)
    proposer.seen = 0
    runner = make_runner(proposer, 3)
    proposer.model = runner.model
    assert Driver(runner).generate([Request(i, list(p)) for i, p in enumerate(PROMPTS)], 12, chunk=5)
    assert proposer.seen >= 5


def test_rows_with_fewer_drafts_or_none_share_a_step_with_rows_that_have_all():
    k = 3
    plain = Driver(make_runner()).generate(requests(), 20)
    driver = Driver(make_runner(Fixed(k, plain, k), k))
    work = requests()
    driver.run(work, [(r, len(r.ids), 0, True) for r in work])
    emitted = driver.run([], [(r, 1 + n, n, True) for r, n in zip(work, (3, 0, 1, 2), strict=True)])
    assert [len(e) for e in emitted] == [4, 1, 2, 3]
    emitted = driver.run([], [(r, 1 + n, n, True) for r, n in zip(work, (0, 3, 0, 0), strict=True)])
    assert [len(e) for e in emitted] == [1, 4, 1, 1]
    assert [r.ids[r.prompt :] for r in work] == [p[: len(r.ids) - r.prompt] for r, p in zip(work, plain, strict=True)]


def test_a_decoding_row_verifies_drafts_beside_a_prompt_chunk():
    k = 2
    plain = Driver(make_runner()).generate(requests(), 8)
    driver = Driver(make_runner(Fixed(k, plain, 1), k))
    work = requests()
    driver.run(work[:3], [(r, len(r.ids), 0, True) for r in work[:3]])
    driver.run(work[3:], [(work[0], 3, 2, True), (work[3], 5, 0, False), (work[1], 2, 1, True)])
    driver.run([], [(work[3], 6, 0, True), (work[2], 3, 2, True)])
    assert [r.ids[r.prompt :] for r in work] == [p[: len(r.ids) - r.prompt] for r, p in zip(work, plain, strict=True)]
    assert [len(r.ids) - r.prompt for r in work] == [3, 3, 3, 1]


def test_cache_entries_of_rejected_drafts_are_overwritten():
    plain = Driver(make_runner())
    work = requests([0])
    plain.generate(work, 12)
    truth = [work[0].ids[work[0].prompt :]]
    driver = Driver(make_runner(Fixed(3, truth, 1), 3))
    again = requests([0])
    driver.generate(again, 12)
    count = min(work[0].computed, again[0].computed)
    for layer in (0, 1):
        group, *theirs = plain.runner.model.plan.pages(layer)
        _, *ours = driver.runner.model.plan.pages(layer)
        for a, b in zip(theirs, ours, strict=True):
            left = a[plain.tables[0][group]].flatten(0, 1)[:count]
            right = b[driver.tables[0][group]].flatten(0, 1)[:count]
            torch.testing.assert_close(left, right, rtol=0, atol=1e-12)


def test_a_row_taken_again_does_not_verify_the_drafts_of_the_request_before():
    k = 2
    runner = runner_with(PromptLookup(k, {"ngram": 1}), k, max_rows=1)
    driver = Driver(runner)
    driver.generate([Request(0, [1, 2, 1, 2, 1, 2])], 6)
    fresh = Request(0, [5, 6])
    driver.run([fresh], [(fresh, 1, 0, False)])
    # The last prompt token with drafts behind it that nobody proposed: none is accepted.
    assert [len(e) for e in driver.run([], [(fresh, 3, 2, True)])] == [1]


def test_greedy_outputs_with_drawn_drafts_equal_plain_decoding():
    plain = Driver(make_runner()).generate([Request(i, list(p)) for i, p in enumerate(PROMPTS)], 20)
    driver = Driver(runner_with(HiddenHead(3, {"seed": 1, "temperature": 0.5}), 3))
    assert driver.generate([Request(i, list(p)) for i, p in enumerate(PROMPTS)], 20) == plain
    assert driver.step < 20


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (6, 0.9)])
def test_drawn_drafts_keep_the_distribution_of_the_tokens_they_stand_for(top_k, top_p):
    rows, prompt, temperature = 2500, [3, 1, 4], 4.0
    proposer = HiddenHead(2, {"seed": 5, "temperature": 7.0})
    runner = runner_with(proposer, 2, max_rows=rows, num_pages=9 * rows, max_model_len=12)
    sampling = [RowSampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=i) for i in range(rows)]
    work = [Request(i, list(prompt), sampling[i]) for i in range(rows)]
    driver = Driver(runner)
    driver.run(work, [(r, 3, 0, True) for r in work])
    accepted = [len(e) - 1 for e in driver.run([], [(r, 3, 2, True) for r in work])]
    assert min(accepted.count(a) for a in range(3)) > rows / 25  # each way to emit was taken
    driver.run([], [(r, 3, 2, True) for r in work])
    outputs = torch.tensor([r.ids[3:6] for r in work])

    def exact(ids):
        p = (runner.model.whole(ids)[-1] / temperature).softmax(-1)
        share, order = p.sort(descending=True)
        p[order[top_k or VOCAB :]] = 0
        share = (share / p.sum()).cumsum(0) - share / p.sum()
        p[order[share >= top_p]] = 0
        return p / p.sum()

    first, second, third = exact(prompt), 0, 0
    for a in first.nonzero()[:, 0].tolist():
        after_a = exact([*prompt, a])
        second = second + first[a] * after_a
        for b in after_a.nonzero()[:, 0].tolist():
            third = third + first[a] * after_a[b] * exact([*prompt, a, b])
    assert agrees(outputs[:, 0], first)
    assert agrees(outputs[:, 1], second)
    assert agrees(outputs[:, 2], third)


@pytest.mark.parametrize(
    ("drafts", "message"),
    [
        (Drafts(ids=torch.zeros(1, 3, dtype=torch.int32)), r"shape \(1, 2\), not \(1, 3\)"),
        (Drafts(ids=torch.zeros(1, 2), parents=torch.zeros(1, 2)), "verifies chains only"),
        (Drafts(ids=torch.zeros(1, 2), probs=torch.zeros(1, 2, 5)), r"\(1, 2, 23\), not \(1, 2, 5\)"),
    ],
)
def test_drafts_of_a_wrong_shape_are_refused(drafts, message):
    proposer = PromptLookup(2, {})
    proposer.propose = lambda *args: drafts
    request = Request(0, [1, 2])
    with pytest.raises(ValueError, match=message):
        Driver(make_runner(proposer, 2)).generate([request], 1)
