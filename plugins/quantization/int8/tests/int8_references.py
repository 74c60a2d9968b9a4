"""Rounding to 8 bits and compressed-tensors' int8 layout in plain numpy, from their descriptions."""

from __future__ import annotations

import numpy as np
import torch


def rounded(x):
    """Rows as whole numbers from -127 to 127 times max |row| / 127, in float32: (numbers, scales [R, 1])."""
    x = x.float().numpy()
    scales = np.abs(x).max(-1, keepdims=True, initial=0).astype(np.float32) / np.float32(127)
    numbers = np.rint(x / np.where(scales == 0, np.float32(1), scales))
    return numbers, scales


def meant(x):
    numbers, scales = rounded(x)
    return torch.from_numpy(numbers.astype(np.float64) * scales)


def config(*, inputs=True, **changes):
    """quantization_config as llm-compressor writes it for int8 W8A8 with dynamic inputs."""
    common = {"num_bits": 8, "type": "int", "symmetric": True, "group_size": None, "block_structure": None}
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {**common, "strategy": "channel", "dynamic": False, "observer": "minmax"},
                "input_activations": {**common, "strategy": "token", "dynamic": True} if inputs else None,
                "output_activations": None,
            }
        },
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        **changes,
    }


def packed(weight):
    """weight [out, in] as compressed-tensors stores it: max |row| / 127.5 a step, -128 to 127."""
    scales = weight.float().abs().amax(-1, keepdim=True) / 127.5
    numbers = (weight.float() / scales).nan_to_num().round().clamp(-128, 127)
    return {"weight": numbers.to(torch.int8), "weight_scale": scales}


def in_words(tensors):
    """The same in the format pack-quantized: 128 added, rows filled up to words, the first in the lowest bits."""
    numbers = tensors["weight"].long() + 128
    numbers = torch.nn.functional.pad(numbers, (0, -numbers.shape[1] % 4)).unflatten(1, (-1, 4))
    words = (numbers * torch.tensor([1, 2**8, 2**16, 2**24])).sum(-1)
    words = torch.where(words < 2**31, words, words - 2**32).to(torch.int32)
    return {
        "weight_packed": words,
        "weight_shape": torch.tensor(tensors["weight"].shape),
        "weight_scale": tensors["weight_scale"],
    }


def out_of_words(tensors):
    words = tensors["weight_packed"].long()[..., None] >> torch.tensor([0, 8, 16, 24])
    inputs = tensors["weight_shape"][1]
    return {"weight": (words % 256).flatten(1)[:, :inputs] - 128, "weight_scale": tensors["weight_scale"]}


def unpacked(tensors):
    return tensors["weight"].double() * tensors["weight_scale"].double()
