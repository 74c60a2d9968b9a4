"""Several threads with one ``LLM``: each gets its own answers."""

import sys
import threading

import pytest

from tests.engine.fake_device import plain
from tests.engine.harness import check_empty
from tests.engine.test_llm import make_llm
from vllm_core.engine.sampling_params import SamplingParams


@pytest.fixture
def quick_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("quick_switches")
def test_threads_with_batches_and_streams_get_their_own_answers():
    llm, got, failed = make_llm(), {}, []

    def batch(n):
        prompts = [[n, i + 1] for i in range(4)]
        params = [SamplingParams(temperature=0, max_tokens=5 + 7 * i) for i in range(4)]
        outputs = llm.generate(prompts, params, use_tqdm=False)
        got[n] = [o.outputs[0].token_ids for o in outputs] == [plain(p, 5 + 7 * i) for i, p in enumerate(prompts)]

    def stream(n):
        outputs = list(llm.stream([n, n], SamplingParams(temperature=0, max_tokens=20)))
        got[n] = outputs[-1].outputs[0].token_ids == plain([n, n], 20)

    def work(task, n):
        try:
            for _ in range(5):
                task(n)
        except BaseException as error:
            failed.append(error)

    tasks = [batch, stream] * 4
    threads = [threading.Thread(target=work, args=(task, n + 1), daemon=True) for n, task in enumerate(tasks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert failed == []
    assert not any(thread.is_alive() for thread in threads), "somebody waits for an output that another thread took"
    assert got == {n + 1: True for n in range(len(tasks))}
    check_empty(llm._engine)
