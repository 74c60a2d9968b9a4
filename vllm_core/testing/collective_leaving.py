"""What becomes of the others when a rank does not come any more: an error in time, and no hang."""

from __future__ import annotations

import gc
import threading
from typing import Any, ClassVar

import torch

from vllm_core.interfaces.collective import PeerLost
from vllm_core.testing.asked import Asked
from vllm_core.testing.collective_members import Members

WAITS = 1.0  # seconds that the collective is told to wait for another rank
PATIENCE = 20.0  # seconds that a call of torch's takes to give up
DEADLINE = 90.0  # seconds after which a call counts as hanging


class CollectiveLeaving:
    """Rank 1 has left: the call of rank 0 ends with `interfaces.collective.PeerLost`."""

    op: ClassVar[str]
    query: Any
    deadline = DEADLINE

    def test_a_rank_that_has_left_ends_in_an_error_and_not_in_a_hang(self, asked: Asked) -> None:
        query = self.query(asked, 2, self.served()[0])  # type: ignore[attr-defined]
        group = Members(asked.offer(query), query, asked.torch_device.type, WAITS, PATIENCE)
        ended: list[Any] = []

        def call() -> None:
            try:
                ended.append(group.each[0](group.placed(torch.zeros(64, dtype=group.dtype), 0), dim=0))
            except BaseException as error:
                ended.append(error)

        with group:
            group.call([torch.ones(64, dtype=group.dtype)] * 2)  # all were there
            group.each[1] = group.ranks.groups[1] = None  # type: ignore[call-overload]
            gc.collect()
            thread = threading.Thread(target=call, daemon=True)  # one that hangs must not keep this process
            thread.start()
            thread.join(self.deadline)
            assert ended, f"rank 1 left, and {self.deadline:g} s later rank 0 still waits for it"
            error = ended[0]
            assert isinstance(error, BaseException), "rank 1 left, and rank 0 got a result without it"
            assert isinstance(error, PeerLost), (
                f"rank 1 left, and rank 0 raises {type(error).__name__}: {error}\n"
                "  instead raise vllm_core.interfaces.collective.PeerLost, which tells the engine whom to blame"
            )
            assert str(error).strip(), "PeerLost without a word on who is missing"
