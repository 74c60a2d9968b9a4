"""How a model lies on GPUs: ranks of tensor parallelism side by side, stages one behind the other, hosts full first."""

from __future__ import annotations

import attrs

from vllm_plugin_simulate.collective import all_gather, all_reduce
from vllm_plugin_simulate.hardware import Link

__all__ = ["Split"]


@attrs.frozen(kw_only=True)
class Split:
    tp: int = 1
    pp: int = 1
    link: Link  # between GPUs of a host
    network: Link  # between GPUs of different hosts
    gpus_per_host: int = 8
    all_reduce: str = "auto"

    @property
    def gpus(self) -> int:
        return self.tp * self.pp

    @property
    def one_host(self) -> bool:
        """Whether the ranks that share each layer do."""
        return self.tp <= self.gpus_per_host and self.gpus_per_host % self.tp == 0

    def reduce_seconds(self, size: float) -> float:
        """To add up tensors of so many bytes over the ranks of a layer."""
        link = self.link if self.one_host else self.network
        return all_reduce(self.tp, size, link, peers=self.one_host, algorithm=self.all_reduce)

    def gather_seconds(self, size: float) -> float:
        """Until every rank of a layer has the ``size`` bytes of every other."""
        return all_gather(self.tp, size, self.link if self.one_host else self.network)

    def send_seconds(self, stage: int, size: float) -> float:
        """From each rank of a stage to its like of the next."""
        last, first = (stage + 1) * self.tp - 1, (stage + 1) * self.tp
        link = self.link if last // self.gpus_per_host == first // self.gpus_per_host else self.network
        return link.seconds(size)

    def back_seconds(self) -> float:
        """Until the first stage has the ids that the last one drew."""
        if self.pp == 1:
            return 0.0
        return (self.link if self.gpus <= self.gpus_per_host else self.network).latency
