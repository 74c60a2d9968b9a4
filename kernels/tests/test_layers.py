"""Halves of layers over pages, against the same model composed of the core's own operations.

On CPUs the one kernel of the attention half is a torch version of its contract, so that all around it is tested there.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs
import pytest
import torch
import vllm_kernels
from vllm_kernels import layers
from vllm_kernels.layers import FusedAttention
from vllm_kernels.offers import attention_limits
from vllm_kernels.qk import QKWrite

from vllm_core import ops
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import OpQuery
from vllm_core.layers import (
    CausalLM,
    DecoderAttention,
    DecoderLayer,
    GatedMLP,
    LayerNorm,
    LayerStack,
    LMHead,
    OffsetRMSNorm,
    RMSNorm,
    Rotary,
    TokenEmbedding,
)
from vllm_core.plugin import Offer, Refusal
from vllm_core.testing.chooser import HandChooser
from vllm_core.testing.paged import PagedModel
from vllm_core.weights.rules import rule

NORMS = {"rms": RMSNorm, "offset": OffsetRMSNorm, "layer": LayerNorm}


@attrs.frozen(kw_only=True)
class Config:
    vocab: int = 61
    hidden: int = 64
    intermediate: int = 48
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 16
    norm: str = "rms"
    qk: str = ""
    post_norm: bool = False
    rope: dict[str, Any] = attrs.field(factory=lambda: {"rope_theta": 100.0})
    bias: bool = False
    window: int | None = None
    soft_cap: float | None = None
    sinks: bool = False
    causal: bool = True
    act: str = "silu"


def _layer(c: Config, i: int) -> DecoderLayer:
    norm = partial(NORMS[c.norm], c.hidden, 1e-5)
    attention = DecoderAttention(
        hidden=c.hidden,
        heads=c.heads,
        kv_heads=c.kv_heads,
        head_dim=c.head_dim,
        bias=c.bias,
        soft_cap=c.soft_cap,
        sinks=c.sinks,
        causal=c.causal,
        norm=norm(),
        qk_norm=NORMS[c.qk](c.head_dim, 1e-5) if c.qk else None,
        rotary=Rotary(c.head_dim, c.rope) if c.rope else None,
        out_bias=c.bias,
        window=c.window if i == 0 else None,
        post_norm=norm() if c.post_norm else None,
    )
    mlp = GatedMLP(
        c.hidden, c.intermediate, norm=norm(), bias=c.bias, act=c.act, post_norm=norm() if c.post_norm else None
    )
    return DecoderLayer(attention, mlp)


class SmallLM(CausalLM):
    """Tensors have the names of parameters; ``{slot}`` in front of those of merged matrices."""

    Config = Config
    weights = [
        rule("{x:q|k|v}.layers.{i}.attention.qkv.{w}", "layers.{i}.attention.qkv.{w}", slot="{x}"),
        rule("{x:gate|up}.layers.{i}.mlp.gate_up.{w}", "layers.{i}.mlp.gate_up.{w}", slot="{x}"),
        rule(
            "layers.{i}.{half:attention|mlp}.{part:norm|post_norm|q_norm|k_norm|out|down}.{w}",
            "layers.{i}.{half}.{part}.{w}",
        ),
        rule("layers.{i}.attention.attend.sinks", "layers.{i}.attention.attend.sinks"),
        rule("{part:embedding|norm|head}.{w}", "{part}.{w}"),
    ]

    def __init__(self, c: Config) -> None:
        super().__init__(
            embed=TokenEmbedding(c.vocab, c.hidden),
            layers=LayerStack(2, partial(_layer, c)),
            norm=NORMS[c.norm](c.hidden, 1e-5),
            head=LMHead(c.vocab, c.hidden),
        )


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "biases": {"bias": True},
    "norms of q and k": {"qk": "rms"},
    "weights of norms are distances from 1": {"norm": "offset", "qk": "offset", "post_norm": True},
    "outputs normalised": {"post_norm": True},
    "no positions": {"rope": {}},
    "norms of q and k, no positions": {"rope": {}, "qk": "rms"},
    "neighbours rotated": {"rope": {"rope_theta": 100.0, "interleaved": True}, "qk": "rms"},
    "part of a head rotated": {"rope": {"rope_theta": 100.0, "partial_rotary_factor": 0.5}},
    "a window": {"window": 7},
    "soft cap": {"soft_cap": 1.5},
    "sinks": {"sinks": True},
    "one kv head": {"kv_heads": 1},
    "every head its own": {"heads": 4, "kv_heads": 4},
    "heads that fill no vector": {"head_dim": 20},
    "long heads": {"head_dim": 256, "heads": 2, "kv_heads": 1},
    "gelu": {"act": "gelu"},
    "gelu by tanh": {"act": "gelu_pytorch_tanh"},
    "many things": {"bias": True, "qk": "rms", "window": 5, "soft_cap": 3.0, "sinks": True, "post_norm": True},
    "layer norms": {"norm": "layer", "qk": "rms"},
}


def random_tensors(c: Config) -> dict[str, torch.Tensor]:
    """A checkpoint whose activations stay spread and whose attention is far from uniform."""
    out: dict[str, torch.Tensor] = {}

    def norm(path: str, size: int, kind: str) -> None:
        out[f"{path}.weight"] = (kind != "offset") + 0.5 * torch.randn(size)
        if kind == "layer":
            out[f"{path}.bias"] = torch.randn(size)

    def linear(path: str, n: int, k: int, gain: float = 1.2) -> None:
        out[f"{path}.weight"] = torch.randn(n, k) * gain / k**0.5
        if c.bias:
            out[f"{path}.bias"] = torch.randn(n)

    for i in range(2):
        attention, mlp = f"layers.{i}.attention", f"layers.{i}.mlp"
        linear(f"q.{attention}.qkv", c.heads * c.head_dim, c.hidden, 2)
        linear(f"k.{attention}.qkv", c.kv_heads * c.head_dim, c.hidden, 2)
        linear(f"v.{attention}.qkv", c.kv_heads * c.head_dim, c.hidden)
        linear(f"{attention}.out", c.hidden, c.heads * c.head_dim)
        linear(f"gate.{mlp}.gate_up", c.intermediate, c.hidden)
        linear(f"up.{mlp}.gate_up", c.intermediate, c.hidden)
        linear(f"{mlp}.down", c.hidden, c.intermediate)
        for half in (attention, mlp):
            norm(f"{half}.norm", c.hidden, c.norm)
            if c.post_norm:
                norm(f"{half}.post_norm", c.hidden, c.norm)
        if c.qk:
            norm(f"{attention}.q_norm", c.head_dim, c.qk)
            norm(f"{attention}.k_norm", c.head_dim, c.qk)
        if c.sinks:
            out[f"{attention}.attend.sinks"] = 2 * torch.randn(c.heads)
    norm("norm", c.hidden, c.norm)
    out["embedding.weight"] = torch.randn(c.vocab, c.hidden)
    out["head.weight"] = torch.randn(c.vocab, c.hidden) / 3
    return out


class PlainWrite(QKWrite):
    """The contract of `QKWrite` in torch."""

    def __init__(self, **shape: Any) -> None:
        self.shape, self._elements = shape, 1

    def __call__(self, qkv, cos, sin, positions, k_pages, v_pages, slots, layout):
        s = self.shape
        q, k, v = qkv.unflatten(-1, (-1, s["head_dim"])).split((s["heads"], s["kv_heads"], s["kv_heads"]), dim=1)
        if s["q_weight"] is not None:
            q, k = ops.rms_norm(q, s["q_weight"], s["eps"]), ops.rms_norm(k, s["k_weight"], s["k_eps"])
        if s["rotary_dim"]:
            rows = (cos, sin) if positions is None else (cos[positions], sin[positions])
            q, k = ops.rotary(q, *rows, s["interleaved"]), ops.rotary(k, *rows, s["interleaved"])
        ops.write_kv(k, v, k_pages, v_pages, slots, {"NHD": 2, "HND": 1}[layout])
        return q.contiguous()


class Ours:
    """The plugin without products and whole stacks, which have their own tests; on CPUs only halves of layers."""

    __name__ = "ours"

    @staticmethod
    def op_kernel(query: OpQuery) -> Offer | Refusal | None:
        if query.op in ("linear", "decoder_stack"):
            return None
        if query.device.type == "cuda":
            return vllm_kernels.op_kernel(query)
        if query.op not in ("decoder_attention", "gated_mlp"):
            return None
        if reason := attention_limits(query) if query.op == "decoder_attention" else "":
            return Refusal(reason)
        return Offer(name="halves", target=f"vllm_kernels.layers:{query.op}")


@pytest.fixture(params=["cpu", "cuda"])
def device(request, monkeypatch):
    monkeypatch.setattr(layers, "small_attention", lambda *args: None)
    monkeypatch.setattr(layers, "small_mlp", lambda *args: None)
    if request.param == "cpu":
        monkeypatch.setattr(layers, "QKWrite", PlainWrite)
    elif not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("needs a CUDA device of compute capability 8.0 or newer")
    return request.param


def models(device: str, dtype: torch.dtype = torch.float32, **options: Any) -> tuple[PagedModel, PagedModel]:
    """The same model with these kernels and with the core's own."""
    config = Config(**options)
    tensors = random_tensors(config)
    ours: Any = Ours
    made = partial(PagedModel, SmallLM, attrs.asdict(config), tensors, dtype=dtype, block_size=4, device=device)
    return made(chooser=HandChooser(ours)), made(chooser=HandChooser())


