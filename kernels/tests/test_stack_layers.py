"""All decoder layers as one launch, over pages, against the same layers composed of the core's own operations."""

from __future__ import annotations

import pytest
import torch

from kernels.tests.stack_case import HOPPER, IDS, assert_as_near_as_composed, model, run

pytestmark = pytest.mark.skipif(not HOPPER, reason="needs a CUDA device of compute capability 9")

OPTIONS = {
    "plain": {},
    "norms of q and k": {"qk_norm": True},
    "biases": {"bias": True},
    "no positions": {"rope": {}},
    "part of a head rotated": {"rope": {"rope_theta": 100.0, "partial_rotary_factor": 0.5}},
    "short heads": {"head_dim": 64, "heads": 6, "kv_heads": 2},
    "one key/value head": {"kv_heads": 1},
    "every head its own": {"heads": 3, "kv_heads": 3},
    "eight heads a key/value head": {"heads": 8, "kv_heads": 1, "head_dim": 64},
    "gelu": {"act": "gelu"},
    "gelu by tanh": {"act": "gelu_pytorch_tanh"},
    "rows of several tiles": {"hidden": 2560, "intermediate": 3104},
    "narrow rows": {"hidden": 288, "intermediate": 320},
    "fewer outputs than multiprocessors": {"hidden": 96, "intermediate": 64},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_is_as_near_to_float32_as_composed_layers(options):
    assert_as_near_as_composed([40, 300, 0], **OPTIONS[options])


@pytest.mark.parametrize("contexts", [[0], [1], [15], [16], [255, 256], [1023], [5000], [5000, 1, 700, 64]])
def test_contexts_of_any_length_are_split_right(contexts):
    assert_as_near_as_composed(contexts, qk_norm=True)


@pytest.mark.parametrize("rows", range(1, 9))
def test_any_number_of_rows_up_to_its_limit(rows):
    assert_as_near_as_composed([17 * i for i in range(rows)])


def test_pages_with_heads_before_tokens_are_read_and_written():
    assert_as_near_as_composed([0, 77, 600], layout="HND")


def test_other_steps_are_composed():
    fused, plain = model(True), model(False)
    both = [m.step([(m.row(), IDS[:5]), (m.row(), IDS[:1])]) for m in (fused, plain)]
    many = [m.step([(m.row(), IDS[:1]) for _ in range(9)]) for m in (fused, plain)]
    for got, want in (both, many):
        assert torch.equal(torch.cat(got), torch.cat(want))


def test_a_replayed_graph_gives_what_a_launch_gives_as_the_sequence_grows():
    paged = model(True, qk_norm=True)
    rows = [paged.row(), paged.row()]
    paged.step([(rows[0], IDS[:700]), (rows[1], IDS[:30])])
    batch = paged.batch([(row, [1]) for row in rows])
    step, layers = batch.attention[0], paged.model.layers
    x = torch.randn(2, 1120, device="cuda", dtype=torch.bfloat16)
    layers(x, batch)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed = layers(x, batch)
    for _ in range(20):
        x.normal_()
        graph.replay()
        kept = [part.clone() for part in replayed]
        assert all(torch.equal(a, b) for a, b in zip(kept, layers(x, batch), strict=True))
        assert kept[0].isfinite().all()
        for tensor in (step.kv_lens, batch.positions, step.slots):
            tensor -= 1  # back into pages that the sequences have


def test_two_stacks_take_turns():
    first, second = model(True), model(True, hidden=512, layers=5, qk_norm=True)
    alone = run(first, [50]), run(second, [90])
    rows = [m.row() for m in (first, second)]
    for m, row, context in zip((first, second), rows, (50, 90), strict=True):
        m.step([(row, IDS[:context])])
    for i in range(2):
        for m, row, context, want in zip((first, second), rows, (50, 90), alone, strict=True):
            got = m.step([(row, [IDS[context + i]])])[0]
            assert torch.equal(got.double().cpu(), want[i])


def test_new_pages_are_found():
    paged = model(True)
    want = run(paged, [40])
    tensors = [torch.full_like(page, 255) for page in paged.pages]
    for page in paged.pages:
        page.fill_(255)
    paged.pages = tensors
    paged.backends = paged.plan.bind_caches(paged.caches, tensors)
    assert torch.equal(run(paged, [40]), want)
