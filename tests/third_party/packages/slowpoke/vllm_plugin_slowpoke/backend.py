import time
from pathlib import Path

from vllm_core.layers.reference_attention import ReferenceAttention


class Slowpoke(ReferenceAttention):
    def __init__(self, config):
        super().__init__(config)
        self.pause = config.options["pause_ms"] / 1000  # seconds
        if config.options["log"]:
            with Path(config.options["log"]).open("a") as file:
                print(f"pause {self.pause:g} s, window {config.window}", file=file)

    def begin_step(self, step):
        time.sleep(self.pause)
        return super().begin_step(step)
