"""The kit passes an attention backend that is right and fails one that is wrong, and says what is wrong."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest
import torch
from pluggy import PluginManager

import vllm_core.layers.reference_attention as right
from vllm_core.builtin import attention_backend
from vllm_core.plugin import Offer, Refusal
from vllm_core.testing import AttentionConformance
from vllm_core.testing.attention_asked import AskedBackend
from vllm_core.testing.attention_cases import FEATURES
from vllm_core.testing.plugin_module import CannotReport


class Kit(AttentionConformance):
    backend = "reference"
    device = "cpu"


asked = pytest.fixture(lambda: AskedBackend("reference", "cpu"))


@pytest.fixture
def serve(monkeypatch):
    """``serve(Wrong)``: the core's offer leads to this class now."""
    return lambda wrong: monkeypatch.setattr(right, "ReferenceAttention", wrong)


@pytest.fixture
def say(asked, monkeypatch):
    """``say(answer)``: the hook's answer goes through this function."""

    def put(change):
        hooks = {hook: asked.catalog.implementations(hook) for hook in ("attention_backend",)}
        ((status, _),) = [row for row in hooks["attention_backend"] if row[0].name == asked.plugin.name]
        monkeypatch.setattr(
            asked.catalog,
            "implementations",
            lambda hook: [(status, lambda query, settings: change(query, attention_backend(query)))],
        )
        return asked

    return put


CASES = {
    name: next(c for c in Kit.cases() if c.name == name)
    for name in (
        *("plain", "old values", "window 1", "window 7", "soft_cap", "sinks", "non_causal", "v_dim"),
        *("group_1", "group_8", "mqa", "bfloat16", "window without causality", "sinks and soft_cap"),
    )
}
ALL = set(CASES)
EVERY = {case.name for case in Kit.cases()}


def failing(asked, test="test_it_agrees_with_float64") -> set[str]:
    """Names of the cases that fail a test, all on the batch that has everything but long sequences."""
    failed = set()
    for name, case in CASES.items():
        try:
            getattr(Kit(), test)(asked, attrs.evolve(case, batch="drafts"))
        except AssertionError:
            failed.add(name)
    return failed


def named(*parts):
    return {name for name in ALL if any(part in name for part in parts)}


class Right(right.ReferenceAttention):
    """With a place to change what the op is told."""

    def __init__(self, config):
        super().__init__(config)
        self.config = self.told(config)

    def told(self, config):
        return config


class WideWindow(Right):
    def told(self, config):
        return config if config.window is None else attrs.evolve(config, window=config.window + 1)


class NarrowWindow(Right):
    def told(self, config):
        return config if config.window is None else attrs.evolve(config, window=max(1, config.window - 1))


class NoCap(Right):
    def told(self, config):
        return attrs.evolve(config, soft_cap=None)


class AlwaysCausal(Right):
    def told(self, config):
        return attrs.evolve(config, causal=True)


class OtherScale(Right):
    def told(self, config):
        return attrs.evolve(config, scale=config.scale * 1.001)


class NoSinks(Right):
    def attend(self, q, pages, step, metadata, sinks=None, lse=None):
        return super().attend(q, pages, step, metadata, None, lse)


class SwappedHeads(Right):
    """Query head h reads KV head h % KV."""

    def attend(self, q, pages, step, metadata, sinks=None, lse=None):
        kv = self.config.num_kv_heads
        order = torch.arange(q.shape[1]).view(-1, kv).T.flatten()
        sinks = None if sinks is None else sinks[order]
        return super().attend(q[:, order], pages, step, metadata, sinks)[:, order.argsort()]


class ByBounds(Right):
    """Takes the host's bounds for lengths, and what is not a number for nothing."""

    def attend(self, q, pages, step, metadata, sinks=None, lse=None):
        pages = tuple(p.nan_to_num() for p in pages)
        longer = attrs.evolve(step, kv_lens=torch.tensor(step.kv_bounds, dtype=torch.int32))
        return super().attend(q, pages, longer, metadata, sinks)


class StalePages(Right):
    """Remembers the block table of the first step with so many rows."""

    seen: dict = {}

    def begin_step(self, step):
        return self.seen.setdefault((id(self), len(step.query_lens)), step.block_table)

    def attend(self, q, pages, step, metadata, sinks=None, lse=None):
        wide = torch.zeros_like(step.block_table)
        shared = min(wide.shape[1], metadata.shape[1])
        wide[:, :shared] = metadata[:, :shared]
        return super().attend(q, pages, attrs.evolve(step, block_table=wide), None, sinks)


