"""Parsers reached as users reach them: settings, hooks, chats with a tiny model that says what it is told to say."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from transformers import AddedToken

from tests.engine.tokenizers_for_tests import CHATML
from tests.loading.checkpoints import tiny_model, write
from vllm_core import LLM, SamplingParams
from vllm_core.cli import main
from vllm_core.config.errors import SettingError
from vllm_core.engine.async_llm import AsyncLLM
from vllm_core.engine.errors import RequestError
from vllm_core.plugins import NoOffer
from vllm_core.plugins.discovery import discover

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
MISTRAL = '[TOOL_CALLS]add[ARGS]{"a": 1}'
SAID = {"<think>": 400, "</think>": 401, CALL: 402, MISTRAL: 403, "hello ": 404}
THINKS = CHATML + "{# <think> </think> #}"
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Whole calls are tokens, so that a request that allows no others says them."""
    from transformers import AutoTokenizer

    folder = write(tmp_path_factory.mktemp("parsers") / "model", tiny_model(vocab_size=405))
    hf = AutoTokenizer.from_pretrained(folder)
    assert hf.add_tokens([AddedToken(text, special=False, normalized=False) for text in SAID]) == len(SAID)
    assert hf.convert_tokens_to_ids(list(SAID)) == list(SAID.values())
    hf.save_pretrained(folder)
    return str(folder)


def saying(text, times=1, **more):
    return SamplingParams(temperature=0, allowed_token_ids=[SAID[text]], max_tokens=times, ignore_eos=True, **more)


def load(folder, **settings):
    return LLM(folder, max_model_len=128, dtype="float32", kv_cache_memory=2**20, **settings)


def test_a_named_pair_of_parsers_reads_chats_whole_and_streamed(folder):
    with load(folder, tool_call_parser="hermes", reasoning_parser="deepseek_r1") as llm:
        whole = llm.chat([HI, HI], [saying("</think>"), saying("hello ", 2)], use_tqdm=False, tools=TOOLS)
        assert [(o.outputs[0].text, o.outputs[0].reasoning, o.outputs[0].content) for o in whole] == [
            ("</think>", "", ""),
            ("hello hello ", "hello hello ", ""),
        ]
        plain = llm.generate("Hi", saying("</think>"), use_tqdm=False)[0].outputs[0]
        assert (plain.text, plain.reasoning, plain.content, plain.delta) == ("</think>", None, None, None)
        over = "Hi </think>"  # in the prompt: no reasoning is to come
        prompt = [*HI, {"role": "assistant", "content": over}]
        how = {"tools": TOOLS, "chat_template": "{{ messages[-1].content }}"}
        (output,) = llm.chat(prompt, saying(CALL, 2), use_tqdm=False, **how)
        found = output.outputs[0]
        assert (found.text, found.reasoning, found.content) == (CALL * 2, "", "")
        assert [(call.name, json.loads(call.arguments)) for call in found.tool_calls] == [("add", {"a": 1})] * 2
        outputs = [o.outputs[0] for o in llm.stream(prompt, saying(CALL, 2), **how)]
        assert outputs[-1].content == ""
        parts = [part for o in outputs for part in o.delta.calls]
        assert [part.name for part in parts if part.name] == ["add", "add"]
        assert "".join(part.arguments for part in parts) == "".join(call.arguments for call in outputs[-1].tool_calls)


def test_unnamed_the_template_decides_and_calls_are_looked_for_only_where_there_are_tools(folder):
    shows = THINKS + r"{# <tool_call>\n{\"name\": NAME} #}"
    with load(folder, chat_template=shows) as llm:
        names = {d.hook: d.offer.name for d in llm.built.decisions}
        assert not {"tool_parser", "reasoning_parser"} & names.keys()  # nobody has needed them yet
        (output,) = llm.chat(HI, saying(CALL), use_tqdm=False)
        assert (output.outputs[0].reasoning, output.outputs[0].content) == ("", CALL)
        (output,) = llm.chat(HI, saying(CALL), use_tqdm=False, tools=TOOLS)
        assert (output.outputs[0].content, len(output.outputs[0].tool_calls)) == ("", 1)

        def add(a: int):
            """Add.

            Args:
                a: what
            """

        (output,) = llm.chat(HI, saying(CALL), use_tqdm=False, tools=[add])
        assert len(output.outputs[0].tool_calls) == 1
        with pytest.raises(RequestError, match="the chat template refuses these messages"):
            llm.chat(HI, saying(CALL), use_tqdm=False, tools=[lambda a: a])
        (output,) = llm.chat(HI, saying("<think>", 2), use_tqdm=False)
        assert (output.outputs[0].reasoning, output.outputs[0].content) == ("<think>", "")
        (output,) = llm.chat(HI, saying("<think>"), use_tqdm=False, chat_template_kwargs={"enable_thinking": False})
        assert (output.outputs[0].reasoning, output.outputs[0].content) == ("", "<think>")
        (output,) = llm.chat(HI, saying("<think>"), use_tqdm=False, enable_thinking=False)
        assert output.outputs[0].content == "<think>"


