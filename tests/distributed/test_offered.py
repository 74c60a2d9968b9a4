"""Plugins may do a group's operations, each for the tensors that it takes; torch does the rest."""

import attrs
import pytest
import torch

from vllm_core.distributed.layout import Layout
from vllm_core.distributed.offered import CollectiveChoice, OfferedGroup, offered
from vllm_core.engine.choose_collectives import choose_collectives
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import CollectiveQuery
from vllm_core.plugins import Selector, load_catalog, read_policy
from vllm_core.plugins.needs import INVARIANT
from vllm_core.testing.ranks import Ranks

QUERY = CollectiveQuery(op="all_reduce", group="tp", world_size=2, dtype="float32", device=Device("cpu"))
TORCH = CollectiveChoice("torch", "vllm_core.distributed.torch_group:TorchGroup", QUERY, {})


@attrs.define
class Small:
    """Sums of at most so many numbers, through the group it was made with."""

    query: CollectiveQuery
    rank: int
    bootstrap: object
    timeout: float = attrs.field(kw_only=True)
    most: int = attrs.field(kw_only=True)
    calls: int = attrs.field(default=0, kw_only=True)

    def takes(self, x):
        return x.numel() <= self.most

    def __call__(self, x, dim=0):
        self.calls += 1
        return self.bootstrap.all_reduce(x)


SMALL = CollectiveChoice("small", f"{__name__}:Small", QUERY, {"most": 4})


@pytest.fixture(scope="module")
def ranks():
    with Ranks(Layout(tp=2)) as ranks:
        yield ranks


def test_each_tensor_goes_to_the_first_that_takes_it(ranks):
    def work(rank, groups):
        base = groups["tp"]
        group = offered(base, {"all_reduce": [SMALL, TORCH]}, lambda: base, 3.0)
        found = [group.all_reduce(torch.full((n,), 1.0 + rank)).tolist() for n in (4, 5)]
        found.append(group.all_gather(torch.tensor([rank]), dim=0).tolist())
        collective = group._sums[0][1]
        return found, collective.calls, (group.rank, group.size), collective.timeout

    for rank, (found, calls, place, timeout) in enumerate(ranks.run(work)):
        assert found == [[3.0] * 4, [3.0] * 5, [0, 1]]
        assert calls == 1
        assert place == (rank, 2)
        assert timeout == 3.0


def test_a_group_that_torch_serves_alone_is_torchs_own(ranks):
    group = ranks.groups[0]["tp"]
    assert offered(group, {}, lambda: pytest.fail("nobody meets"), 1.0) is group
    chosen = {"all_reduce": [TORCH, SMALL], "all_gather": [TORCH]}  # torch takes everything
    assert offered(group, chosen, lambda: pytest.fail("nobody meets"), 1.0) is group


def test_groups_send_and_receive_as_before(ranks):
    def work(rank, groups):
        group = OfferedGroup(groups["tp"], [], [])
        if rank == 0:
            return group.send(torch.ones(2), 1)
        return group.receive(torch.zeros(2), 0).tolist()

    assert ranks.run(work)[1] == [1.0, 1.0]


def chosen(layout, needs=(), block=()):
    catalog = load_catalog(read_policy({"block": list(block)}))
    selector = Selector(catalog, needs=needs)
    found = choose_collectives(selector, layout, "float32", Device("cpu"))
    return {op: [choice.name for choice in choices] for op, choices in found.items()}, selector.decisions


def test_offers_are_chosen_once_and_stand_in_the_lock():
    found, decisions = chosen(Layout(tp=2))
    assert found["all_gather"] == ["torch"]
    assert found["all_reduce"][-1] == "torch"
    assert [d.hook for d in decisions] == ["collective"] * sum(map(len, found.values()))
    assert chosen(Layout(pp=3)) == ({}, [])


def test_where_batches_may_not_matter_torch_adds_up_in_order_and_others_must_say_that_they_do():
    for ranks in (2, 4):
        assert chosen(Layout(tp=ranks), [INVARIANT], ["cpu-native"])[0]["all_reduce"] == ["torch"]
