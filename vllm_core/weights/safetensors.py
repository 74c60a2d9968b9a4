"""Safetensors files: one, several with an index, or a folder of them; mapped into memory, read by the slice.

The format: https://github.com/huggingface/safetensors#format (8 bytes length, a JSON header, the tensors).
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from vllm_core.interfaces.weights import Slices, Stored, TensorInfo
from vllm_core.weights.errors import CheckpointError, listing

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_MAX_HEADER = 100_000_000  # bytes; the format's own limit
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "I64": "int64", "I32": "int32", "I16": "int16",
    "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
    "F4": "float4_e2m1fn_x2",
}  # fmt: skip


class SafetensorsSource:
    """Tensors of a ``.safetensors`` file, or of a folder with such files."""

    def __init__(self, path: str | Path):
        path = Path(path)
        self._where: dict[str, Path] = {}  # the file of each tensor
        self._tensors: dict[str, TensorInfo] = {}
        self._offsets: dict[Path, dict[str, int]] = {}  # of the files that were asked about
        self._open: dict[Path, Any] = {}
        self._lock = threading.Lock()
        index = find_index(path) if path.is_dir() else None
        if index is not None:
            self._read_index(index)
        else:
            for file in weight_files(path):
                self._add(file, read_header(file))

    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._tensors

    def read(self, name: str, slices: Slices = ()):
        file = self._file(self._where[name])
        if not slices:
            return file.get_tensor(name)
        return file.get_slice(name)[tuple(slice(start, stop) for start, stop in slices)]

    def locate(self, name: str) -> Stored | None:
        """`interfaces.weights.WeightSource`: the tensor's place in its file."""
        file = self._where[name]
        with self._lock:
            if file not in self._offsets:
                self._offsets[file] = read_offsets(file)
        return Stored(str(file), self._offsets[file][name])

    def close(self) -> None:
        self._open.clear()  # the maps go with the last tensor that views them

    def _file(self, path: Path) -> Any:
        with self._lock:
            if path not in self._open:
                try:
                    self._open[path] = safe_open(str(path), framework="pt")
                except (OSError, SafetensorError) as e:
                    raise CheckpointError(f"{path} cannot be read as safetensors: {e}") from e
            return self._open[path]

    def _add(self, file: Path, header: dict[str, TensorInfo]) -> None:
        for name, info in header.items():
            if name in self._where:
                raise CheckpointError(
                    f"the tensor {name} is in two files and no index says which counts:\n"
                    f"  {self._where[name]}\n  {file}\n  remove one of them, or add {INDEX}"
                )
            self._where[name] = file
            self._tensors[name] = info

    def _read_index(self, index: Path) -> None:
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(v, str) and os.sep not in v for v in names.values()):
            raise CheckpointError(f'{index} should map tensors to file names of its folder under "weight_map"')
        shards = {shard: index.parent / shard for shard in sorted(set(names.values()))}
        if missing := [shard for shard, file in shards.items() if not file.is_file()]:
            raise CheckpointError(
                f"{index} names {len(shards)} files; missing in {index.parent}:\n{listing(missing)}\n"
                "  the download is incomplete: fetch these files again"
            )
        headers = {shard: read_header(file) for shard, file in shards.items()}
        if lost := [f"{name} in {shard}" for name, shard in names.items() if name not in headers[shard]]:
            raise CheckpointError(f"{index} names tensors that are not in their files:\n{listing(lost)}")
        for name, shard in names.items():
            self._where[name] = shards[shard]
            self._tensors[name] = headers[shard][name]


def find_index(folder: Path) -> Path | None:
    """The index of a sharded checkpoint, if there is one."""
    if (folder / INDEX).is_file():
        return folder / INDEX
    if (folder / SINGLE).is_file():
        return None
    found = sorted(folder.glob("*.safetensors.index.json"))
    if len(found) > 1:
        raise CheckpointError(f"{folder} has several indexes and none is called {INDEX}:\n{listing(map(str, found))}")
    return found[0] if found else None


def weight_files(path: Path) -> list[Path]:
    """The files of a checkpoint without an index, ``model.safetensors`` alone if it is there."""
    if not path.is_dir():
        return [path]
    if (path / SINGLE).is_file():
        return [path / SINGLE]
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{path} has no *.safetensors files")
    return files


def read_header(file: Path) -> dict[str, TensorInfo]:
    """What a file holds, checked against its length."""
    try:
        with file.open("rb") as f:
            length = int.from_bytes(f.read(8), "little")
            total = os.fstat(f.fileno()).st_size
            if total < 8 or length > min(_MAX_HEADER, total - 8):
                raise CheckpointError(
                    f"{file} is not a complete safetensors file: its header should have {length:,} bytes,"
                    f" the whole file has {total:,}"
                )
            header = json.loads(f.read(length))
        header.pop("__metadata__", None)
        ends = [8 + length + info["data_offsets"][1] for info in header.values()]
        if ends and max(ends) > total:
            raise CheckpointError(f"{file} is cut off: its tensors need {max(ends):,} bytes, the file has {total:,}")
        return {
            name: TensorInfo(
                name,
                tuple(info["shape"]),
                _DTYPES[info["dtype"]],
                info["data_offsets"][1] - info["data_offsets"][0],
            )
            for name, info in header.items()
        }
    except OSError as e:
        raise CheckpointError(f"{file} cannot be read: {e.strerror or e}") from e
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
        if isinstance(e, CheckpointError):
            raise
        raise CheckpointError(f"{file} is not a safetensors file: bad header ({type(e).__name__}: {e})") from e


def read_offsets(file: Path) -> dict[str, int]:
    """Where each tensor begins, in bytes, of a file whose header has been read and checked."""
    with file.open("rb") as f:
        length = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(length))
    return {name: 8 + length + info["data_offsets"][0] for name, info in header.items() if name != "__metadata__"}


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file that holds an object."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as e:
        raise CheckpointError(f"{file} cannot be read: {e.strerror or e}") from e
    except ValueError as e:
        raise CheckpointError(f"{file} is not valid JSON: {e}") from e
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} should hold a JSON object, not {type(content).__name__}")
    return content
