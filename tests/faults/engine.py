"""An engine with what the culprit offers: ``python engine.py FOLDER PLACE FAULT,... SETTINGS``.

Good requests go on while the fault strikes one more request, or the steps of all of them. Prints what came of each,
of the engine, and of a request afterwards, {fault: {...}}.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from vllm_core import AsyncLLM, SamplingParams, StructuredOutputsParams

ORDER = Path(os.environ["CULPRIT"])
SECONDS = 60.0
TOOLS = [{"type": "function", "function": {"name": "bad", "parameters": {"type": "object"}}}]


def params(tokens, **more):
    return SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, **more)


async def last(outputs):
    async for output in outputs:  # noqa: B007
        pass
    if output.error:
        raise RuntimeError(output.error)
    return output.outputs[0]


async def told(outputs):
    try:
        output = await asyncio.wait_for(last(outputs), SECONDS)
        return "ok" if output.token_ids else "empty"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def bad(llm, place, fault):
    """The request that the fault is for; in steps it is for all."""
    if place == "chat_renderer":
        return llm.chat([{"role": "user", "content": "bad"}], params(6))
    if place == "tool_parser":
        return llm.chat([{"role": "user", "content": "hoo"}], params(6), tools=TOOLS)
    if place == "reasoning_parser":
        return llm.chat([{"role": "user", "content": "hoo"}], params(6), chat_template_kwargs={"bad": True})
    if place in ("logits_processor", "check"):
        return llm.generate("hoo", params(6, extra_args={"bad": True}))
    if place in ("grammar_backend", "fill"):
        return llm.generate("hoo", params(6, structured_outputs=StructuredOutputsParams(choice=["hoo", fault])))
    return llm.generate("bad", params(6))


async def main(llm, place, fault):
    said = {"before": await told(llm.generate("hoo hoo", params(4)))}
    good = [asyncio.create_task(told(llm.generate(f"good {i}", params(300)))) for i in range(2)]
    await asyncio.sleep(0.2)
    ORDER.write_text(f"{place}:{fault}")
    begun = time.monotonic()
    struck = asyncio.create_task(told(bad(llm, place, fault)))
    await asyncio.sleep(0.1)
    said["beside"] = await told(llm.generate("beside", params(4)))
    said["beside_seconds"] = round(time.monotonic() - begun, 1)
    said["bad"] = await struck
    said["seconds"] = round(time.monotonic() - begun, 1)
    ORDER.write_text("")
    said["good"] = await asyncio.gather(*good)
    deadline = time.monotonic() + SECONDS
    while (after := await told(llm.generate("after", params(4)))) != "ok" and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    return {**said, "after": after}


async def each(llm, place, faults):
    said = {}
    for fault in faults:
        pid = llm.pid
        said[fault] = await main(llm, place, fault)
        said[fault]["restarted"] = llm.pid != pid
        print(json.dumps(said), flush=True)  # what is known so far, should this process end
    return said


if __name__ == "__main__":
    folder, place, faults, settings = sys.argv[1:]
    ORDER.write_text("")
    llm = AsyncLLM(folder, restarts=len(faults), **json.loads(settings))
    asyncio.run(each(llm, place, faults.split(",")))
    os._exit(0)  # calls that hang are still there
