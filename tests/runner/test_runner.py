"""The step: from plans to tokens through rows, pages and the toy model."""

import pytest
import torch

from vllm_core.interfaces.steps import PageCopy, RowInit, RowSampling, StepPlan

from .toy import Driver, Request, make_runner

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [7], [11, 12, 13, 14, 15], [2, 7, 1, 8, 2, 8, 1, 8, 2, 8, 4]]
SAMPLINGS = [
    RowSampling(temperature=0.0),
    RowSampling(temperature=0.9, top_k=12, top_p=0.95, seed=7),
    RowSampling(temperature=1.3, seed=8),
    RowSampling(temperature=0.7, top_p=0.8, seed=-3),
]


def requests(which=range(4)):
    return [Request(i, list(PROMPTS[i]), SAMPLINGS[i]) for i in which]


def greedy(model, ids, count):
    ids, start = list(ids), len(ids)
    for _ in range(count):
        ids.append(int(model.whole(ids)[-1].argmax()))
    return ids[start:]


def test_a_batch_decodes_what_each_request_decodes_alone_without_pages():
    runner = make_runner()
    outputs = Driver(runner).generate([Request(i, list(p)) for i, p in enumerate(PROMPTS)], 12)
    assert outputs == [greedy(runner.model, p, 12) for p in PROMPTS]
    assert len({tuple(o) for o in outputs}) == len(PROMPTS)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_a_prompt_in_chunks_gives_the_tokens_of_the_whole(chunk):
    whole = Driver(make_runner()).generate(requests(), 10)
    assert Driver(make_runner()).generate(requests(), 10, chunk=chunk) == whole


def test_seeded_rows_give_the_same_tokens_whatever_shares_the_batch():
    together = Driver(make_runner()).generate(requests(), 10)
    for i in range(4):
        assert Driver(make_runner()).generate(requests([i]), 10) == [together[i]]
    assert Driver(make_runner()).generate(requests([3, 1]), 10) == [together[3], together[1]]


def test_another_seed_gives_other_tokens():
    driver = Driver(make_runner())
    outputs = driver.generate([Request(i, [5, 6], RowSampling(seed=i)) for i in range(8)], 8)
    assert len({tuple(o) for o in outputs}) == 8


def test_a_request_preempted_and_computed_again_goes_on_with_the_same_tokens():
    whole = Driver(make_runner()).generate(requests([1]), 12)
    driver = Driver(make_runner())
    first = driver.generate(requests([1]), 5)[0]
    again = Request(6, PROMPTS[1] + first, SAMPLINGS[1])
    assert first + driver.generate([again], 7, chunk=3)[0] == whole[0]


def test_a_row_taken_again_remembers_nothing():
    runner = make_runner(max_rows=1)
    driver = Driver(runner)
    for i in (3, 1, 0, 2):
        fresh = Driver(make_runner()).generate([Request(0, list(PROMPTS[i]), SAMPLINGS[i])], 8)
        assert driver.generate([Request(0, list(PROMPTS[i]), SAMPLINGS[i])], 8) == fresh


