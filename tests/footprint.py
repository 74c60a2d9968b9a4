"""How much the core weighs: ``python -m tests.footprint`` prints it, in `make lint`. tests/isolation holds limits.

Times are the best of three in fresh processes of this machine; they are printed and not tested.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import attrs

from tests.packages import ROOT

COMPILED = (".so", ".pyd", ".dylib", ".dll", ".a", ".o", ".c", ".cc", ".cpp", ".cu", ".pyx")
STARTS = {
    "import vllm_core": ("-c", "import vllm_core"),
    "import vllm_core.plugin": ("-c", "import vllm_core.plugin"),
    "vllm-core --help": ("-m", "vllm_core", "--help"),
    "vllm-core plugins": ("-m", "vllm_core", "plugins"),
    "from vllm_core import LLM": ("-c", "from vllm_core import LLM"),
    "all that an engine imports, torch too": ("-c", "import vllm_core.engine.build"),
}


@attrs.frozen
class Weight:
    """Of a wheel."""

    wheel: int  # bytes
    installed: int  # bytes
    files: int
    compiled: list[str]

    @classmethod
    def of(cls, wheel: Path) -> Weight:
        found = zipfile.ZipFile(wheel).infolist()
        compiled = [one.filename for one in found if one.filename.endswith(COMPILED)]
        return cls(wheel.stat().st_size, sum(one.file_size for one in found), len(found), compiled)


def build(folder: Path, into: Path) -> Path:
    """The wheel of a package, with the build backend that is installed here."""
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", into, folder], check=True)
    (wheel,) = into.glob("*.whl")
    return wheel


def seconds(words: tuple[str, ...]) -> float:
    best = float("inf")
    for _ in range(3):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        best = min(best, time.perf_counter() - begun)
    return best


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        weight = Weight.of(build(ROOT, Path(folder)))
    code = f"compiled code: {', '.join(weight.compiled)}" if weight.compiled else "no compiled code"
    size = f"{weight.wheel / 1e3:,.0f} kB, installed {weight.installed / 1e6:.1f} MB in {weight.files} files"
    print(f"core wheel {size}, {code}")
    print(f"  python itself {seconds(('-c', '')):.2f} s")
    for name, words in STARTS.items():
        print(f"  {name} {seconds(words):.2f} s")


if __name__ == "__main__":
    main()
