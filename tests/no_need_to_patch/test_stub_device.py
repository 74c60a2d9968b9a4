"""A device of another package: torch knows it by a name of its own, and the engine computes there."""

import json

GREEDY = """
import json, sys
from vllm_core import LLM, SamplingParams
prompts = [{"prompt_token_ids": [(7 * i * i + n) % 400 for i in range(n)]} for n in (5, 30, 17)]
params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True, logprobs=2)

def run(device, **more):
    settings = {"dtype": "float32", "skip_tokenizer_init": True, "max_num_batched_tokens": 24, **more}
    llm = LLM(sys.argv[1], device=device, **settings)
    outputs = llm.generate(prompts, params, use_tqdm=False)
    runner = getattr(llm.built.executor, "_runner", None)  # None: it is in another process
    devices = {p.device.type for p in (*runner.model.parameters(), *runner.pages)} if runner else ()
    llm.shutdown()
    return {"tokens": [o.outputs[0].token_ids for o in outputs], "devices": list(devices)}

if __name__ == "__main__":
    apart = run("stub", distributed_executor_backend="mp")
    print(json.dumps({"apart": apart, "cpu": run("cpu"), "stub": run("stub")}))
"""


def test_the_stub_generates_the_cpus_tokens_here_and_in_a_process_of_its_own(shell, heron_folder):
    got = shell.report(GREEDY, heron_folder)
    assert got["stub"]["tokens"] == got["apart"]["tokens"] == got["cpu"]["tokens"]
    assert (got["cpu"]["devices"], got["stub"]["devices"]) == (["cpu"], ["stub"])


def test_doctor_shows_it_and_what_an_engine_would_take(shell):
    report = json.loads(shell("doctor", "--json", "--device", "stub").out)
    found = {one["name"]: one for one in report["findings"] if one["section"] == "devices"}
    assert found["stub"]["facts"]["name"] == "Stub 9000"
    assert found["device"]["facts"] == {"chosen": "stub", "asked": "stub"}
