"""``vllm-core bench attention``: every backend that offers is timed, and what is recorded is found by later choices."""

import json

import pytest

from vllm_core.cli import main
from vllm_core.plugins import figures
from vllm_core.runner import attention_times


@pytest.fixture
def bench(capsys, tmp_path, monkeypatch):
    """``bench(...)`` -> (exit code, result, output), with small steps and figures of its own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(attention_times, "DECODE", [(40, 1), (3, 1)])
    monkeypatch.setattr(attention_times, "PROMPTS", [(0, 20), (0, 3)])

    def call(*words):
        file = tmp_path / "result.json"
        code = main(["bench", "attention", *map(str, words), "--num-iters", "1", "--output-json", str(file)])
        said = capsys.readouterr()
        return code, json.loads(file.read_text()) if file.exists() else {}, said.out + said.err

    return call


def kept(tmp_path):
    file = tmp_path / "vllm-core" / "figures.json"
    return json.loads(file.read_text()) if file.exists() else {}


def test_every_offer_is_timed_and_every_refusal_said(bench, folder, tmp_path):
    code, result, said = bench(folder, "--plugins-block", "flex-attention")
    assert code == 0, said
    found = {row["name"]: row for row in result["backends"]}
    assert {"reference", "cpu"} <= found.keys()
    assert found["cpu"]["rank"] == "PORTABLE"
    times = found["reference"]["milliseconds"]
    assert times["together"] == pytest.approx(256 * times["decode"] + 4 * times["prompts"])
    assert "refuses: " in said
    assert kept(tmp_path) == {}, "nothing is kept that nobody asked to keep"


def test_what_is_recorded_is_what_a_choice_looks_up(bench, folder, tmp_path, monkeypatch):
    code, result, said = bench(folder, "--record", "--plugins-block", "flex-attention")
    assert code == 0, said
    assert len(kept(tmp_path)) == len(result["backends"])
    asked = []
    monkeypatch.setattr(figures, "lookup", lambda *key: asked.append(key))
    assert main(["explain", str(folder), "--skip-tokenizer-init", "--plugins-block", "flex-attention"]) == 0
    monkeypatch.undo()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    looked_up = {name: figures.lookup(kind, name, *rest) for kind, name, *rest in asked if kind == "attention_backend"}
    assert looked_up["cpu"] > 0
    assert looked_up["reference"] > 0


def test_a_step_lies_in_pages_that_differ_and_is_as_long_as_it_says():
    import torch

    step = attention_times.make_step([(40, 1), (0, 20)], 16, torch.device("cpu"), static=True)
    used = step.block_table[step.block_table != 0]
    assert len(set(used.tolist())) == len(used) == 3 + 2
    assert step.kv_lens.tolist() == [41, 20]
    assert step.slots[0] == step.block_table[0, 2] * 16 + 8
    assert (step.query_lens, step.num_tokens, step.longest_query) == ((), 21, 20)


def test_unusable_arguments_are_named(bench, folder, capsys):
    assert main(["bench", "attention", str(folder), "--num-iters", "0"]) == 2
    assert "--num-iters must be at least 1" in capsys.readouterr().err
