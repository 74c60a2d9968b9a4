"""A device of another package: torch knows it by a name of its own, and the engine computes there."""

import json

GREEDY = """
import json, sys
from vllm_core import LLM, SamplingParams
prompts = [{"prompt_token_ids": [(7 * i * i + n) % 400 for i in range(n)]} for n in (5, 30, 17)]
params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True, logprobs=2)

def run(device):
    llm = LLM(sys.argv[1], device=device, dtype="float32", skip_tokenizer_init=True, max_num_batched_tokens=24)
    outputs = llm.generate(prompts, params, use_tqdm=False)
    parameters = {p.device.type for p in llm.built.executor._runner.model.parameters()}
    pages = {p.device.type for p in llm.built.executor._runner.pages}
    llm.shutdown()
    return {"tokens": [o.outputs[0].token_ids for o in outputs], "devices": sorted(parameters | pages)}

print(json.dumps({"cpu": run("cpu"), "stub": run("stub")}))
"""


def test_the_stub_generates_the_cpus_tokens(shell, heron_folder):
    got = shell.report(GREEDY, heron_folder)
    assert got["stub"]["tokens"] == got["cpu"]["tokens"]
    assert (got["cpu"]["devices"], got["stub"]["devices"]) == (["cpu"], ["stub"])


def test_doctor_shows_it_and_what_an_engine_would_take(shell):
    report = json.loads(shell("doctor", "--json", "--device", "stub").out)
    found = {one["name"]: one for one in report["findings"] if one["section"] == "devices"}
    assert found["stub"]["facts"]["name"] == "Stub 9000"
    assert found["device"]["facts"] == {"chosen": "stub", "asked": "stub"}