def run(paged: PagedModel, ids: list[int]) -> torch.Tensor:
    """Logits of a row whose prompt comes in chunks, then of decoding steps beside another row."""
    row, other = paged.row(), paged.row()
    got = [paged.step([(row, ids[:1])])[0], paged.step([(other, ids[:7]), (row, ids[1:23])])[1]]
    for i in range(23, 30):
        got.append(paged.step([(row, ids[i : i + 1]), (other, ids[i : i + 1])])[0])
    return torch.cat([*got, paged.step([(row, ids[30:])])[0]]).cpu()


IDS = torch.randint(0, 61, (90,)).tolist()


def difference(got: torch.Tensor, want: torch.Tensor) -> float:
    """The largest, over the range of ``want``, which must spread for that to mean something."""
    assert want.std() > 0.5
    return float((got.double() - want.double()).abs().max() / (want.max() - want.min()))


def is_fused(paged: PagedModel) -> list[bool]:
    return [isinstance(layer.attention.run, FusedAttention) for layer in paged.model.layers.children()]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_gives_what_composed_layers_give(device, options):
    ours, plain = models(device, **OPTIONS[options])
    assert is_fused(ours) == [True, True]
    assert is_fused(plain) == [False, False]
    assert difference(run(ours, IDS), run(plain, IDS)) < 2e-5


