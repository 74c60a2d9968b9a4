"""Process groups over gloo, two and four ranks in threads, and who is in which group."""

import pytest
import torch
from torch import distributed as dist

from vllm_core.distributed.dry import DryGroup
from vllm_core.distributed.groups import dry_groups
from vllm_core.distributed.layout import Layout
from vllm_core.distributed.single import SingleGroup
from vllm_core.distributed.torch_group import TorchGroup, join
from vllm_core.testing.ranks import Ranks


@pytest.fixture(scope="module")
def four():
    with Ranks(Layout(tp=2, pp=2)) as ranks:
        yield ranks


def test_tensor_ranks_are_neighbours_and_stages_lie_behind_each_other():
    layout = Layout(tp=2, pp=3)
    assert layout.world == 6
    assert layout.place(5) == {"tp": 1, "pp": 2}
    assert layout.members(3) == {"tp": (2, 3), "pp": (1, 3, 5)}
    assert layout.speaker == 4
    assert layout.title(3) == "rank 3 (tp 1, pp 1)"
    assert Layout(tp=2).title(1) == "rank 1 (tp 1)"
    assert Layout().title(0) == "rank 0"


def test_a_sum_is_over_the_own_group_and_the_same_on_each_rank(four):
    sums = four.run(lambda rank, groups: groups["tp"].all_reduce(torch.tensor([10.0**rank])).item())
    assert sums == [11, 11, 1100, 1100]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64], ids=str)
def test_what_is_gathered_is_in_rank_order_along_the_dimension(four, dtype):
    def work(rank, groups):
        x = torch.tensor([[rank, rank]], dtype=dtype)
        return groups["pp"].all_gather(x, dim=0).tolist(), groups["tp"].all_gather(x.t(), dim=-1).tolist()

    found = four.run(work)
    assert found[0] == ([[0, 0], [2, 2]], [[0, 1], [0, 1]])
    assert found[3] == ([[1, 1], [3, 3]], [[2, 3], [2, 3]])


def test_what_is_sent_arrives_in_order_though_the_sender_goes_on(four):
    many = 30

    def work(rank, groups):
        group = groups["pp"]
        if group.rank == 0:
            for i in range(many):
                group.send(torch.full((3,), float(i)), 1)
            return group.receive(torch.empty(1), 1).item()
        found = [group.receive(torch.empty(3), 0)[0].item() for _ in range(many)]
        group.send(torch.tensor([sum(found)]), 0)
        return found

    found = four.run(work)
    assert found[2] == found[3] == list(map(float, range(many)))
    assert found[0] == found[1] == sum(range(many))


def test_an_ordered_sum_of_a_token_does_not_depend_on_those_beside_it():
    """Bit for bit, and the same on each rank; gloo's own is not."""
    layout = Layout(tp=4)

    def work(rank, groups):
        x = torch.randn(64, 96, generator=torch.Generator().manual_seed(rank))
        sums = []
        for group in (groups["tp"], TorchGroup(groups["tp"].backend, ordered=True)):
            whole = group.all_reduce(x.clone())
            sums.append((whole, [torch.equal(group.all_reduce(x[:n].clone()), whole[:n]) for n in (1, 2, 3, 33)]))
        return sums

    with Ranks(layout) as ranks:
        found = ranks.run(work)
    (plain, same), (ordered, alike) = found[0]
    assert not all(same)
    assert all(alike)
    assert torch.allclose(plain, ordered, atol=1e-5)
    assert all(torch.equal(sums[1][0], ordered) for sums in found)


def test_a_strided_tensor_is_summed_without_harm(four):
    def work(rank, groups):
        x = torch.arange(6.0).view(2, 3)
        return groups["tp"].all_reduce(x.t()), x

    for total, x in four.run(work):
        assert torch.equal(total, 2 * torch.arange(6.0).view(2, 3).t())
        assert torch.equal(x, torch.arange(6.0).view(2, 3))


def test_a_group_of_one_gives_back_what_it_gets_and_speaks_to_nobody():
    group, x = SingleGroup(), torch.ones(2)
    assert group.all_reduce(x) is x
    assert group.all_gather(x) is x
    with pytest.raises(ValueError, match="a group of one"):
        group.send(x, 1)
    with pytest.raises(ValueError, match="a group of one"):
        group.receive(x, 1)


def test_a_dry_group_has_the_shapes_of_a_real_one():
    groups = dry_groups(Layout(tp=4, pp=1), rank=2)
    assert groups == {"tp": DryGroup(2, 4)}
    x = torch.empty(3, 5, device="meta")
    assert groups["tp"].all_reduce(x).shape == (3, 5)
    assert groups["tp"].all_gather(x).shape == (3, 20)
    assert groups["tp"].all_gather(x, dim=0).shape == (12, 5)


def test_the_failure_of_one_rank_is_told(four):
    def work(rank, groups):
        if rank == 2:
            raise RuntimeError("rank 2 has a fault")

    with pytest.raises(RuntimeError, match="rank 2 has a fault"):
        four.run(work)


def test_ranks_on_devices_that_nobody_makes_groups_for_are_refused():
    with pytest.raises(ValueError, match=r"ranks on npu devices cannot meet yet: .* one rank can run there"):
        join("npu", dist.HashStore(), "tp", 0, 2, 1.0)
