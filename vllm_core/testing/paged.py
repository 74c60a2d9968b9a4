"""Running a bound model over pages without an engine: every batch is made by hand, so tests can make any."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from vllm_core.engine.cache.grouping import plan_caches
from vllm_core.interfaces.attention import AttentionStep
from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.cache import CacheGroup, SlidingWindowCache
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.group import ProcessGroup
from vllm_core.interfaces.steps import NULL_PAGE
from vllm_core.runner.plan import EnginePlan
from vllm_core.testing.chooser import HandChooser
from vllm_core.weights.copies import elsewhere_of
from vllm_core.weights.load import call
from vllm_core.weights.rules import Match, Table


@attrs.define(slots=True)
class Row:
    """A sequence: what has been computed, and the pages of each cache group in block order."""

    ids: list[int] = attrs.field(factory=list)
    pages: list[list[int]] = attrs.field(factory=list)


class PagedModel:
    """A model class, bound and filled, with pages of its own that rows take in a scattered order.

    tensors   checkpoint name -> tensor
    plan      how caches share pages, as ``plan_caches``
    poison    fill all pages with NaN first: whoever reads what was not written is found out
    """

    def __init__(
        self,
        model_class: Any,
        config: dict[str, Any],
        tensors: dict[str, Tensor],
        *,
        chooser: Any = None,
        groups: Mapping[str, ProcessGroup] | None = None,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        block_size: int = 16,
        num_pages: int = 256,
        max_position: int = 1024,
        scatter: bool = True,
        poison: bool = True,
        plan: Any = plan_caches,
    ) -> None:
        self.model = model_class.from_config(config)
        self.plan = EnginePlan(
            chooser or HandChooser(), dtype, torch.device(device), facts_of(device), groups or {}, 4096, max_position
        )
        self.model.bind(self.plan)
        self.caches = self.plan.finish(plan, block_size)
        fill(self.model, tensors)
        self.device, self.block_size = device, block_size
        shape = (num_pages, self.caches.page_bytes)
        self.pages = [
            torch.full(shape, 255 if poison else 0, dtype=torch.uint8) for _ in range(self.caches.num_tensors)
        ]
        self.pages = [page.to(device) for page in self.pages]
        self.backends = self.plan.bind_caches(self.caches, self.pages)
        self.free = list(range(1, num_pages))
        if scatter:
            random.Random(num_pages).shuffle(self.free)

    def row(self) -> Row:
        return Row(pages=[[] for _ in self.caches.groups])

    def batch(self, work: Sequence[tuple[Row, list[int]]]) -> Batch:
        """The batch that appends new ids to rows; takes pages, and frees those behind a window."""
        positions = [p for row, new in work for p in range(len(row.ids), len(row.ids) + len(new))]
        lens, kv_lens = [len(new) for _, new in work], [len(row.ids) + len(new) for row, new in work]
        starts = torch.tensor([0, *lens], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        steps = [self._attention_step(group, work, lens, kv_lens, starts) for group in self.caches.groups]
        batch = Batch(
            num_tokens=len(positions),
            positions=torch.tensor(positions, device=self.device),
            attention=steps,
            metadata=[],
        )
        batch.metadata = [b and b.begin_step(step) for b, step in zip(self.backends, steps, strict=True)]
        return batch

    @torch.inference_mode()
    def step(self, work: Sequence[tuple[Row, list[int]]]) -> list[Tensor]:
        """Append new ids to rows in one batch; logits [new, vocab_size] of each row."""
        batch = self.batch(work)
        ids = torch.tensor([i for _, new in work for i in new], device=self.device)
        logits = self.model.logits(self.model.forward(self.model.embed(ids, batch), batch))
        for row, new in work:
            row.ids += new
        return list(logits.split([len(new) for _, new in work]))

    def _attention_step(
        self,
        group: CacheGroup,
        work: Sequence[tuple[Row, list[int]]],
        lens: list[int],
        kv_lens: list[int],
        starts: Tensor,
    ) -> AttentionStep:
        size, slots, tables = group.block_size, [], []
        window = group.spec.window if isinstance(group.spec, SlidingWindowCache) else None
        for (row, new), end in zip(work, kv_lens, strict=True):
            table = row.pages[group.index]
            while len(table) * size < end:
                table.append(self.free.pop())
            if window is not None:
                for block in range(max(0, len(row.ids) - window + 1) // size):
                    table[block] = NULL_PAGE
            slots += [table[p // size] * size + p % size for p in range(end - len(new), end)]
            tables.append(table)
        width = max((len(table) for table in tables), default=0)
        filled = [table + [NULL_PAGE] * (width - len(table)) for table in tables]
        return AttentionStep(
            num_tokens=sum(lens),
            query_lens=lens,
            kv_bounds=kv_lens,
            query_starts=starts.to(self.device),
            kv_lens=torch.tensor(kv_lens, dtype=torch.int32, device=self.device),
            block_table=torch.tensor(filled, dtype=torch.int32, device=self.device).view(len(filled), width),
            slots=torch.tensor(slots, dtype=torch.int64, device=self.device),
        )


def facts_of(device: str) -> Device:
    """What plugins are asked with."""
    return Device(device, capability=torch.cuda.get_device_capability() if device == "cuda" else None)


@torch.no_grad()
def fill(model: Any, tensors: dict[str, Tensor]) -> None:
    """Put checkpoint tensors where the model's rules and its layers' ``loads`` say. All of them, each once."""
    layers, table = dict(model.named_modules()), Table(model.weights)
    elsewhere = elsewhere_of(layers)
    for layer in layers.values():
        call(layer, "filling")
    missing = {
        (path, p, s) for path, m in layers.items() for p, slots in getattr(m, "loads", {}).items() for s in slots
    }
    for name, tensor in tensors.items():
        match = table.match(name)
        if not isinstance(match, Match):
            if match is None:
                raise ValueError(f"no weight rule covers {name!r}")
            continue
        if any(match.path == path or match.path.startswith(f"{path}.") for path in elsewhere):
            continue
        if match.parameter in getattr(layers[match.path], "unread", ()):
            continue
        place = layers[match.path].loads[match.parameter][match.slot]
        if tuple(tensor.shape) != place.shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)}, {match.path}.{match.parameter} takes {place.shape}")
        target = getattr(layers[match.path], match.parameter)
        target[tuple(slice(*s) for s in place.target)] = tensor[tuple(slice(*s) for s in place.source)].to(target.dtype)
        missing.remove((match.path, match.parameter, match.slot))
    if missing:
        raise ValueError(f"parameters without a tensor: {sorted(missing)}")
    for layer in layers.values():
        call(layer, "filled")
    model.loaded()
