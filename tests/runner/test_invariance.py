"""--batch-invariant: what computes rows on its own, what does not, and who is named when something would not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import OpQuery
from vllm_core.layers import GatedMLP, RMSNorm
from vllm_core.ops import OPS
from vllm_core.plugin import Offer, Rank
from vllm_core.plugins.errors import NoOffer
from vllm_core.runner.invariance import REFERENCES, Dependent, is_invariant
from vllm_core.runner.plan import EnginePlan

DEPENDENT = {"linear", "scaled_linear", "paged_attention"}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))]
N = 96


def test_every_op_is_known_to_be_invariant_or_not():
    assert set(REFERENCES) | DEPENDENT == set(OPS)
    assert not set(REFERENCES) & DEPENDENT


def calls(device, dtype):
    """Op -> a function of x [T, 2N] that gives a result for each row."""
    weight, bias = (torch.randn(2 * N, device=device, dtype=dtype) for _ in range(2))

    def of(name, *more):
        return lambda x: OPS[name].reference(x.clone(), *more)

    found = {
        name: of(name) for name in OPS if name.endswith("_and_mul") or name in ("gelu", "gelu_tanh", "relu", "argmax")
    }
    found["token_logprobs"] = lambda x: OPS["token_logprobs"].reference(x, x.argmax(-1))
    found["rms_norm"] = of("rms_norm", weight, 1e-6)
    found["layer_norm"] = of("layer_norm", weight, bias, 1e-5)
    found["add_rms_norm"] = lambda x: OPS["add_rms_norm"].reference(x.clone(), x / 3, weight, 1e-6)
    found["add_layer_norm"] = lambda x: OPS["add_layer_norm"].reference(x.clone(), x / 3, weight, bias, 1e-5)
    found["embedding"] = lambda x: OPS["embedding"].reference(
        x[:, 0].float().abs().mul(9).long().clamp_max(7), weight.view(8, -1)
    )
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_of_these_ops_is_the_same_in_any_batch(device, dtype):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        x = torch.randn(1501, 2 * N, device=device).to(dtype).mul_(3)  # more than one thread's share
        for name, call in calls(device, dtype).items():
            if device not in REFERENCES[name]:
                continue
            whole = _parts(call(x))
            for rows in (slice(0, 1), slice(700, 701), slice(3, 20), slice(1, 1501), slice(1500, 1501)):
                assert all(torch.equal(a, b[rows]) for a, b in zip(_parts(call(x[rows])), whole, strict=True)), name
        cos, sin = torch.randn(1501, N // 2, device=device).cos(), torch.randn(1501, N // 2, device=device).sin()
        heads = x.view(1501, 2, N)
        whole = OPS["rotary"].reference(heads.clone(), cos, sin, False)
        for rows in (slice(0, 1), slice(3, 20), slice(1, 1501)):
            assert torch.equal(OPS["rotary"].reference(heads[rows].clone(), cos[rows], sin[rows], False), whole[rows])
    finally:
        torch.set_num_threads(threads)


def _parts(result):
    return result if isinstance(result, tuple) else (result,)


class Chooser:
    """Offers these ops and layers; refuses all others with a reason."""

    def __init__(self, *offered, target="tests.runner.test_invariance:kernel"):
        self.offered, self.target = offered, target

    def choose(self, hook, query, named=None):
        assert hook == "op_kernel"
        assert query.batch_invariant
        if query.op not in self.offered:
            raise NoOffer("no", why=[f"vendor (pkg 1.0): no {query.op} of that kind"])
        offer = Offer(
            name="mine", target=self.target, rank=Rank.TUNED, capabilities=frozenset({"batch_invariant", "graph"})
        )

        class Decision:
            provided = type("P", (), {"distribution": "pkg"})

            def load(self):
                return kernel

        Decision.offer = offer
        return Decision()


def kernel(query, layer=None):
    return (lambda x, residual, batch: (x, residual)) if layer is not None else OPS[query.op].reference


def bound(chooser, device="cpu", dry=False):
    place = torch.device("meta" if dry else "cpu")
    plan = EnginePlan(chooser, torch.float32, place, Device(device), {}, 64, 64, batch_invariant=True)
    model = GatedMLP(32, 48, norm=RMSNorm(32))
    model.bind(plan, "mlp")
    return plan, model


@pytest.mark.parametrize("dry", [True, False])
def test_a_part_that_depends_on_the_batch_is_refused_with_what_was_offered_and_what_would_help(dry, monkeypatch):
    monkeypatch.setattr("vllm_core.runner.invariance.absent", lambda kind: ["vllm-plugin-fast", "vllm-plugin-steady"])
    plan, model = bound(Chooser(), dry=dry)
    with pytest.raises(NoOffer, match="depend on the batch") as error:
        plan.check_invariance(model)
    text = str(error.value)
    assert "linear (in_size 32, out_size 96, float32): the core's own version is not, on cpu" in text
    assert "vendor (pkg 1.0): no linear of that kind" in text
    assert "silu_and_mul (size 48, float32)" in text
    assert "not installed here, and may have some for this device: vllm-plugin-fast, vllm-plugin-steady" in text
    assert "rms_norm" not in text  # torch's own is row by row


@pytest.mark.parametrize("dry", [True, False])
def test_ops_that_a_fused_layer_stands_for_may_depend_on_the_batch(dry):
    plan, model = bound(Chooser("gated_mlp"), dry=dry)
    plan.check_invariance(model)
    outer = nn.Module()
    outer.mlp, outer.other = model, nn.Module()
    outer.other.product = Dependent(OpQuery(op="linear", dtype="float32", device=Device("cpu"), shape={}), ())
    with pytest.raises(NoOffer, match=r"linear \(, float32\)") as error:
        plan.check_invariance(outer)
    assert "silu" not in str(error.value)


@pytest.mark.parametrize("dry", [True, False])
def test_a_kernel_for_each_op_that_lacks_one_is_enough(dry):
    plan, model = bound(Chooser("linear", "silu_and_mul"), dry=dry)
    plan.check_invariance(model)
    plan, model = bound(Chooser("linear"), device="cuda", dry=dry)  # where activations go element by element
    plan.check_invariance(model)


def test_what_depends_on_the_batch_never_runs_in_silence():
    query = OpQuery(op="linear", dtype="float32", device=Device("cpu"), shape={})
    assert not is_invariant(query)
    with pytest.raises(RuntimeError, match="linear was called"):
        Dependent(query, ())(torch.ones(1))


def test_an_op_of_the_step_beside_the_model_counts_too():
    plan, model = bound(Chooser("linear", "silu_and_mul"))
    query = OpQuery(op="token_logprobs", dtype="float32", device=Device("cuda"), shape={})
    with pytest.raises(NoOffer, match="token_logprobs"):
        plan.check_invariance(model, [Dependent(query, ()), print])


def test_a_quantized_product_has_to_say_so():
    plan, model = bound(Chooser("linear", "silu_and_mul"))

    class Method:
        pass

    model.down.method = Method()
    with pytest.raises(NoOffer, match=r"down is multiplied by Method"):
        plan.check_invariance(model)
    Method.batch_invariant = True
    plan.check_invariance(model)
