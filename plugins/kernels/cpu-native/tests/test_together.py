"""Sums over ranks through shared memory are those of float64, the same on every rank, and late ranks are named."""

from __future__ import annotations

import os

import pytest
import torch
import vllm_plugin_cpu_native as plugin
from vllm_plugin_cpu_native import library
from vllm_plugin_cpu_native.limits import MOST_SUMMED

from vllm_core.interfaces.collective import PeerLost
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import CollectiveQuery
from vllm_core.plugin import Offer, Refusal
from vllm_core.testing.ranks import Layout, Ranks

pytestmark = pytest.mark.skipif(not library.PATH.exists(), reason="built without its kernels")


def query(world, **changes):
    fields = {"op": "all_reduce", "group": "tp", "world_size": world, "dtype": "float32", "device": Device("cpu")}
    return CollectiveQuery(**{**fields, **changes})


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request):
    with Ranks(Layout(tp=request.param)) as ranks:
        yield ranks


def made(ranks, room=1 << 16, timeout=20.0):
    from vllm_plugin_cpu_native.together import SharedMemorySum

    world = ranks.layout.world
    return ranks.run(
        lambda rank, groups: SharedMemorySum(query(world), rank, groups["tp"], max_bytes=room, timeout=timeout)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sums_are_the_same_on_every_rank_and_those_of_float64(ranks, dtype):
    sums, world = made(ranks), ranks.layout.world
    torch.manual_seed(0)
    for shape in ((1,), (3, 5), (7, 576), (16, 1024)):
        parts = [torch.randn(shape).to(dtype) for _ in range(world)]
        found = ranks.run(lambda rank, groups, parts=parts: sums[rank](parts[rank].clone()))
        want = sum(part.double() for part in parts)
        assert all(torch.equal(found[0], other) for other in found[1:])
        torch.testing.assert_close(found[0].double(), want, rtol=8e-3 if dtype == torch.bfloat16 else 1e-6, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sums_are_the_bits_of_torchs_in_the_order_of_ranks(dtype):
    """Larger tensors go to torch, and a row's sum must not depend on how many stand beside it."""
    from vllm_core.distributed.torch_group import TorchGroup

    with Ranks(Layout(tp=4)) as ranks:
        sums = made(ranks)
        torch.manual_seed(2)
        parts = [torch.randn(9, 257).to(dtype) for _ in range(4)]

        def work(rank, groups):
            ordered = TorchGroup(groups["tp"].backend, ordered=True)
            return sums[rank](parts[rank].clone()), ordered.all_reduce(parts[rank].clone())

        for here, torchs in ranks.run(work):
            assert torch.equal(here, torchs)


def test_many_sums_one_after_the_other_do_not_mix(ranks):
    sums, world = made(ranks), ranks.layout.world

    def work(rank, groups):
        return [sums[rank](torch.full((1 + i % 9,), float(i * (rank + 1))))[0].item() for i in range(500)]

    for found in ranks.run(work):
        assert found == [i * world * (world + 1) / 2 for i in range(500)]


def test_a_rows_sum_does_not_depend_on_the_rows_beside_it(ranks):
    sums = made(ranks)
    torch.manual_seed(1)
    parts = [torch.randn(16, 64) for _ in range(ranks.layout.world)]
    whole = ranks.run(lambda rank, groups: sums[rank](parts[rank].clone()))[0]
    rows = ranks.run(lambda rank, groups: sums[rank](parts[rank][3:5].clone()))[0]
    assert torch.equal(whole[3:5], rows)


def test_no_number_and_infinity_stay_what_they_are(ranks):
    sums = made(ranks)
    odd = [float("nan"), float("inf"), float("-inf"), 3.4e38]
    for dtype in (torch.float32, torch.bfloat16):
        found = ranks.run(lambda rank, groups, dtype=dtype: sums[rank](torch.tensor(odd, dtype=dtype)))[0]
        assert found.isnan().tolist() == [True, False, False, False]
        assert found[1:].tolist() == [float("inf"), float("-inf"), float("inf")]


def test_it_takes_what_fits_and_it_can_add(ranks):
    collective = made(ranks, room=64)[0]
    assert collective.takes(torch.zeros(16))
    assert not collective.takes(torch.zeros(17))
    assert not collective.takes(torch.zeros(4, dtype=torch.float64))
    assert not collective.takes(torch.zeros(4, 4).t())


def test_ranks_of_several_hosts_take_nothing(ranks, monkeypatch):
    from vllm_plugin_cpu_native import together

    class Elsewhere:
        """Each rank says that it is on a host of its own."""

        def __init__(self, group):
            self.group = group

        def all_gather(self, x, dim=0):
            x[0, 0] = 65 + self.group.rank
            return self.group.all_gather(x, dim=dim)

    world = ranks.layout.world
    found = ranks.run(
        lambda rank, groups: together.SharedMemorySum(
            query(world), rank, Elsewhere(groups["tp"]), max_bytes=64, timeout=1.0
        )
    )
    assert not any(collective.takes(torch.zeros(1)) for collective in found)


def test_a_rank_that_does_not_come_is_named_in_time():
    with Ranks(Layout(tp=2)) as ranks:
        sums = made(ranks, timeout=0.3)

        def work(rank, groups):
            if rank == 1:
                return
            with pytest.raises(PeerLost, match=r"rank 1 of the group did not come within 0\.3 s"):
                sums[0](torch.zeros(4))

        ranks.run(work)


def test_nothing_with_a_name_stays():
    before = set(os.listdir("/dev/shm"))
    with Ranks(Layout(tp=2)) as ranks:
        made(ranks)
        assert set(os.listdir("/dev/shm")) <= before


def test_it_offers_sums_of_its_numbers_on_cpus_only():
    offer = plugin.collective(query(2))
    assert isinstance(offer, Offer)
    assert offer.options == {"max_bytes": MOST_SUMMED}
    assert "batch_invariant" in offer.capabilities
    assert plugin.collective(query(2, op="all_gather")) is None
    assert plugin.collective(query(2, device=Device("cuda"))) is None
    assert isinstance(plugin.collective(query(2, dtype="float16")), Refusal)
