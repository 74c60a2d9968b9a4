"""A launch or two of every kernel on few numbers, for compute-sanitizer; results are compared with the references.

docs/gpu.md has the commands. Sizes are odd, so that what lies behind an end is somebody else's.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kernels.tests.edits_case import case
from vllm_core import ops
from vllm_core.interfaces.sampler import SamplingTensors
from vllm_core.ops.sampler import ReferenceSampler

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.sanitizer,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
BF16 = torch.bfloat16


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)


def on_gpu(value: Any) -> Any:
    return value.cuda() if isinstance(value, torch.Tensor) else value


def close(got: Any, want: Any) -> None:
    if not isinstance(want, tuple):
        got, want = (got,), (want,)
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine.cpu(), theirs, rtol=2e-2, atol=2e-2)


def agree(name: str, arguments: list[Any] | dict[str, Any], changed: tuple[Any, ...] = (), **shape: Any) -> None:
    """The op on the GPU gives what its reference gives on the CPU, and leaves that in the arguments it changes."""
    from vllm_kernels.bench.cases_elementwise import kernel

    run, reference = kernel(name, **shape), ops.OPS[name].reference
    if isinstance(arguments, dict):
        there = {key: on_gpu(value) for key, value in arguments.items()}
        got, want = run(**there), reference(**arguments)
    else:
        there = [on_gpu(value) for value in arguments]  # type: ignore[assignment]
        got, want = run(*there), reference(*arguments)
    if want is not None:
        close(got, want)
    for key in changed:
        assert torch.equal(there[key].cpu(), arguments[key])


def normal(*shape: int, dtype: torch.dtype = BF16) -> torch.Tensor:
    return torch.randn(shape).to(dtype)


@pytest.mark.parametrize("size", [77, 1000, 20480])
def test_norms(size):
    x, residual, weight, bias = (normal(n, size) for n in (3, 3, 1, 1))
    agree("rms_norm", [x, weight[0], 1e-5], size=size)
    agree("add_rms_norm", [x.clone(), residual.clone(), weight[0], 1e-5], size=size)
    agree("layer_norm", [x, weight[0], bias[0], 1e-5], size=size)
    agree("add_layer_norm", [x.clone(), residual.clone(), weight[0], bias[0], 1e-5], size=size)


@pytest.mark.parametrize("size", [8, 77])
def test_activations(size):
    agree("silu_and_mul", [normal(3, 2 * size)], size=size)
    agree("gelu", [normal(3, size)], size=size)


def test_rotary_and_pages():
    angles = torch.randn(5, 6)
    shape = {"head_dim": 20, "rotary_dim": 12, "interleaved": False}
    agree("rotary", [normal(5, 3, 20), angles.cos(), angles.sin()], **shape)
    pages = [normal(4, 4, 3, dim) for dim in (20, 12)]
    shape = {"num_kv_heads": 3, "k_dim": 20, "v_dim": 12, "head_axis": 2, "kv_dtype": "bfloat16"}
    slots = torch.tensor([15, 4, 7, 9, 5])
    agree("write_kv", [normal(5, 3, 20), normal(5, 3, 12), *pages, slots], (2, 3), **shape)
    agree("embedding", [torch.tensor([0, 8, 3]), normal(9, 33)], size=33, vocab=9)
    byte_pages = torch.randint(256, (5, 80), dtype=torch.uint8)
    agree("copy_pages", [byte_pages, torch.tensor([0, 1]), torch.tensor([1, 4])], (0,))


@pytest.mark.parametrize(("heads", "kv", "dim", "rotary", "layout"), [(3, 1, 20, 12, "HND"), (4, 2, 128, 128, "NHD")])
@pytest.mark.parametrize("tokens", [1, 70])
def test_heads_to_pages(heads, kv, dim, rotary, layout, tokens):
    from vllm_kernels.qk import QKWrite

    weights = normal(2, dim)
    write = QKWrite(
        heads=heads, kv_heads=kv, head_dim=dim, dtype="bfloat16", kv_dtype="bfloat16", rotary_dim=rotary, eps=1e-6,
        q_weight=weights[0].cuda(), k_weight=weights[1].cuda(),
    )  # fmt: skip
    qkv, angles, slots = normal(tokens, (heads + 2 * kv) * dim), torch.randn(tokens, rotary // 2), torch.randperm(80)
    pages = [torch.zeros((20, 4, kv, dim) if layout == "NHD" else (20, kv, 4, dim), dtype=BF16) for _ in range(2)]
    there = [page.cuda() for page in pages]
    assert write.fits(tuple(there), layout)
    got = write(qkv.cuda(), angles.cos().cuda(), angles.sin().cuda(), None, *there, slots[:tokens].cuda(), layout)
    q, k, v = qkv.view(tokens, -1, dim).split((heads, kv, kv), 1)
    q, k = (
        ops.rotary(ops.rms_norm(x, weight, 1e-6), angles.cos(), angles.sin())
        for x, weight in zip((q, k), weights, strict=True)
    )
    ops.write_kv(k, v, *pages, slots[:tokens], 2 if layout == "NHD" else 1)
    close((got.view(q.shape), *there), (q, *pages))


@pytest.mark.parametrize("sequences", [1, 5, 300])
def test_a_step_around_the_model(sequences):
    rows_in_all, room, blocks, size = 310, 30, 7, 4
    token_ids = torch.randint(-1, 99, (rows_in_all, room), dtype=torch.int32)
    known = torch.randint(1, 20, (rows_in_all,), dtype=torch.int32)
    rows, starts = torch.randperm(rows_in_all)[:sequences], torch.arange(sequences + 1)
    agree("step_inputs", [token_ids, known, rows, starts, sequences])
    table = torch.randint(1, 50, (rows_in_all, blocks + 1), dtype=torch.int32)
    line, positions = torch.arange(sequences), torch.randint(0, room, (sequences,))
    agree("page_slots", [table, rows, line, positions, size, 5], block_size=size)
    rate, count = torch.rand(rows_in_all), torch.randint(0, 99, (rows_in_all,))
    agree("sampling_rows", [rate, count, rate, rate, count, rows, positions, 0])
    ones, result = torch.ones_like(line), torch.empty(sequences, 2, dtype=torch.int32)
    state = [token_ids, known, known.clone()]
    agree("commit_tokens", [*state, rows, ones, line, line[:, None], 0 * ones, result, ones], (0, 1, 2, 8))


@pytest.mark.parametrize("vocab", [5, 2049, 20_000])
def test_edits_and_scores_of_logits(vocab):
    for dtype in (torch.float32, BF16):
        logits, arguments = case(vocab, dtype, seed=1)
        logits.nan_to_num_(0.0, neginf=float("-inf"))  # equal() tells NaN from NaN
        agree("edit_logits", {"logits": logits, **arguments}, ("logits",))
    rows = torch.arange(3)
    tokens = torch.randint(-1, vocab, (3, 50), dtype=torch.int32)
    tokens[:, 0] = 0
    factor = torch.rand(3) + 0.5
    given = [normal(3, vocab, dtype=torch.float32), rows, rows, rows + 40, tokens, rows + 10, factor, factor, factor]
    agree("penalize", given, (0,))
    logits = normal(3, vocab, dtype=torch.float32)
    masks = torch.randint(-(2**31), 2**31, (2, -(-vocab // 32)), dtype=torch.int32)
    agree("apply_token_bitmask", [logits.clone(), torch.tensor([2, 0]), masks], (0,))
    agree("token_logprobs", [logits, torch.tensor([0, vocab - 1, -1])])
    agree("argmax", [logits.bfloat16()], vocab=vocab)


@pytest.mark.parametrize("vocab", [40, 5003])
def test_drawing(vocab):
    from vllm_kernels.sampling import Sampler

    logits = normal(5, vocab) * 2
    given = {
        "temperature": torch.tensor([0.0, 0.7, 1.0, 1.3, 0.8]),
        "top_k": torch.tensor([0, 0, 5, 0, 30]),
        "top_p": torch.tensor([1.0, 1.0, 1.0, 0.8, 0.9]),
        "min_p": torch.tensor([0.0, 0.0, 0.0, 0.0, 0.05]),
        "noise": torch.rand(5, dtype=torch.float64),
    }
    facts = {"any_greedy": True, "any_random": True, "largest_top_k": 30, "any_top_p": True, "any_min_p": True}
    there = SamplingTensors(**{key: value.cuda() for key, value in given.items()}, **facts)
    sampler = Sampler(None)  # type: ignore[arg-type]
    want = ReferenceSampler().probs(logits, SamplingTensors(**given, **facts))
    got = sampler.probs(logits.cuda(), there).cpu()
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-5)
    drawn = sampler(logits.cuda(), there).cpu()
    assert (want.gather(1, drawn[:, None]) > 0).all()


# Of one unit a block, of several, and with a norm and a gate.
@pytest.mark.parametrize(
    ("in_size", "out_size", "norm", "act"),
    [(72, 27, "", ""), (256, 9001, "", ""), (576, 963, "bfloat16", ""), (1000, 1300, "float32", "silu")],
)
@pytest.mark.parametrize("tokens", [1, 9])
def test_products_of_few_tokens(in_size, out_size, norm, act, tokens):
    from vllm_kernels.small_product import product

    made = product(in_size, out_size, "bfloat16", norm, act)
    x, weight, bias = normal(tokens, in_size), normal(out_size * (2 if act else 1), in_size) / in_size**0.5, None
    want, given = x, {}
    if norm:
        residual, scale = normal(tokens, in_size), (torch.rand(in_size) + 0.5).to(getattr(torch, norm))
        want, total = ops.add_rms_norm(x.clone(), residual.clone(), scale, 1e-6)
        given = {"residual": residual.cuda(), "scale": scale.cuda(), "eps": 1e-6, "total": torch.empty_like(x).cuda()}
    else:
        bias = normal(out_size)
    got = made(x.cuda(), weight.cuda(), on_gpu(bias), **given)
    want = ops.linear(want, weight, bias)
    close(got, ops.silu_and_mul(want) if act else want)
    if norm:
        assert torch.equal(given["total"].cpu(), total)


def test_the_stack_of_layers():
    from kernels.tests.stack_case import HOPPER, IDS, model

    if not HOPPER:
        pytest.skip("needs a CUDA device of compute capability 9")
    found = []
    for fused in (True, False):
        made = model(fused, hidden=288, intermediate=320, layers=2, qk_norm=True)
        row = made.row()
        made.step([(row, IDS[:40])])
        found.append(made.step([(row, [IDS[40]])])[0].double().cpu())
    assert (found[0] - found[1]).norm() < 0.05 * found[1].norm()
