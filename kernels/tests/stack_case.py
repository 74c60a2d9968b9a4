"""A small model whose layers are one launch or composed, and how far either is from float32."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs
import torch
import vllm_kernels
from vllm_kernels import stack, stack_sizes

from vllm_core import builtin
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import OpQuery
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
from vllm_core.plugin import Rank
from vllm_core.testing.chooser import HandChooser
from vllm_core.testing.paged import PagedModel
from vllm_core.weights.rules import rule

HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9
DEVICE = "cuda" if HOPPER else "cpu"


@attrs.frozen(kw_only=True)
class Config:
    vocab: int = 97
    layers: int = 3
    hidden: int = 1120
    intermediate: int = 352
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 128
    qk_norm: bool = False
    rope: dict[str, Any] = attrs.field(factory=lambda: {"rope_theta": 10000.0})
    bias: bool = False
    act: str = "silu"


def _layer(c: Config, i: int) -> DecoderLayer:
    attention = DecoderAttention(
        hidden=c.hidden,
        heads=c.heads,
        kv_heads=c.kv_heads,
        head_dim=c.head_dim,
        norm=RMSNorm(c.hidden),
        qk_norm=RMSNorm(c.head_dim) if c.qk_norm else None,
        rotary=Rotary(c.head_dim, c.rope) if c.rope else None,
        bias=c.bias,
        out_bias=c.bias,
    )
    return DecoderLayer(attention, GatedMLP(c.hidden, c.intermediate, norm=RMSNorm(c.hidden), bias=c.bias, act=c.act))


class SmallLM(CausalLM):
    """Tensors have the names of parameters; ``{slot}`` in front of those of merged matrices."""

    Config = Config
    weights = [
        rule("{x:q|k|v}.layers.{i}.attention.qkv.{w}", "layers.{i}.attention.qkv.{w}", slot="{x}"),
        rule("{x:gate|up}.layers.{i}.mlp.gate_up.{w}", "layers.{i}.mlp.gate_up.{w}", slot="{x}"),
        rule("layers.{i}.{half:attention|mlp}.{part:norm|q_norm|k_norm|out|down}.{w}", "layers.{i}.{half}.{part}.{w}"),
        rule("{part:embedding|norm|head}.{w}", "{part}.{w}"),
    ]

    def __init__(self, c: Config) -> None:
        super().__init__(
            embed=TokenEmbedding(c.vocab, c.hidden),
            layers=LayerStack(c.layers, partial(_layer, c)),
            norm=RMSNorm(c.hidden),
            head=LMHead(c.vocab, c.hidden),
        )


def random_tensors(c: Config) -> dict[str, torch.Tensor]:
    """bfloat16 numbers as float32. Activations stay spread, attention is far from uniform."""
    torch.manual_seed(1)
    out: dict[str, torch.Tensor] = {}

    def linear(path: str, n: int, k: int, gain: float = 1.2) -> None:
        out[f"{path}.weight"] = torch.randn(n, k) * gain / k**0.5
        if c.bias and "layers" in path:
            out[f"{path}.bias"] = torch.randn(n)

    for i in range(c.layers):
        attention, mlp = f"layers.{i}.attention", f"layers.{i}.mlp"
        for slot, heads in (("q", c.heads), ("k", c.kv_heads), ("v", c.kv_heads)):
            linear(f"{slot}.{attention}.qkv", heads * c.head_dim, c.hidden, 1.5)
        linear(f"{attention}.out", c.hidden, c.heads * c.head_dim)
        linear(f"gate.{mlp}.gate_up", c.intermediate, c.hidden)
        linear(f"up.{mlp}.gate_up", c.intermediate, c.hidden)
        linear(f"{mlp}.down", c.hidden, c.intermediate)
        norms = {f"{attention}.norm": c.hidden, f"{mlp}.norm": c.hidden}
        if c.qk_norm:
            norms |= {f"{attention}.{x}_norm": c.head_dim for x in "qk"}
        out |= {f"{path}.weight": 1 + 0.3 * torch.randn(size) for path, size in norms.items()}
    out["norm.weight"] = 1 + 0.3 * torch.randn(c.hidden)
    linear("embedding", c.vocab, c.hidden, c.hidden**0.5)
    linear("head", c.vocab, c.hidden)
    return {name: tensor.bfloat16().float() for name, tensor in out.items()}


class OnlyTheStack:
    """A plugin whose only kernel is this one; and, for a layout, the core's attention with such pages."""

    __name__ = "only the stack"

    def __init__(self, fused: bool, layout: str) -> None:
        self.fused, self.layout = fused, layout

    def op_kernel(self, query: OpQuery) -> Any:
        if query.op != "decoder_stack" or not self.fused:
            return None
        return vllm_kernels.op_kernel(attrs.evolve(query, device=Device("cuda", capability=(9, 0))))

    def attention_backend(self, query: Any) -> Any:
        offer = builtin.attention_backend(query)
        return attrs.evolve(offer, rank=Rank.TUNED, takes={**offer.takes, "kv.page_layout": (self.layout,)})


def model(fused: bool, dtype: torch.dtype = torch.bfloat16, layout: str = "NHD", **options: Any) -> PagedModel:
    config = Config(**options)
    kept, stack_sizes.SMALL_VARIANTS = stack_sizes.SMALL_VARIANTS, (1, 4, 8)  # more tokens than are served by default
    made = PagedModel(
        SmallLM,
        attrs.asdict(config),
        random_tensors(config),
        chooser=HandChooser(OnlyTheStack(fused, layout)),  # type: ignore[arg-type]
        dtype=dtype,
        device=DEVICE,
        num_pages=1400,
        max_position=8192,
    )
    stack_sizes.SMALL_VARIANTS = kept
    assert isinstance(made.model.layers.run, stack.Stack) == fused
    return made


IDS = torch.randint(0, 97, (8192,), generator=torch.Generator().manual_seed(3)).tolist()


def run(paged: PagedModel, contexts: list[int], steps: int = 2) -> torch.Tensor:
    """Logits of decoding steps of rows with so many tokens before; [steps, rows, vocab] on the CPU."""
    rows = [paged.row() for _ in contexts]
    for row, context in zip(rows, contexts, strict=True):
        if context:
            paged.step([(row, IDS[:context])])
    found = []
    for i in range(steps):
        found.append(torch.cat(paged.step([(row, [IDS[n + i]]) for row, n in zip(rows, contexts, strict=True)])))
    return torch.stack(found).double().cpu()


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).norm() / want.norm())


def assert_as_near_as_composed(contexts: list[int], steps: int = 2, **options: Any) -> None:
    layout = {"layout": options.pop("layout", "NHD")}
    exact = run(model(False, torch.float32, **options), contexts, steps)
    got, composed = (run(model(fused, **layout, **options), contexts, steps) for fused in (True, False))
    assert error(got, exact) < 1.3 * error(composed, exact) + 1e-3
    assert error(got, exact) < 0.05
