"""The plugin's answers to the core."""

from __future__ import annotations

import subprocess
import sys

import pytest
import vllm_plugin_gguf as plugin
from vllm_plugin_gguf.settings import GgufSettings

from vllm_core.interfaces.queries import WeightFormatQuery
from vllm_core.plugin import Offer, Refusal, load_target


def ask(*files, weights="dequantize"):
    return plugin.weight_format(WeightFormatQuery(path="/models/x", files=files), GgufSettings(weights=weights))


@pytest.mark.parametrize(
    "files", [("m.gguf",), ("README.md", "m.GGUF"), ("m.gguf", "mmproj-m.gguf"), ("config.json", "m.Q4_1.gguf")]
)
def test_one_gguf_file_is_offered(files):
    offer = ask(*files)

    assert isinstance(offer, Offer)
    assert offer.name == "gguf"
    assert offer.name in [p.name for p in plugin.provides() if p.kind == "weight_format"]
    assert load_target(offer.target).__name__ == "GgufCheckpoint"


def test_several_gguf_files_are_refused_with_what_to_write():
    refusal = ask("m-Q4.gguf", "m-Q8.gguf")

    assert isinstance(refusal, Refusal)
    assert "holds 2 GGUF files: m-Q4.gguf, m-Q8.gguf" in refusal.reason
    assert "/models/x/m-Q4.gguf" in refusal.remedy


@pytest.mark.parametrize("files", [(), ("model.safetensors", "config.json"), ("mmproj-m.gguf",), ("gguf",)])
def test_other_files_are_not_this_plugins(files):
    assert ask(*files) is None


def test_importing_the_plugin_imports_neither_torch_nor_gguf():
    code = "import sys, vllm_plugin_gguf; sys.exit(any(m in sys.modules for m in ('torch', 'gguf', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 0
