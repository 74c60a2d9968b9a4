"""The kit of logits processors passes right ones and fails wrong ones, in the tests whose names say what is wrong."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import LogitsProcessorQuery
from vllm_core.testing import LogitsProcessorConformance
from vllm_core.testing.logits_trial import Trial
from vllm_core.testing.waits import assert_never_waits

ENGINES = ("test_greedy_tokens", "test_tokens_do_not_depend", "test_wrong_parameters_fail")
PLUGIN = ("test_its_hook", "test_the_plugin_module", "test_what_it_cannot", *ENGINES)
VOCAB = 24


class Less:
    """``extra_args={"less": x}``: the last token's logit loses x."""

    keeps_argmax = needs_ids = False

    def __init__(self, query):
        self.by = torch.zeros(query.max_rows)

    @classmethod
    def check(cls, params, query):
        if "less" in params and not isinstance(params["less"], float):
            raise ValueError(f"less must be a number, not {params['less']!r}")
        return bool(params.get("less"))

    def take(self, row, params, prompt_ids):
        self.by[row] = params["less"]

    def apply(self, logits, rows, ends, view, ids):
        last = view.token_ids[rows].long().gather(1, ends[:, None] - 1).clamp_min(0)
        return logits.scatter_add_(1, last, -self.by.index_select(0, rows)[:, None])


class LessOnHost(Less):
    needs_ids = True

    def take(self, row, params, prompt_ids):
        super().take(row, params, prompt_ids)
        self.prompts = {**getattr(self, "prompts", {}), row: list(prompt_ids)}

    def apply(self, logits, rows, ends, view, ids):
        for line, (row, output) in enumerate(zip(rows.tolist(), ids, strict=True)):
            logits[line, [*self.prompts[row], *output][-1]] -= self.by[row]
        return logits


class Kit(LogitsProcessorConformance):
    requests = {"one": {"less": 1.5}, "much": {"less": 40.0}, "more": {"less": -30.0}}
    others = ({"less": 0.0},)
    wrong = {"a word": {"less": "much"}}
    config = {"vocab_size": VOCAB}
    made = Less

    def expected(self, logits, params, prompt, output):
        logits[[*prompt, *output][-1]] -= params["less"]
        return logits

    def target(self, max_rows=4):
        return self.made, LogitsProcessorQuery(name="x", vocab_size=VOCAB, max_rows=max_rows, device=Device("cpu"))

    def trial(self, max_rows):
        made, query = self.target(max_rows)
        return Trial(made(query), max_rows, VOCAB, torch.device("cpu"))


def failing(made):
    """The kit's tests that fail, whatever they raise -> what they say."""
    kit, failed = type("Tried", (Kit,), {"made": made})(), {}
    for name in dir(kit):
        if name.startswith("test_") and not name.startswith(PLUGIN):
            try:
                getattr(kit, name)()
            except pytest.skip.Exception:
                pass
            except (Exception, pytest.fail.Exception) as error:
                failed[name] = str(error)
    return failed


LINE = "test_each_line_becomes_what_is_expected"
OTHERS = "test_a_line_depends_on_no_other_line"
DRAFTS = "test_a_row_whose_drafts_are_verified_has_a_line_each"
MISSING = "test_guesses_that_are_missing_disturb_no_other_line"
BEHIND = "test_what_stands_behind_a_lines_tokens_does_not_matter"
AGAIN = "test_a_row_that_is_taken_again_keeps_nothing"
PREEMPTED = "test_a_preempted_request_goes_on_in_another_row"
NEXT = "test_a_step_changes_nothing_of_the_next"
GONE = "test_what_was_ruled_out_stays_so"
STRANGE = "test_strange_logits_give_no_nan"
LARGEST = "test_the_largest_logit_stays_where_it_was_if_it_says_so"
WAITS = "test_a_step_never_waits_for_the_device"
AFFECTS = "test_it_says_which_requests_it_affects"
WORDS = "test_wrong_parameters_are_refused_in_words"
TENSORS = "test_checking_a_request_makes_no_tensors"


@pytest.mark.parametrize("made", [Less, LessOnHost])
def test_right_processors_pass(made):
    assert failing(made) == {}


class Remembers(Less):
    def take(self, row, params, prompt_ids):
        if not self.by[row]:
            super().take(row, params, prompt_ids)


