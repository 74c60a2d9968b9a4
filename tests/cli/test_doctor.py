"""``vllm-core doctor`` without a model: what is here, what is broken, and what helps. With one: tests/loading."""

import json
import subprocess
import sys

import pytest

from vllm_core.cli.doctor import torch_build
from vllm_core.cli.doctor.finding import Finding, guarded, page
from vllm_core.runner import host

FACTS = {
    "version": "2.9", "file": "", "cuda": None, "hip": None, "cuda_usable": False, "cuda_devices": 0,
    "threads": host.usable_cores(), "cpu_capability": "AVX2",
}  # fmt: skip


@pytest.fixture
def torch_works(monkeypatch):
    """Torch answers at once; the tests below that are about it ask the real one."""
    monkeypatch.setattr(torch_build, "_CODE", f"print({json.dumps(json.dumps(FACTS))})")


@pytest.fixture
def fake_torch(tmp_path, monkeypatch):
    """``fake_torch(source)`` puts a module torch before the real one, for child processes."""

    def make(source):
        folder = tmp_path / "torch-of-the-test"
        folder.mkdir()
        (folder / "torch.py").write_text(source)
        monkeypatch.syspath_prepend(str(folder))

    return make


def findings(run, *words):
    """{(section, name): finding}, and the exit code."""
    code, out, err = run("doctor", "--json", *words)
    report = json.loads(out)
    assert code == (1 if report["verdict"] == "fail" else 0)
    assert "Traceback" not in err
    return {(f["section"], f["name"]): f for f in report["findings"]}, code


def test_a_sound_machine_is_told_in_sections_with_exit_code_0(run, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    sections = [line for line in out.splitlines() if line and not line.startswith(" ")]
    assert sections == ["machine", "torch", "devices", "plugins", "settings", "Hub", "all is well"]
    assert "\n  ok    cpu " in out
    assert "  ok    device             cpu" in out
    assert "no vllm.toml here" in out


def test_json_holds_the_same_in_numbers(run, torch_works):
    found, code = findings(run)
    assert code == 0
    assert found["machine", "cores"]["facts"]["usable"] == host.usable_cores()
    assert found["machine", "memory"]["facts"]["total_bytes"] == host.total_memory()
    assert found["torch", "torch"]["facts"]["version"] == "2.9"
    assert "float32" in found["devices", "cpu"]["facts"]["dtypes"]
    assert found["devices", "device"]["facts"] == {"chosen": "cpu", "asked": "auto"}
    assert found["plugins", "core"]["facts"]["state"] == "active"


@pytest.mark.parametrize(
    ("source", "says", "remedy"),
    [
        ("raise ModuleNotFoundError(\"No module named 'torch'\")", "it is not installed", "pip install torch"),
        ("raise OSError('libcudart.so.13: cannot open')", "OSError: libcudart.so.13: cannot open", "--force-reinstall"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "ends the process with SIGILL", "this processor"),
        ("raise SystemExit(0)", "it said nothing", "--force-reinstall"),
    ],
)
def test_a_torch_that_is_missing_or_broken_is_a_verdict(run, fake_torch, source, says, remedy):
    fake_torch(source)
    found, code = findings(run, "any-model")
    torch = found["torch", "torch"]
    assert (code, torch["verdict"]) == (1, "fail")
    assert says in torch["says"]
    assert remedy in torch["remedy"]
    assert found["model", "any-model"]["says"].startswith("not looked at")
    assert found["plugins", "core"]["verdict"] == "ok"  # the rest is told all the same


def test_more_threads_than_cores_is_a_warning_with_the_line_that_helps(run, monkeypatch):
    facts = {**FACTS, "threads": host.usable_cores() + 3}
    monkeypatch.setattr(torch_build, "_CODE", f"print({json.dumps(json.dumps(facts))})")
    found, code = findings(run)
    assert (code, found["torch", "threads"]["verdict"]) == (0, "warn")
    assert f"OMP_NUM_THREADS={host.usable_cores()}" in found["torch", "threads"]["remedy"]


def test_quarantined_and_blocked_plugins_are_told_with_reason_and_remedy(run, install, torch_works):
    install("raises", "raise RuntimeError('no such library')")
    install("unwanted", "")
    found, code = findings(run, "--plugins-block", "unwanted,no-such-plugin")
    assert code == 0
    broken = found["plugins", "raises"]
    assert broken["verdict"] == "warn"
    assert "dummy-raises 1.5, quarantined: importing it raised RuntimeError: no such library" in broken["says"]
    assert broken["remedy"].startswith("python -c 'import ")
    off = found["plugins", "unwanted"]
    assert off["verdict"] == "ok"
    assert 'disabled by block in --plugins-block; remove "unwanted" there' in off["says"]
    assert '"no-such-plugin"' in found["plugins", "policy"]["says"]


def test_an_order_that_names_nobody_is_a_warning_and_one_of_no_hook_fails(run, home, torch_works):
    home.joinpath("vllm.toml").write_text('[plugins]\nprefer.attention_backend = ["refrence"]')
    found, code = findings(run)
    assert (code, found["plugins", "prefer"]["verdict"]) == (0, "warn")
    assert 'did you mean "reference"' in found["plugins", "prefer"]["says"]
    home.joinpath("vllm.toml").write_text('[plugins]\nprefer.attention_backnd = ["reference"]')
    found, code = findings(run)
    assert code == 1
    assert 'did you mean "attention_backend"' in found["plugins", "plugins"]["says"]


def test_a_required_plugin_that_is_not_there_fails(run, torch_works):
    found, code = findings(run, "--plugins-require", "nobody")
    assert code == 1
    assert "nobody" in found["plugins", "plugins"]["says"]


def test_files_and_what_they_set_are_named(run, home, torch_works):
    home.joinpath("vllm.toml").write_text("[engine]\nmax_num_seqs = 2\n[plugins]\nblock = []\n")
    found, code = findings(run, "--seed", "3")
    assert code == 0
    assert found["settings", "./vllm.toml"]["says"] == "sets engine.max_num_seqs, plugins.block"
    assert found["settings", "values"]["facts"]["given"] == {
        "max_num_seqs": "[engine] of ./vllm.toml",
        "seed": "--seed",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[engine]\nmax_num_sqs = 2", 'did you mean "max_num_seqs"'),
        ("[engine]\nmax_num_seqs = 0", "max_num_seqs must be at least 1"),
        ("[engine", "not valid TOML"),
    ],
)
def test_a_mistake_in_a_file_fails_and_the_rest_is_told(run, home, torch_works, text, says):
    home.joinpath("vllm.toml").write_text(text)
    found, code = findings(run, "any-model")
    assert code == 1
    assert says in found["settings", "settings"]["says"]
    assert found["model", "any-model"]["says"].startswith("not looked at")
    assert found["machine", "Python"]["verdict"] == "ok"


