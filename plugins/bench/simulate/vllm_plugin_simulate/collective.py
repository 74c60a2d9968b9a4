"""How long ranks take to agree on a sum. TP 1 has nothing to agree on, and takes none."""

from __future__ import annotations

from vllm_plugin_simulate.hardware import Link

__all__ = ["ALGORITHMS", "all_gather", "all_reduce"]


def one_shot(ranks: int, size: float, link: Link) -> float:
    """Everybody reads all that the others have: one exchange, n - 1 times the bytes. Peer memory only."""
    return link.latency + (ranks - 1) * size / link.bandwidth


def two_shot(ranks: int, size: float, link: Link) -> float:
    """Everybody adds up a share, then all read the shares: two exchanges. Peer memory only."""
    return 2 * (link.latency + (ranks - 1) / ranks * size / link.bandwidth)


def ring(ranks: int, size: float, link: Link) -> float:
    """Shares go round twice, from neighbour to neighbour: the least bytes, 2 (n - 1) exchanges."""
    return 2 * (ranks - 1) * (link.latency + size / ranks / link.bandwidth)


ALGORITHMS = {"one-shot": one_shot, "two-shot": two_shot, "ring": ring}


def all_reduce(ranks: int, size: float, link: Link, *, peers: bool, algorithm: str = "auto") -> float:
    """Seconds. ``size``: bytes of each rank's tensor; ``peers``: ranks can read each other's memory.

    algorithm   one of ALGORITHMS, or "auto": the fastest of those that the ranks can do
    """
    if ranks == 1:
        return 0.0
    if not peers:
        return ring(ranks, size, link)
    if algorithm != "auto":
        return ALGORITHMS[algorithm](ranks, size, link)
    return min(seconds(ranks, size, link) for seconds in ALGORITHMS.values())


def all_gather(ranks: int, size: float, link: Link) -> float:
    """Seconds until each rank has the ``size`` bytes of every other."""
    return 0.0 if ranks == 1 else link.latency + (ranks - 1) * size / link.bandwidth
