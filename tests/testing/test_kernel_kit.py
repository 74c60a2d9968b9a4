"""The kit of kernels passes the core's own versions of all ops, and fails each wrong kernel by its mistake."""

from __future__ import annotations

from types import SimpleNamespace

import attrs
import pytest
import torch
from torch.nn import functional as F

from vllm_core import ops
from vllm_core.interfaces.device import Device
from vllm_core.ops import OPS
from vllm_core.plugin import Offer
from vllm_core.testing import KernelConformance
from vllm_core.testing.kernel import all_cases
from vllm_core.testing.kernel_run import Made

FLOATS = ("float32", "bfloat16", "float16")
TESTED = sorted({case.op for case in all_cases()})


class Plain:
    """Stands for a plugin that offers the core's own version of every op; ``wrong``: op -> a kernel in its place."""

    module = "vllm_core.plugin"
    device, torch_device = Device("cpu"), torch.device("cpu")
    capabilities = frozenset({"graph"})

    def answer(self, query):
        if query.dtype not in FLOATS or query.op not in TESTED:
            return SimpleNamespace(offer=None, refusal=f"{query.dtype} is not served")
        target = "vllm_core.ops.table:reference_kernel"
        return SimpleNamespace(offer=Offer(name="plain", target=target, capabilities=self.capabilities), refusal="")

    def offer(self, query):
        found = self.answer(query).offer
        assert found is not None, f"{query} should be served"
        return found


class Kit(KernelConformance):
    kernel = "plain"
    ops = TESTED

    @classmethod
    def ask(cls):
        return Plain()


class TestAllOfTheCores(Kit):
    """Every op, every size, every dtype: the kit's results are those that the table's own versions have."""


def case(op, name="usual", dtype="float32"):
    (found,) = [c for c in all_cases() if (c.op, c.name) == (op, name)]
    return found, dtype


def kit_with(kernel, capabilities=(), cls=Kit):
    """The kit with this kernel in place of every other."""

    class Wrong(cls):
        def made(self, asked, case, dtype):
            made = super().made(asked, case, dtype)
            offer = attrs.evolve(made.offer, capabilities=frozenset(capabilities))
            return Made(made.case, made.query, offer, kernel, made.device)

    return Wrong()


RIGHT = "test_results_are_those_of_float64"


def fails(test, kernel, which, match, **more):
    with pytest.raises(AssertionError, match=match):
        getattr(kit_with(kernel, **more), test)(Plain(), which)


def test_every_op_of_the_table_has_cases_but_for_attention_that_has_a_kit_of_its_own():
    assert set(OPS) - set(TESTED) == {"paged_attention"}


