"""On a GPU: nothing compiles in a step, captured steps replay with other lengths, results do not hang on the batch."""

import attrs
import pytest
import torch

from vllm_core.testing.attention_asked import AskedBackend
from vllm_core.testing.attention_cases import BATCHES, make_query
from vllm_core.testing.attention_trial import Trial

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
HALF = {"dtype": "bfloat16", "k_dim": 128, "v_dim": 128}


def trial(settings=HALF, **plugin):
    asked = AskedBackend("triton", "cuda", plugin or None)
    return Trial(asked, make_query(settings, asked.device))


def test_once_made_a_backend_compiles_nothing(monkeypatch):
    import triton

    made = trial()
    monkeypatch.setattr(triton, "compile", lambda *args, **more: pytest.fail("a kernel was compiled in a step"))
    for name, batch in BATCHES.items():
        made.play(made.batch(batch), name, 2e-2, lse=True)
        for s in [s for s, _ in made.batch(())]:
            made.finish(s)
        made.free = list(range(1, len(made.raw[0])))


@pytest.mark.parametrize(
    "more", [{}, {"soft_cap": 4.0, "sinks": True}, {"causal": False, "dtype": "float16"}, {"num_heads": 14}], ids=str
)
@pytest.mark.parametrize("block", [64, 128])
def test_prompts_in_pages_of_whole_tiles_agree(more, block):
    """The copy engine fetches their keys: what lies behind the last one is NaN here, too."""
    asked = AskedBackend("triton", "cuda")
    made = Trial(asked, make_query({**HALF, **more}, asked.device), block_size=block)
    made.play(made.batch([(0, 90), (3, 64), (70, 58), (5, 1), (0, 129), (1, 127)]), "prompts", 2e-2, lse=True)


def static(step, longest_query, longest_kv):
    return attrs.evolve(
        step, query_lens=[], kv_bounds=[], longest_query=longest_query, longest_kv=longest_kv, static=True
    )


@pytest.mark.parametrize(
    ("captured", "replayed"),
    [
        ([(300, 1), (20, 1), (0, 1), (7, 1)], [(3, 1), (200, 1), (64, 1), (63, 1)]),
        ([(300, 1), (20, 40), (0, 7), (0, 0)], [(3, 1), (0, 1), (100, 46), (0, 0)]),
        ([(30, 4), (20, 4), (90, 4)], [(3, 4), (200, 4), (60, 4)]),
    ],
    ids=["decoding", "mixed", "drafts"],
)
def test_a_captured_step_runs_again_with_other_lengths(captured, replayed):
    made = trial()
    tokens = sum(n for _, n in captured)
    assert tokens == sum(n for _, n in replayed)
    longest = max(n for _, n in captured + replayed)
    step, layers = made.prepare(made.batch(captured))
    width = 64
    table = torch.zeros(len(captured), width, dtype=torch.int32, device="cuda")
    table[:, : step.block_table.shape[1]] = step.block_table
    step = static(attrs.evolve(step, block_table=table), longest, 1024)
    q = layers[0].q.clone()
    made.backend.attend(q, made.pages[0], step, made.backend.begin_step(step))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = made.backend.attend(q, made.pages[0], step, made.backend.begin_step(step))
    later, layers = made.prepare(made.batch(replayed))
    made.backend.write(layers[0].k, layers[0].v, made.pages[0], later)
    table.zero_()
    table[:, : later.block_table.shape[1]] = later.block_table
    step.query_starts.copy_(later.query_starts)
    step.kv_lens.copy_(later.kv_lens)
    q.copy_(layers[0].q)
    for _ in range(2):
        out.fill_(torch.nan)
        graph.replay()
        far = (out.double() - layers[0].want).abs().max() / layers[0].want.abs().max()
        assert far < 2e-2


def test_batch_invariant_results_are_those_of_a_sequence_alone():
    made = trial(batch_invariant=True)
    work = made.batch([(700, 1), (30, 5), (0, 90), (64, 1)])
    step, layers = made.prepare(work)
    for layer, pages in zip(layers, made.pages, strict=True):
        made.backend.write(layer.k, layer.v, pages, step)
    together = made.backend.attend(layers[0].q, made.pages[0], step, made.backend.begin_step(step))
    for s, (begin, end) in enumerate(zip(step.query_starts[:-1].tolist(), step.query_starts[1:].tolist(), strict=True)):
        alone = attrs.evolve(
            step,
            num_tokens=end - begin,
            query_lens=step.query_lens[s : s + 1],
            kv_bounds=step.kv_bounds[s : s + 1],
            query_starts=torch.tensor([0, end - begin], dtype=torch.int32, device="cuda"),
            kv_lens=step.kv_lens[s : s + 1],
            block_table=step.block_table[s : s + 1],
            slots=step.slots[begin:end],
        )
        q = layers[0].q[begin:end].clone()
        got = made.backend.attend(q, made.pages[0], alone, made.backend.begin_step(alone))
        assert torch.equal(got, together[begin:end])


@pytest.mark.parametrize("kv_dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_a_float8_cache_gives_what_its_rounded_values_give(kv_dtype):
    from vllm_plugin_triton_attention.backend import TritonAttention

    plain = trial()
    step, layers = plain.prepare(plain.batch(BATCHES["prompts"]))
    small = getattr(torch, kv_dtype)
    for layer, pages in zip(layers, plain.pages, strict=True):
        rounded = [x.to(small).to(x.dtype) for x in (layer.k, layer.v)]
        plain.backend.write(*rounded, pages, step)
    want = plain.backend.attend(layers[0].q, plain.pages[0], step, plain.backend.begin_step(step))
    backend = TritonAttention(attrs.evolve(plain.config, kv_dtype=small))
    pages = tuple(torch.full(x.shape, torch.nan, device="cuda").to(small) for x in plain.pages[0])
    backend.write(layers[0].k, layers[0].v, pages, step)
    got = backend.attend(layers[0].q, pages, step, backend.begin_step(step))
    assert (got - want).abs().max() <= 1e-2 * want.abs().max()


def test_pages_at_a_stride_that_cannot_be_read_in_16_bytes_are_refused():
    made = trial()
    step, layers = made.prepare(made.batch([(0, 3)]))
    k, v = made.pages[0]
    odd = tuple(x.as_strided(x.shape, (x.stride(0) + 1, *x.stride()[1:])) for x in (k[:4], v[:4]))
    with pytest.raises(ValueError, match="multiple of 16 bytes"):
        made.backend.attend(layers[0].q, odd, step, made.backend.begin_step(step))
