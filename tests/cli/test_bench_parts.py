"""Workloads, percentiles and memory of ``vllm-core bench``, without an engine."""

import json
import subprocess
import sys

import numpy as np
import pytest

from vllm_core.cli.bench.figures import decode_rate, percentile, spread
from vllm_core.cli.bench.peers import measure
from vllm_core.cli.bench.workload import from_file, random_workload


def test_a_workload_is_the_same_for_a_seed_and_other_ids_in_every_run():
    one, again = (random_workload(4, 10, 6, vocab_size=1000, seed=3) for _ in range(2))
    assert one.prompts(0) == again.prompts(0) != one.prompts(1)
    assert one.prompts(0) != random_workload(4, 10, 6, vocab_size=1000, seed=4).prompts(0)
    assert {len(prompt) for prompt in one.prompts(0)} == {10}
    assert one.output_lens == [6] * 4
    assert all(100 <= token < 1000 for prompt in one.prompts(0) for token in prompt)


def test_lengths_vary_within_the_ratio_and_are_those_of_every_run():
    work = random_workload(200, 10, 20, vocab_size=50, range_ratio=0.5)
    lens = [len(prompt) for prompt in work.prompts(0)]
    assert (min(lens), max(lens)) == (5, 15)
    assert (min(work.output_lens), max(work.output_lens)) == (10, 30)
    assert lens == [len(prompt) for prompt in work.prompts(1)]


def test_prompts_may_share_their_beginning():
    prompts = random_workload(3, 4, 1, vocab_size=5000, prefix_len=6).prompts(0)
    assert {tuple(prompt[:6]) for prompt in prompts} == {tuple(prompts[0][:6])}
    assert len({tuple(prompt) for prompt in prompts}) == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.txt", "ab\n\nc\nd\n"),
        ("p.json", '["ab", {"prompt": "c"}, "d"]'),
        ("p.jsonl", '{"prompt": "ab"}\n{"prompt_token_ids": [1]}\n[1]'),
    ],
)
def test_files_of_prompts_are_read_as_text_or_ids(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    work = from_file(tmp_path / name, 2, 7, encode=lambda text: [len(text)])
    assert (work.prompts(0), work.output_lens) == ([[2], [1]], [7, 7])


@pytest.mark.parametrize("percent", [0, 10, 50, 90, 99, 100])
def test_percentiles_are_numpys(percent):
    values = [3.0, 1.0, 2.5, 9.0]
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent))


def test_no_values_have_no_spread():
    assert spread([]) == {}


def test_decoding_is_what_comes_after_the_first_token():
    assert decode_rate(128, 3.0, 0.5) == 127 / 2.5
    assert decode_rate(1, 0.5, 0.5) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only /proc tells the memory of children")
def test_memory_is_that_of_all_processes_at_their_peaks():
    code = "import sys; x = bytearray(80 << 20); del x; print('made', flush=True); sys.stdin.read()"
    before = measure.peak_memory()
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        with_child = measure.peak_memory()
        child.stdin.close()
    assert with_child - before > 70 << 20


def test_a_peer_whose_outputs_are_too_short_is_an_error():
    job = {"output_lens": [3], "stream_len": 3, "warmup": [], "runs": [[[1, 2]]], "streams": []}
    assert len(measure.load(lambda prompts, lens: sum(lens), job)["elapsed_times"]) == 1
    with pytest.raises(RuntimeError, match="2 tokens came out instead of 3"):
        measure.load(lambda prompts, lens: 2, job)


def test_peers_scripts_need_nothing_of_this_package():
    folder = measure.__file__.rpartition("/")[0]
    code = "import json, sys; import measure, run_vllm, run_transformers; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    roots = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not roots & {"vllm_core", "torch", "transformers", "vllm", "numpy", "attrs"}
