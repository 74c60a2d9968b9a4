"""Opens checkpoints in a process of its own, which damaged ones may end.

``python -m vllm_core.testing.weight_format_child``: standard input is one JSON object, a job; each line of standard
output is one JSON object about it.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
from collections.abc import Iterator
from typing import Any

from vllm_core.plugin import load_target

ROOM = 4 << 30  # bytes of address space that opening and reading a small checkpoint may take
UNPICKLED: list[str] = []


class Unpickled(BaseException):
    """No ``except Exception`` hides it."""


def main() -> None:
    job = json.load(sys.stdin)
    sys.path[:] = job["path"]
    import torch

    torch.set_num_threads(1)
    guard()
    target = load_target(job["target"])
    list(read_all(target, job["good"]))  # what is imported late is imported here
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    {"damage": damage, "part": part}[job["job"]](target, job)


def damage(target: Any, job: dict[str, Any]) -> None:
    """Open and read each of the paths: how far it came, and what was raised."""
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    for path in job["paths"]:
        say(begun=path)
        UNPICKLED.clear()
        stage, error = "opening", None
        try:
            for following in read_all(target, path):
                stage = following
        except Exception as raised:
            error = raised
        except Unpickled:
            pass
        kind, refused = "" if error is None else type(error).__name__, isinstance(error, ValueError)
        say(ended=path, stage=stage, error=kind, refused=refused, message=str(error or ""), unpickled=UNPICKLED[:])


def part(target: Any, job: dict[str, Any]) -> None:
    """Read a part of a large tensor out of files whose second half is gone by then; then try what is gone."""
    source = target(job["checkpoint"]).source
    source.read(job["large"], tuple(map(tuple, job["first"])))  # the file is open now
    for file in job["files"]:
        os.truncate(file, os.path.getsize(file) // 2)
    say(cut=True)
    for slices in job["parts"]:
        say(digest=digest(source.read(job["large"], tuple(map(tuple, slices)))))


def read_all(target: Any, path: str) -> Iterator[str]:
    """Everything that a checkpoint has; gives the stage that follows."""
    checkpoint = target(path)
    _ = checkpoint.config, checkpoint.generation_config, checkpoint.tokenizer
    source = checkpoint.source
    infos = dict(source.tensors())
    yield "reading"
    for name, info in infos.items():
        tensor = source.read(name)
        if (tuple(tensor.shape), str(tensor.dtype)) != (tuple(info.shape), f"torch.{info.dtype}"):
            raise AssertionError(f"{name} is {tensor.dtype} {list(tensor.shape)}, its TensorInfo says {info}")
        tensor.clone()
    source.close()
    yield "done"


def digest(tensor: Any) -> str:
    """Of a tensor's bytes."""
    import torch

    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def guard() -> None:
    """From here on whoever unpickles is found out."""

    def told(*_: Any, **__: Any) -> Any:
        UNPICKLED.append("pickle")
        raise Unpickled

    class Unpickler:
        def __init__(self, *_: Any, **__: Any) -> None:
            told()

    module: Any = sys.modules["pickle"]  # torch imports it
    module.load = module.loads = told
    module.Unpickler = Unpickler
    sys.addaudithook(lambda event, _: UNPICKLED.append(event) if event == "pickle.find_class" else None)


def say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


if __name__ == "__main__":
    main()
