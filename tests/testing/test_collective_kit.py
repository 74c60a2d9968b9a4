"""The kit of collectives passes right ones, and fails those that are wrong, each by its mistake."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
import torch

from vllm_core.interfaces.collective import PeerLost
from vllm_core.interfaces.device import Device
from vllm_core.plugin import Offer
from vllm_core.testing import CollectiveConformance
from vllm_core.testing.collective_members import Members

DTYPES = ("float32", "bfloat16", "float16")


class Sum:
    """Gathers, and sums in the order of ranks, in float32."""

    def __init__(self, query, rank, bootstrap, *, timeout):
        self.rank, self.group, self.timeout = rank, bootstrap, timeout

    def takes(self, x):
        return True

    def __call__(self, x, dim=0):
        first, *others = self.parts(x)
        total = first.float()
        for part in others:
            total += part
        return total.to(x.dtype)

    def parts(self, x):
        return self.group.all_gather(x[None].contiguous(), dim=0).unbind(0)


class Gather(Sum):
    def __call__(self, x, dim=0):
        return self.group.all_gather(x, dim=dim)


class Plain:
    """Stands for a plugin that offers ``target``."""

    module = "vllm_core.plugin"
    device, torch_device = Device("cpu"), torch.device("cpu")

    def __init__(self, target="Sum", capabilities=("batch_invariant",)):
        self.target, self.capabilities = f"{__name__}:{target}", frozenset(capabilities)

    def answer(self, query):
        if query.op not in ("all_reduce", "all_gather"):
            return SimpleNamespace(offer=None, refusal="")
        return SimpleNamespace(
            offer=Offer(name="plain", target=self.target, capabilities=self.capabilities), refusal=""
        )

    def offer(self, query):
        return self.answer(query).offer


class Kit(CollectiveConformance):
    collective = "plain"
    worlds = (2, 3)

    @classmethod
    def ask(cls):
        return Plain()


class TestSum(Kit):
    """A right one, through all tests."""


class TestGather(Kit):
    op = "all_gather"

    @classmethod
    def ask(cls):
        return Plain("Gather", ())


@pytest.fixture
def serve(monkeypatch):
    """``serve(Wrong)``: what the offer leads to on every rank."""

    def put(wrong, **more):
        monkeypatch.setattr("vllm_core.testing.collective_members.load_target", lambda target: wrong)
        return Plain(**more)

    return put


RIGHT = "test_results_are_right_and_the_same_on_every_rank"


def fails(asked, match, test=RIGHT, kit=Kit, **given):
    with pytest.raises(AssertionError, match=match):
        getattr(kit(), test)(asked, **given)


def test_a_sum_that_lacks_a_rank_is_found(serve):
    class Wrong(Sum):
        def parts(self, x):
            return super().parts(x)[:2]

    Kit().test_results_are_right_and_the_same_on_every_rank(serve(Wrong), 2, "float32")
    fails(serve(Wrong), "rank 0 has .* that are not those of float64", world=3, dtype="float32")


def test_sums_of_other_bits_on_some_rank_are_found(serve):
    class Wrong(Sum):
        def parts(self, x):
            found = super().parts(x)
            return [*found[self.rank :], *found[: self.rank]]

    fails(serve(Wrong), "ranks 0 and 1 have different bits", world=3, dtype="float32")


def test_sums_in_half_precision_are_found(serve):
    class Wrong(Sum):
        def __call__(self, x, dim=0):
            total = torch.zeros_like(x)
            for part in self.parts(x):
                total += part
            return total + total * 0.01

    fails(serve(Wrong), "sums that are not those of float64", world=2, dtype="bfloat16")


def test_a_result_of_another_dtype_is_found(serve):
    class Wrong(Sum):
        def __call__(self, x, dim=0):
            return super().__call__(x.float())

    fails(serve(Wrong), r"torch.float32 \[1, 64\], should have torch.bfloat16", world=2, dtype="bfloat16")


def test_a_collective_that_takes_nothing_or_less_than_it_says_is_found(serve):
    class Nothing(Sum):
        def takes(self, x):
            return False

    class Even(Sum):
        def takes(self, x):
            return x.numel() % 8 == 0 and x.is_contiguous()

    fails(serve(Nothing), "is not taken over 2 ranks: it would never be used", world=2, dtype="float32")
    fails(serve(Even), "tensors of odd sizes are not taken", world=2, dtype="float32")

    class Says(Kit):
        cannot = {"odd sizes": "a test", "strided": "a test"}

    Says().test_results_are_right_and_the_same_on_every_rank(serve(Even), 2, "float32")
    fails(serve(Sum), "`cannot` lists 'odd sizes', and all of it is taken", kit=Says, world=2, dtype="float32")


def test_ranks_that_do_not_agree_on_what_they_take_are_found(serve):
    class Wrong(Sum):
        def takes(self, x):
            return self.rank == 0

    fails(serve(Wrong), "ranks do not agree on whether they take", world=2, dtype="float32")


def test_tensors_taken_for_contiguous_are_found(serve):
    class Wrong(Sum):
        def __call__(self, x, dim=0):
            return super().__call__(x.as_strided(x.shape, torch.empty(x.shape).stride()))

    fails(serve(Wrong), "strided of float32", world=2, dtype="float32")


def test_a_size_that_goes_wrong_beyond_a_limit_is_found(serve):
    class Wrong(Sum):
        def takes(self, x):
            return x.numel() <= 70_000

        def __call__(self, x, dim=0):
            y = super().__call__(x)
            y.view(-1)[65_536:] = 0
            return y

    Kit().test_results_are_right_and_the_same_on_every_rank(serve(Wrong), 2, "float32")
    fails(serve(Wrong), "70,000 numbers", "test_the_largest_tensor_that_is_taken_is_right", world=2)


def test_what_is_made_of_no_number_is_found(serve):
    class Wrong(Sum):
        def __call__(self, x, dim=0):
            return super().__call__(x).nan_to_num()

    fails(serve(Wrong), "instead of", "test_what_is_no_number_stays_so", world=2)


class Shared(Sum):
    """Reads the other ranks' tensors where they lie: as fast as it is wrong if nobody waits for the readers."""

    given: dict = {}
    slow = 0.0

    def parts(self, x):
        self.given[self.rank] = x
        self.group.all_gather(torch.zeros(1), dim=0)
        time.sleep(self.slow * self.rank)
        return [self.given[rank].clone() for rank in range(self.group.size)]


