"""Outputs held to grammars, on real weights: SmolLM2-135M-Instruct with each backend, kind, temperature and drafts."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest

from vllm_core import LLM, SamplingParams, StructuredOutputsParams

pytest.importorskip("vllm_plugin_smollm2", reason="vllm-plugin-smollm2 is not installed")

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "langs": {"type": "array", "items": {"enum": ["C", "Rust", "Go"]}, "maxItems": 3},
    },
    "required": ["name", "age", "langs"],
}
SHORT = {"type": "object", "properties": {"ok": {"type": "boolean"}, "n": {"type": "null"}}, "required": ["ok"]}
TAG = {"begin": "<f>", "schema": SHORT, "end": "</f>"}
WANTED = {
    "json": {"json": PERSON},
    "json on one line": {"json": PERSON, "disable_any_whitespace": True},
    "json_object": {"json_object": True},
    "regex": {"regex": r"[0-9]{3}-[0-9]{4}(, [A-Z][a-z]{2,8})?"},
    "choice": {"choice": ["yes", "no", 'maybe "so"', "vielleicht, wer weiß"]},
    "grammar": {"grammar": 'root ::= "x" ("ab" | "cd")+ "."'},
    "structural_tag": {"structural_tag": json.dumps({"structures": [TAG], "triggers": ["<f"]})},
}
PROMPT = "<|im_start|>user\nDescribe a person named Ann who is 31, in JSON.<|im_end|>\n<|im_start|>assistant\n"
FREE = ["The capital of France is", "Once upon a time", "1, 2, 3, 4,"]
DRAFTS = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3, "prompt_lookup_min": 1}


def check(kind: str, text: str) -> None:
    if kind.startswith("json"):
        jsonschema.validate(json.loads(text), {"type": "object"} if kind == "json_object" else PERSON)
        assert "\n" not in text or kind != "json on one line"
    elif kind == "regex":
        assert re.fullmatch(WANTED[kind]["regex"], text)
    elif kind == "choice":
        assert text in WANTED[kind]["choice"]
    elif kind == "grammar":
        assert re.fullmatch(r"x(ab|cd)+\.", text)
    else:
        for part in text.split("<f>")[1:]:
            jsonschema.validate(json.loads(part.partition("</f>")[0]), SHORT)


@pytest.fixture(scope="module", params=["llguidance", "xgrammar"])
def backend(request):
    pytest.importorskip(f"vllm_plugin_{request.param}", reason=f"vllm-plugin-{request.param} is not installed")
    return request.param


@pytest.fixture(scope="module", params=[None, DRAFTS], ids=["no drafts", "drafts"])
def llm(request, backend):
    engine = LLM(
        "SmolLM2-135M-Instruct", dtype="float32", max_model_len=512, max_num_seqs=32, speculative_config=request.param,
        structured_outputs_config={"backend": backend, "compile_seconds": 20},
    )  # fmt: skip
    yield engine
    engine.shutdown()


@pytest.fixture(scope="module")
def free(llm):
    """Unconstrained outputs, alone."""
    return [o.outputs[0].token_ids for o in llm.generate(FREE, [mild(i) for i in range(3)], use_tqdm=False)]


def mild(i, **more):
    return SamplingParams(temperature=0.8 * (i % 2), seed=i, max_tokens=24, **more)


@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_every_kind_conforms_and_leaves_free_requests_as_they_are(llm, free, temperature):
    held = [
        SamplingParams(temperature=temperature, seed=seed, max_tokens=96, structured_outputs=wanted)
        for wanted in WANTED.values()
        for seed in range(2 if temperature else 1)
    ]
    kinds = [kind for kind in WANTED for _ in range(2 if temperature else 1)]
    outputs = llm.generate([*FREE, *[PROMPT] * len(held)], [*[mild(i) for i in range(3)], *held], use_tqdm=False)
    for output, alone in zip(outputs[:3], free, strict=True):
        assert output.outputs[0].token_ids == alone
    ended = 0
    for kind, output in zip(kinds, outputs[3:], strict=True):
        found = output.outputs[0]
        assert not output.error, (kind, output.error)
        if found.finish_reason == "stop":
            check(kind, found.text)
            ended += 1
        else:  # a text without a limit need not end
            assert found.finish_reason == "length"
            assert kind in ("json_object", "grammar", "structural_tag")
    assert ended >= len(held) * 2 // 3


def test_several_samples_of_one_request_conform_each(llm):
    wanted = StructuredOutputsParams(json=PERSON, disable_any_whitespace=True)
    params = SamplingParams(n=4, temperature=1.0, seed=7, max_tokens=200, structured_outputs=wanted)
    (output,) = llm.generate([PROMPT], params, use_tqdm=False)
    texts = [sample.text for sample in output.outputs]
    for text in texts:
        check("json", text)
    assert len(set(texts)) > 1


def test_a_tool_that_must_be_called_is_called(llm):
    function = {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
    other = {"name": "add", "parameters": {"$defs": {"n": {"type": "integer"}}, "type": "object",
             "properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["a"]}}  # fmt: skip
    tools = [{"type": "function", "function": f} for f in (function, other)]
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    params = SamplingParams(temperature=0, max_tokens=100)
    named = {"type": "function", "function": {"name": "add"}}
    for choice, names in (("required", {"weather", "add"}), (named, {"add"})):
        (output,) = llm.chat(messages, params, tools=tools, tool_choice=choice, use_tqdm=False)
        found = output.outputs[0]
        assert found.finish_reason == "stop"
        assert found.tool_calls
        for call in found.tool_calls:
            assert call.name in names
            schema = function if call.name == "weather" else other
            jsonschema.validate(json.loads(call.arguments), schema["parameters"])
        assert not (found.content or "").strip()
