"""What stands between the product with W_qkv and attention: on the GPU against float64."""

from __future__ import annotations

import itertools

import pytest
import torch
from vllm_kernels.bench.cases_elementwise import kernel
from vllm_kernels.qk import QKWrite

pytestmark = pytest.mark.usefixtures("gpu")
DTYPES = {"bfloat16": 4e-3, "float16": 5e-4, "float32": 2e-6}  # allowed error
BLOCK, PAGES = 16, 48
# heads, kv_heads, head_dim, rotary_dim, interleaved, weights of the norms, layout
SHAPES = [
    (16, 8, 128, 128, False, "same", "NHD"),
    (32, 8, 128, 128, False, "", "HND"),
    (4, 1, 64, 32, True, "float32", "NHD"),
    (5, 5, 256, 0, False, "same", "HND"),
    (6, 2, 96, 48, False, "float32", "NHD"),
    (2, 1, 20, 12, False, "", "NHD"),
    (2, 1, 20, 12, True, "same", "HND"),
    (3, 3, 80, 32, False, "same", "HND"),
    (16, 16, 16, 16, False, "same", "NHD"),
]


def rand(*shape, dtype):
    return torch.randn(shape).to(getattr(torch, dtype))


def error(got, want):
    return float((got.double() - want.double()).norm() / want.double().norm())


def turned(x, cos, sin, pairs):
    """x [T, heads, D] float64, cos and sin [T, R / 2]."""
    out, half = x.clone(), cos.shape[1]
    cos, sin = cos.double()[:, None], sin.double()[:, None]
    first, second = (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if pairs else (slice(half), slice(half, 2 * half))
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., second] * cos + x[..., first] * sin
    return out


def as_float8(x):
    """Saturated: torch would make NaN of what lies beyond."""
    return x.float().clamp(-448, 448).to(torch.float8_e4m3fn)


def by_slot(pages, layout):
    """[slots, KV, D] float32."""
    return (pages if layout == "NHD" else pages.transpose(1, 2)).float().flatten(0, 1)


# Each shape in one dtype, and two of them in all.
CASES = [(shape, "bfloat16", "same") for shape in SHAPES] + [
    (shape, dtype, kv_dtype)
    for shape in SHAPES[1:3]
    for dtype in DTYPES
    for kv_dtype in ("same", "float8_e4m3fn")
    if (dtype, kv_dtype) != ("bfloat16", "same")
]


