"""What halves of layers make of the products of few tokens, with products in plain torch in the kernels' place."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from vllm_kernels import small

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import OpQuery
from vllm_core.layers import DecoderAttention, GatedMLP, LayerNorm, OffsetRMSNorm, RMSNorm
from vllm_core.runner.plan import EnginePlan
from vllm_core.testing.chooser import HandChooser

HIDDEN = 64
GATES = {"silu": F.silu, "gelu": F.gelu, "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh")}
NORMS = {"rms": RMSNorm, "offset": OffsetRMSNorm}


class PlainProduct:
    """As `small_product.Product`."""

    def __init__(self, in_size, out_size, dtype, norm, act, device):
        self.in_size, self.out_size, self.norm, self.act, self.most = in_size, out_size, norm, act, 16

    def __call__(self, x, weight, bias=None, *, residual=None, scale=None, eps=0.0, total=None):
        assert x.is_contiguous()
        assert weight.shape == (self.out_size * (2 if self.act else 1), self.in_size)
        if residual is not None:
            torch.add(x, residual, out=total)
            x = total
        assert bool(self.norm) == (scale is not None)
        if scale is not None:
            assert str(scale.dtype) == f"torch.{self.norm}"
            x = F.rms_norm(x.float(), (self.in_size,), scale.float(), eps).to(x.dtype)
        y = F.linear(x, weight, bias)
        if self.act:
            gate, up = y.chunk(2, -1)
            y = GATES[self.act](gate) * up
        return y


@pytest.fixture
def made(monkeypatch):
    """All products that were asked for."""
    found = []

    def product(*args):
        found.append(PlainProduct(*args))
        return found[-1]

    monkeypatch.setattr(small, "product", product)
    return found


def bound(layer):
    torch.manual_seed(0)
    layer.bind(EnginePlan(HandChooser(), torch.bfloat16, torch.device("cpu"), Device("cpu"), {}, 64, 64), "half")
    for name, parameter in layer.named_parameters():
        if "norm" in name:
            parameter.data.uniform_(0.5, 1.5)
        elif parameter.dim() > 1:
            parameter.data.normal_(std=parameter.shape[1] ** -0.5)
        else:
            parameter.data.normal_()
    layer.loaded()
    return layer, OpQuery(op="half", dtype="bfloat16", device=Device("cuda"), shape=layer.fused_shape())


def mlp(norm="rms", act="silu", post_norm=False, bias=False):
    kind = NORMS[norm]
    post = kind(HIDDEN, 1e-5) if post_norm else None
    return bound(GatedMLP(HIDDEN, 96, norm=kind(HIDDEN, 1e-3), act=act, bias=bias, post_norm=post))


def attention(norm="rms", post_norm=False, bias=False):
    kind = NORMS[norm]
    return bound(
        DecoderAttention(
            hidden=HIDDEN, heads=4, kv_heads=2, head_dim=16, norm=kind(HIDDEN, 1e-3), bias=bias, out_bias=bias,
            post_norm=kind(HIDDEN, 1e-5) if post_norm else None,
        )
    )  # fmt: skip


def rand(*shape):
    return torch.randn(shape).bfloat16()


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"norm": "offset", "post_norm": True}, {"act": "gelu", "bias": True}, {"act": "gelu_pytorch_tanh"}],
)
def test_feed_forward_of_few_tokens_is_the_layer(made, options, residual):
    layer, query = mlp(**options)
    x, r = rand(3, HIDDEN), rand(3, HIDDEN) if residual else None
    wanted = layer.compose(x.clone(), None if r is None else r.clone(), None)

    got = small.small_mlp(query, layer)(x, r)

    torch.testing.assert_close(got, wanted, atol=4e-2, rtol=2e-2)
    assert len(made) == 2


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("options", [{}, {"norm": "offset", "post_norm": True}, {"bias": True}])
def test_attention_of_few_tokens_projects_as_the_layer(made, options, residual):
    layer, query = attention(**options)
    x, r = rand(3, HIDDEN), rand(3, HIDDEN) if residual else None
    h, total = layer.add_norm(x.clone(), None if r is None else r.clone())
    few = small.small_attention(query, layer)

    qkv, got_total = few.project(x, r)

    torch.testing.assert_close(qkv, layer.project(h), atol=4e-2, rtol=2e-2)
    assert torch.equal(got_total, total)
    o = rand(3, 4, 16)
    wanted = layer.out_project(o.flatten(1))
    wanted = wanted if layer.norm_output is None else layer.norm_output(wanted)
    torch.testing.assert_close(few.output(o), wanted, atol=4e-2, rtol=2e-2)
    assert len(made) == 2


def test_inputs_at_odd_strides_are_made_plain(made):
    layer, query = mlp()
    x, r = rand(3, HIDDEN + 2)[:, 2:], rand(HIDDEN, 3).T
    y, total = small.small_mlp(query, layer)(x, r)
    wanted = layer.compose(x.contiguous(), r.contiguous(), None)
    torch.testing.assert_close((y, total), wanted, atol=4e-2, rtol=2e-2)


class OtherMethod:
    """Of weights in another form, say."""

    pack = None


def test_what_is_not_made_here_is_left_to_the_layer(made):
    layer, query = bound(GatedMLP(HIDDEN, 96, norm=LayerNorm(HIDDEN)))
    assert small.small_mlp(query, layer) is None

    layer, query = mlp()
    layer.down.method.pack = lambda weight: weight  # the kernel of ``linear`` has a layout of its own
    assert small.small_mlp(query, layer) is None

    layer, query = attention()
    layer.out.method = OtherMethod()
    assert small.small_attention(query, layer) is None

    layer, query = bound(GatedMLP(36, 96, norm=RMSNorm(36)))  # inputs are no multiple of 8
    assert small.small_mlp(query, layer) is None
    assert not made
