"""`RopeConformance`: the tests that every RoPE variant runs. docs/conformance.md says how to use it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import attrs
import pytest
import torch
from torch import Tensor

from vllm_core.config.plugins import plugin_settings
from vllm_core.interfaces.queries import RopeQuery
from vllm_core.interfaces.rope import RotaryTable
from vllm_core.layers import rope_parameters
from vllm_core.ops import rotary
from vllm_core.plugins import Decision, NoOffer, Selector, load_catalog, read_policy
from vllm_core.testing.kit import Conformance
from vllm_core.testing.plugin_module import assert_imports_light
from vllm_core.testing.rope_reference import ReadFields, turned, wanted

HOOK = "rope_variant"
BASE = "base"
DRAFTS = 5  # positions behind the longest sequence, for which a table has room
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

Fields = Mapping[str, Any]


@attrs.frozen
class Changed:
    """Other values for fields of a variant."""

    variant: str
    fields: Fields

    @property
    def names(self) -> str:
        return "+".join(name if self.variant == BASE else f"{self.variant}.{name}" for name in self.fields)


class RopeConformance(Conformance):
    """Subclass it as ``TestSomething`` in a test file of your plugin, which must be installed.

    rope_type   as in config.json; ``aliases`` are other names of the same
    params      fields of "rope_parameters"
    beside      fields of config.json beside them: "max_position_embeddings" and its like
    variants    name -> fields that differ, those of ``beside`` too; None leaves one out
    head_dim    elements of a head
    lengths     tokens of the longest sequence: an engine of each
    changes     field -> another value, or a list: each must change the table of some length. "variant.field" changes
                that variant's; a tuple of fields takes a tuple of values
    unchanged   field that transformers reads -> why no value of it can be told from another
    refuses     (fields that differ, words of the error)
    plugin_settings   fields of [plugin.NAME]
    cannot      what one may expect of the type and it does not do -> why; printed after every run
    """

    kind = "rope"
    hook = "rope_variant"
    subject = "rope_type"

    rope_type: ClassVar[str]
    aliases: ClassVar[Sequence[str]] = ()
    params: ClassVar[Fields]
    beside: ClassVar[Fields] = {}
    variants: ClassVar[Mapping[str, Fields]] = {}
    head_dim: ClassVar[int] = 16
    lengths: ClassVar[Sequence[int]] = (64, 256)
    changes: ClassVar[Mapping[str | tuple[str, ...], Any]]
    unchanged: ClassVar[Mapping[str, str]] = {}
    refuses: ClassVar[Sequence[tuple[Fields, str]]] = ()
    plugin_settings: ClassVar[Fields] = {}

    @classmethod
    def reference(cls, params: Fields, head_dim: int, longest: int) -> tuple[Tensor, float]:
        """Frequencies [R / 2] and the factor of cosines and sines for sequences of ``longest`` tokens.

        ``params`` has those of ``beside`` too, and None for what is left out. transformers' own for this
        type; override it, in float64 from the publication, where there is none.
        """
        return wanted(cls.rope_type, params, head_dim, longest)

    def test_the_table_is_the_references_at_every_position(self, variant: str, longest: int) -> None:
        """In float64, with what float32 loses: frequencies and angles are rounded once each."""
        table = self.table(variant, longest)
        frequencies, scaling = self.reference(self.written(variant), self.head_dim, longest)
        assert table.rotary_dim == 2 * len(frequencies), f"{table.rotary_dim} elements are rotated"
        assert table.cos.dtype == table.sin.dtype == torch.float32
        assert len(table.cos) >= longest + DRAFTS, f"{len(table.cos)} positions: too few"
        positions = torch.arange(len(table.cos), dtype=torch.float64)
        angles = torch.outer(positions, frequencies.double().cpu())
        for name, got, want in (("cos", table.cos, angles.cos()), ("sin", table.sin, angles.sin())):
            off = (got.double().cpu() - want * scaling).abs() > scaling * (2e-6 + 1e-6 * angles)
            assert not off.any(), (
                f"{variant}, {longest} tokens: {name} is not the reference's at {int(off.sum())} of {off.numel()}"
                f" places, first at position {off.nonzero()[0, 0].item()}, frequency {off.nonzero()[0, 1].item()}"
            )

    def test_heads_are_rotated_as_in_float64(self, variant: str) -> None:
        """The pairs are those that ``interleaved`` says; what is behind them passes through."""
        params, table = self.written(variant), self.table(variant, self.lengths[-1])
        frequencies, scaling = self.reference(params, self.head_dim, self.lengths[-1])
        positions = torch.tensor([0, 1, 7, 33, self.lengths[-1] - 1])
        x = torch.randn(len(positions), 3, self.head_dim, generator=torch.Generator().manual_seed(0))
        rows = positions.to(DEVICE)
        got = rotary(x.clone().to(DEVICE), table.cos[rows], table.sin[rows], table.interleaved).cpu()
        want = turned(x.double(), positions, frequencies.double().cpu(), scaling, bool(params.get("interleaved")))
        torch.testing.assert_close(got.double(), want, rtol=0, atol=scaling * (1e-5 + 4e-6 * self.lengths[-1]))

    def test_another_value_of_a_field_gives_another_table(self, change: Changed) -> None:
        params = self.fields(change.variant)
        same = [name for name, value in change.fields.items() if params.get(name) == value]
        assert not same, f"{', '.join(same)} has this value already; change it to another"
        changed = _without_none({**params, **change.fields})
        for longest in self.lengths:
            before, after = self.table(change.variant, longest), self.make(self.rope_type, changed, longest)
            if before.interleaved != after.interleaved or before.cos.shape != after.cos.shape:
                return
            far = max((a - b).abs().max().item() for a, b in ((before.cos, after.cos), (before.sin, after.sin)))
            if far > 1e-4:
                return
        raise AssertionError(f"{change.names} = {[*change.fields.values()]} changes nothing: it is not read")

    def test_no_field_that_transformers_reads_is_overlooked(self, variant: str) -> None:
        """Whoever overlooks a field serves checkpoints in which it differs with wrong answers and no error."""
        if any("reference" in vars(kit) for kit in type(self).__mro__ if kit is not RopeConformance):
            pytest.skip("the reference is the test's own")
        seen = ReadFields(self.written(variant))
        for longest in self.lengths:
            self.reference(seen, self.head_dim, longest)
        alone = {name for change in self.all_changes() if len(change.fields) == 1 for name in change.fields}
        silent = sorted(seen.read - alone - self.unchanged.keys())
        assert not silent, (
            f"transformers reads {', '.join(silent)}: give `changes` another value, or `unchanged` a reason"
        )
        assert all(reason.strip() for reason in self.unchanged.values()), "`unchanged` gives a field no reason"

    def test_room_for_drafts_changes_no_position(self, variant: str, longest: int) -> None:
        """Not even where drafts of the longest sequence pass a length that the type goes by."""
        table, more = self.table(variant, longest), self.make(self.rope_type, self.fields(variant), longest, 4 * DRAFTS)
        for name in ("cos", "sin"):
            assert torch.equal(getattr(more, name)[: longest + DRAFTS], getattr(table, name)[: longest + DRAFTS])

    def test_a_table_is_made_again_the_same_and_leaves_what_it_reads(self, variant: str) -> None:
        """Ranks and restarts make their own, from one config.json."""
        decision = self.choose(self.rope_type, self.fields(variant), self.lengths[-1])
        params = {**decision.query.params, **decision.offer.options}
        before, room = copy.deepcopy(params), self.lengths[-1] + DRAFTS
        first, second = (decision.load()(self.head_dim, params, room, DEVICE) for _ in range(2))
        assert params == before, f"the parameters {before} are {params} after the table was made of them"
        for name in ("cos", "sin"):
            assert torch.equal(getattr(first, name), getattr(second, name)), f"made again, {name} is another"

    def test_what_is_wrong_is_refused_by_name(self) -> None:
        for fields, words in self.refuses:
            params = _without_none({**self.fields(BASE), **fields})
            with pytest.raises(NoOffer) as error:
                self.choose(self.rope_type, params, self.lengths[-1])
            assert words in str(error.value), f"{fields} is refused, but not with {words!r}: {error.value}"

    def test_other_names_mean_the_same(self) -> None:
        for alias in self.aliases:
            other, table = self.make(alias, self.fields(BASE), self.lengths[-1]), self.table(BASE, self.lengths[-1])
            assert torch.equal(other.cos, table.cos), alias

    def test_the_plugin_module_imports_without_torch(self) -> None:
        owner = self.choose(self.rope_type, self.fields(BASE), self.lengths[-1]).provided.plugin
        modules = [p.module for p in self._selector().catalog.plugins if p.name == owner]
        assert_imports_light(modules[0] if modules else "vllm_core.builtin")

    @classmethod
    def written(cls, variant: str) -> dict[str, Any]:
        """All fields of a variant, None for those that it leaves out."""
        given = {**cls.params, **cls.beside, **({} if variant == BASE else cls.variants[variant])}
        return {"rope_type": cls.rope_type, **given}

    @classmethod
    def fields(cls, variant: str) -> dict[str, Any]:
        """What an engine reads of a config.json with this variant's rope parameters."""
        return _without_none(cls.written(variant))

    @classmethod
    def all_changes(cls) -> list[Changed]:
        return list(_changes(cls.changes))

    def table(self, variant: str, longest: int) -> RotaryTable:
        return self.make(self.rope_type, self.fields(variant), longest)

    def make(self, kind: str, params: Fields, longest: int, room: int = DRAFTS) -> RotaryTable:
        """As the engine's plan does, on the best device here."""
        decision = self.choose(kind, params, longest, room)
        return decision.load()(
            self.head_dim, {**decision.query.params, **decision.offer.options}, longest + room, DEVICE
        )

    def choose(self, kind: str, params: Fields, longest: int, room: int = DRAFTS) -> Decision:
        read = rope_parameters({"rope_parameters": {**params, "rope_type": kind}})
        query = RopeQuery(
            rope_type=kind, head_dim=self.head_dim, params=read, max_position=longest + room, max_model_len=longest
        )
        return self._selector().choose("rope_variant", query, kind, asked_by="rope_type")

    @classmethod
    def _selector(cls) -> Selector:
        """All installed plugins, that of this type with ``plugin_settings``."""
        return selector(cls.rope_type, json.dumps(dict(cls.plugin_settings))) if cls.plugin_settings else selector()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "variant" in metafunc.fixturenames:
            metafunc.parametrize("variant", [BASE, *self.variants])
        if "longest" in metafunc.fixturenames:
            metafunc.parametrize("longest", self.lengths)
        if "change" in metafunc.fixturenames:
            metafunc.parametrize("change", self.all_changes(), ids=lambda change: change.names)
        super().pytest_generate_tests(metafunc)


@cache
def selector(rope_type: str = "", settings: str = "") -> Selector:
    """All installed plugins; ``settings``, a JSON object, are those of the plugin that offers ``rope_type``."""
    catalog = load_catalog(read_policy({}))
    owners = [p.name for p in catalog.active if any((o.kind, o.name) == (HOOK, rope_type) for o in p.provides)]
    if settings and not owners:
        raise catalog.nobody(HOOK, rope_type)
    catalog.settings = plugin_settings(catalog, {owners[0]: json.loads(settings)} if settings else {})
    return Selector(catalog)


def _without_none(fields: Fields) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _changes(changes: Mapping[str | tuple[str, ...], Any]) -> Iterator[Changed]:
    for key, given in changes.items():
        names = key if isinstance(key, tuple) else (key,)
        variant = names[0].rpartition(".")[0] or BASE
        fields = [name.rpartition(".")[2] for name in names]
        for value in given if isinstance(given, list) else [given]:
            values = value if isinstance(key, tuple) else (value,)
            yield Changed(variant, dict(zip(fields, values, strict=True)))
