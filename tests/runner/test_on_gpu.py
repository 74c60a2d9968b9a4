"""The same steps on a CUDA device: nothing waits for it, and the tokens are those of the CPU."""

import msgspec
import numpy as np
import pytest
import torch

from vllm_core.interfaces.sampler import SamplingTensors
from vllm_core.interfaces.steps import RowSampling
from vllm_core.ops import truncation
from vllm_core.ops.sampler import ReferenceSampler
from vllm_core.runner.inprocess import InProcessExecutor, StepError
from vllm_core.runner.noise import uniform

from .proposers import HiddenHead, PromptLookup
from .test_changes import ASKED, Ban
from .test_inprocess import Build, launch_ahead
from .test_runner import PROMPTS, requests
from .toy import Driver, Request, make_runner

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
GPU = torch.device("cuda")


def launch_without_waiting(runner, work, steps):
    """Results of steps during whose launch any operation that waits for the device raises."""
    executor = InProcessExecutor(Build(runner))
    executor.start()
    execute = runner.execute

    def watched(plan):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return execute(plan)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    runner.execute = watched
    results = launch_ahead(executor, Driver(runner), work, steps)
    executor.stop()
    return results


def test_noise_is_the_same_number_on_every_device():
    seed = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63)]).repeat(1000)
    position = torch.arange(5000) * 7
    assert torch.equal(uniform(seed, position), uniform(seed.to(GPU), position.to(GPU)).cpu())


def test_nucleus_and_draws_are_those_of_the_cpu():
    make = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 5000, generator=make) * torch.rand(64, 1, generator=make) * 6
    numbers = torch.randint(0, 50, (64, 500), generator=make) / 64  # sums are exact on any device
    numbers[:, 0] = 1
    top_p = torch.rand(64, generator=make)
    assert torch.equal(
        truncation.top_p_threshold(numbers, top_p), truncation.top_p_threshold(numbers.to(GPU), top_p.to(GPU)).cpu()
    )
    tensors = {
        "temperature": torch.arange(64) % 3 * 0.7,
        "top_k": torch.arange(64) % 5 * 25,
        "top_p": top_p,
        "min_p": torch.arange(64) % 2 * 0.01,
        "noise": uniform(torch.arange(64), torch.arange(64)),
    }
    facts = {"any_greedy": True, "any_random": True, "largest_top_k": 100, "any_top_p": True, "any_min_p": True}
    tokens = [
        ReferenceSampler()(
            logits.to(d), SamplingTensors(**{name: t.to(d) for name, t in tensors.items()}, **facts)
        ).cpu()
        for d in (torch.device("cpu"), GPU)
    ]
    assert (tokens[0] == tokens[1]).float().mean() > 0.95  # exp rounds differently


@pytest.mark.parametrize("proposer", [None, PromptLookup(2, {"ngram": 1}), HiddenHead(2, {"taps": [0]})])
def test_steps_are_launched_ahead_without_waiting_and_give_the_tokens_of_the_cpu(proposer):
    plain = Driver(make_runner()).generate(requests(), 30)
    runner = make_runner(proposer, 2 if proposer else 0, device=GPU)
    if proposer:
        proposer.bind(runner.model, None)
    results = launch_without_waiting(runner, requests(), 15)
    for i in range(4):
        output = [t for r in results for t in r.tokens(i)][:30]
        assert output == plain[i][: len(output)]
        assert len(output) >= 15


def test_drawn_drafts_verify_without_waiting():
    proposer = HiddenHead(2, {"taps": [1]})
    runner = make_runner(proposer, 2, device=GPU)
    proposer.bind(runner.model, None)
    certain = proposer.propose

    def drawn(*args):
        drafts = certain(*args)
        drafts.probs = torch.nn.functional.one_hot(drafts.ids.long(), 23).float()
        return drafts

    proposer.propose = drawn
    plain = Driver(make_runner()).generate(requests([0]), 30)[0]
    results = launch_without_waiting(runner, requests([0]), 15)
    output = [t for r in results for t in r.tokens(0)][:30]
    assert output == plain[: len(output)]


