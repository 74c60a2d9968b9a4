"""The kits of parsers pass right ones and fail wrong ones, in the tests whose names say what is wrong."""

from __future__ import annotations

import json

import attrs
import pytest
from vllm_plugin_hermes_tools.parser import HermesToolParser
from vllm_plugin_think.parser import ThinkTags

from vllm_core.interfaces.reasoning_parser import ReasoningParse
from vllm_core.interfaces.tool_parser import ToolDelta, ToolParse
from vllm_core.testing import ReasoningParserConformance, ToolParserConformance
from vllm_core.testing.cuts import chunkings, tiny_tokenizers, work
from vllm_core.testing.reasoning_parser import ReasoningExample

PLUGIN = ("test_its_hook_offers", "test_the_plugin_module", "test_what_it_cannot")  # not about the parser's class


class Tools(ToolParserConformance):
    markers = ("<tool_call>", "</tool_call>")

    def write(self, calls):
        return "".join(f'<tool_call>\n{{"name": "{n}", "arguments": {a}}}\n</tool_call>' for n, a in calls)

    def all_examples(self):
        """Fewer than plugins run."""
        found = super().all_examples()
        return {name: found[name] for name in ("one call", "numbers", "three at once", "</tool_call> in an argument")}


class Reasons(ReasoningParserConformance):
    markers = ("<think>", "</think>")
    examples = {
        "both": ReasoningExample("<think>\nHm, two.\n</think>\n\nTwo.", "\nHm, two.\n", "\n\nTwo."),
        "no answer": ReasoningExample("<think>It goes on", "It goes on"),
        "no tags": ReasoningExample("Two, and < three.", "", "Two, and < three."),
        "the prompt began it": ReasoningExample("Hm.</think>Two.", "Hm.", "Two.", prompt="<think>\n", inside=True),
    }


@pytest.fixture(scope="module")
def tokenizers():
    return {kit: tiny_tokenizers(kit().texts(), kit.markers) for kit in (Tools, Reasons)}


@pytest.fixture
def failing(tokenizers):
    """``failing(kit, parser)``: the kit's tests that fail, whatever they raise; ``but`` those."""

    def run(kit, parser, but=()):
        usual, failed = tokenizers[kit]["markers as tokens"], []
        if kit is Tools:

            def make(other=None, tools=()):
                return parser(other or usual, list(tools))
        else:

            def make(example, other=None):
                made = parser(other or usual, dict(example.options))
                inside = made.starts_inside((other or usual).encode(example.prompt))
                assert example.inside in (None, inside)
                return made

        given = {"make": make, "tokenizers": tokenizers[kit], "tokenizer": usual}
        for name in dir(kit):
            if name.startswith("test_") and not name.startswith((*PLUGIN, *but)):
                test = getattr(kit(), name)
                wanted = test.__func__.__code__.co_varnames[1 : test.__func__.__code__.co_argcount]
                try:
                    test(**{argument: given[argument] for argument in wanted})
                except Exception:  # what a wrong parser raises is its failure
                    failed.append(name)
                except AssertionError:
                    failed.append(name)
        return failed

    return run


CUTS = "test_streams_give_what_the_whole_text_gives_at_every_cut"
TOKENS = "test_streams_of_tokens_give_what_the_whole_text_gives"
BAD = "test_no_text_is_too_bad_to_parse_or_streams_otherwise"
LOST = "test_no_text_gets_lost"
WORK = "test_the_work_grows_with_the_text_and_no_faster"


def test_right_parsers_pass(failing):
    assert failing(Tools, HermesToolParser) == []
    assert failing(Reasons, ThinkTags) == []


# ---- tools


class LosesTheTail(HermesToolParser):
    def finish(self):
        super().finish()
        return ToolParse()


