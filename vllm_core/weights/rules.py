"""Weight rules: which checkpoint tensor fills which parameter. No torch.

A model keeps an ordered list of them; the first that matches a tensor's name decides::

    rule("model.layers.{i}.self_attn.{x:q|k|v}_proj.{w}", "layers.{i}.attention.qkv.{w}", slot="{x}"),
    ignore("rotary_emb.inv_freq", "computed, not loaded"),
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import attrs

from vllm_core.weights.errors import RuleError
from vllm_core.weights.patterns import SEGMENT, Pattern, match_values
from vllm_core.weights.transforms import rule_slot

if TYPE_CHECKING:
    from vllm_core.weights.transforms import Transform


@attrs.frozen
class Rule:
    """``pattern`` -> ``target``, a dotted path whose last segment is the parameter. Made by `rule` and `ignore`."""

    pattern: Pattern
    target: Pattern | None  # None: tensors that match are not read
    slot: Pattern
    transform: Transform | None = None
    reason: str = ""  # of an ignore rule

    def __str__(self) -> str:
        if self.target is None:
            return f"ignore({self.pattern.text!r})"
        slot = f", slot={self.slot.text!r}" if self.slot.text else ""
        return f"rule({self.pattern.text!r}, {self.target.text!r}{slot})"


def rule(pattern: str, target: str, slot: str = "", transform: Transform | None = None) -> Rule:
    """A tensor whose whole name matches ``pattern`` fills ``slot`` of the parameter ``target``.

    pattern    captures: ``{i}`` an integer, ``{x:q|k|v}`` one of some words, ``{w}`` one segment
               of the dotted name (``weight``, ``bias``, ``weight_scale``, ...)
    target     dotted path of a layer and, last, its parameter; may use the captures
    slot       which part of a fused parameter; may use the captures
    transform  for a tensor stored otherwise than its parameter (`vllm_core.weights.transforms`)
    """
    made = Rule(Pattern.parse(pattern), Pattern.parse(target), Pattern.parse(slot), transform)
    names = [c.name for c in made.pattern.captures]
    used = made.target.names | made.slot.names  # type: ignore[union-attr]
    if twice := {n for n in names if names.count(n) > 1}:
        raise RuleError(f"{made}: capture {{{twice.pop()}}} stands twice in the pattern")
    if unknown := used - set(names):
        raise RuleError(
            f"{made}: {{{unknown.pop()}}} is not captured by the pattern, which has {names or 'no captures'}"
        )
    if lost := [c for c in made.pattern.captures if c.name not in used]:
        values = ", ".join(lost[0].words) or "tensors of every number"
        raise RuleError(
            f"{made}: capture {{{lost[0].name}}} is used neither in the target nor in the slot, so {values}"
            " would fill the same place"
        )
    return made


def ignore(pattern: str, reason: str) -> Rule:
    """Tensors whose name is ``pattern``, or ends in ``.`` and ``pattern``, are left unread because of ``reason``."""
    if not reason:
        raise RuleError(f"ignore({pattern!r}) needs a reason: it is shown when weights are loaded")
    return Rule(Pattern.parse(pattern), None, Pattern.parse(""), reason=reason)


class Match(NamedTuple):
    """Where a tensor goes."""

    path: str  # of the layer, dotted; "" for the model itself
    parameter: str
    slot: str
    rule: Rule


class Ignored(NamedTuple):
    reason: str
    rule: Rule


class Table:
    """A model's rules, compiled once into one regular expression."""

    def __init__(self, rules: Iterable[Rule]):
        self.rules = tuple(rules)
        self._by_group: dict[int, tuple[Rule, tuple[str, tuple[int, ...]], tuple[str, tuple[int, ...]]]] = {}
        alternatives, group = [], 1
        for r in self.rules:
            prefix = r"(?:[^.]+\.)*" if r.target is None else ""
            alternatives.append(f"({prefix}{r.pattern.regex()})")
            place = {c.name: group + 1 + n for n, c in enumerate(r.pattern.captures)}
            target = r.target or Pattern.parse("")
            self._by_group[group] = (r, _template(target, place), _template(r.slot, place))
            group += 1 + len(place)
        self._regex = re.compile("|".join(alternatives) or r"(?!)")
        self._reverse = [_Reverse(r) for r in self.rules if r.target is not None]
        self._check()

    def match(self, name: str) -> Match | Ignored | None:
        """What becomes of the checkpoint tensor ``name``; None if no rule covers it."""
        found = self._regex.fullmatch(name)
        if found is None:
            return None
        # A rule's own group encloses its captures and so closes last.
        r, (target, target_groups), (slot, slot_groups) = self._by_group[found.lastindex or 0]
        if r.target is None:
            return Ignored(r.reason, r)
        path, _, parameter = target.format(*map(found.__getitem__, target_groups)).rpartition(".")
        return Match(path, parameter, slot.format(*map(found.__getitem__, slot_groups)) if slot else "", r)

    def sources(self, path: str) -> list[str]:
        """Checkpoint modules that fill the layer at ``path``, in the rules' order.

        An integer that the path does not carry (an expert's number kept in the slot) stands at 0.
        """
        found: dict[str, None] = {}
        for reverse in self._reverse:
            for name in reverse.names(path, None, None):
                found.setdefault(name.rpartition(".")[0])
        return list(found)

    def names(self, path: str, parameter: str, slot: str = "") -> list[str]:
        """Checkpoint tensors that would fill this slot of this parameter."""
        found = (name for reverse in self._reverse for name in reverse.names(path, parameter, slot))
        return list(dict.fromkeys(found))

    def _check(self) -> None:
        number = {group: n for n, group in enumerate(self._by_group)}
        for n, r in enumerate(self.rules):
            takers = set()
            for values in r.pattern.expand({}):
                found = self._regex.fullmatch(r.pattern.render(values))
                takers.add(number[found.lastindex or 0] if found else n)
            if n not in takers:
                first = min(takers)
                raise RuleError(
                    f"weight rule {n + 1} can never apply: {r}\n"
                    f"  names it matches are taken by the earlier rule {first + 1}: {self.rules[first]}\n"
                    "  put the narrower rule first, or remove one"
                )


def _template(pattern: Pattern, place: dict[str, int]) -> tuple[str, tuple[int, ...]]:
    return pattern.format_string(), tuple(place[c.name] for c in pattern.captures)


class _Reverse:
    """A rule read from right to left: from a layer's path to checkpoint names."""

    def __init__(self, r: Rule):
        assert r.target is not None
        known = {c.name: c for c in r.pattern.captures}
        path, _, parameter = r.target.text.rpartition(".")
        self._pattern, self._transform = r.pattern, r.transform
        self._parts = [Pattern.parse(text) for text in (path, parameter, r.slot.text)]
        self._regexes = [re.compile(p.regex(known)) for p in self._parts]

    def names(self, path: str, parameter: str | None, slot: str | None) -> list[str]:
        values: dict[str, str] = {}
        slot = None if slot is None else rule_slot(self._transform, slot)
        for part, regex, text in zip(self._parts, self._regexes, (path, parameter, slot), strict=True):
            if text is None:
                continue
            found = match_values(regex, part, text)
            if found is None or any(values.get(k, v) != v for k, v in found.items()):
                return []
            values |= found
        if parameter is None and SEGMENT in self._pattern.names:
            values.setdefault(SEGMENT, "weight")
        return [self._pattern.render(v) for v in self._pattern.expand(values)]
