"""What was resolved is what runs: a package that changes in between is refused by name and digest."""

import shutil

import pytest

from tests.third_party.conftest import Shell

BUILD = """
import json, sys
from pathlib import Path
from vllm_core.config.engine import EngineSettings
from vllm_core.engine.resolve import resolve
from vllm_core.plugins import LockMismatch
resolved = resolve(EngineSettings(model=sys.argv[1]))
digest = resolved.lock.digest
if sys.argv[2:]:
    file = Path(sys.argv[2])
    file.write_text(file.read_text().replace(sys.argv[3], sys.argv[4]))
try:
    resolved.build.make_runner()
    print(json.dumps([digest, "built"]))
except LockMismatch as error:
    print(json.dumps([digest, str(error)]))
"""


@pytest.fixture
def shell(installed, tmp_path, probed):
    """With a copy of the packages that a test may change."""
    return Shell(tmp_path, shutil.copytree(installed, tmp_path / "site"), probed)


def test_a_model_file_that_changes_between_resolve_and_build_is_refused(shell, owl_folder, tmp_path):
    digest, said = shell.report(BUILD, owl_folder)
    assert said == "built"
    file = tmp_path / "site" / "vllm_plugin_owl" / "model.py"
    same, said = shell.report(BUILD, owl_folder, file, "relu().square()", "relu()")
    assert same == digest
    assert said.startswith("what is installed here differs from what the engine was resolved with.")
    assert "module vllm_plugin_owl.model (vllm-plugin-owl) has other content" in said
    assert f"the lock's digest is {digest}" in said
    other, said = shell.report(BUILD, owl_folder)  # resolved again, it is another engine, and builds
    assert (other == digest, said) == (False, "built")


def test_a_distribution_of_another_version_is_refused(shell, owl_folder, tmp_path):
    metadata = tmp_path / "site" / "vllm_plugin_owl-0.3.1.dist-info" / "METADATA"
    _, said = shell.report(BUILD, owl_folder, metadata, "Version: 0.3.1", "Version: 0.3.2")
    assert "vllm-plugin-owl was 0.3.1 when the lock was made, here it is 0.3.2" in said
