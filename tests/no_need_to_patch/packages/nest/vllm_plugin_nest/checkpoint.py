"""A .nest file: "NEST1", the length of a JSON header (8 bytes, little end first), the header, tensors.

The header has "config", "tokenizer" (the content of a tokenizer.json), "tokenizer_config" and "tensors": name ->
[dtype, shape, offset behind the header, bytes]. The first bytes of all numbers come first, then the second ones, and so
on, deflated: numbers of a matrix are alike in their high bytes.
"""

import json
import zlib
from math import prod
from pathlib import Path

import torch

from vllm_core.interfaces.weights import TensorInfo, TokenizerFiles

MAGIC = b"NEST1"


class NestCheckpoint:
    """`interfaces.weights.Checkpoint` and its own `WeightSource`."""

    def __init__(self, path):
        found = Path(path)
        self.path = found if found.is_file() else next(found.glob("*.nest"))
        with self.path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ValueError(f"{self.path} is no .nest file: it does not begin with {MAGIC.decode()}")
            size = int.from_bytes(file.read(8), "little")
            self.header = json.loads(file.read(size))
        self.data = len(MAGIC) + 8 + size
        self.config, self.generation_config = self.header["config"], {}
        self.source = self

    @property
    def tokenizer(self):
        text = self.header["tokenizer"]
        return TokenizerFiles(tokenizer_json=text, settings=self.header["tokenizer_config"]) if text else None

    def tensors(self):
        entries = self.header["tensors"].items()
        return {name: TensorInfo(name, tuple(shape), dtype, size) for name, (dtype, shape, _, size) in entries}

    def read(self, name, slices=()):
        dtype, shape, offset, size = self.header["tensors"][name]
        with self.path.open("rb") as file:
            file.seek(self.data + offset)
            planes = torch.frombuffer(bytearray(zlib.decompress(file.read(size))), dtype=torch.uint8)
        numbers = planes.view(-1, prod(shape)).t().contiguous().view(getattr(torch, dtype)).view(shape)
        return numbers[tuple(slice(first, end) for first, end in slices)]

    def close(self):
        """Files are open only while they are read."""


def pack(path, config, tensors, tokenizer="", tokenizer_config=None):
    """Write a .nest file: ``tensors`` by name, ``tokenizer`` the content of a tokenizer.json."""
    entries, parts, offset = {}, [], 0
    for name, tensor in tensors.items():
        planes = tensor.contiguous().view(-1).view(torch.uint8).view(-1, tensor.element_size()).t().contiguous()
        parts.append(zlib.compress(planes.numpy().tobytes(), 1))
        entries[name] = [str(tensor.dtype).removeprefix("torch."), list(tensor.shape), offset, len(parts[-1])]
        offset += len(parts[-1])
    header = {"config": config, "tokenizer": tokenizer, "tokenizer_config": tokenizer_config or {}, "tensors": entries}
    text = json.dumps(header).encode()
    Path(path).write_bytes(b"".join([MAGIC, len(text).to_bytes(8, "little"), text, *parts]))
