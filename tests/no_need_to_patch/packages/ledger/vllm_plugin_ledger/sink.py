"""One line a step and one a request, written by a thread, since the engine does not wait for files."""

import json
import queue
import threading
from pathlib import Path

import attrs


class Ledger:
    def __init__(self, query):
        self.file = Path(query.options["file"])
        self.file.touch()  # fails at the start, if at all
        self.lines = queue.SimpleQueue()
        self.thread = threading.Thread(target=self.write, daemon=True)
        self.thread.start()

    def step(self, stats):
        self.lines.put({"kind": "step", **attrs.asdict(stats)})

    def request(self, stats):
        self.lines.put({"kind": "request", **attrs.asdict(stats)})

    def close(self):
        self.lines.put(None)
        self.thread.join(1)

    def write(self):
        with self.file.open("a") as file:
            while (line := self.lines.get()) is not None:
                print(json.dumps(line), file=file, flush=True)