class Counts(Less):
    """Less and less, with every step that it has seen of a row."""

    def apply(self, logits, rows, ends, view, ids):
        found = super().apply(logits, rows, ends, view, ids)
        self.by[rows] *= 0.5
        return found


class CountsSteps(Less):
    """The first step of a row is taken for the first token of the output."""

    def take(self, row, params, prompt_ids):
        super().take(row, params, prompt_ids)
        self.end = len(prompt_ids)

    def apply(self, logits, rows, ends, view, ids):
        return super().apply(logits, rows, torch.full_like(ends, self.end), view, ids)


class OneLine(Less):
    """Drafts are passed over: every line of a row is behind its last known token."""

    def apply(self, logits, rows, ends, view, ids):
        return super().apply(logits, rows, view.num_tokens[rows].long(), view, ids)


class TooFar(Less):
    """It reads one place behind the line's tokens; what stands there is taken for a token if it can be one."""

    def apply(self, logits, rows, ends, view, ids):
        there = view.token_ids[rows].long().gather(1, ends[:, None])
        logits = super().apply(logits, rows, ends, view, ids)
        logits[there[:, 0] < 0] += 1
        return logits


class Trips(Less):
    """-1 is taken for a token."""

    def apply(self, logits, rows, ends, view, ids):
        last = view.token_ids[rows].long().gather(1, ends[:, None] - 1)
        return logits.scatter_add_(1, last, -self.by.index_select(0, rows)[:, None])


class Mixes(Less):
    def apply(self, logits, rows, ends, view, ids):
        return super().apply(logits, rows, ends, view, ids) + 1e-3 * logits.nan_to_num(0, 0, 0).mean()


class InOrder(Less):
    """The first line is that of row 0, and so on."""

    def apply(self, logits, rows, ends, view, ids):
        return super().apply(logits, rows.sort().values, ends, view, ids)


class Unmasks(Less):
    def apply(self, logits, rows, ends, view, ids):
        return super().apply(logits.clamp_min(-1e4), rows, ends, view, ids)


class Normalises(Less):
    """A line of which nothing is left becomes NaN."""

    def apply(self, logits, rows, ends, view, ids):
        top = logits.amax(1, keepdim=True)
        return super().apply((logits - top) + top, rows, ends, view, ids)


class Writes(Less):
    def apply(self, logits, rows, ends, view, ids):
        view.token_ids[rows[0], 0] = 0
        ends += 1
        return super().apply(logits, rows, ends - 1, view, ids)


class Narrow(Less):
    def apply(self, logits, rows, ends, view, ids):
        return super().apply(logits, rows, ends, view, ids).half()


class Claims(Less):
    keeps_argmax = True


class Looks(Less):
    def apply(self, logits, rows, ends, view, ids):
        if self.by[rows].max() == 0:
            return logits
        return super().apply(logits, rows, ends, view, ids)


class Any(Less):
    @classmethod
    def check(cls, params, query):
        return True


class Stumbles(Less):
    @classmethod
    def check(cls, params, query):
        return bool(params.get("less") and params["less"] * 2.0)


class Mumbles(Less):
    @classmethod
    def check(cls, params, query):
        try:
            return super().check(params, query)
        except ValueError:
            raise ValueError("no") from None


class Tensors(Less):
    @classmethod
    def check(cls, params, query):
        return super().check(params, query) and bool(torch.tensor(params["less"]) != 0)