class Neighbours(Right):
    """Takes a sequence's pages to lie side by side."""

    def attend(self, q, pages, step, metadata, sinks=None, lse=None):
        table = step.block_table[:, :1] + torch.arange(step.block_table.shape[1], dtype=torch.int32)
        table = table.clamp(max=len(pages[0]) - 1)
        return super().attend(q, pages, attrs.evolve(step, block_table=table), None, sinks)


class UsesUnwritten(Right):
    """0 * NaN: keys beyond the length have no weight, and their values are multiplied all the same."""

    def attend(self, q, pages, step, metadata, sinks=None, lse=None):
        out = super().attend(q, pages, step, metadata, sinks)
        for row, (bound, n) in enumerate(zip(step.kv_bounds, step.query_lens, strict=True)):
            values = pages[1][step.block_table[row, : -(-bound // self.config.block_size)].long()]
            start = int(step.query_starts[row])
            out[start : start + n] += 0 * values.sum()
        return out


WINDOWS = named("window")


@pytest.mark.parametrize(
    ("wrong", "cases"),
    [
        (Right, set()),
        (WideWindow, WINDOWS),
        (NarrowWindow, WINDOWS - {"window 1"}),
        (NoCap, named("soft_cap")),
        (AlwaysCausal, named("causal")),
        (OtherScale, ALL - {"bfloat16", "window 1"}),
        (NoSinks, named("sinks")),
        (SwappedHeads, ALL - named("mqa", "group_1", "sinks and soft_cap")),
        (Neighbours, ALL),
        (ByBounds, ALL),
        (UsesUnwritten, ALL - {"old values"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_backend_fails_in_the_cases_that_it_gets_wrong(serve, asked, wrong, cases):
    serve(wrong)
    assert failing(asked) == cases


def test_a_backend_that_keeps_what_belongs_to_a_step_fails(serve, asked):
    serve(StalePages)
    with pytest.raises(AssertionError, match=r"step [1-9], layer 0: off by"):
        Kit().test_one_backend_serves_step_after_step(asked, None)


def test_what_is_wrong_is_named_by_sequence_query_and_head(serve, asked):
    class LastHead(Right):
        def attend(self, q, pages, step, metadata, sinks=None, lse=None):
            out = super().attend(q, pages, step, metadata, sinks, lse)
            out[-1, 3] += 1
            return out

    serve(LastHead)
    case = next(c for c in Kit.cases() if c.name == "plain" and c.batch == "drafts")
    with pytest.raises(AssertionError) as error:
        Kit().test_it_agrees_with_float64(asked, case)
    assert "plain-drafts, layer 0: off by" in str(error.value)
    assert "worst   query 4 of 5, head 3, in sequence 4 of 5, which has 5 tokens" in str(error.value)


class Base2(Right):
    def attend(self, q, pages, step, metadata, sinks=None, lse=None):
        out = super().attend(q, pages, step, metadata, sinks, lse)
        if lse is not None:
            lse /= 0.6931
        return out


class WithoutTheSink(Right):
    def attend(self, q, pages, step, metadata, sinks=None, lse=None):
        super().attend(q, pages, step, metadata, None, lse)
        return super().attend(q, pages, step, metadata, sinks)


class Forgets(Right):
    def attend(self, q, pages, step, metadata, sinks=None, lse=None):
        return super().attend(q, pages, step, metadata, sinks)


@pytest.mark.parametrize(
    ("wrong", "cases"),
    [(Right, set()), (Base2, ALL), (WithoutTheSink, named("sinks")), (Forgets, ALL)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_log_sum_exp_fails(serve, asked, wrong, cases):
    serve(wrong)
    assert failing(asked, "test_log_sum_exp_agrees_with_float64") == cases
    assert failing(asked) == set()


def test_a_write_beside_its_slots_fails(serve, asked):
    class Sloppy(Right):
        def write(self, k, v, pages, step):
            super().write(k, v, pages, step)
            pages[0][int(step.slots[-1]) // self.config.block_size, -1] = 0

    serve(Sloppy)
    with pytest.raises(AssertionError, match="after write, pages in layout NHD are not what they should be"):
        Kit().test_write_fills_its_slots_in_the_layout_and_nothing_else(asked, "plain")


def test_a_layout_that_is_offered_and_not_kept_fails(serve, asked):
    class OneLayout(Right):
        def write(self, k, v, pages, step):
            if self.head_axis == 1:  # as if pages were [page, token, head, dim] all the same
                pages = tuple(page.view(page.shape[0], page.shape[2], page.shape[1], -1) for page in pages)
            right.write_kv(k, v, pages[0], pages[1], step.slots, 2)

    serve(OneLayout)
    with pytest.raises(AssertionError, match="pages in layout HND"):
        Kit().test_write_fills_its_slots_in_the_layout_and_nothing_else(asked, "plain")
    with pytest.raises(AssertionError, match="pages in layout HND, layer 0: off by"):
        Kit().test_every_page_layout_it_takes_agrees(asked)


def test_attention_that_changes_what_it_reads_fails(serve, asked):
    class ScalesQueries(Right):
        def attend(self, q, pages, step, metadata, sinks=None, lse=None):
            q *= self.config.scale
            return super().attend(q, pages, step, metadata, sinks, lse)

    class CleansPages(Right):
        def attend(self, q, pages, step, metadata, sinks=None, lse=None):
            pages[1].nan_to_num_()
            return super().attend(q, pages, step, metadata, sinks, lse)

    serve(ScalesQueries)
    with pytest.raises(AssertionError, match="plain: attend changes its queries"):
        Kit().test_attend_changes_nothing_but_its_result(asked)
    serve(CleansPages)
    with pytest.raises(AssertionError, match="plain: attend changes pages"):
        Kit().test_attend_changes_nothing_but_its_result(asked)


def test_a_refusal_must_be_declared_and_a_declared_one_must_be_made(say):
    asked = say(lambda query, answer: Refusal("no caps", name="reference") if query.soft_cap else answer)
    with pytest.raises(AssertionError, match=r'"reference" refuses soft_cap: no caps(.|\n)*cannot = .*soft_cap'):
        Kit().test_what_cannot_does_not_list_is_offered(asked, "soft_cap")
    Kit().test_what_cannot_lists_is_refused_with_a_reason(asked, "soft_cap")
    with pytest.raises(AssertionError, match='`cannot` lists sinks, and "reference" offers it'):
        Kit().test_what_cannot_lists_is_refused_with_a_reason(asked, "sinks")
    with pytest.raises(AssertionError, match="'soft_caps', which no test asks for; did you mean 'soft_cap'"):
        Kit().test_what_cannot_lists_is_refused_with_a_reason(asked, "soft_caps")
    case = next(c for c in Kit.cases() if c.name == "soft_cap")
    with pytest.raises(AssertionError, match='"reference" refuses this query: no caps'):
        Kit().test_it_agrees_with_float64(asked, case)

    class Honest(Kit):
        cannot = {"soft_cap": "no caps", "float16+non_causal": "a test"}

    gone = {c.name for c in Kit.cases()} - {c.name for c in Honest.cases()}
    assert gone == {name for name in EVERY if "soft_cap" in name} | {"half without causality"}


def test_a_refusal_without_a_reason_fails(say):
    asked = say(lambda query, answer: Refusal(" ", name="reference"))
    with pytest.raises(AssertionError, match="gives no reason"):
        Kit().test_what_cannot_lists_is_refused_with_a_reason(asked, "sinks")


def test_log_sum_exp_is_offered_as_a_capability(say):
    def without(query, answer):
        return Offer(**{**attrs.asdict(answer, recurse=False), "capabilities": ()})

    asked = say(without)
    with pytest.raises(AssertionError, match='lacks the capability "lse"'):
        Kit().test_what_cannot_does_not_list_is_offered(asked, "lse")
    with pytest.raises(AssertionError, match='the offer for plain lacks the capability "lse"'):
        Kit().test_log_sum_exp_agrees_with_float64(asked, Kit.cases()[0])
    Kit().test_what_cannot_lists_is_refused_with_a_reason(asked, "lse")
    with pytest.raises(AssertionError, match='`cannot` lists lse, and the offer has the capability "lse"'):
        Kit().test_what_cannot_lists_is_refused_with_a_reason(AskedBackend("reference", "cpu"), "lse")


def declaring(*capabilities):
    """Answers as they are, with these capabilities beside."""

    def change(query, answer):
        fields = attrs.asdict(answer, recurse=False)
        return Offer(**{**fields, "capabilities": {*answer.capabilities, *capabilities}})

    return change


ALONE = "test_a_sequence_has_the_same_bits_alone_and_in_a_batch_if_so_declared"


def test_bits_that_depend_on_the_batch_are_found_where_they_are_declared_not_to(serve, say):
    class Depends(Right):
        def attend(self, q, pages, step, metadata, sinks=None, lse=None):
            return super().attend(q, pages, step, metadata, sinks, lse) * (1 + 1e-6 * len(step.query_lens))

    asked = say(lambda query, answer: answer)
    with pytest.raises(pytest.skip.Exception, match="does not declare"):
        getattr(Kit(), ALONE)(asked, None)
    asked = say(declaring("batch_invariant"))
    for window in (None, 20):
        getattr(Kit(), ALONE)(asked, window)
    serve(Depends)
    with pytest.raises(AssertionError, match="sequence 0, 1 queries of 6 tokens, has other bits alone than among 9"):
        getattr(Kit(), ALONE)(asked, None)


class OfTheDevice(Right):
    """Takes all lengths from tensors, as a backend with "device_metadata" does."""

    def begin_step(self, step):
        starts = step.query_starts.tolist()
        lens = [b - a for a, b in pairwise(starts)]
        return attrs.evolve(step, query_lens=lens, kv_bounds=step.kv_lens.tolist())

    def attend(self, q, pages, step, metadata, sinks=None, lse=None):
        return super().attend(q, pages, metadata, None, sinks, lse)


class OfTheFirst(OfTheDevice):
    """Keeps the lengths of the first step with these tensors."""

    seen: dict = {}

    def begin_step(self, step):
        return self.seen.setdefault(step.kv_lens.data_ptr(), super().begin_step(step))


STATIC_STEP = "test_a_static_step_serves_other_lengths_if_so_declared"


@pytest.mark.parametrize("name", ["decoding", "mixed", "drafts"])
def test_lengths_that_are_not_the_devices_are_found_where_that_is_declared(serve, say, name):
    asked = say(declaring("graph"))
    with pytest.raises(pytest.skip.Exception, match="declare both"):
        getattr(Kit(), STATIC_STEP)(asked, name)
    asked = say(declaring("graph", "device_metadata"))
    with pytest.raises((AssertionError, ValueError)):  # the core's own reads the host's lists, which are empty
        getattr(Kit(), STATIC_STEP)(asked, name)
    serve(OfTheDevice)
    getattr(Kit(), STATIC_STEP)(asked, name)
    serve(OfTheFirst)
    with pytest.raises(AssertionError, match=f"the same static step with other lengths, {name}: off by"):
        getattr(Kit(), STATIC_STEP)(asked, name)


def test_a_page_that_only_one_sequence_may_have_is_found(serve, asked):
    class Owned(Right):
        """Each page belongs to the last sequence that has it."""

        def attend(self, q, pages, step, metadata, sinks=None, lse=None):
            table = step.block_table.clone()
            for row in range(1, len(table)):
                for other in range(row):
                    table[other][torch.isin(table[other], table[row])] = 0
            return super().attend(q, pages, attrs.evolve(step, block_table=table), None, sinks)

    Kit().test_sequences_that_share_the_pages_of_a_prefix_agree(asked)
    serve(Owned)
    assert failing(asked) == set()
    with pytest.raises(AssertionError, match="shared pages, step 0, layer 0: off by"):
        Kit().test_sequences_that_share_the_pages_of_a_prefix_agree(asked)


def test_a_window_that_is_wrong_in_pages_of_one_size_is_found(serve, asked):
    class WholePages(Right):
        """A window is rounded to pages, where a page has few tokens."""

        def told(self, config):
            if config.window is None or config.block_size != 24:
                return config
            return attrs.evolve(config, window=24)

    serve(WholePages)
    assert failing(asked) == set()
    with pytest.raises(AssertionError, match="pages of 24 tokens, a window, layer 0: off by"):
        Kit().test_every_page_size_it_takes_agrees(asked)


def test_a_backend_that_nobody_offers_is_an_error_with_the_nearest_name():
    with pytest.raises(Exception, match="reference"):
        AskedBackend("refrence", "cpu")


def test_a_first_dtype_that_is_refused_leaves_the_grid_to_the_next():
    class Half(Kit):
        cannot = {"float32": "a test"}

    assert Half.plain() == {"dtype": "bfloat16"}
    assert {c.settings["dtype"] for c in Half.cases()} == {"bfloat16", "float16"}


def test_the_page_lists_every_feature_that_a_backend_may_lack():
    page = Path(__file__).parents[2].joinpath("docs/conformance.md").read_text(encoding="utf-8")
    listed = page.partition("Features: ")[2].partition(";")[0]
    assert [name.strip("` ") for name in listed.split(",")] == list(FEATURES)


def test_what_a_backend_cannot_do_is_printed_at_the_end_of_a_run():
    class Honest(Kit):
        cannot = {"soft_cap": "a test"}

    config = SimpleNamespace(pluginmanager=PluginManager("pytest"))
    Honest().pytest_generate_tests(SimpleNamespace(config=config, fixturenames=[]))
    lines = []
    reporter = SimpleNamespace(section=lines.append, write_line=lines.append)
    config.pluginmanager.get_plugin(CannotReport.name).pytest_terminal_summary(reporter)
    assert lines == ["what tested plugins cannot do", "Honest cannot: soft_cap (a test)"]
