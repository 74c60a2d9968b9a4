"""Reasoning between <think> tags: the kit on both parsers, and how a prompt begins or ends it."""

from __future__ import annotations

import pytest
from vllm_plugin_think.parser import ThinkFirst, ThinkTags
from vllm_plugin_think.prompt import left_open

from vllm_core.testing import ReasoningParserConformance
from vllm_core.testing.cuts import tiny_tokenizers
from vllm_core.testing.reasoning_parser import ReasoningExample as Case

MARKERS = ("<think>", "</think>")
# What the templates of Qwen3 and of DeepSeek-R1 say about thinking, abridged.
QWEN3 = "{%- if '</think>' in content %}{%- if enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}"
R1 = "{% set content = content.split('</think>')[-1] %}{{'<｜Assistant｜>' + content}}{{'<｜Assistant｜><think>\\n'}}"
HUNYUAN = "{% if '</think>' in content %}<think>{{ reasoning }}</think><answer>"
TURN = "Is a tag <think> or </think>?<|turn|>assistant\n"


class TestThinkTags(ReasoningParserConformance):
    parser = "qwen3"
    markers = MARKERS
    templates = (QWEN3,)
    other_templates = (R1, HUNYUAN)
    examples = {
        "both": Case("<think>\nHm, two.\n</think>\n\nTwo.", "\nHm, two.\n", "\n\nTwo.", inside=False),
        "a line before": Case("\n<think>Hm.</think>Two.", "Hm.", "Two."),
        "nothing thought": Case("<think>\n\n</think>\n\nTwo.", "\n\n", "\n\nTwo."),
        "no answer": Case("<think>It goes on and on, a < b", "It goes on and on, a < b"),
        "no tags": Case("Two, and < three.", "", "Two, and < three."),
        "tags in the answer": Case(
            "<think>Tags?</think>Write <think> and </think>.", "Tags?", "Write <think> and </think>."
        ),
        "tags in an answer without reasoning": Case("Write <think> here.</think>", "", "Write <think> here.</think>"),
        "the prompt began it": Case("Hm.\n</think>\n\nTwo.", "Hm.\n", "\n\nTwo.", prompt="<think>\n", inside=True),
        "the prompt began it, and the model again": Case(
            "<think>Hm.</think>Two.", "Hm.", "Two.", prompt=f"{TURN}<think>\n", inside=True
        ),
        "the prompt goes on within it": Case(
            " or two</think>Two.", " or two", "Two.", prompt="<think>One", inside=True
        ),
        "the prompt ended it": Case(
            "Two, <think>.", "", "Two, <think>.", prompt="<think>\n\n</think>\n\n", inside=False
        ),
        "the question has tags": Case("<think>Hm.</think>Two.", "Hm.", "Two.", prompt=TURN, inside=False),
        "not enabled": Case("<think>Two.", "", "<think>Two.", options={"enable_thinking": False}, inside=False),
        "not enabled, and begun": Case(
            "Hm.</think>Two.", "Hm.", "Two.", prompt="<think>", options={"enable_thinking": False}, inside=True
        ),
    }


class TestThinkFirst(ReasoningParserConformance):
    parser = "deepseek_r1"
    markers = MARKERS
    templates = (R1,)
    other_templates = (QWEN3, HUNYUAN)
    examples = {
        "the first tag is missing": Case("Hm, two.</think>Two.", "Hm, two.", "Two.", inside=True),
        "both": Case("<think>\nHm.</think>\n\nTwo.", "\nHm.", "\n\nTwo."),
        "no answer": Case("It goes on, <", "It goes on, <"),
        "tags in the answer": Case("Hm.</think>Not <think> nor </think>.", "Hm.", "Not <think> nor </think>."),
        "the prompt began it": Case("Hm.</think>Two.", "Hm.", "Two.", prompt=f"{TURN}<think>\n", inside=True),
        "the prompt ended it": Case("Two.", "", "Two.", prompt=f"{TURN}</think>", inside=False),
        "the question has tags": Case("Hm.</think>Two.", "Hm.", "Two.", prompt=TURN, inside=True),
    }


@pytest.fixture(scope="module")
def tokenizers():
    return tiny_tokenizers(["<think>Hm, two.</think>Two."], MARKERS)


@pytest.mark.parametrize(
    ("prompt", "want"),
    [
        ("", None),
        ("Two?<|turn|>assistant\n", None),
        (TURN, None),
        ("<think>", True),
        (f"{TURN}<think>\n", True),
        (f"{TURN}<think>\n\n</think>\n\n", False),
        ("<think>Old.</think>One.<|turn|>user\nTwo?<|turn|>assistant\n", None),
    ],
)
def test_the_last_tag_of_the_turn_that_is_open_counts(tokenizers, prompt, want):
    for kind, tokenizer in tokenizers.items():
        assert left_open(tokenizer, tokenizer.encode(prompt)) is want, kind


def test_tags_that_are_special_tokens_stay_in_the_text(tokenizers):
    for kind, tokenizer in tokenizers.items():
        options = ThinkTags(tokenizer, {}).prepare({"skip_special_tokens": True, "n": 1})
        assert options == {"skip_special_tokens": kind != "markers as special tokens", "n": 1}


def test_a_grammar_waits_until_it_is_known_that_nothing_is_thought(tokenizers):
    for tokenizer in tokenizers.values():
        parser = ThinkTags(tokenizer, {})
        assert [parser.ended(tokenizer.encode(text)) for text in ("", "\n", "\nTwo")] == [False, False, True]
        assert ThinkTags(tokenizer, {"enable_thinking": False}).ended([])
        assert not ThinkFirst(tokenizer, {}).ended(tokenizer.encode("Two"))