def test_a_prompt_attends_both_ways_when_it_is_not_causal(device):
    ours, plain = models(device, causal=False)
    assert difference(ours.step([(ours.row(), IDS)])[0], plain.step([(plain.row(), IDS)])[0]) < 2e-5


@pytest.mark.parametrize("options", ["plain", "weights of norms are distances from 1", "many things"])
def test_bfloat16_is_as_near_to_float32_as_composed_layers_are(device, options):
    torch.manual_seed(7)  # the allowance is for one model; many draws would need a wider one
    ours, plain = models(device, torch.bfloat16, **OPTIONS[options])
    torch.manual_seed(7)
    exact = run(models(device, **OPTIONS[options])[1], IDS)
    got, composed = difference(run(ours, IDS), exact), difference(run(plain, IDS), exact)
    assert got < max(0.04, 2 * composed)


def test_rows_of_the_table_that_somebody_looked_up_are_used(device):
    """So are those of positions with several axes, which are looked up once a step."""
    ours, plain = models(device, qk="rms")
    logits = []
    for paged in (ours, plain):
        row = paged.row()
        batch = paged.batch([(row, IDS[:9])])
        rotary = paged.model.layers.get_submodule("0").attention.rotary
        shifted = batch.positions + 5
        batch.shared[rotary.key] = rotary.table.cos[shifted], rotary.table.sin[shifted]
        ids = torch.tensor(IDS[:9], device=device)
        with torch.inference_mode():
            logits.append(paged.model.logits(paged.model.forward(paged.model.embed(ids, batch), batch)))
    assert difference(*logits) < 2e-5


def test_pages_in_a_layout_of_somebodys_own_are_written_by_their_backend(device):
    ours, plain = models(device)
    for layer in ours.model.layers.children():
        layer.attention.attend.attend.layout = "of somebody's own"
    assert difference(run(ours, IDS), run(plain, IDS)) < 2e-5


def test_pages_that_are_made_anew_are_taken(device):
    ours, plain = models(device)
    want = run(plain, IDS)
    assert difference(run(ours, IDS), want) < 2e-5
    old = ours.pages
    kept = [page.clone() for page in old]
    ours.pages = [torch.full_like(page, 255) for page in old]
    ours.plan.bind_caches(ours.caches, ours.pages)
    assert difference(run(ours, IDS), want) < 2e-5
    assert all(torch.equal(a, b) for a, b in zip(old, kept, strict=True))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"qk_norm": "LayerNorm"}, "qk_norm is a LayerNorm"),
        ({"head_dim": 136, "rotary_dim": 136}, "heads of 136 elements, 136 of them rotated"),
        ({"kv_dtype": "int8"}, "a cache of int8"),
        ({"dtype": "float64"}, "dtype float64 is none of bfloat16, float16, float32"),
        ({}, ""),
    ],
)
def test_what_is_not_computed_is_refused_with_a_reason(changes, reason):
    shape = {"qk_norm": "RMSNorm", "head_dim": 128, "rotary_dim": 128, "interleaved": False, "kv_dtype": "bfloat16"}
    shape |= changes
    device = Device("cuda", capability=(9, 0))
    query = OpQuery(op="decoder_attention", dtype=str(shape.pop("dtype", "bfloat16")), device=device, shape=shape)
    answer = vllm_kernels.op_kernel(query)
    if reason:
        assert isinstance(answer, Refusal)
        assert reason in answer.reason
    elif vllm_kernels.machine_limits(device) == "":
        assert isinstance(answer, Offer)
