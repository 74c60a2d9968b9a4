"""All that does not fit between a checkpoint and a model, gathered for one error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from vllm_core.interfaces.weights import TensorInfo
from vllm_core.weights.errors import SHOWN, WeightsError, listing
from vllm_core.weights.rules import Match, Table


def nearest(name: str, known: Iterable[str]) -> str:
    """``; nearest: ...``, or nothing if no known name is close."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.75)
    return f"; nearest: {found[0]}" if found else ""


class Mismatch:
    """Filled while a load is planned; ``check`` raises if there is anything in it."""

    def __init__(self, table: Table, tensors: Mapping[str, TensorInfo]):
        self._table = table
        self._tensors = tensors
        self.unknown: list[str] = []  # tensors that no rule covers
        self.missing: list[tuple[str, str, str]] = []  # (path, parameter, slot) that no tensor fills
        self._lines: dict[str, list[str]] = {"places": [], "doubled": [], "shapes": []}

    def homeless(self, name: str, match: Match, layers: Mapping[str, Any]) -> None:
        wanted = f"{match.path}.{match.parameter}".removeprefix(".")
        known = [f"{path}.{p}" for path, layer in layers.items() for p in layer.loads] if self._room("places") else []
        self._lines["places"].append(f"{name} -> {wanted}{nearest(wanted, known)}")

    def no_slot(self, name: str, match: Match, slot: str, slots: Mapping[str, Any]) -> None:
        has = ", ".join(map(repr, slots))
        self._lines["places"].append(f"{name} -> slot {slot!r} of {match.path}.{match.parameter}, which has {has}")

    def double(self, match: Match, slot: str, first: str, second: str) -> None:
        which = f" slot {slot!r}" if slot else ""
        self._lines["doubled"].append(f"{match.path}.{match.parameter}{which}: {first} and {second}")

    def shape(self, info: TensorInfo, why: str) -> None:
        self._lines["shapes"].append(f"{info.name} is {list(info.shape)}: {why}")

    def check(self) -> None:
        """Raise one error with everything that was found."""
        sections = [
            (
                "tensors of the checkpoint that no rule covers",
                [self._unknown(n) for n in self.unknown[:SHOWN]],
                len(self.unknown),
            ),
            ("parameters that no tensor fills", [self._missing(*m) for m in self.missing[:SHOWN]], len(self.missing)),
            ("tensors whose place the model does not have", self._lines["places"], len(self._lines["places"])),
            ("places that two tensors fill", self._lines["doubled"], len(self._lines["doubled"])),
            ("tensors whose shape does not fit", self._lines["shapes"], len(self._lines["shapes"])),
        ]
        text = ""
        for title, lines, count in sections:
            if count:
                text += f"\n  {count:,} {title}:\n{listing(lines + [''] * (count - len(lines)))}"
        if text:
            raise WeightsError("the checkpoint does not fit the model; nothing was loaded" + text)

    def _room(self, kind: str) -> bool:
        return len(self._lines[kind]) < SHOWN

    def _unknown(self, name: str) -> str:
        wanted = [n for m in self.missing for n in self._table.names(*m)]
        return name + nearest(name, wanted)

    def _missing(self, path: str, parameter: str, slot: str) -> str:
        expected = self._table.names(path, parameter, slot)
        which = f" slot {slot!r}" if slot else ""
        place = f"{path}.{parameter}".removeprefix(".") + which
        if not expected:
            return f"{place} (no rule leads there)"
        return f"{place} <- {' or '.join(expected)}{nearest(expected[0], self.unknown)}"
