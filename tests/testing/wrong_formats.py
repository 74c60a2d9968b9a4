"""Formats that read safetensors files, each with a mistake. Named by their target, as processes open them."""

from __future__ import annotations

import json
import mmap
import os
import time
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from vllm_core.interfaces.weights import TensorInfo
from vllm_core.weights.checkpoint import SafetensorsCheckpoint
from vllm_core.weights.safetensors import SafetensorsSource


def opened_with(source):
    """A checkpoint with this source."""

    class Checkpoint(SafetensorsCheckpoint):
        @cached_property
        def source(self):
            return source(self.path)

    return Checkpoint


class WholeSource(SafetensorsSource):
    """A part is cut from a copy of the whole."""

    def read(self, name, slices=()):
        return super().read(name).clone()[tuple(slice(*s) for s in slices)]


class EagerSource(SafetensorsSource):
    """All is read when the first tensor is asked for."""

    def __init__(self, path):
        super().__init__(path)
        self.kept = {}

    def read(self, name, slices=()):
        if not self.kept:
            self.kept = {each: super(EagerSource, self).read(each).clone() for each in self.tensors()}
        return self.kept[name][tuple(slice(*s) for s in slices)]


class TrustingSource:
    """What the header says is so."""

    def __init__(self, path):
        self.file = (Path(path) / "model.safetensors").open("rb")
        self.map = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_COPY)
        size = int.from_bytes(self.map[:8], "little")
        self.begin, self.header = 8 + size, json.loads(self.map[8 : 8 + size])

    def tensors(self):
        names = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "I8": "int8", "I64": "int64", "U8": "uint8"}
        return {
            name: TensorInfo(name, tuple(x["shape"]), names[x["dtype"]], x["data_offsets"][1] - x["data_offsets"][0])
            for name, x in self.header.items()
        }

    def read(self, name, slices=()):
        info = self.tensors()[name]
        start, count = self.begin + self.header[name]["data_offsets"][0], torch.Size(info.shape).numel()
        whole = torch.frombuffer(self.map, dtype=getattr(torch, info.dtype), count=count, offset=start)
        return whole.view(info.shape)[tuple(slice(*s) for s in slices)]

    def close(self):
        self.file.close()


class NamelessSource(SafetensorsSource):
    """An error that says nothing of the file."""

    def __init__(self, path):
        try:
            super().__init__(path)
        except ValueError:
            raise ValueError("the file is damaged") from None


class DyingSource(SafetensorsSource):
    """Ends the process, as a read behind the end of a mapped file does."""

    def __init__(self, path):
        try:
            super().__init__(path)
        except ValueError:
            os.kill(os.getpid(), 7)


class UnpicklingSource(SafetensorsSource):
    """Takes arrays of numpy's, too, objects among them."""

    def __init__(self, path):
        try:
            super().__init__(path)
        except ValueError:
            np.load(Path(path) / "model.safetensors", allow_pickle=True)
            raise


class LateSource(SafetensorsSource):
    """Looks at the header only; a file that is too short is found out when it is read."""

    def _add(self, file, header):
        super()._add(file, header)

    def __init__(self, path):
        import vllm_core.weights.safetensors as module

        known = module.os.fstat
        module.os.fstat = lambda descriptor: os.stat_result((0,) * 6 + (1 << 40,) + (0,) * 3)
        try:
            super().__init__(path)
        finally:
            module.os.fstat = known


class SeekingSource(TrustingSource):
    """One place in the file for all threads."""

    def read(self, name, slices=()):
        info = self.tensors()[name]
        self.file.seek(self.begin + self.header[name]["data_offsets"][0])
        time.sleep(0.001)
        whole = torch.frombuffer(bytearray(self.file.read(info.nbytes)), dtype=getattr(torch, info.dtype))
        return whole.view(info.shape)[tuple(slice(*s) for s in slices)]


class ShiftedSource(SafetensorsSource):
    """Parts that do not begin at the beginning lie one further."""

    def read(self, name, slices=()):
        shape = self.tensors()[name].shape
        slices = tuple((a - (a > 0 and b < n), b - (a > 0 and b < n)) for (a, b), n in zip(slices, shape, strict=False))
        return super().read(name, slices)


class WideSource(SafetensorsSource):
    """Halves become float32."""

    def read(self, name, slices=()):
        found = super().read(name, slices)
        return found.float() if found.dtype in (torch.bfloat16, torch.float16) else found


class QuietSource(SafetensorsSource):
    """What is no number becomes 0."""

    def read(self, name, slices=()):
        found = super().read(name, slices)
        return found.nan_to_num() if found.is_floating_point() else found


class ForgettingSource(SafetensorsSource):
    """One tensor is not listed."""

    def __init__(self, path):
        super().__init__(path)
        self._tensors.pop(next(iter(self._tensors)))


class WipingSource(SafetensorsSource):
    """Closing takes back what was given."""

    def __init__(self, path):
        super().__init__(path)
        self.given = []

    def read(self, name, slices=()):
        self.given.append(super().read(name, slices).clone())
        return self.given[-1]

    def close(self):
        for tensor in self.given:
            tensor.zero_()


class MisplacedSource(SafetensorsSource):
    """Says that a tensor lies where the next one does."""

    def locate(self, name):
        import attrs

        found = super().locate(name)
        return attrs.evolve(found, offset=found.offset + 16)


class Checkpoints:
    """By the name of their mistake: ``"tests.testing.wrong_formats:Checkpoints.Whole"``."""

    Whole = opened_with(WholeSource)
    Eager = opened_with(EagerSource)
    Trusting = opened_with(TrustingSource)
    Nameless = opened_with(NamelessSource)
    Dying = opened_with(DyingSource)
    Unpickling = opened_with(UnpicklingSource)
    Late = opened_with(LateSource)
    Seeking = opened_with(SeekingSource)
    Shifted = opened_with(ShiftedSource)
    Wide = opened_with(WideSource)
    Quiet = opened_with(QuietSource)
    Forgetting = opened_with(ForgettingSource)
    Wiping = opened_with(WipingSource)
    Misplaced = opened_with(MisplacedSource)
