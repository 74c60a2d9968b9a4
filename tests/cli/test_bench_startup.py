"""``vllm-core bench startup``: which caches a start finds, weights written for it, and a peer beside. No real start."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.loading.checkpoints import tiny_config
from vllm_core import LLM, SamplingParams
from vllm_core.cli.bench import random_checkpoint, starts, startup, versus
from vllm_core.cli.bench.caches import FOLDERS, fresh_caches
from vllm_core.cli.bench.random_checkpoint import write_checkpoint
from vllm_core.cli.bench.starts import Counts, cold_and_warm


def test_fresh_caches_are_empty_folders_and_downloads_stay(tmp_path, monkeypatch):
    for name in FOLDERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VLLM_SOME_CACHE", "/elsewhere")
    monkeypatch.setenv("CUTE_DSL_CACHE_DIR", "/elsewhere")
    monkeypatch.setenv("HF_CACHE_DIR", "/downloads")
    monkeypatch.delenv("HF_HOME", raising=False)
    env = fresh_caches(tmp_path)
    assert env.keys() == {*FOLDERS, "VLLM_SOME_CACHE", "CUTE_DSL_CACHE_DIR", "HF_HOME"}
    assert env["HF_HOME"] == str(Path.home() / ".cache" / "huggingface")
    folders = [Path(path) for name, path in env.items() if name != "HF_HOME"]
    assert len(set(folders)) == len(folders)
    assert all(path.is_dir() and path.parent == tmp_path for path in folders)


@pytest.fixture
def dropped(monkeypatch):
    calls = []
    monkeypatch.setattr(starts, "drop", lambda files: calls.append(files) or True)
    return calls


def test_cold_starts_have_caches_of_their_own_and_warm_ones_those_of_the_last(dropped):
    seen = []

    def begin(caches):
        folder = Path(caches["TRITON_CACHE_DIR"])
        seen.append((caches, [*folder.iterdir()]))
        folder.joinpath(str(len(seen))).touch()
        return {"start": len(seen)}

    found = cold_and_warm(begin, [Path("w")], Counts(2, 1, 2, "cold"), lambda: None)
    assert [one["start"] for one in found["cold"]] == [1, 2]
    assert [one["start"] for one in found["warm"]] == [4, 5]  # 3 warmed up
    assert seen[0][0] != seen[1][0] == seen[2][0] == seen[4][0]
    assert [len(left) for _, left in seen] == [0, 0, 1, 2, 3]
    assert [one["files_dropped"] for one in found["cold"] + found["warm"]] == [True, True, False, False]
    assert len(dropped) == 2
    assert not Path(seen[0][0]["TRITON_CACHE_DIR"]).exists()


@pytest.mark.parametrize(("how", "times"), [("cold", 1), ("always", 3), ("never", 0)])
def test_files_are_dropped_before_the_starts_that_are_named(dropped, how, times):
    cold_and_warm(lambda caches: {}, [Path("w")], Counts(1, 0, 2, how), lambda: None)
    assert len(dropped) == times


def test_without_cold_starts_warm_ones_have_the_users_caches(dropped):
    seen = []
    cold_and_warm(lambda caches: seen.append(caches) or {}, [], Counts(0, 1, 1, "cold"), lambda: None)
    assert seen == [{}, {}]


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "config"
    folder.mkdir()
    tiny_config(dtype="bfloat16", architectures=["LlamaForCausalLM"]).save_pretrained(folder)
    (folder / "notes.txt").write_text("kept")
    (folder / "old.safetensors").write_text("left")
    return folder


def test_a_written_checkpoint_is_one_that_everybody_loads(config, tmp_path, monkeypatch):
    monkeypatch.setattr(random_checkpoint, "SHARD", 20_000)
    monkeypatch.setattr(random_checkpoint, "BLOCK", 6_000)  # weights are larger, and repeat it
    folder = tmp_path / "written"
    size = write_checkpoint(config, folder)
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 3
    assert sum(file.stat().st_size for file in shards) > size
    assert (folder / "notes.txt").exists()
    assert not (folder / "old.safetensors").exists()

    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    numbers = torch.cat([p.detach().flatten().float() for p in model.parameters() if p.dim() > 1])
    assert numbers.std().item() == pytest.approx(random_checkpoint.SPREAD, rel=0.1)
    assert sum(p.numel() for p in model.parameters()) * 2 == size
    with LLM(str(folder), skip_tokenizer_init=True, dtype="float32", max_num_seqs=2) as llm:
        output = llm.generate({"prompt_token_ids": [1, 2, 3]}, SamplingParams(max_tokens=3, ignore_eos=True))[0]
    assert len(output.outputs[0].token_ids) == 3


def test_tied_embeddings_are_written_once(config, tmp_path):
    tiny_config(tie_word_embeddings=True).save_pretrained(config)
    write_checkpoint(config, tmp_path / "tied")
    index = json.loads((tmp_path / "tied" / random_checkpoint.INDEX).read_text())
    assert "lm_head.weight" not in index["weight_map"]
    assert "model.embed_tokens.weight" in index["weight_map"]


def test_a_checkpoint_that_is_there_stays_and_anything_else_is_not_touched(config, tmp_path, capsys):
    folder = tmp_path / "written"
    write_checkpoint(config, folder)
    file = next(folder.glob("*.safetensors"))
    before = file.stat().st_mtime_ns
    write_checkpoint(config, folder)
    assert file.stat().st_mtime_ns == before
    assert "already" in capsys.readouterr().err
    with pytest.raises(ValueError, match="the folder of the model itself"):
        write_checkpoint(config, config)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").touch()
    with pytest.raises(ValueError, match="is not empty"):
        write_checkpoint(config, tmp_path / "other")
    with pytest.raises(ValueError, match="has no config"):
        write_checkpoint(tmp_path / "other", folder)


@pytest.fixture
def started(monkeypatch):
    """Starts that take 2 s, of a peer 8 s; what each was asked."""
    asked = []

    def start(words, env=None):
        asked.append(("own", list(words), env))
        load_format = next((w.partition("=")[2] for w in reversed(words) if w.startswith("--load-format")), "auto")
        own = {key: {} for key in startup.OWN}
        own["settings"] = {
            "model": words[0], "dtype": "float32", "max_model_len": 64, "max_num_seqs": 2, "seed": 0,
            "load_format": load_format, "skip_tokenizer_init": True, "gpu_memory_utilization": None,
        }  # fmt: skip
        own["hardware"] = {"devices": []}
        times = {"startup_seconds": 1.0, "ready_seconds": 1.9, "first_token_seconds": 2.0, "process_seconds": 2.1}
        return {**own, **times, "start_seconds": {"weights": 0.5}, "peak_memory_bytes": 1 << 20}

    def run_peer(peer, job, own):
        asked.append((peer.name, job, peer.env))
        return {"ready_s": 7.6, "first_token_s": 8.0, "engine_s": 7.0, "version": "9.9"}

    monkeypatch.setattr(startup, "start", start)
    monkeypatch.setattr(versus, "run_peer", run_peer)
    monkeypatch.setattr(versus, "find_peer", lambda args: versus.Peer("vllm", "python", {}, {"A": "1"}))
    return asked


def test_four_ways_to_start_are_measured_beside_a_peer(run, config, tmp_path, started):
    code, out, err = run(
        "bench", "startup", str(config), "--weights", "random,files", "--write-checkpoint", str(tmp_path / "w"),
        "--num-iters-cold", "1", "--num-iters-warm", "1", "--skip-tokenizer-init", "--output-json", "four.json",
    )  # fmt: skip
    assert code == 0, err
    assert [who for who, *_ in started] == ["own", "own", "vllm", "vllm"] * 2
    own, other = started[:4], started[4:]
    assert (own[0][1][0], other[0][1][0]) == (str(config), str(tmp_path / "w"))
    assert "--load-format=dummy" in own[0][1]
    assert "--load-format=auto" in other[0][1]
    assert [ask[1]["load_format"] for ask in (own[2], other[2])] == ["dummy", "auto"]
    assert other[2][1]["model"] == str(tmp_path / "w")
    assert own[2][1]["runs"] == [[[200] * 128]]
    assert own[2][2]["TRITON_CACHE_DIR"] == own[3][2]["TRITON_CACHE_DIR"] != own[0][2]["TRITON_CACHE_DIR"]
    assert own[2][2]["A"] == "1"
    found = json.loads((tmp_path / "work" / "four.json").read_text())["ways"]
    for way in ("random", "files"):
        assert found[way]["avg_cold_ready_time"] == 1.9
        figures = found[way]["versus"]["figures"]
        assert figures["cold caches: start to ready, s"] == {"own": 1.9, "peer": 7.6, "ratio": 0.25}
        assert figures["warm caches: first token, s"]["ratio"] == 0.25
    assert "weights of files: Warm start: 1.90 s to ready, 2.00 s to the first token" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--weights", "all"), "--weights all: known are random, files"),
        (("--weights", ","), "--weights : known are random, files"),
        (("--write-checkpoint", "x"), "--write-checkpoint goes with --weights files"),
        (("--weights", "random", "--write-checkpoint", "x"), "--write-checkpoint goes with --weights files"),
        (("--num-iters-warmup", "-1"), "--num-iters-warmup must be at least 0"),
    ],
)
def test_a_startup_that_makes_no_sense_is_refused(run, config, started, words, said):
    code, _, err = run("bench", "startup", str(config), *words)
    assert code == 2
    assert said in err
    assert not started


def test_files_that_are_not_there_are_an_error_before_anything_is_measured(run, config, started):
    (config / "old.safetensors").unlink()
    code, _, err = run("bench", "startup", str(config), "--weights", "random,files", "--skip-tokenizer-init")
    assert code == 1
    assert "holds no weights in a format" in err
    assert "--write-checkpoint DIR writes some" in err
    assert not started