def test_a_prompt_whose_beginning_is_cached_gives_the_same_tokens():
    whole = Driver(make_runner()).generate([Request(0, list(PROMPTS[3]))], 6)
    driver = Driver(make_runner())
    driver.generate([Request(0, list(PROMPTS[3]))], 1)
    hit = Request(1, list(PROMPTS[3]), computed=8)
    shared = [table[: 8 // size] for table, size in zip(driver.tables[0], (4, 2), strict=True)]
    rest = [driver.take(1), driver.take(2)]
    pages = [s + r for s, r in zip(shared, rest, strict=True)]
    init = RowInit(row=1, token_ids=hit.ids, num_computed=8, pages=pages, sampling=hit.sampling)
    plan = driver.plan([], [])
    plan = StepPlan(99, [init], [], [], rows=[1], num_tokens=[3], num_drafts=[0], samples=[True], kv_bounds=[11])
    token = runner_tokens(driver.runner.execute(plan))
    driver.tables[1], hit.computed, hit.ids = pages, 11, hit.ids + token[0]
    outputs = list(token[0])
    while len(outputs) < 6:
        outputs += driver.run([], [(hit, 1, 0, True)])[0]
    assert outputs == whole[0]


def runner_tokens(result):
    return [[t for t in row if t >= 0] for row in result.token_ids.tolist()]


def test_pages_are_copied_before_the_step_reads_them():
    driver = Driver(make_runner())
    first = Request(0, list(PROMPTS[0]))
    driver.generate([first], 1)
    old = driver.tables[0]
    fork = Request(1, list(first.ids), computed=first.computed)
    new = [driver.take(len(table)) for table in old]
    copies = [PageCopy(group=g, source=s, target=t) for g in (0, 1) for s, t in zip(old[g], new[g], strict=True)]
    init = RowInit(row=1, token_ids=fork.ids, num_computed=8, pages=new, sampling=fork.sampling)
    new[0] += driver.take(1)
    new[1] += driver.take(1)
    plan = StepPlan(99, [init], [], copies, rows=[1], num_tokens=[1], num_drafts=[0], samples=[True], kv_bounds=[9])
    for tensor in driver.runner.pages:  # what follows must come from the copies
        for page in (p for table in driver.tables[0] for p in table):
            assert tensor[page].any() or tensor is not driver.runner.pages[0]
    assert runner_tokens(driver.runner.execute(plan)) == driver.run([], [(first, 1, 0, True)])


def test_prompt_chunks_before_the_last_emit_nothing():
    driver = Driver(make_runner())
    request, other = Request(0, list(PROMPTS[3])), Request(1, list(PROMPTS[1]))
    emitted = driver.run([request, other], [(request, 4, 0, False), (other, 1, 0, True)])
    assert [len(e) for e in emitted] == [0, 1]
    assert driver.runner.rows.num_computed[:2].tolist() == [4, 1]
    assert driver.runner.rows.num_tokens[:2].tolist() == [11, 2]
    assert driver.run([], [(request, 4, 0, False)]) == [[]]


def test_a_plan_without_rows_still_takes_rows():
    driver = Driver(make_runner())
    result = driver.runner.execute(driver.plan([Request(2, [1, 2, 3])], []))
    assert result.token_ids.shape == (0, 1)
    assert driver.runner.rows.num_tokens[2] == 3


def test_logits_of_all_positions_are_those_of_the_model_without_pages():
    driver = Driver(make_runner())
    work = [Request(i, list(p)) for i, p in enumerate(PROMPTS)]
    seen = {i: [] for i in range(4)}
    inits = work
    while active := [r for r in work if r.computed < len(r.ids)]:
        sizes = [min(3, len(r.ids) - r.computed) for r in active]
        plan = driver.plan(inits, [(r, n, 0, False) for r, n in zip(active, sizes, strict=True)])
        inits = []
        logits = driver.runner.forward_logits(plan)
        for r, n, part in zip(active, sizes, logits.split(sizes), strict=True):
            seen[r.row].append(part)
            r.computed += n
    for i, prompt in enumerate(PROMPTS):
        torch.testing.assert_close(torch.cat(seen[i]), driver.runner.model.whole(prompt), rtol=0, atol=1e-12)


def test_forward_logits_refuses_drafts():
    driver = Driver(make_runner())
    request = Request(0, [1, 2, 3])
    plan = driver.plan([request], [(request, 3, 1, True)])
    with pytest.raises(ValueError, match="verifies no drafts"):
        driver.runner.forward_logits(plan)


def test_a_request_may_fill_its_row_to_the_last_token():
    runner = make_runner(max_model_len=16)
    assert Driver(runner).generate([Request(7, list(PROMPTS[0]))], 9) == [greedy(runner.model, PROMPTS[0], 9)]


def test_drafts_and_proposer_must_come_together():
    with pytest.raises(ValueError, match="num_drafts is 2 with no proposer"):
        make_runner(num_drafts=2)
