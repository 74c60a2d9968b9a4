"""Seconds of the light commands beside 60 more plugins. Run as ``python -m tests.plugins.list_seconds``.

The first start of a plugin's version probes it; later ones read what the probe found.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.plugins.dummies import BACKEND, MODEL, Site


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        for i in range(30):
            site.install(f"many-model-{i}", MODEL)
            site.install(f"many-backend-{i}", BACKEND)
        env = {**os.environ, "PYTHONPATH": f"{folder}:{os.getcwd()}", "XDG_CACHE_HOME": f"{folder}/cache"}
        for words in (["--help"], ["plugins", "list"]):
            seconds = []
            for _ in range(11):
                start = time.perf_counter()
                command = [sys.executable, "-m", "vllm_core", *words]
                subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
                seconds.append(time.perf_counter() - start)
            later = statistics.median(seconds[1:])
            print(f"{' '.join(words):14} first {seconds[0]:.2f} s, later {later:.2f} s (median of 10)")


if __name__ == "__main__":
    main()
