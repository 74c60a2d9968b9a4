"""lm-eval through the server, on tasks whose data lie beside them, against transformers on the same weights.

pip install 'lm-eval[api]==0.4.13'
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TASKS = Path(__file__).parent / "lm_eval"
MODEL = "SmolLM2-135M-Instruct"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def weights() -> Path:
    """The bundled GGUF file."""
    pytest.importorskip("lm_eval", reason="needs lm-eval[api]")
    pytest.importorskip("tenacity", reason="needs lm-eval[api]")
    locate = pytest.importorskip("vllm_plugin_smollm2.locate", reason="needs vllm-plugin-smollm2")
    try:
        return Path(locate.path())
    except FileNotFoundError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def tokenizer(weights, tmp_path_factory) -> Path:
    """Its tokenizer, in a folder: lm-eval sends token ids."""
    folder = tmp_path_factory.mktemp("tokenizer")
    transformers = pytest.importorskip("transformers", reason="lm-eval's hf needs transformers")
    transformers.AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name).save_pretrained(folder)
    return folder


def evaluate(model: str, arguments: str, tasks: str, out: Path, *more: str):
    """({task: its results}, {task: its samples in the order of the documents})"""
    command = [sys.executable, "-m", "lm_eval", "run", "--model", model, "--model_args", arguments, *more]
    command += ["--include_path", str(TASKS), "--tasks", tasks, "--log_samples", "--output_path", str(out)]
    done = subprocess.run(
        command, cwd=TASKS, env={**os.environ, **OFFLINE}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = out.rglob("results_*.json")
    samples = {}
    for task in tasks.split(","):
        (file,) = out.rglob(f"samples_{task}_*.jsonl")
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        samples[task] = sorted(rows, key=lambda row: row["doc_id"])
    return json.loads(results.read_text())["results"], samples


@pytest.mark.slow
def test_lm_eval_finds_what_transformers_computes(smol, weights, tokenizer, tmp_path):
    """The server computes in float32, as the bundled file asks for."""
    tasks = "capitals_choice,capitals_write,capitals_rolling"
    remote = f"model={MODEL},base_url={smol.url}/v1/completions,tokenizer={tokenizer},max_length=2048"
    ours, said = evaluate("local-completions", remote, tasks, tmp_path / "ours")
    local = f"pretrained={weights.parent},gguf_file={weights.name},dtype=float32,max_length=2048"
    theirs, wanted = evaluate("hf", local, tasks, tmp_path / "theirs", "--device", "cpu")
    assert ours["capitals_choice"]["acc,none"] == theirs["capitals_choice"]["acc,none"] > 0.5

    for mine, reference in zip(said["capitals_choice"], wanted["capitals_choice"], strict=True):
        for (value, greedy), (right, best) in zip(mine["filtered_resps"], reference["filtered_resps"], strict=True):
            assert float(value) == pytest.approx(float(right), abs=1e-3)
            assert greedy == best
    for mine, reference in zip(said["capitals_rolling"], wanted["capitals_rolling"], strict=True):
        (value,), (right,) = mine["filtered_resps"], reference["filtered_resps"]
        assert first(value) == pytest.approx(first(right), abs=1e-3)
    for mine, reference in zip(said["capitals_write"], wanted["capitals_write"], strict=True):
        assert mine["resps"] == reference["resps"]


def first(value) -> float:
    return float(value[0] if isinstance(value, list) else value)


@pytest.mark.slow
def test_lm_eval_talks_to_chats(smol, weights, tmp_path):
    arguments = f"model={MODEL},base_url={smol.url}/v1/chat/completions,num_concurrent=4"
    _, said = evaluate(
        "local-chat-completions", arguments, "capitals_write", tmp_path / "chat", "--apply_chat_template"
    )
    texts = [row["resps"][0][0] for row in said["capitals_write"]]
    assert len(texts) == 10
    assert "Paris" in texts[0]