def test_reading_what_another_rank_has_overwritten_is_found(serve):
    class Wrong(Shared):
        slow = 0.002

    fails(serve(Wrong), "whose ranks overwrite what they gave", "test_what_a_rank_gave_is_its_own_again", world=2)


def test_a_result_that_a_later_call_overwrites_is_found(serve):
    class Wrong(Sum):
        def __call__(self, x, dim=0):
            kept = self.__dict__.setdefault(f"kept{tuple(x.shape)}", torch.empty_like(x))
            return kept.copy_(super().__call__(x))

    fails(serve(Wrong), "a result is overwritten by later calls", "test_what_a_rank_gave_is_its_own_again", world=2)


def test_gathering_along_another_dimension_is_found(serve):
    class Wrong(Gather):
        def __call__(self, x, dim=0):
            return super().__call__(x, dim=0)

    class Own(Kit):
        op = "all_gather"

    fails(serve(Wrong), "joined along 1", "test_tensors_are_joined_along_any_dimension", kit=Own, world=2)


def group_of(kit, asked, world=2):
    return kit.members(asked, world)


def test_calls_that_meet_another_call_are_found(serve):
    class Late(Sum):
        """Gives what the call before it gave."""

        def __call__(self, x, dim=0):
            y = super().__call__(x)
            old, self.__dict__["old"] = self.__dict__.get("old", y), y
            return old if old.shape == y.shape else y

    class Common(Sum):
        """Two of a group write into one place."""

        place: dict = {}

        def __call__(self, x, dim=0):
            if self.place.setdefault(self.rank, self) is not self:
                return x
            return super().__call__(x)

    with group_of(Kit(), serve(Late)) as group, pytest.raises(AssertionError, match=r"call .* gives rank 0"):
        Kit().test_calls_one_after_the_other_do_not_mix(group)
    with (
        group_of(Kit(), serve(Common)) as group,
        pytest.raises(AssertionError, match="reach another of the same group"),
    ):
        Kit().test_two_of_a_group_do_not_meet(group)


