"""A token budget below the number of rows: everybody gets on, drafts or not."""

import pytest

from tests.engine.fake_device import FakeDevice, plain
from tests.engine.harness import check_books, make_engine
from vllm_core.engine.sampling_params import SamplingParams

PARAMS = SamplingParams(temperature=0, max_tokens=50)


def longest_waits(engine, prompts, most_steps=3000):
    """For each request, the most steps in a row that it had a place on the device and did not run."""
    for i, prompt in enumerate(prompts):
        engine.add_request(str(i), prompt, PARAMS)
    waits, now = dict.fromkeys(map(str, range(len(prompts))), 0), {}
    texts = {}
    for _ in range(most_steps):
        if not engine.has_work:
            return waits, texts
        before = len(engine.core.executor.plans)
        outputs = engine.step()
        texts |= {o.request_id: o.outputs[0].token_ids for o in outputs if o.finished}
        check_books(engine)
        for plan in engine.core.executor.plans[before:]:
            for request in engine.core.roster.running:
                name = request.request_id
                now[name] = 0 if request.row in plan.rows else now.get(name, 0) + 1
                waits[name] = max(waits[name], now[name])
    raise AssertionError("somebody waits for ever")


@pytest.mark.parametrize("overlapped", [True, False])
@pytest.mark.parametrize(("budget", "drafts"), [(1, 0), (3, 0), (5, 4), (6, 4), (8, 3)])
def test_no_row_waits_while_others_decode_from_start_to_end(budget, drafts, overlapped):
    device = FakeDevice(max_rows=8, num_pages=300, num_drafts=drafts)
    engine = make_engine(device, budget=budget, overlapped=overlapped)
    prompts = [[i + 1] * (1 + i % 3) for i in range(8)]
    waits, texts = longest_waits(engine, prompts)
    assert max(waits.values()) <= 8, waits
    assert [texts[str(i)] for i in range(8)] == [plain(p, 50) for p in prompts]


def test_drafts_go_to_the_first_rows_only_as_far_as_each_row_has_its_token():
    engine = make_engine(FakeDevice(max_rows=4, num_pages=300, num_drafts=4, accept=0.0), budget=8, overlapped=False)
    for i in range(4):
        engine.add_request(str(i), [i + 1], PARAMS)
    for _ in range(10):
        engine.step()
    plan = engine.core.executor.plans[-1]
    assert plan.num_tokens == [5, 1, 1, 1]
    assert plan.num_drafts == [4, 0, 0, 0]
