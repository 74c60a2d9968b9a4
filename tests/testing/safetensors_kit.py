"""The kit of weight formats on the core's own: safetensors, in one file and in several."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from vllm_core.testing import WeightFormatConformance


class Kit(WeightFormatConformance):
    weight_format = "safetensors"

    def write(self, folder, config, tensors):
        (folder / "config.json").write_text(json.dumps(dict(config)))
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
        return folder

    def lies(self, content):
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        name = max(header, key=lambda name: header[name]["data_offsets"][1])
        begin, end = header[name]["data_offsets"]

        def saying(**fields):
            text = json.dumps({**header, name: {**header[name], **fields}}).encode()
            return len(text).to_bytes(8, "little") + text + content[8 + size :]

        return {
            "a tensor that ends behind the file": saying(data_offsets=[begin, end + 4096]),
            "a tensor that ends before it begins": saying(data_offsets=[end, begin]),
            "a tensor that begins before the file": saying(data_offsets=[-8, end]),
            "a shape of other than its bytes": saying(shape=[3, 3]),
            "a shape of more than the memory": saying(shape=[1 << 40, 1 << 20]),
            "a negative shape": saying(shape=[-1, *header[name]["shape"][1:]]),
            "a dtype that nobody knows": saying(dtype="F31"),
            "a shape that is a word": saying(shape="large"),
            "a header longer than the file": (1 << 60).to_bytes(8, "little") + content[8:],
            "a header that is no JSON": content[:8] + b"\xff" * size + content[8 + size :],
            "a header that is a list": (2).to_bytes(8, "little") + b"[]" + content[8 + size :],
        }


class Sharded(Kit):
    """Two files and an index."""

    def write(self, folder, config, tensors):
        path: Path = super().write(folder, config, {})
        (path / "model.safetensors").unlink()
        names, where = sorted(tensors), {}
        for number, part in enumerate((names[::2], names[1::2])):
            file = f"model-{number}.safetensors"
            save_file({name: tensors[name].contiguous() for name in part}, folder / file)
            where |= dict.fromkeys(part, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
        return path
