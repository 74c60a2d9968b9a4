"""The executor "external_launcher": ranks that torchrun has started, an engine each, give what one gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.loading.checkpoints import tiny_model, write
from vllm_core import LLM, SamplingParams

pytestmark = pytest.mark.slow

SETTINGS = {"dtype": "float32", "max_num_seqs": 4, "max_num_batched_tokens": 32, "max_model_len": 200}
PROMPTS = [[5, 60, 70, 200, 399], list(range(3, 90)), [7], [8, 9], [10, 11, 12], list(range(9, 60))]
PROGRAM = """
import json, sys
from vllm_core import LLM, SamplingParams
folder, settings, prompts, changes = json.loads(sys.argv[1])
import os
settings.update(changes.get(os.environ["RANK"], {}))
def say(what):  # to a file: two ranks' lines mix in one pipe
    with open(f"{sys.argv[2]}/{os.environ['RANK']}.said", "a") as file:
        file.write(json.dumps(what) + "\\n")
params = [SamplingParams(temperature=i % 2, seed=i, max_tokens=9 + i, ignore_eos=True) for i in range(len(prompts))]
with LLM(folder, distributed_executor_backend="external_launcher", **settings) as llm:
    found = llm.generate(prompts, params, use_tqdm=False)
    say([output.outputs[0].token_ids for output in found])
    try:
        llm.generate([prompts[0]], SamplingParams(structured_outputs={"regex": "a"}), use_tqdm=False)
    except ValueError as error:
        say(str(error))
with LLM(folder, distributed_executor_backend="external_launcher", **settings) as llm:  # another one
    say([output.outputs[0].token_ids for output in llm.generate(prompts, params, use_tqdm=False)])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write(tmp_path_factory.mktemp("tiny"), tiny_model()))


def launched(folder, tmp_path, ranks=2, changes=None, **settings):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    given = json.dumps([folder, {**SETTINGS, **settings}, PROMPTS, changes or {}])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command += [str(program), given, str(tmp_path)]
    found = subprocess.run(
        command, capture_output=True, text=True, timeout=180, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    lines = [line for path in sorted(tmp_path.glob("*.said")) for line in path.read_text().splitlines()]
    return found.returncode, lines, found.stderr


def test_two_ranks_that_torchrun_starts_give_what_one_gives(folder, tmp_path):
    code, lines, errors = launched(folder, tmp_path, tensor_parallel_size=2)
    assert code == 0, errors
    params = [SamplingParams(temperature=i % 2, seed=i, max_tokens=9 + i, ignore_eos=True) for i in range(6)]
    with LLM(folder, **SETTINGS) as llm:
        want = [output.outputs[0].token_ids for output in llm.generate(PROMPTS, params, use_tqdm=False)]
    said = [json.loads(line) for line in lines]
    assert [line for line in said if isinstance(line, list)] == [want] * 4
    refused = [line for line in said if isinstance(line, str)]
    assert len(refused) == 2
    assert "external_launcher has no structured outputs" in refused[0]


def test_ranks_of_other_settings_are_told_apart(folder, tmp_path):
    code, _, errors = launched(folder, tmp_path, changes={"1": {"seed": 7}}, tensor_parallel_size=2)
    assert code != 0
    assert "the ranks were resolved to different choices" in errors


def test_another_number_of_ranks_is_refused(folder, tmp_path):
    code, _, errors = launched(folder, tmp_path, ranks=1, tensor_parallel_size=2)
    assert code != 0
    assert "1 ranks were started, and tensor_parallel_size makes 2" in errors


def test_without_a_launcher_it_says_what_is_missing(folder, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match=r"external_launcher: RANK.* must be set .*\n.*torchrun --nproc-per-node 2"):
        LLM(folder, distributed_executor_backend="external_launcher", tensor_parallel_size=2, **SETTINGS)
