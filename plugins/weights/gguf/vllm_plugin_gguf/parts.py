"""Opening a model: one file, or several that lie side by side."""

from __future__ import annotations

from pathlib import Path

from vllm_core.weights.errors import CheckpointError
from vllm_plugin_gguf.file import GgufFile
from vllm_plugin_gguf.part_names import all_parts, first_part


def open_model(path: Path) -> GgufFile:
    """The file, or the folder's only model. Of a split model: the first part, with the tensors of all parts."""
    file = GgufFile(_find(path))
    count = file.metadata.get("split.count", 0)
    if not isinstance(count, int) or count < 2:
        return file
    names = all_parts(file.path.name)
    if len(names) != count:
        raise CheckpointError(
            f"{file.path} is one of {count} parts of a model, and its name does not lead to the others: they should be"
            f" called NAME-00001-of-{count:05}.gguf and so on\n  instead give them such names again"
        )
    if missing := [name for name in names if not (file.path.parent / name).is_file()]:
        raise CheckpointError(
            f"{file.path} is one of {count} parts of a model, and beside it lacks {', '.join(missing[:6])}"
            f"{', ...' if len(missing) > 6 else ''}\n  instead put all parts into one folder"
        )
    parts = [file if name == file.path.name else GgufFile(file.path.parent / name) for name in names]
    return _joined(parts)


def _joined(parts: list[GgufFile]) -> GgufFile:
    first = parts[0]
    for number, part in enumerate(parts):
        told = part.metadata.get("split.no"), part.metadata.get("split.count")
        if told != (number, len(parts)):
            raise CheckpointError(
                f"{part.path} says that it is part {told[0]} (counted from 0) of {told[1]}, and is named as part"
                f" {number} of {len(parts)}: parts of different models lie here under one name"
            )
        if twice := part.tensors.keys() & first.tensors.keys() if number else ():
            raise CheckpointError(f"{part.path} and another part of the model both have the tensor {min(twice)!r}")
        first.tensors |= part.tensors
    total = first.metadata.get("split.tensors.count", len(first.tensors))
    if total != len(first.tensors):
        raise CheckpointError(f"the {len(parts)} parts of {first.path} have {len(first.tensors)} tensors, not {total}")
    return first


def _find(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [p for p in sorted(path.glob("*.gguf")) if not p.name.startswith("mmproj")]
    first = first_part([p.name for p in found]) if found else ""
    if len(found) != 1 and not first:
        raise CheckpointError(f"{path} should hold one GGUF file, not {len(found)}; name the file itself")
    return found[0]
