"""Whole halves of layers, over pages, against the same model composed of the core's own operations."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs
import pytest
import torch
import vllm_plugin_cpu_native
from vllm_plugin_cpu_native.decoder_attention import NativeDecoderAttention
from vllm_plugin_cpu_native.gated_mlp import NativeGatedMLP
from vllm_plugin_cpu_native.limits import machine_limits

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
from vllm_core.testing.chooser import HandChooser
from vllm_core.testing.paged import PagedModel
from vllm_core.weights.rules import rule


def needs(dtype: str):
    return pytest.mark.skipif(bool(machine_limits(dtype)), reason=machine_limits(dtype))


NORMS = {"rms": RMSNorm, "offset": OffsetRMSNorm, "layer": LayerNorm}


@attrs.frozen(kw_only=True)
class Config:
    vocab: int = 61
    hidden: int = 44
    intermediate: int = 36
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 16
    norm: str = "rms"
    qk_norm: bool = False
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
        **{
            name: getattr(c, name)
            for name in ("hidden", "heads", "kv_heads", "head_dim", "bias", "soft_cap", "sinks", "causal")
        },
        norm=norm(),
        qk_norm=NORMS[c.norm](c.head_dim, 1e-5) if c.qk_norm else None,
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


OPTIONS = {
    "plain": {},
    "biases": {"bias": True},
    "norms of q and k": {"qk_norm": True},
    "weights of norms are distances from 1": {"norm": "offset", "qk_norm": True, "post_norm": True},
    "outputs normalised": {"post_norm": True},
    "no positions": {"rope": {}},
    "part of a head rotated": {"rope": {"rope_theta": 100.0, "partial_rotary_factor": 0.5}},
    "a window": {"window": 7},
    "soft cap": {"soft_cap": 1.5},
    "sinks": {"sinks": True},
    "one kv head": {"kv_heads": 1},
    "every head its own": {"heads": 3, "kv_heads": 3},
    "heads that fill no vector": {"head_dim": 20},
    "long heads": {"head_dim": 136, "heads": 2, "kv_heads": 1},
    "gelu": {"act": "gelu"},
    "gelu by tanh": {"act": "gelu_pytorch_tanh"},
    "many things": {"bias": True, "qk_norm": True, "window": 5, "soft_cap": 3.0, "sinks": True, "post_norm": True},
    "layer norms, which are composed": {"norm": "layer"},
}


def random_tensors(c: Config) -> dict[str, torch.Tensor]:
    """A checkpoint whose activations stay spread and whose attention is far from uniform."""
    torch.manual_seed(1)
    out: dict[str, torch.Tensor] = {}

    def norm(path: str, size: int) -> None:
        out[f"{path}.weight"] = (c.norm != "offset") + 0.5 * torch.randn(size)
        if c.norm == "layer":
            out[f"{path}.bias"] = torch.randn(size)

    def linear(path: str, n: int, k: int, gain: float = 1.2) -> None:
        out[f"{path}.weight"] = torch.randn(n, k) * gain / k**0.5
        if c.bias and "layers" in path:
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
            norm(f"{half}.norm", c.hidden)
            if c.post_norm:
                norm(f"{half}.post_norm", c.hidden)
        if c.qk_norm:
            norm(f"{attention}.q_norm", c.head_dim)
            norm(f"{attention}.k_norm", c.head_dim)
        if c.sinks:
            out[f"{attention}.attend.sinks"] = 2 * torch.randn(c.heads)
    norm("norm", c.hidden)
    out["embedding.weight"] = torch.randn(c.vocab, c.hidden)
    out["head.weight"] = torch.randn(c.vocab, c.hidden) / 3
    return out


def models(dtype: torch.dtype = torch.float32, **options: Any) -> tuple[PagedModel, PagedModel]:
    """The same model with native kernels and with the core's own."""
    config = Config(**options)
    tensors = random_tensors(config)
    choosers = HandChooser(vllm_plugin_cpu_native), HandChooser()
    native, plain = (
        PagedModel(SmallLM, attrs.asdict(config), tensors, chooser=chooser, dtype=dtype, block_size=4, num_pages=1200)
        for chooser in choosers
    )
    return native, plain


