"""LangChain's ChatOpenAI over /v1/chat/completions, which it asks unless told otherwise.

pip install langchain-openai
"""

from __future__ import annotations

import asyncio

import pytest

MODEL = "SmolLM2-135M-Instruct"
QUESTION = "What is the capital of France?"


def chat(url: str, model: str, tokens: int = 30):
    openai = pytest.importorskip("langchain_openai", reason="needs langchain-openai")
    return openai.ChatOpenAI(
        base_url=f"{url}/v1", model=model, api_key="none", max_retries=0, temperature=0, max_tokens=tokens
    )


@pytest.mark.slow
def test_smollm2_answers_langchain_whole_and_streamed(smol):
    model = chat(smol.url, MODEL)
    whole = model.invoke(QUESTION)
    assert "Paris" in whole.text
    assert whole.response_metadata["finish_reason"] == "stop"
    pieces = list(model.stream(QUESTION, stream_usage=True))
    assert "".join(piece.text for piece in pieces) == whole.text
    (usage,) = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    assert usage["output_tokens"] == whole.usage_metadata["output_tokens"]


@pytest.mark.slow
def test_langchain_asks_several_at_once(smol):
    model = chat(smol.url, MODEL)
    answers = asyncio.run(model.abatch([QUESTION, "What is the capital of Germany?"]))
    assert "Paris" in answers[0].text
    assert "Berlin" in answers[1].text


def test_langchain_gets_the_shape_it_wants(server):
    pydantic = pytest.importorskip("pydantic")

    class Answer(pydantic.BaseModel):
        right: bool

    model = chat(server.url, "tiny", tokens=200).with_structured_output(Answer, method="json_schema")
    assert isinstance(model.invoke(QUESTION), Answer)


def test_langchain_gets_the_tool_called_that_must_be(server):
    def add(a: bool) -> bool:
        """Adds."""
        return a

    model = chat(server.url, "tiny", tokens=200).bind_tools([add], tool_choice="add")
    (call,) = model.invoke(QUESTION).tool_calls
    assert call["name"] == "add"
    assert set(call["args"]) == {"a"}
