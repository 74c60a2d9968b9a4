"""One rank of two: ``python -m tests.layers.two_ranks RANK STORE``. Exits with 0 if every case agrees."""

from __future__ import annotations

import os
import sys

import attrs
import torch
from torch import distributed as dist

from vllm_core.distributed.single import SingleGroup
from vllm_core.distributed.torch_group import join
from vllm_core.testing.paged import PagedModel

from .tiny import Config, TinyLM, assert_close, plain_logits, random_tensors

CASES = [
    Config(),  # 53 ids: the second rank's last row is padding
    Config(bias=True, norm="layer", sinks=True, qk_norm=True),
    Config(kv_heads=1),  # both ranks hold a copy of the only key/value head
    Config(tied=True, vocab=52),
    Config(post_norm=True, logit_cap=5.0),
]
IDS = list(range(1, 30))


def main(rank: int, store: str) -> None:
    group = join("cpu", dist.FileStore(store, 2), "tp", rank, 2, timeout=60)
    assert (group.rank, group.size) == (rank, 2)
    assert torch.equal(group.all_reduce(torch.tensor([1.0 + rank])), torch.tensor([3.0]))
    assert torch.equal(group.all_gather(torch.tensor([[rank]]), dim=0), torch.tensor([[0], [1]]))
    for config in CASES:
        tensors = random_tensors(config)
        paged = PagedModel(TinyLM, attrs.asdict(config), tensors, groups={"tp": group, "pp": SingleGroup()})
        whole = PagedModel(TinyLM, attrs.asdict(config), tensors)
        held = sum(p.numel() for p in paged.model.parameters()) / sum(p.numel() for p in whole.model.parameters())
        assert held < 0.7, f"{config}: a rank holds {held:.0%} of the parameters"
        row = paged.row()
        got = torch.cat([paged.step([(row, IDS[:20])])[0], paged.step([(row, IDS[20:])])[0]])
        assert_close(got, plain_logits(config, tensors, IDS))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
    os._exit(0)  # past gloo's threads, which may still be at work when the interpreter takes itself apart
