"""What was resolved is what runs: a package that changes in between is refused by name and digest."""

import json
import shutil

from tests.third_party.conftest import Shell

BUILD = """
import json, sys
from pathlib import Path
from vllm_core.config.engine import EngineSettings
from vllm_core.engine.resolve import resolve
from vllm_core.plugins import LockMismatch

def build(resolved):
    try:
        resolved.build.make_runner()
        return [resolved.lock.digest, "built"]
    except LockMismatch as error:
        return [resolved.lock.digest, str(error)]

resolved = resolve(EngineSettings(model=sys.argv[1]))
said = [build(resolved)]
for file, before, after in json.loads(sys.argv[2]):
    Path(file).write_text(Path(file).read_text().replace(before, after))
    said.append(build(resolved))
    resolved = resolve(EngineSettings(model=sys.argv[1]))
said.append(build(resolved))
print(json.dumps(said))
"""


def test_a_package_that_changes_between_resolve_and_build_is_refused(installed, tmp_path, probed, owl_folder):
    site = shutil.copytree(installed, tmp_path / "site")
    changes = [
        (str(site / "vllm_plugin_owl" / "model.py"), "relu().square()", "relu()"),
        (str(site / "vllm_plugin_owl-0.3.1.dist-info" / "METADATA"), "Version: 0.3.1", "Version: 0.3.2"),
    ]
    first, changed, upgraded, last = Shell(tmp_path, site, probed).report(BUILD, owl_folder, json.dumps(changes))
    assert first[1] == "built"
    assert changed[0] == first[0]
    assert changed[1].startswith("what is installed here differs from what the engine was resolved with.")
    assert "module vllm_plugin_owl.model (vllm-plugin-owl) has other content" in changed[1]
    assert f"the lock's digest is {first[0]}" in changed[1]
    assert "vllm-plugin-owl was 0.3.1 when the lock was made, here it is 0.3.2" in upgraded[1]
    assert last[1] == "built"  # resolved again, it is another engine
    assert len({first[0], upgraded[0], last[0]}) == 3