@pytest.mark.parametrize(("shape", "dtype", "kv_dtype"), CASES, ids=str)
def test_one_launch_norms_turns_and_stores_heads(dtype, kv_dtype, shape):
    heads, kv, dim, rotary, pairs, weight, layout = shape
    kv_dtype = dtype if kv_dtype == "same" else kv_dtype
    norm = (
        {}
        if not weight
        else {n: rand(dim, dtype=dtype if weight == "same" else weight) for n in ("q_weight", "k_weight")}
    )
    write = QKWrite(
        heads=heads, kv_heads=kv, head_dim=dim, dtype=dtype, kv_dtype=kv_dtype, rotary_dim=rotary, interleaved=pairs,
        eps=1e-6, k_eps=1e-2, **norm,
    )  # fmt: skip
    angles = torch.randn(600, max(1, rotary // 2))
    cos, sin = (angles.cos(), angles.sin()) if rotary else (None, None)
    pages = (PAGES, BLOCK, kv, dim) if layout == "NHD" else (PAGES, kv, BLOCK, dim)
    for tokens, by_row in itertools.product((1, 7, 600), (False, True)):
        qkv = rand(tokens, (heads + 2 * kv) * dim, dtype=dtype)
        before = qkv.clone()
        positions = torch.arange(tokens) if by_row else torch.randint(600, (tokens,))
        k_pages, v_pages = (torch.randn(pages).to(getattr(torch, kv_dtype)) for _ in range(2))
        old = by_slot(k_pages, layout), by_slot(v_pages, layout)
        slots = BLOCK + torch.randperm((PAGES - 1) * BLOCK)[:tokens]
        assert write.fits((k_pages, v_pages), layout)
        got = write(qkv, cos, sin, None if by_row else positions, k_pages, v_pages, slots, layout)

        q, k, v = qkv.double().unflatten(1, (-1, dim)).split((heads, kv, kv), dim=1)
        if norm:
            q = norm["q_weight"].double() * q / (q.square().mean(-1, keepdim=True) + 1e-6).sqrt()
            k = norm["k_weight"].double() * k / (k.square().mean(-1, keepdim=True) + 1e-2).sqrt()
        if rotary:
            q, k = (turned(x, cos[positions], sin[positions], pairs) for x in (q, k))
        new_k, new_v = by_slot(k_pages, layout), by_slot(v_pages, layout)
        stored = as_float8(v) if "float8" in kv_dtype else v
        assert torch.equal(qkv, before)
        assert error(got, q) < DTYPES[dtype]
        assert error(new_k[slots], k) < (0.05 if "float8" in kv_dtype else DTYPES[dtype])
        assert torch.equal(new_v[slots], stored.float())
        others = torch.ones(len(new_k), dtype=torch.bool).index_fill_(0, slots, False)
        assert torch.equal(new_k[others], old[0][others])
        assert torch.equal(new_v[others], old[1][others])


TURNED = [(128, 128), (64, 64), (128, 64), (256, 256), (80, 32), (96, 24), (20, 12)]


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(
    ("dtype", "dim", "rotary"), [("bfloat16", *sizes) for sizes in TURNED] + [("float16", 96, 24), ("float32", 80, 32)]
)
def test_heads_are_turned_where_they_lie(dtype, pairs, dim, rotary):
    turn = kernel("rotary", dtype, head_dim=dim, rotary_dim=rotary, interleaved=pairs)
    for tokens in (0, 1, 67):
        wide, angles = rand(tokens, 9, dim, dtype=dtype), torch.randn(tokens, rotary // 2)
        x, before = wide[:, 2:7], wide.clone()
        want = turned(x.double(), angles.cos(), angles.sin(), pairs)
        got = turn(x, angles.cos(), angles.sin(), pairs)
        assert got.shape == want.shape
        if tokens:
            assert error(got, want) < DTYPES[dtype]
            assert torch.equal(got[..., rotary:], before[:, 2:7, rotary:])
            assert torch.equal(wide[:, [0, 1, 7, 8]], before[:, [0, 1, 7, 8]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kv_dtype", ["same", "float8_e4m3fn"])
@pytest.mark.parametrize("layout", ["NHD", "HND"])
@pytest.mark.parametrize(("k_dim", "v_dim"), [(128, 128), (64, 96), (20, 12)])
def test_keys_and_values_fill_their_slots_and_nothing_else(dtype, kv_dtype, layout, k_dim, v_dim):
    kv, axis = 3, 2 if layout == "NHD" else 1
    kv_dtype = dtype if kv_dtype == "same" else kv_dtype
    shape = {"num_kv_heads": kv, "k_dim": k_dim, "v_dim": v_dim, "head_axis": axis, "kv_dtype": kv_dtype}
    write = kernel("write_kv", dtype, **shape)
    for tokens in (0, 1, 90):
        k, v = rand(tokens, 2 * kv, k_dim, dtype=dtype)[:, ::2], rand(tokens, kv, v_dim, dtype=dtype)
        pages = [
            torch.randn((12, BLOCK, kv, n) if axis == 2 else (12, kv, BLOCK, n)).to(getattr(torch, kv_dtype))
            for n in (k_dim, v_dim)
        ]
        want = [by_slot(page, layout).clone() for page in pages]
        slots = torch.randperm(12 * BLOCK)[:tokens]
        write(k, v, *pages, slots, axis)
        for page, expected, new in zip(pages, want, (k, v), strict=True):
            expected[slots] = (as_float8(new) if "float8" in kv_dtype else new).float()
            assert torch.equal(by_slot(page, layout), expected)


def test_float8_is_rounded_to_nearest_even_and_ends_at_448():
    x = torch.cat(
        (
            torch.randn(4000) * torch.exp(4 * torch.randn(4000)),
            torch.tensor([0.0, -0.0, 448, 464, 465, 1e9, -1e9, 2**-10]),
        )
    )
    x = torch.cat((x, torch.arange(88) * 2.0**-11)).view(512, 1, 8)  # ties among the smallest
    pages = [torch.zeros(32, 16, 1, 8).to(torch.float8_e4m3fn) for _ in range(2)]
    shape = {"num_kv_heads": 1, "k_dim": 8, "v_dim": 8, "head_axis": 2, "kv_dtype": "float8_e4m3fn"}
    kernel("write_kv", "float32", **shape)(x, x, *pages, torch.arange(512), 2)
    assert torch.equal(pages[0].float().view(512, 1, 8), as_float8(x).float())


@pytest.mark.parametrize("norm", [True, False])
def test_a_token_does_not_depend_on_the_tokens_beside_it(norm):
    tokens, weights = 600, {n: rand(128, dtype="bfloat16") for n in ("q_weight", "k_weight")} if norm else {}
    write = QKWrite(
        heads=16, kv_heads=8, head_dim=128, dtype="bfloat16", kv_dtype="bfloat16", rotary_dim=128, eps=1e-6, **weights
    )
    qkv, angles, places = rand(tokens, 32 * 128, dtype="bfloat16"), torch.randn(tokens, 64), torch.arange(tokens)

    def run(at):
        pages = [torch.zeros(PAGES, BLOCK, 8, 128, dtype=torch.bfloat16) for _ in range(2)]
        q = write(qkv[at], angles.cos(), angles.sin(), places[at], *pages, places[at], "NHD")
        return q, *(by_slot(page, "NHD")[at] for page in pages)

    whole = run(slice(tokens))
    for at in (slice(5, 6), slice(tokens - 40, tokens)):
        for got, want in zip(run(at), whole, strict=True):
            assert torch.equal(got, want[at])
