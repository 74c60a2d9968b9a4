"""Parsers on texts cut as SmolLM2's tokenizer cuts them."""

import json

import pytest
from vllm_plugin_hermes_tools.parser import HermesToolParser
from vllm_plugin_mistral_tools.parser import MistralToolParser
from vllm_plugin_think.parser import ThinkFirst, ThinkTags

from vllm_core.config.engine import EngineSettings
from vllm_core.engine.choose_text import choose_text
from vllm_core.engine.find import find
from vllm_core.engine.parsing import Made, OutputParser
from vllm_core.testing.cuts import by_tokens
from vllm_core.testing.tool_examples import STANDARD

FORMATS = {
    HermesToolParser: '<tool_call>\n{"name": "NAME", "arguments": ARGUMENTS}\n</tool_call>\n',
    MistralToolParser: "[TOOL_CALLS]NAME[ARGS]ARGUMENTS",
}


@pytest.fixture(scope="module")
def tokenizer():
    settings = EngineSettings(model="SmolLM2-135M-Instruct")
    found = find(settings, {})
    return choose_text(found.selector, settings, found.checkpoint, found.config)[0]


@pytest.mark.parametrize("thinks", [ThinkTags, ThinkFirst])
@pytest.mark.parametrize("calls", FORMATS)
def test_reasoning_then_calls_token_by_token(tokenizer, calls, thinks):
    for name, wanted in STANDARD.items():
        text = "<think>\nA tool < helps: 你好 👋🏽.\n</think>\n\nI look."
        for tool, arguments in wanted:
            call = FORMATS[calls].replace("NAME", tool)
            text += call.replace("ARGUMENTS", json.dumps(arguments, ensure_ascii=False))
        for at_once in (1, 2, 7):
            parser = OutputParser(Made(lambda: calls(tokenizer, []), "t"), Made(lambda: thinks(tokenizer, {}), "r"))
            deltas = [parser.feed(piece, ids) for piece, ids in by_tokens(text, tokenizer, at_once)] + [parser.finish()]
            assert (parser.reasoning, parser.content) == ("\nA tool < helps: 你好 👋🏽.\n", "\n\nI look."), name
            assert [(call.name, json.loads(call.arguments)) for call in parser.tool_calls] == wanted
            assert "".join(delta.content for delta in deltas) == parser.content


@pytest.mark.parametrize("thinks", [ThinkTags, ThinkFirst])
def test_reasoning_ends_with_the_token_that_completes_its_tag(tokenizer, thinks):
    ids = tokenizer.encode("<think>One, two.</think>Three.", add_special_tokens=False)
    parser = thinks(tokenizer, {})
    ended = [parser.ended(ids[:n]) for n in range(1, len(ids) + 1)]
    texts = [tokenizer.decode(ids[:n], skip_special_tokens=False) for n in range(1, len(ids) + 1)]
    assert ended == ["</think>" in text for text in texts]
