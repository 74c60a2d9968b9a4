"""The runner under a model of real layers on a real plan: full and sliding-window caches, taps, drafts."""

from functools import partial

import pytest
import torch

from vllm_core.engine.cache.grouping import plan_caches
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.steps import RowSampling
from vllm_core.layers import (
    CausalLM,
    DecoderAttention,
    DecoderLayer,
    GatedMLP,
    LayerStack,
    LMHead,
    RMSNorm,
    Rotary,
    TokenEmbedding,
)
from vllm_core.runner.plan import EnginePlan
from vllm_core.runner.runner import Runner
from vllm_core.testing.chooser import HandChooser
from vllm_core.weights import fill_dummy

from .proposers import HiddenHead, PromptLookup
from .toy import Driver, Request

HIDDEN, VOCAB, LAYERS = 24, 31, 4


def layer(i: int) -> DecoderLayer:
    """Odd layers see the last 5 tokens only."""
    norm = partial(RMSNorm, HIDDEN, 1e-5)
    rotary = Rotary(8, {"rope_type": "default", "rope_theta": 100.0})
    attention = DecoderAttention(
        hidden=HIDDEN, heads=4, kv_heads=2, head_dim=8, norm=norm(), rotary=rotary, window=5 if i % 2 else None
    )
    return DecoderLayer(attention=attention, mlp=GatedMLP(HIDDEN, 40, act="silu", norm=norm()))


class Tiny(CausalLM):
    weights = []

    def __init__(self):
        super().__init__(
            embed=TokenEmbedding(VOCAB, HIDDEN),
            layers=LayerStack(LAYERS, layer),
            norm=RMSNorm(HIDDEN, 1e-5),
            head=LMHead(VOCAB, HIDDEN),
        )

    @property
    def table(self):
        return self.embedding.weight


def make(proposer=None, k=0) -> Runner:
    model = Tiny()
    plan = EnginePlan(HandChooser(), torch.float64, torch.device("cpu"), Device("cpu"), {}, 256, 64 + k + 1)
    model.bind(plan)
    if proposer is not None:
        proposer.bind(model, plan)
    caches = plan.finish(plan_caches, 4)
    assert len(caches.groups) == 2
    fill_dummy(model, seed=3)
    with torch.no_grad():
        model.head.weight.mul_(2)
    return Runner(model, plan, caches, 300, 6, 64, proposer, k)


def requests():
    prompts = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3], [7, 7], [20, 21, 22, 20, 21, 22, 20]]
    sampling = [RowSampling(temperature=0.0), RowSampling(temperature=0.8, seed=4), RowSampling(top_k=9, top_p=0.9)]
    return [Request(2 * i, list(p), s) for i, (p, s) in enumerate(zip(prompts, sampling, strict=True))]


@pytest.fixture(scope="module")
def plain():
    return Driver(make()).generate(requests(), 20)


def test_chunks_give_the_tokens_of_the_whole(plain):
    assert Driver(make()).generate(requests(), 20, chunk=3) == plain


def test_logits_by_chunks_equal_those_of_one_step():
    ids = [i * 7 % VOCAB for i in range(23)]
    whole, chunked = Driver(make()), Driver(make())
    request = Request(0, list(ids))
    expected = whole.runner.forward_logits(whole.plan([request], [(request, 23, 0, False)]))
    request, parts, inits = Request(0, list(ids)), [], True
    for n in (9, 1, 1, 12):
        plan = chunked.plan([request] if inits else [], [(request, n, 0, False)])
        parts.append(chunked.runner.forward_logits(plan))
        request.computed += n
        inits = False
    torch.testing.assert_close(torch.cat(parts), expected, rtol=0, atol=1e-12)
    assert expected.std() > 0.5


@pytest.mark.parametrize(
    "proposer",
    [
        lambda: PromptLookup(3, {"ngram": 1}),
        lambda: HiddenHead(3, {}),
        lambda: HiddenHead(3, {"taps": [1, LAYERS]}),
    ],
    ids=["lookup", "hidden", "taps"],
)
def test_certain_drafts_change_no_token(plain, proposer):
    driver = Driver(make(proposer(), 3))
    assert driver.generate(requests(), 20, chunk=4) == plain
    again = Driver(make())
    again.generate(requests(), 20, chunk=4)
    assert driver.step < again.step


def test_drawn_drafts_change_no_greedy_token(plain):
    driver = Driver(make(HiddenHead(2, {"seed": 3}), 2))
    assert driver.generate(requests()[:1], 20) == plain[:1]
