"""A scheduler policy that has settings, and to which requests say something."""

import json

RUN = """
import json, sys
from vllm_core import LLM, SamplingParams

def order(folder, **settings):
    plugin = {"ledger": {"file": "lines"}, **settings.pop("plugin", {})}
    llm = LLM(folder, max_num_seqs=1, dtype="float32", plugin=plugin, **settings)
    asked = [{}, {"deadline_ms": 5000}, {"deadline_ms": 10}, {}, {"deadline_ms": 200.5}]
    if settings["scheduling_policy"] != "deadline":
        asked = [{}] * len(asked)
    params = [SamplingParams(temperature=0, max_tokens=3, ignore_eos=True, extra_args=extra) for extra in asked]
    llm.generate([f"request {i}" for i in range(len(asked))], params, use_tqdm=False)
    said = []
    for extra in ({"deadline_ms": -1}, {"deadline_ms": True}):
        try:
            llm.generate("a", SamplingParams(extra_args=extra), use_tqdm=False)
        except Exception as error:
            said.append(str(error))
    llm.shutdown()
    lines = [json.loads(line) for line in open("lines")]
    open("lines", "w").close()
    ended = [line["request_id"] for line in lines if line["kind"] == "request"]
    return {"order": [sorted(ended).index(one) for one in ended], "said": said}

print(json.dumps([order(sys.argv[1], scheduling_policy="deadline"),
                  order(sys.argv[1], scheduling_policy="deadline", plugin={"deadline": {"default_ms": 1000}}),
                  order(sys.argv[1], scheduling_policy="fcfs")]))
"""


def test_requests_run_in_the_order_of_their_deadlines(shell, heron_folder):
    usual, early, fcfs = shell.report(RUN, heron_folder)
    assert usual["order"] == [2, 4, 1, 0, 3]  # those without a deadline have a minute
    assert early["order"] == [2, 4, 0, 3, 1]  # a second, by the plugin's own setting
    assert fcfs["order"] == [0, 1, 2, 3, 4]
    wrong = 'scheduler policy "deadline": deadline_ms must be a number of milliseconds from 0 on, not '
    assert [one.rpartition(" ")[2] for one in usual["said"]] == ["-1", "True"]
    assert all(wrong in one for one in usual["said"])
    assert all("this engine has none" in one for one in fcfs["said"])  # nothing is accepted and ignored
    assert len(fcfs["said"]) == 2


def test_the_command_line_takes_it_with_its_settings(shell, heron_file):
    flags = ("--scheduling-policy", "deadline", "--plugin.deadline.default-ms", "10", "--plugin.ledger.file", "lines")
    done = shell("complete", heron_file, "The quick", "--temperature", "0", "--max-tokens", "4", *flags)
    assert done.code == 0, done.err
    kinds = [json.loads(line)["kind"] for line in (shell.folder / "lines").read_text().splitlines()]
    assert kinds.count("request") == 1
    assert kinds.count("step") >= 4