@pytest.mark.parametrize(
    ("made", "tests", "words"),
    [
        (Remembers, {AGAIN}, "in the row that one (0) had"),
        (Counts, {NEXT}, "asked a second time"),
        (CountsSteps, {LINE, PREEMPTED}, "tokens are not as expected; token"),
        (OneLine, {DRAFTS}, "behind 1 drafts"),
        (TooFar, {BEHIND}, "with -1 in unused places"),
        (Trips, {MISSING}, "index"),
        (Mixes, {OTHERS}, "in a batch and alone"),
        (InOrder, {LINE, OTHERS}, "after 0 tokens of output"),
        (Unmasks, {GONE}, "was ruled out, and may come now"),
        (Normalises, {STRANGE}, "gets nan"),
        (Writes, {LINE}, "apply has written into ends, which it may only read"),
        (Narrow, {LINE}, "apply gives torch.float16 (15, 24), not float32 (15, 24)"),
        (Claims, {LARGEST}, "say keeps_argmax = False"),
        (Looks, {WAITS}, "Tensor.__bool__ (test_logits_processor_kit.py:"),
        (Any, {AFFECTS, WORDS}, "check says that None is affected"),
        (Stumbles, {WORDS}, "can't multiply"),
        (Mumbles, {WORDS}, "'no' does not name the parameter, ['less']"),
        (Tensors, {TENSORS}, "it must do without tensors"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_processor_fails_and_is_told_what_is_wrong(made, tests, words):
    failed = failing(made)
    assert tests <= set(failed)
    assert any(words in said for said in failed.values()), failed


def test_a_kit_without_a_reference_says_what_to_write():
    class Without(Kit):
        expected = LogitsProcessorConformance.expected

    with pytest.raises(NotImplementedError, match="must say what the processor should do"):
        Without().test_each_line_becomes_what_is_expected()


def test_requests_that_change_nothing_prove_nothing():
    class Nothing(Kit):
        requests = {"none": {"less": 0.0}}

    with pytest.raises(AssertionError, match="no line was changed"):
        Nothing().test_each_line_becomes_what_is_expected()


class Engines:
    """The tokens of engines, by the settings that they were given."""

    def __init__(self, **tokens):
        self.tokens = tokens

    def ran(self, drafts, asks, **settings):
        way = "plain" if "async_scheduling" in settings else "preempted" if settings else "usual"
        return SimpleNamespace(tokens=[self.tokens.get(way, [1, 2])] * len(asks))

    def tight(self, drafts, longest):
        return {"small": True}

    def engine(self, drafts):
        raise AssertionError("not reached")


def test_tokens_that_depend_on_the_engine_fail():
    reference = SimpleNamespace(vocab_size=VOCAB)
    with pytest.raises(AssertionError, match="not reached"):
        Kit().test_tokens_do_not_depend_on_how_the_engine_runs((reference, Engines()))

    class Quiet(Engines):
        def engine(self, drafts):
            from contextlib import nullcontext

            return nullcontext()

    import vllm_core.testing.logits_tokens as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "assert_empty", lambda engine: None)
        patch.setattr(module, "run", lambda engine, asks: SimpleNamespace(tokens=[[1, 2]]))
        Kit().test_tokens_do_not_depend_on_how_the_engine_runs((reference, Quiet()))
        with pytest.raises(AssertionError, match=r"the plain loop: \[1, 3\] instead of \[1, 2\]"):
            Kit().test_tokens_do_not_depend_on_how_the_engine_runs((reference, Quiet(plain=[1, 3])))


def test_a_greedy_token_that_is_not_the_largest_fails():
    def logits(ids):
        return torch.eye(VOCAB)[torch.tensor(ids)] * 5  # each token is followed by itself

    reference, kit = SimpleNamespace(logits=logits, vocab_size=VOCAB), Kit()
    asks = kit.asks(VOCAB, temperature=0.0)[:2]
    assert asks[1].params.extra_args == {"less": 1.5}
    good = [[ask.prompt[-1]] * 3 for ask in asks]
    kit.assert_greedy(reference, asks, SimpleNamespace(tokens=good))
    bad = [good[0], [good[1][0], (good[1][0] + 1) % VOCAB]]
    with pytest.raises(AssertionError, match=r"extra_args={'less': 1.5}: token 1 of its output is"):
        kit.assert_greedy(reference, asks, SimpleNamespace(tokens=bad))


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda x: x.sum().item(), "Tensor.item"),
        (lambda x: x.tolist(), "Tensor.tolist"),
        (lambda x: x.numpy(), "Tensor.numpy"),
        (lambda x: int(x[0]), "Tensor.__int__"),
        (lambda x: x[x > 0], "index"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: torch.tensor([1.0]), "torch.tensor"),
        (lambda x: x.long().unique(), "_unique2"),
        (lambda x: torch.nn.functional.one_hot(x.long()), "_local_scalar_dense"),
    ],
)
def test_what_waits_is_seen_on_a_cpu_with_its_line(call, found):
    with pytest.raises(
        AssertionError, match=rf"it reads values on the host: .*{found} \(test_logits_processor_kit.py:"
    ):
        assert_never_waits("it", lambda: call(torch.arange(4.0)))


def test_what_does_not_wait_passes():
    def work():
        x = torch.arange(4.0)
        x[x > 2] = 0.0
        x.masked_fill_(x > 1, 5.0)
        return torch.where(x > 1, x, 0).argmax(), len(x), x.shape, torch.as_tensor(x)

    assert_never_waits("it", work)