def test_variables_are_shown_secrets_hidden_and_vllms_own_warned_of(run, monkeypatch, torch_works):
    monkeypatch.setenv("VLLM_CORE_SEED", "4")
    monkeypatch.setenv("HF_TOKEN", "hf_abc")
    monkeypatch.setenv("VLLM_ATTENTION_BACKEND", "X")
    code, out, _ = run("doctor")
    assert code == 0
    assert "VLLM_CORE_SEED=4" in out
    assert "HF_TOKEN=(set)" in out
    assert "hf_abc" not in out
    assert "warn  environment        VLLM_ATTENTION_BACKEND: vLLM's variables are not read here" in out
    assert "1 warning; nothing that stops a model" in out


def test_a_device_that_is_not_here_fails_with_its_reason_only_if_it_is_asked_for(run, monkeypatch, torch_works):
    monkeypatch.setenv("PATH", "")  # no driver's tool
    found, code = findings(run)
    assert code == 0
    assert found["devices", "cuda"]["says"].startswith("not here: no CUDA device")
    found, code = findings(run, "--device", "cuda")
    assert (code, found["devices", "device"]["verdict"]) == (1, "fail")
    found, code = findings(run, "--device", "cpuu")
    assert 'did you mean "cpu"' in found["devices", "device"]["says"]


def test_a_gpu_beside_a_torch_without_cuda_is_told(run, tmp_path, monkeypatch, torch_works):
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'NVIDIA T4, 15360, 7.5'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent))
    found, _ = findings(run)
    gpu = found["devices", "cuda"]
    assert gpu["verdict"] == "warn"
    assert "NVIDIA T4, 15.0 GiB; computes float16, float32; but this torch is built without CUDA" in gpu["says"]
    assert "--device cpu" in gpu["remedy"]


def test_an_error_in_one_part_is_a_finding_of_that_part():
    def look():
        yield Finding("x", "first", "ok", "fine")
        raise KeyError("lost")

    first, second = guarded("x", look)
    assert first.says == "fine"
    assert (second.verdict, second.says) == ("fail", "KeyError: 'lost'")
    assert page([first, second], None).endswith("1 failure")


def test_help_of_the_doctor_loads_no_torch():
    code = "import sys, vllm_core.cli as c; c.main(['doctor', '--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=30, stdout=subprocess.DEVNULL).returncode == 0
