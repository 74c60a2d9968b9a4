"""What the README shows is what happens; what docs/server.md says is what is declared."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from vllm_plugin_server import reference

ROOT = Path(__file__).parents[1]
CURLS = re.findall(r"```bash\n(curl .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", CURLS, ids=range(len(CURLS)))
def test_the_curl_examples_are_answered(smol, command):
    script = command.replace("http://127.0.0.1:8000", smol.url)
    done = subprocess.run(
        ["bash", "-c", f"{script} -sS --fail-with-body".replace("\n -sS", " -sS")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    done = done if done.returncode == 0 else pytest.fail(done.stdout + done.stderr)
    if '"stream": true' in command:
        assert done.stdout.rstrip().endswith("data: [DONE]")
        assert "Paris" in "".join(re.findall(r'"content":"([^"]*)"', done.stdout))
    else:
        assert set(json.loads(done.stdout)) & {"choices", "tokens"}


def test_there_are_examples():
    assert len(CURLS) >= 5


def test_the_reference_is_what_is_declared():
    """python -m vllm_plugin_server.reference writes it anew."""
    assert (ROOT / "docs" / "server.md").read_text() == reference.page()
