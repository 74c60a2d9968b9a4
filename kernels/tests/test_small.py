"""Products of few tokens against float64, on a GPU."""

import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional as F  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

GATES = {"silu": F.silu, "gelu": F.gelu, "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh")}
TOKENS = (1, 2, 3, 4, 5, 7, 8, 9, 13, 16)
TOLERANCE = {torch.bfloat16: 8e-3, torch.float16: 1e-3}  # ‖difference‖ / ‖reference‖
# in_size, out_size, the norm's dtype, activation, dtype, bias: tiles that do not divide, inputs of 8 only
SHAPES = [
    (1024, 4096, "bfloat16", "", torch.bfloat16, False),
    (2048, 1024, "", "", torch.bfloat16, False),
    (1024, 3072, "bfloat16", "silu", torch.bfloat16, False),
    (4096, 14336, "bfloat16", "silu", torch.bfloat16, False),
    (14336, 4096, "", "", torch.bfloat16, False),
    (1024, 20001, "", "", torch.bfloat16, True),
    (1000, 1300, "float32", "gelu", torch.float16, True),
    (72, 27, "", "", torch.float16, True),
    (8, 8, "float16", "", torch.float16, False),
    (576, 963, "bfloat16", "", torch.bfloat16, True),
    (2304, 9217, "float32", "gelu_pytorch_tanh", torch.bfloat16, True),
]


def reference(x, weight, bias, residual, scale, eps, act):
    """(y, x + residual) as the layers' own ops give them, each rounded where it would be stored, else in float64."""
    total = x if residual is None else x + residual
    h = total.double()
    if scale is not None:
        h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + eps) * scale.double()
        h = h.to(x.dtype).double()
    y = h @ weight.double().T + (0 if bias is None else bias.double())
    if act:
        gate, up = y.to(x.dtype).double().chunk(2, -1)
        y = GATES[act](gate) * up
    return y, total


def inputs(tokens, in_size, out_size, norm, act, dtype, bias):
    def normal(*size):
        return torch.randn(*size, device="cuda")

    rows = out_size * (2 if act else 1)
    x = normal(tokens, in_size).to(dtype)
    residual = normal(tokens, in_size).to(dtype) if norm else None
    weight = (normal(rows, in_size) / in_size**0.5).to(dtype)
    scale = (torch.rand(in_size, device="cuda") + 0.5).to(getattr(torch, norm)) if norm else None
    return x, weight, normal(rows).to(dtype) if bias else None, residual, scale


def made(in_size, out_size, norm, act, dtype):
    from vllm_kernels.small_product import product

    return product(in_size, out_size, str(dtype).removeprefix("torch."), norm, act)


@pytest.mark.parametrize(("in_size", "out_size", "norm", "act", "dtype", "bias"), SHAPES)
def test_product_of_few_tokens_is_that_in_float64(in_size, out_size, norm, act, dtype, bias):
    small = made(in_size, out_size, norm, act, dtype)
    assert small.most
    for tokens in [count for count in TOKENS if count <= small.most]:
        x, weight, b, residual, scale = inputs(tokens, in_size, out_size, norm, act, dtype, bias)
        before = [None if t is None else t.clone() for t in (x, residual)]
        total = None if residual is None else torch.full_like(x, float("nan"))
        wanted, added = reference(x, weight, b, residual, scale, 1e-6, act)

        y = small(x, weight, b, residual=residual, scale=scale, eps=1e-6, total=total)

        error = (y.double() - wanted).norm() / wanted.norm()
        assert error < TOLERANCE[dtype], f"{tokens} tokens: {error:.1e}"
        assert total is None or torch.equal(total, added)
        assert torch.equal(x, before[0])
        assert residual is None or torch.equal(residual, before[1])


def test_first_layer_without_a_residual_norms_x_itself():
    small = made(1024, 4096, "bfloat16", "", torch.bfloat16)
    x, weight, _, _, scale = inputs(3, 1024, 4096, "bfloat16", "", torch.bfloat16, False)
    y = small(x, weight, scale=scale, eps=1e-5)
    wanted, _ = reference(x, weight, None, None, scale, 1e-5, "")
    assert (y.double() - wanted).norm() / wanted.norm() < TOLERANCE[torch.bfloat16]


def test_result_is_the_same_bits_each_time_and_in_a_graph_of_a_chain():
    """Six kernels in a row, each launched before its predecessor ends, whose memory is handed on."""
    up = made(1024, 3072, "bfloat16", "silu", torch.bfloat16)
    down = made(3072, 1024, "", "", torch.bfloat16)
    x, w1, _, residual, scale = inputs(2, 1024, 3072, "bfloat16", "silu", torch.bfloat16, False)
    w2 = (torch.randn(1024, 3072, device="cuda") / 55).to(torch.bfloat16)

    def chain():
        y, r = x, residual
        for _ in range(3):
            total = torch.empty_like(r)
            h = up(y, w1, residual=r, scale=scale, eps=1e-6, total=total)
            y, r = down(h, w2), total
        return y, r

    y, r = x, residual
    for _ in range(3):
        total = torch.empty_like(r)
        h = up(y, w1, residual=r, scale=scale, eps=1e-6, total=total)
        torch.cuda.synchronize()
        y, r = down(h, w2), total
        torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = chain()
    for _ in range(5):
        for tensor in out:
            tensor.fill_(float("nan"))
        graph.replay()
        assert torch.equal(out[0], y)
        assert torch.equal(out[1], r)


def test_not_a_number_in_one_token_stays_there():
    small = made(576, 963, "", "", torch.bfloat16)
    x, weight, _, _, _ = inputs(5, 576, 963, "", "", torch.bfloat16, False)
    x[2, 7] = float("nan")
    y = small(x, weight)
    assert y[2].isnan().all()
    assert not y[[0, 1, 3, 4]].isnan().any()


def test_linear_takes_few_tokens_many_tokens_and_odd_strides():
    from vllm_kernels.small_linear import linear

    from vllm_core.interfaces.device import Device
    from vllm_core.interfaces.queries import OpQuery

    device = Device(type="cuda", capability=torch.cuda.get_device_capability())
    query = OpQuery(op="linear", dtype="bfloat16", device=device, shape={"in_size": 256, "out_size": 104, "bias": True})
    multiply = linear(query)
    weight = torch.randn(104, 256, device="cuda", dtype=torch.bfloat16) / 16
    bias = torch.randn(104, device="cuda", dtype=torch.bfloat16)
    for tokens in (0, 1, 16, 17, 64):
        wide = torch.randn(tokens, 300, device="cuda", dtype=torch.bfloat16)
        for x in (wide[:, :256].contiguous(), wide[:, :256], wide[:, 3:259]):
            wanted = x.double() @ weight.double().T + bias.double()
            y = multiply(x, weight, bias)
            assert y.shape == wanted.shape
            assert not tokens or (y.double() - wanted).norm() / wanted.norm() < TOLERANCE[torch.bfloat16]