def test_without_a_parser_outputs_say_so(folder):
    for settings in ({}, {"chat_template": THINKS, "reasoning_parser": "none"}):
        with load(folder, **settings) as llm:
            found = llm.chat(HI, saying("<think>"), use_tqdm=False, tools=TOOLS)[0].outputs[0]
            assert (found.text, found.reasoning, found.content, found.tool_calls) == ("<think>", None, None, [])


def test_a_parser_that_raises_concerns_its_request(folder, monkeypatch, caplog):
    from vllm_plugin_mistral_tools.parser import MistralToolParser

    feed = MistralToolParser.feed

    def stumbles(self, text, ids):
        return feed(self, text, ids[99] if "hello" in text else ids)

    monkeypatch.setattr(MistralToolParser, "feed", stumbles)
    with load(folder, tool_call_parser="mistral") as llm, caplog.at_level(logging.WARNING):
        one, two = llm.chat([HI, HI], [saying("hello "), saying(MISTRAL)], use_tqdm=False, tools=TOOLS)
    assert (one.outputs[0].content, one.outputs[0].finish_reason) == ("hello ", "length")
    assert [call.arguments for call in two.outputs[0].tool_calls] == ['{"a": 1}']
    assert 'tool parser "mistral" (vllm-plugin-mistral-tools 0.1.0) failed (IndexError' in caplog.text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tool_call_parser": "hermez"}, ['"hermez" was asked for (--tool-call-parser)', 'did you mean "hermes"?']),
        ({"reasoning_parser": "qwen"}, ["(--reasoning-parser)", 'did you mean "qwen3"?', "deepseek_r1, none, qwen3"]),
        (
            {"reasoning_parser": "qwen3", "plugins": {"block": ["think"]}},
            ["(--reasoning-parser)", "disabled by block", 'remove "think" there'],
        ),
    ],
)
def test_a_parser_that_is_not_there_ends_the_start(folder, settings, words):
    with pytest.raises(NoOffer) as error:
        load(folder, **settings)
    for word in words:
        assert word in str(error.value)


def test_a_parser_whose_package_is_missing_is_named_with_it(folder, monkeypatch):
    found = [plugin for plugin in discover() if plugin.name != "think"]
    monkeypatch.setattr("vllm_core.plugins.catalog.discover", lambda: found)
    with pytest.raises(NoOffer) as error:
        load(folder, reasoning_parser="qwen3")
    assert "pip install vllm-plugin-think" in str(error.value)


def test_a_parser_needs_a_tokenizer(folder):
    with pytest.raises(SettingError, match="reasoning_parser was given together with skip_tokenizer_init"):
        load(folder, reasoning_parser="qwen3", skip_tokenizer_init=True)


def test_explain_shows_both_choices_and_who_was_asked(folder, capsys):
    assert main(["explain", folder, "--chat-template", THINKS, "--tool-call-parser", "mistral"]) == 0
    out = capsys.readouterr().out
    assert "\ntool_parser: mistral\n  asked   name mistral, architectures LlamaForCausalLM" in out
    assert "asked for (--tool-call-parser)" in out
    assert "\nreasoning_parser: qwen3\n" in out
    assert "  offers  none (vllm-core 0.1.0), rank REFERENCE - the winner goes before it" in out


def test_the_async_engine_streams_what_is_new(folder):
    async def talk():
        small = {"max_model_len": 128, "dtype": "float32", "kv_cache_memory": 2**20}
        llm = AsyncLLM(folder, reasoning_parser="deepseek_r1", **small)
        try:
            params = saying("hello ", 5)
            return [output.outputs[0] async for output in llm.chat(HI, params)]
        finally:
            llm.shutdown()

    outputs = asyncio.run(talk())
    assert outputs[-1].reasoning == "hello " * 5
    assert "".join(o.delta.reasoning for o in outputs) == "hello " * 5


def test_chat_shows_the_reasoning_apart(folder, capsys):
    words = ["chat", folder, "--max-tokens", "3", "--temperature", "0", "--reasoning-parser", "deepseek_r1"]
    assert main([*words, "Hi"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("[reasoning]\n")
    assert main([*words, "-q", "Hi"]) == 0
    assert capsys.readouterr().out == "\n"