class ReadsAllAgain(HermesToolParser):
    """Right, and quadratic: as parsers do that are given the text so far with each token."""

    def __init__(self, tokenizer, tools):
        super().__init__(tokenizer, tools)
        self.text, self.given = "", ToolParse()

    def feed(self, text, ids):
        self.text += text
        return self.news(HermesToolParser(self.tokenizer, self.tools).feed(self.text, ()))

    def finish(self):
        parser = HermesToolParser(self.tokenizer, self.tools)
        parts = [parser.feed(self.text, ()), parser.finish()]
        calls = {}
        for call in [*parts[0].calls, *parts[1].calls]:
            had = calls.get(call.index, attrs.evolve(call, arguments=""))
            calls[call.index] = attrs.evolve(had, arguments=had.arguments + call.arguments)
        return self.news(ToolParse(content=parts[0].content + parts[1].content, calls=tuple(calls.values())))

    def news(self, now):
        before, self.given = self.given, now
        calls = []
        for i, call in enumerate(now.calls):
            old = before.calls[i].arguments if i < len(before.calls) else None
            if old is None:
                calls.append(call)
            elif call.arguments != old:
                calls.append(ToolDelta(index=i, arguments=call.arguments[len(old) :]))
        return ToolParse(content=now.content[len(before.content) :], calls=tuple(calls))


class Raises(HermesToolParser):
    def feed(self, text, ids):
        if '<tool_call>{"' in text:
            json.loads(text.partition("<tool_call>")[2].partition("</tool_call>")[0])
        return super().feed(text, ids)


class SeesMarkersInOnePieceOnly(HermesToolParser):
    def feed(self, text, ids):
        if len(text) < len("<tool_call>"):
            self.content(text)
            return self._news()
        return super().feed(text, ids)


class DropsWhatFollows(HermesToolParser):
    def content(self, text):
        if self._index < 0:
            super().content(text)


class WaitsForTheEnd(HermesToolParser):
    def feed(self, text, ids):
        self._pieces.push(text)
        return ToolParse()


class LosesSpecialTokens(HermesToolParser):
    def prepare(self, options):
        return options


class LosesOptions(HermesToolParser):
    def prepare(self, options):
        return {"skip_special_tokens": False}


class NeedsParameters(HermesToolParser):
    def __init__(self, tokenizer, tools):
        super().__init__(tokenizer, tools)
        self.properties = [tool["function"]["parameters"]["type"] for tool in tools]


class NamesTwice(HermesToolParser):
    def feed(self, text, ids):
        parse = super().feed(text, ids)
        return attrs.evolve(parse, calls=tuple(attrs.evolve(c, name="again") for c in parse.calls))


class WritesPython(HermesToolParser):
    def arguments(self, text):
        super().arguments(text.replace("true", "True"))


