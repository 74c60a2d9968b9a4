"""Which rank does what: tensor-parallel ranks lie side by side, pipeline stages behind each other. No torch."""

from __future__ import annotations

import attrs


@attrs.frozen
class Layout:
    """``tp`` ranks split each layer, ``pp`` stages split the stack. Rank r is number r % tp of stage r // tp.

    So the ranks of a stage, which speak most, are neighbours, and stages are what hosts are best divided by.
    """

    tp: int = 1
    pp: int = 1

    @property
    def world(self) -> int:
        return self.tp * self.pp

    def place(self, rank: int) -> dict[str, int]:
        """This rank's number in its group of each kind."""
        return {"tp": rank % self.tp, "pp": rank // self.tp}

    def members(self, rank: int) -> dict[str, tuple[int, ...]]:
        """The ranks of each group that this rank is in, in the groups' order."""
        stage, share = divmod(rank, self.tp)
        return {
            "tp": tuple(stage * self.tp + i for i in range(self.tp)),
            "pp": tuple(i * self.tp + share for i in range(self.pp)),
        }

    @property
    def speaker(self) -> int:
        """The rank whose results count: the first of the last stage."""
        return (self.pp - 1) * self.tp

    def title(self, rank: int) -> str:
        """How messages call a rank: "rank 3 (tp 1, pp 1)"."""
        place = self.place(rank)
        split = [f"{name} {place[name]}" for name, size in (("tp", self.tp), ("pp", self.pp)) if size > 1]
        return f"rank {rank}" + (f" ({', '.join(split)})" if split else "")
