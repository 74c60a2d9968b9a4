"""Run beside a model plugin: a tiny checkpoint of each architecture that its own conformance tests describe.

python tiny_checkpoints.py FOLDER_OF_TESTS INTO     prints {architecture: folder}
"""

import importlib.util
import json
import sys
from pathlib import Path

from vllm_core.testing import ModelConformance


def kits(tests):
    """Conformance tests that pytest would collect."""
    for file in sorted(Path(tests).glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        sys.modules[file.stem] = module
        spec.loader.exec_module(module)
        for name, kit in vars(module).items():
            if name.startswith("Test") and isinstance(kit, type) and issubclass(kit, ModelConformance):
                yield kit


made = {}
for kit in kits(sys.argv[1]):
    if "architecture" in vars(kit):
        case = kit.make_case("base", Path(sys.argv[2], kit.architecture))
        assert case.reference  # the checkpoint is written
        made[kit.architecture] = str(case.folder)
print(json.dumps(made))