@pytest.mark.parametrize("op", TESTED)
def test_a_result_that_is_off_by_little_is_found(op):
    """In every op: one element of a result, or of what is written, differs."""

    def wrong(*args, **kwargs):
        returned = OPS[op].reference(*args, **kwargs)
        found = [returned] if isinstance(returned, torch.Tensor) else list(returned or ())
        for x in found or [a for a in args if isinstance(a, torch.Tensor)]:
            if x.numel():
                x = x.view(-1)
                x[len(x) // 2] = x[len(x) // 2].add(1) if not x.is_floating_point() else x[len(x) // 2] * 1.01 + 0.1
        return returned

    with pytest.raises(AssertionError, match="is wrong in"):
        getattr(kit_with(wrong), RIGHT)(Plain(), next((c, "float32") for c in all_cases() if c.op == op))


def test_a_gate_that_overflows_is_found():
    def wrong(x):
        gate, up = x.chunk(2, -1)
        e = torch.exp(gate)
        return gate * e / (1 + e) * up

    fails(RIGHT, wrong, case("silu_and_mul"), "nan instead of")


def test_sums_in_half_precision_are_found():
    def wrong(x, weight, eps):
        mean = torch.zeros_like(x[..., :1])
        for i in range(x.shape[-1]):
            mean = mean + x[..., i : i + 1] ** 2 / x.shape[-1]
        return x * torch.rsqrt(mean + eps) * weight

    fails(RIGHT, wrong, case("rms_norm", "large", "bfloat16"), "is wrong in")


def test_a_result_of_another_dtype_or_shape_is_found():
    fails(RIGHT, lambda x: ops.relu(x).double(), case("relu"), r"is torch\.float64, should be torch\.float32")
    fails(RIGHT, lambda x: ops.relu(x)[:1], case("relu"), r"is \[1, 64\], not \[2, 64\]")
    fails(RIGHT, lambda x, r, w, eps: ops.rms_norm(x + r, w, eps), case("add_rms_norm"), "1 results, should be 2")


def test_the_sum_rounded_after_it_was_normalised_is_found():
    def wrong(x, residual, weight, eps):
        total = x.float() + residual.float()
        return ops.rms_norm(total, weight.float(), eps).to(x.dtype), total.to(x.dtype)

    kit = kit_with(wrong)
    kit.tolerance = {"bfloat16": 3e-3}
    with pytest.raises(AssertionError, match="is wrong in"):
        kit.test_results_are_those_of_float64(Plain(), case("add_rms_norm", "usual", "bfloat16"))


def test_rows_taken_for_neighbours_are_found_and_a_refusal_is_right():
    test = "test_rows_that_lie_elsewhere_are_read_or_refused"

    def blind(x):
        return ops.relu(x.as_strided(x.shape, (x.shape[-1], 1), x.storage_offset()))

    fails(test, blind, "relu", "argument 0 as rows of a wider tensor: result 0 is wrong")

    def strict(x):
        if not x.is_contiguous():
            raise ValueError("x must be contiguous")
        return ops.relu(x)

    kit_with(strict).test_rows_that_lie_elsewhere_are_read_or_refused(Plain(), "relu")

    def too_strict(x, weight, eps):
        strict(x)
        return ops.rms_norm(x, weight, eps)

    fails(test, too_strict, "rms_norm", "refused .*which the op's contract promises")


def test_what_is_written_beside_the_result_is_found():
    test = "test_nothing_is_written_that_the_op_does_not_write"
    fails(test, lambda x: x.relu_(), "relu", r"argument \[0\] is changed")

    def scales(x, weight, bias=None):
        y = F.linear(x, weight, bias)
        weight.mul_(2)
        return y

    fails(test, scales, "linear", r"argument \[1\] is changed")


def test_overwriting_what_may_be_overwritten_is_right():
    def in_place(x, residual, weight, eps):
        residual.add_(x)
        return x.copy_(ops.rms_norm(residual, weight, eps)), residual

    kit, op = kit_with(in_place), "add_rms_norm"
    kit.test_results_are_those_of_float64(Plain(), case(op))
    kit.test_nothing_is_written_that_the_op_does_not_write(Plain(), op)
    kit.test_results_share_no_memory_with_what_must_not_be_overwritten(Plain(), op)


def test_a_result_in_the_memory_of_another_is_found():
    test = "test_results_share_no_memory_with_what_must_not_be_overwritten"
    fails(test, lambda ids, table: table[:33], "embedding", "result 0 lies in the memory of argument 1")

    def twice(x, residual, weight, eps):
        total = x + residual
        return total, total

    fails(test, twice, "add_rms_norm", "results 0 and 1 share memory")


def test_a_result_that_the_next_call_overwrites_is_found():
    kept: dict = {}

    def wrong(x):
        return kept.setdefault((x.shape, x.dtype), torch.empty_like(x)).copy_(x.clamp_min(0))

    fails("test_a_later_call_leaves_earlier_results_as_they_are", wrong, "relu", "overwritten by the next one")


def test_rows_that_show_in_others_are_found():
    def wrong(x):
        return ops.relu(x) + 0 * x.sum()

    kit_with(wrong).test_results_are_those_of_float64(Plain(), case("relu"))
    fails("test_no_row_shows_in_another", wrong, "relu", "beside rows of NaN result 0 is wrong")


def test_bits_that_depend_on_the_batch_are_found_where_they_are_declared_not_to():
    def wrong(x):
        return ops.relu(x) * (1 + len(x) * 1e-7)

    test = "test_a_row_is_the_same_in_any_batch_if_so_declared"
    fails(test, wrong, "relu", "alone has other bits than among 33", capabilities=["batch_invariant"])
    with pytest.raises(pytest.skip.Exception, match="no offer declares"):
        kit_with(wrong).test_a_row_is_the_same_in_any_batch_if_so_declared(Plain(), "relu")


class Packs:
    """Holds weights with inputs first; ``pack`` as a subclass has it."""

    def pack(self, weight):
        return weight.t().contiguous().t()

    def __call__(self, x, weight, bias=None):
        return F.linear(x, weight, bias)


def test_a_packed_weight_is_used_after_the_unpacked_one_is_gone():
    kit_with(Packs()).test_results_are_those_of_float64(Plain(), case("linear"))

    class Keeps(Packs):
        def pack(self, weight):
            self.weight = weight
            return super().pack(weight)

        def __call__(self, x, weight, bias=None):
            return F.linear(x, self.weight, bias)

    fails(RIGHT, Keeps(), case("linear"), "nan instead of")

    class Turns(Packs):
        def pack(self, weight):
            return weight.t().contiguous()

    fails(RIGHT, Turns(), case("linear"), r"packed, a weight \[48, 64\] is \[64, 48\]")


def test_what_is_offered_and_not_tested_is_named():
    class Few(Kit):
        ops = ("relu",)

    with pytest.raises(AssertionError, match=r'"plain" offers .*, which no test covers'):
        Few().test_ops_that_are_not_its_own_are_left_to_others(Plain())
    Few.elsewhere = dict.fromkeys(TESTED, "their own tests")
    Few().test_ops_that_are_not_its_own_are_left_to_others(Plain())
    Few.elsewhere = {"relu6": "nowhere"}
    with pytest.raises(AssertionError):
        Few().test_ops_that_are_not_its_own_are_left_to_others(Plain())


def test_what_is_refused_and_what_cannot_lists_must_be_the_same():
    class Narrow(Plain):
        def answer(self, query):
            if query.dtype == "float16":
                return SimpleNamespace(offer=None, refusal=" ")
            return super().answer(query)

    with pytest.raises(AssertionError, match="should be served"):
        Kit().test_what_is_claimed_is_offered(Narrow(), case("relu", dtype="float16"))

    class Says(Kit):
        cannot = {"float16": "a test", "relu.odd": "a test"}

    assert not any(dtype == "float16" for c, dtype in Says.cases() if not Says.refused(c, dtype))
    with pytest.raises(AssertionError, match="not refused with a reason"):
        Says().test_what_cannot_lists_is_refused_with_a_reason(Narrow(), "float16")
    with pytest.raises(AssertionError, match=r"`cannot` lists relu\.odd, and relu-odd of float32 is offered"):
        Says().test_what_cannot_lists_is_refused_with_a_reason(Narrow(), "relu.odd")


def test_a_plugin_that_offers_whatever_it_is_asked_for_is_found():
    class Anything(Plain):
        def answer(self, query):
            return super().answer(attrs.evolve(query, dtype="float32"))

    with pytest.raises(AssertionError, match="is offered for complex64"):
        Kit().test_a_dtype_that_no_kernel_knows_is_not_offered(Anything())


def test_an_error_in_a_thread_is_found():
    import threading

    def wrong(*args):
        assert threading.current_thread() is threading.main_thread(), "made for one thread"
        return ops.relu(*args)

    class One(Kit):
        ops = ("relu",)

    with pytest.raises(AssertionError, match="made for one thread"):
        kit_with(wrong, cls=One).test_kernels_are_made_and_called_in_several_threads(Plain())
