"""One variant of a tested model: the reference, its checkpoint on disk, and our engine on that checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from vllm_core.testing.compare import assert_agree, assert_differ
from vllm_core.testing.reference import Reference
from vllm_core.testing.served import Row, Served


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class Case:
    """What the tests of a variant share; engines are made when they are first used."""

    name: str
    model_class: type  # of transformers
    config: Mapping[str, Any]
    folder: Path
    tolerance: float  # of the range of the reference's logits
    dtype: str = "float32"
    device: str = "auto"
    block_size: int | None = None
    gains: Mapping[str, float] = attrs.field(factory=dict)
    _known: dict[tuple[int, ...], Tensor] = attrs.field(factory=dict, init=False)

    def __repr__(self) -> str:
        return f"<case {self.name} of {self.model_class.__name__}>"

    @cached_property
    def reference(self) -> Reference:
        made = Reference(self.model_class, self.config, rounded=getattr(torch, self.dtype), gains=self.gains)
        made.save(self.folder)
        return made

    @cached_property
    def served(self) -> Served:
        """Our engine on the checkpoint as it is."""
        return self.serve()

    def idle(self) -> Served:
        """The same engine without the rows that a failed test left behind."""
        self.served.release(*self.served.live)
        return self.served

    @property
    def model(self) -> Any:
        """Our model: bound, filled, and any other torch module."""
        return self.served.runner.model

    def serve(self, **overrides: Any) -> Served:
        """Another engine on the same weights, with other values for fields of config.json."""
        assert self.reference  # the checkpoint is written
        return Served(
            self.folder, dtype=self.dtype, device=self.device, block_size=self.block_size, overrides=overrides
        )

    def prompt(self, tokens: int, seed: int = 0) -> list[int]:
        return self.reference.prompt(tokens, seed)

    def want(self, ids: list[int]) -> Tensor:
        """The reference's logits, float32 [T, vocab_size]."""
        key = tuple(ids)
        if key not in self._known:
            self._known[key] = self.reference.logits(ids)
        return self._known[key]

    def agree(self, got: Tensor, row: Row, what: str) -> None:
        """``got``: logits of the tokens that ``row`` computed last."""
        __tracebackhide__ = True
        want = self.want(row.ids)[row.computed - len(got) : row.computed]
        assert_agree(got, want, self.tolerance, f"{self.name}, {what}")

    def agree_on(self, served: Served, ids: list[int], what: str) -> None:
        """The whole prompt at once gives the reference's logits."""
        __tracebackhide__ = True
        assert_agree(whole(served, ids), self.want(ids), self.tolerance, f"{self.name}, {what}")

    def differ_on(self, served: Served, ids: list[int], what: str) -> None:
        """The whole prompt at once gives other logits than the reference's."""
        __tracebackhide__ = True
        assert_differ(whole(served, ids), self.want(ids), self.tolerance, f"{self.name}, {what}")


def whole(served: Served, ids: list[int]) -> Tensor:
    """Logits [T, vocab_size] of a prompt computed in one step; its pages are given back."""
    row = served.row(ids)
    logits = served.step([(row, len(ids))])[0]
    served.release(row)
    return logits