def test_a_rank_that_is_not_waited_for_is_found(serve):
    class Impatient(Shared):
        given: dict = {}

        def parts(self, x):
            self.given[self.rank] = x.clone()
            time.sleep(0.004)
            return [self.given.get(rank, x) for rank in range(self.group.size)]

    with group_of(Kit(), serve(Impatient)) as group, pytest.raises((AssertionError, RuntimeError)):
        Kit().test_ranks_that_come_late_are_waited_for(group)


def test_bits_of_another_order_are_found_where_they_are_declared_not_to_be(serve):
    class Backwards(Sum):
        def parts(self, x):
            return super().parts(x)[::-1]

    class Sized(Sum):
        def parts(self, x):
            found = super().parts(x)
            return found if x.shape[0] > 8 else found[::-1]

    test = "test_sums_are_torchs_in_the_order_of_ranks_if_so_declared"
    given = {"world": 3, "dtype": "float32"}
    fails(serve(Backwards), "has other bits than torch.distributed in the order of ranks", test, **given)
    fails(serve(Sized), "alone have other bits", "test_a_rows_sum_is_the_same_in_any_batch_if_so_declared", **given)
    with pytest.raises(pytest.skip.Exception, match="does not declare"):
        getattr(Kit(), test)(serve(Backwards, capabilities=()), **given)


LEAVING = "test_a_rank_that_has_left_ends_in_an_error_and_not_in_a_hang"


class Quick(Kit):
    deadline = 2.0


def leaves(call):
    """A sum that finds nobody there on its second call."""

    class Wrong(Sum):
        def __call__(self, x, dim=0):
            if self.__dict__.setdefault("calls", []):
                return call(x)
            self.calls.append(1)
            return super().__call__(x)

    return Wrong


def test_a_hang_after_a_rank_has_left_is_found(serve):
    release = threading.Event()
    try:
        fails(serve(leaves(lambda x: release.wait())), "2 s later rank 0 still waits", LEAVING, Quick)
    finally:
        release.set()


def test_a_result_without_a_rank_and_an_error_that_names_nobody_are_found(serve):
    def other(x):
        raise OSError("broken pipe")

    def silent(x):
        raise PeerLost

    fails(serve(leaves(lambda x: x)), "got a result without it", LEAVING, Quick)
    fails(serve(leaves(other)), "rank 0 raises OSError: broken pipe", LEAVING, Quick)
    fails(serve(leaves(silent)), "PeerLost without a word", LEAVING, Quick)


def test_what_is_offered_and_what_cannot_lists_must_be_the_same():
    class Says(Kit):
        cannot = {"float16": "a test"}

    assert Says.served() == ["float32", "bfloat16"]
    with pytest.raises(AssertionError, match="`cannot` lists float16, and it is offered"):
        Says().test_what_cannot_does_not_list_is_offered_and_all_else_refused(Plain(), 2)

    class Fewer(Plain):
        def answer(self, query):
            return (
                SimpleNamespace(offer=None, refusal="not here") if query.dtype == "float16" else super().answer(query)
            )

    Says().test_what_cannot_does_not_list_is_offered_and_all_else_refused(Fewer(), 2)
    with pytest.raises(AssertionError, match="does not offer all_reduce of float16 over 2 ranks: not here"):
        Kit().test_what_cannot_does_not_list_is_offered_and_all_else_refused(Fewer(), 2)


def test_members_are_made_on_every_rank():
    with Kit().members(Plain(), 3) as group:
        assert isinstance(group, Members)
        assert [member.rank for member in group.each] == [0, 1, 2]
