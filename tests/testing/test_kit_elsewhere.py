"""The page about the kit is true: its example runs outside this repository, for a plugin that a stranger installed."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vllm_core.testing.attention import AttentionConformance
from vllm_core.testing.collective import CollectiveConformance
from vllm_core.testing.kernel import KernelConformance
from vllm_core.testing.model import ModelConformance
from vllm_core.testing.weight_format import WeightFormatConformance

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
PLUGIN = Path(__file__).with_name("elsewhere") / "vllm_plugin_elsewhere"


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What pytest prints about the page's example, in a folder with a site of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    site = folder / "site"
    shutil.copytree(PLUGIN, site / PLUGIN.name)
    info = site / "vllm_plugin_elsewhere-0.1.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: vllm-plugin-elsewhere\nVersion: 0.1\n")
    info.joinpath("entry_points.txt").write_text("[vllm_core.plugins]\nelsewhere = vllm_plugin_elsewhere\n")
    whole, own, *_ = examples()  # the model kit's; other kits' follow
    folder.joinpath("test_ministral.py").write_text(f"{whole}\n{own}")
    # Were the architecture served by a plugin that is installed here, too, ours would be meant.
    folder.joinpath("vllm.toml").write_text('[plugins]\nprefer.models = ["vllm-plugin-elsewhere"]\n')
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_CORE_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-rs", "-p", "no:cacheprovider", "test_ministral.py"],
        cwd=folder,
        env={**environ, "PYTHONPATH": str(site), "XDG_CONFIG_HOME": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_the_pages_example_passes_for_an_installed_plugin(outcome):
    assert outcome.returncode == 0, outcome.stdout[-6000:] + outcome.stderr[-2000:]
    assert "TestMinistral::test_a_prompt_in_chunks_gives_the_logits_of_the_whole[windows only] PASSED" in outcome.stdout
    assert "[sliding_window1] PASSED" in outcome.stdout
    assert "[num_attention_heads+num_key_value_heads+head_dim] PASSED" in outcome.stdout
    assert "test_older_configs_call_it_otherwise PASSED" in outcome.stdout


@pytest.mark.slow
def test_what_a_model_cannot_do_is_printed_and_skipped_with_the_reason(outcome):
    assert "\nTestMinistral cannot: lora (no layer takes adapters yet)\n" in outcome.stdout
    reasons = re.findall(r"^SKIPPED .*?: (.*)", outcome.stdout, re.MULTILINE)
    assert "TestMinistral cannot: lora (no layer takes adapters yet)" in reasons
    assert len(reasons) <= 3
    assert all("cannot" in reason or "needs a CUDA device" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("kit", "least"),
    [
        (ModelConformance, 10),
        (AttentionConformance, 5),
        (WeightFormatConformance, 7),
        (KernelConformance, 7),
        (CollectiveConformance, 7),
    ],
)
def test_the_page_names_every_attribute_of_the_kit(kit, least):
    page = PAGE.read_text(encoding="utf-8")
    said = {name: kind for cls in kit.__mro__[:-1] for name, kind in inspect.get_annotations(cls).items()}
    own = {name for name, kind in said.items() if str(kind).startswith("ClassVar")}
    assert len(own) >= least
    told = own - {"architecture", "device", "plugin_settings"}
    assert [name for name in sorted(told) if f"| `{name}` |" not in page] == []


def test_importing_the_package_of_kits_imports_no_torch_and_no_pytest():
    code = (
        "import sys, vllm_core.testing; sys.exit(' '.join({'torch', 'pytest', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