@pytest.mark.parametrize(
    ("parser", "tests"),
    [
        (LosesTheTail, {"test_text_without_calls_is_content_unchanged", LOST}),
        (ReadsAllAgain, {WORK}),
        (Raises, {BAD, LOST}),
        (SeesMarkersInOnePieceOnly, {CUTS, TOKENS, BAD}),
        (DropsWhatFollows, {"test_text_before_and_after_calls_is_content", LOST}),
        (WaitsForTheEnd, {"test_arguments_are_given_before_they_are_whole"}),
        (LosesSpecialTokens, {TOKENS}),
        (LosesOptions, {"test_preparing_a_request_keeps_its_other_options"}),
        (NeedsParameters, {"test_tools_are_taken_as_requests_give_them"}),
        (NamesTwice, {CUTS}),
        (WritesPython, {"test_it_finds_the_calls_and_the_content", "test_arguments_are_json_or_plainly_unfinished"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_tool_parser_fails(failing, parser, tests):
    failed = set(failing(Tools, parser, but=(CUTS, LOST, BAD) if WORK in tests else (WORK,)))
    assert tests <= failed
    if parser in (ReadsAllAgain, WaitsForTheEnd, LosesSpecialTokens, LosesOptions, NeedsParameters):
        assert failed == tests


def test_what_a_parser_raises_is_told_with_the_text():
    words = r"raises JSONDecodeError: .*\n\s+instead whatever a model writes is content where it is nothing else"
    with pytest.raises(AssertionError, match=words) as error:
        Tools().test_no_text_is_too_bad_to_parse_or_streams_otherwise(lambda: Raises(None, []))
    assert "<tool_call>" in str(error.value)


class FindsNothing(HermesToolParser):
    def read(self, text):
        yield from text.until(("\0",), self.content)


def test_wrong_arguments_are_shown_beside_the_right_ones():
    with pytest.raises(AssertionError, match=r"has the calls \[\('get_weather', .*\n\s+and gives     \[\]"):
        Tools().test_it_finds_the_calls_and_the_content(lambda: FindsNothing(None, []))


def test_every_chunking_around_a_marker_is_tried():
    found = ["|".join(piece for piece, _ in pieces if piece) for pieces in chunkings("abc<tag>def", "<tag>")]
    assert {cut.replace("|", "") for cut in found} == {"abc<tag>def"}
    assert {"ab|c|<|tag|>|def", "ab|c<tag>def", "ab|c|<|t|a|g|>|d|e|f"} <= set(found)
    assert len(set(found)) >= 2**8
    assert list(chunkings("no tag", "<tag>")) == []


def test_a_parser_that_waits_for_the_end_is_not_taken_for_a_slow_one():
    Tools().test_the_work_grows_with_the_text_and_no_faster(lambda: WaitsForTheEnd(None, []))


# ---- reasoning


class ForgetsTheTail(ThinkTags):
    def finish(self):
        super().finish()
        return ReasoningParse()


class ThinksAllAgain(ThinkTags):
    text = reasoning = content = ""

    def feed(self, text, ids):
        self.text += text
        return self.news(super().feed, False)

    def finish(self):
        return self.news(super().feed, True)

    def news(self, feed, over):
        parser = ThinkTags(self._tokenizer, {})
        parser._start = self._start
        parts = [parser.feed(self.text, ()), *([parser.finish()] if over else [])]
        reasoning, content = "".join(p.reasoning for p in parts), "".join(p.content for p in parts)
        news = ReasoningParse(reasoning=reasoning[len(self.reasoning) :], content=content[len(self.content) :])
        self.reasoning, self.content = reasoning, content
        return news


class Stumbles(ThinkTags):
    def feed(self, text, ids):
        if text.count("</think>") > 1:
            raise ValueError("two ends")
        return super().feed(text, ids)


class EndsAtOnce(ThinkTags):
    def ended(self, output_ids):
        return True


class NeverEnds(ThinkTags):
    def ended(self, output_ids):
        return False


class AsksAllAgain(ThinkTags):
    def ended(self, output_ids):
        fresh = ThinkTags(self._tokenizer, {})
        fresh._start = self._start
        return fresh.ended(list(output_ids))


class OverlooksThePrompt(ThinkTags):
    def starts_inside(self, prompt_ids):
        return False


@pytest.mark.parametrize(
    ("parser", "tests"),
    [
        (ForgetsTheTail, {LOST}),
        (ThinksAllAgain, {WORK}),
        (Stumbles, {BAD, LOST}),
        (EndsAtOnce, {"test_ended_says_so_when_the_answer_begins_and_not_before"}),
        (NeverEnds, {"test_ended_says_so_when_the_answer_begins_and_not_before"}),
        (AsksAllAgain, {"test_asking_whether_it_has_ended_looks_at_each_token_a_few_times"}),
        (OverlooksThePrompt, {"test_it_tells_reasoning_from_the_answer", CUTS, TOKENS}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_reasoning_parser_fails(failing, parser, tests):
    failed = set(failing(Reasons, parser, but=() if WORK in tests else (WORK,)))
    assert tests <= failed
    if parser not in (ForgetsTheTail, Stumbles, OverlooksThePrompt):
        assert failed == tests


def test_state_that_requests_share_fails():
    class Greedy(HermesToolParser):
        open_calls: list[str] = []

        def call(self, name, id=""):
            self.open_calls.append(name)
            super().call(name, id)

        def arguments(self, text):
            super().arguments(text if len(self.open_calls) < 2 else text.replace("l", "r"))

    with pytest.raises(AssertionError):
        Tools().test_parsers_of_several_requests_do_not_meet(lambda: Greedy(None, []))


def test_work_counts_calls_and_the_text_they_are_handed_and_is_the_same_every_time():
    def call(text):
        return text.upper()

    assert work(lambda: call("x" * 100)) == work(lambda: call("x" * 100))
    assert work(lambda: call("x" * 100)) - work(lambda: call("x" * 50)) == 50
    assert work(lambda: [call("x" * n) for n in range(100)]) > 99 * 100 / 2