def run(paged: PagedModel, ids: list[int]) -> torch.Tensor:
    """Logits of a row whose prompt comes in chunks, then of decoding steps beside another row."""
    row, other = paged.row(), paged.row()
    got = [paged.step([(row, ids[:1])])[0], paged.step([(other, ids[:7]), (row, ids[1:23])])[1]]
    for i in range(23, 30):
        got.append(paged.step([(row, ids[i : i + 1]), (other, ids[i : i + 1])])[0])
    return torch.cat([*got, paged.step([(row, ids[30:])])[0]])


IDS = torch.randint(0, 61, (400,), generator=torch.Generator().manual_seed(3)).tolist()


def difference(got: torch.Tensor, want: torch.Tensor) -> float:
    """The largest, over the range of ``want``, which must spread for that to mean something."""
    assert want.std() > 0.8
    return float((got.double() - want.double()).abs().max() / (want.max() - want.min()))


@needs("float32")
@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_gives_what_composed_layers_give(options):
    native, plain = models(**OPTIONS[options])
    halves = [half for layer in native.model.layers.children() for half in (layer.attention, layer.mlp)]
    fused = [isinstance(half.run, NativeDecoderAttention | NativeGatedMLP) for half in halves]
    assert all(fused) or (OPTIONS[options].get("norm") == "layer" and not any(fused))
    assert difference(run(native, IDS), run(plain, IDS)) < 1e-5


@needs("float32")
def test_a_prompt_attends_both_ways_when_it_is_not_causal():
    native, plain = models(causal=False)
    assert difference(native.step([(native.row(), IDS)])[0], plain.step([(plain.row(), IDS)])[0]) < 1e-5


@needs("bfloat16")
@pytest.mark.parametrize(
    "options", ["plain", "biases", "weights of norms are distances from 1", "sinks", "many things"]
)
def test_bfloat16_is_as_near_to_float32_as_composed_layers_are(options):
    native, plain = models(torch.bfloat16, **OPTIONS[options])
    exact = run(models(**OPTIONS[options])[1], IDS)
    got, composed = difference(run(native, IDS), exact), difference(run(plain, IDS), exact)
    assert got < max(0.03, 1.5 * composed)


@pytest.mark.parametrize("dtype", [pytest.param(kind, marks=needs(kind)) for kind in ("float32", "bfloat16")])
def test_a_token_has_the_same_logits_bit_for_bit_however_its_prompt_is_cut(dtype):
    native, _ = models(getattr(torch, dtype), window=9)
    whole = native.step([(native.row(), IDS)])[0]
    for cuts in ([1, 1, 398], [130, 270], [64, 3, 200, 133]):
        row, others, parts, at = native.row(), native.row(), [], 0
        for size in cuts:
            parts.append(native.step([(others, IDS[:5]), (row, IDS[at : at + size])])[1])
            at += size
        assert torch.equal(torch.cat(parts), whole)


@needs("float32")
@pytest.mark.parametrize("options", ["plain", "outputs normalised"])
def test_a_prompt_of_several_blocks_of_rows_is_one_of_single_tokens(options):
    """The second half takes 512 rows at a time."""
    native, plain = models(**OPTIONS[options])
    ids = (IDS * 3)[:900]
    whole = native.step([(native.row(), ids)])[0]
    assert difference(whole, plain.step([(plain.row(), ids)])[0]) < 2e-5
    row = native.row()
    assert torch.equal(torch.cat([native.step([(row, part)])[0] for part in (ids[:500], ids[500:])]), whole)


@needs("float32")
def test_with_another_backend_the_first_half_is_composed():
    class OnlyLayers:
        __name__ = "only layers"
        op_kernel = staticmethod(vllm_plugin_cpu_native.op_kernel)

    config = Config()
    mixed = PagedModel(
        SmallLM,
        attrs.asdict(config),
        random_tensors(config),
        chooser=HandChooser(OnlyLayers),
        block_size=4,  # type: ignore[arg-type]
    )
    assert type(next(iter(mixed.plan.bind_caches(mixed.caches, mixed.pages)))).__module__.startswith("vllm_core")
    assert difference(run(mixed, IDS), run(models()[1], IDS)) < 1e-5