@pytest.mark.parametrize("k", [0, 2])
def test_changed_logits_and_reports_need_no_waiting_either(k):
    def work():
        widths = [(3, 2), (None, None), (0, -1), (-1, None)]
        return [
            Request(i, list(p), msgspec.structs.replace(s, logprobs=a, prompt_logprobs=b))
            for i, (p, s, (a, b)) in enumerate(zip(PROMPTS, ASKED, widths, strict=True))
        ]

    proposer = PromptLookup(k, {"ngram": 1}) if k else None
    plain = Driver(make_runner()).generate(work(), 30)
    results = launch_without_waiting(make_runner(proposer, k, device=GPU), work(), 15)
    on_cpu = InProcessExecutor(Build(make_runner(proposer, k)))
    on_cpu.start()
    expected = launch_ahead(on_cpu, Driver(on_cpu._runner), work(), 15)
    on_cpu.stop()
    for i in range(4):
        output = [t for r in results for t in r.tokens(i)][:30]
        assert output == plain[i][: len(output)]
    for got, want in zip(results, expected, strict=True):
        assert len(got.prompt_logprobs) == (2 if got.step == 1 else 0)
        for mine, theirs in zip(got.logprobs + got.prompt_logprobs, want.logprobs + want.prompt_logprobs, strict=True):
            assert (mine.rows, mine.counts, mine.first) == (theirs.rows, theirs.counts, theirs.first)
            emitted = theirs.token_ids[:, 0] >= 0
            np.testing.assert_array_equal(mine.token_ids[emitted], theirs.token_ids[emitted])
            np.testing.assert_allclose(mine.logprobs[emitted], theirs.logprobs[emitted], atol=1e-5)
            np.testing.assert_array_equal(mine.ranks[emitted], theirs.ranks[emitted])


@pytest.mark.parametrize("k", [0, 2])
def test_ids_for_the_host_arrive_while_the_device_works_on_the_next_step(k):
    def work():
        return [
            Request(
                i, list(p), RowSampling(temperature=0.5, seed=i, processors=["ban"] * (i < 3), extra_args={"ban": i})
            )
            for i, p in enumerate(PROMPTS)
        ]

    plain = Driver(make_runner(processors={"ban": Ban()})).generate(work(), 30)
    ban = Ban(needs_ids=True)
    proposer = PromptLookup(k, {"ngram": 1}) if k else None
    executor = InProcessExecutor(Build(make_runner(proposer, k, device=GPU, processors={"ban": ban})))
    executor.start()
    results = launch_ahead(executor, Driver(executor._runner), work(), 15)
    executor.stop()
    for i in range(4):
        output = [t for r in results for t in r.tokens(i)][:30]
        assert output == plain[i][: len(output)]
    assert {row for row, _, _ in ban.seen} == {0, 1, 2}
    for row, device, host in ban.seen:
        assert [t for t in device[len(PROMPTS[row]) :] if t >= 0] == host


def test_a_pending_step_times_out_and_then_arrives():
    runner = make_runner(device=GPU)
    executor = InProcessExecutor(Build(runner))
    executor.start()
    work = requests([0])
    driver = Driver(runner)
    driver.run(work, [(work[0], 8, 0, True)])
    plan = driver.plan([], [(work[0], 1, 0, True)])
    torch.cuda._sleep(1_000_000_000)
    pending = executor.launch(plan)
    assert not pending.done()
    with pytest.raises(TimeoutError):
        pending.result(timeout=0.01)
    assert len(pending.result(timeout=20).tokens(0)) == 1
    assert pending.done()
    executor.stop()


def test_a_plan_that_cannot_be_launched_fails_through_its_result():
    runner = make_runner(device=GPU)
    executor = InProcessExecutor(Build(runner))
    executor.start()
    work = requests([0])
    plan = Driver(runner).plan(work, [(work[0], 8, 0, True)])
    pending = executor.launch(type(plan)(**{f: getattr(plan, f) for f in plan.__struct_fields__} | {"rows": [77]}))
    with pytest.raises(StepError, match="step 1: ValueError"):
        pending.result()
    executor.stop()
