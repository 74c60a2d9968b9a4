"""A tool's call and its result through libraries that few machines have: each test skips without its own.

pip install langchain-openai langchain-anthropic openai-agents
"""

from __future__ import annotations

import asyncio

import pytest

CALL = '<think>Let me add.</think>I will add.<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
AGAIN = "I will add. | Let me add. | [{"  # how the template gets the turn that called


def chat_models(url):
    openai = pytest.importorskip("langchain_openai", reason="needs langchain-openai")
    anthropic = pytest.importorskip("langchain_anthropic", reason="needs langchain-anthropic")
    common = {"model": "scripted", "api_key": "none", "max_retries": 0}
    return [
        openai.ChatOpenAI(base_url=f"{url}/v1", use_responses_api=True, **common),
        anthropic.ChatAnthropic(base_url=url, max_tokens=100, **common),
    ]


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("which", [0, 1])
def test_langchain_calls_a_tool_and_goes_on_with_its_result(engine, live, which, streams):
    model = chat_models(live.url)[which]
    from langchain_core.messages import HumanMessage, ToolMessage

    def add(a: int) -> int:
        """Adds."""
        return a + 1

    bound, question = model.bind_tools([add]), HumanMessage("1+1?")
    engine.tell(CALL)
    if streams:
        first = None
        for piece in bound.stream([question]):
            first = piece if first is None else first + piece
    else:
        first = bound.invoke([question])
    (call,) = first.tool_calls
    assert (call["name"], call["args"]) == ("add", {"a": 1})
    engine.tell("It is 2.")
    last = bound.invoke([question, first, ToolMessage("2", tool_call_id=call["id"])])
    assert last.text == "It is 2."
    said = engine.asked[0][0]
    if streams and which == 0:
        said = said.replace("I will add. | [{", AGAIN)  # LangChain does not keep reasoning_text of a stream
    assert AGAIN in said
    assert said.endswith("tool: 2\nassistant:")


@pytest.mark.parametrize("streams", [False, True])
def test_openais_agents_run_their_tools(engine, live, streams):
    agents = pytest.importorskip("agents", reason="needs openai-agents")
    from openai import AsyncOpenAI

    agents.set_tracing_disabled(True)

    @agents.function_tool
    def add(a: int) -> int:
        """Adds."""
        engine.tell("It is 2.")
        return a + 1

    async def run():
        client = AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)
        model = agents.OpenAIResponsesModel(model="scripted", openai_client=client)
        agent = agents.Agent(name="adder", instructions="Be kind.", tools=[add], model=model)
        if not streams:
            return await agents.Runner.run(agent, "1+1?")
        result = agents.Runner.run_streamed(agent, "1+1?")
        async for _ in result.stream_events():
            pass
        return result

    engine.tell(CALL)
    assert asyncio.run(run()).final_output == "It is 2."
    assert "system: Be kind." in engine.asked[0][0]
    assert AGAIN in engine.asked[0][0]
