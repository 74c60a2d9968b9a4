"""The format "gguf" passes the kit: files that the gguf package wrote, as numbers and as blocks, and damaged ones."""

from __future__ import annotations

import gguf
import torch
from gguf_writing import T, add_tensors, finish, llama_writer, small_llama

from vllm_core.testing import WeightFormatConformance


class TestGguf(WeightFormatConformance):
    weight_format = "gguf"
    config = {"model_type": "llama", "hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 2}
    large = ("lm_head.weight", (16384, 256))
    others = (*WeightFormatConformance.others, ("config.json", "model.safetensors"), ("mmproj-model.gguf",))
    type = T.F32

    def tensors(self):
        return dict(small_llama().state_dict())

    def write(self, folder, config, tensors):
        path = folder / "m.gguf"
        writer = llama_writer(path)
        add_tensors(writer, tensors, 4, 2, self.type)
        finish(writer)
        return path

    def lies(self, content):
        def number(at, value, size):
            return content[:at] + value.to_bytes(size, "little") + content[at + size :]

        name = b"output_norm.weight"
        dims = content.index(name) + len(name)  # how many, each of 8 bytes, then the type and the offset
        kind = dims + 4 + 8 * int.from_bytes(content[dims : dims + 4], "little")
        return {
            "a version that nobody knows": number(4, 99, 4),
            "more tensors than bytes": number(8, 1 << 60, 8),
            "more metadata than bytes": number(16, 1 << 60, 8),
            "a tensor larger than the memory": number(dims + 4, 1 << 50, 8),
            "a tensor of many dimensions": number(dims, 1 << 30, 4),
            "a type that nobody knows": number(kind, 250, 4),
            "a tensor behind the end": number(kind + 4, len(content), 8),
            "a tensor far behind the end": number(kind + 4, (1 << 64) - 32, 8),
        }


class TestBlocks(TestGguf):
    """Matrices in blocks of 32 numbers, which are unpacked while they are read."""

    type = T.Q8_0

    def read_as(self, name, tensor):
        if tensor.ndim == 1:
            return tensor
        return torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(tensor.numpy(), T.Q8_0), T.Q8_0))
