"""Runs cases of the conformance kit with the kernels interpreted on CPU tensors: ``python interpreted.py NAME...``

Not a test file: TRITON_INTERPRET must be set before the kernels are defined, so tests start it in a process of its own.
"""

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch
import triton.runtime.interpreter as interpreter

from vllm_core.interfaces.device import Device
from vllm_core.layers.page_layouts import HeadLayout
from vllm_core.plugin import Offer
from vllm_core.testing.attention_cases import make_query
from vllm_core.testing.attention_trial import Trial

SMALL = {"num_heads": 4, "num_kv_heads": 2, "k_dim": 32, "v_dim": 32}
BATCH = [(5, 1), (0, 33), (60, 5), (48, 1), (9, 0), (0, 1), (100, 2)]
CASES = {
    "plain": {},
    "window": {"window": 20},
    "soft cap": {"soft_cap": 2.5},
    "window, sinks and soft cap": {"window": 7, "sinks": True, "soft_cap": 4.0},
    "no causality": {"causal": False},
    "heads of 80 and 48 elements": {"k_dim": 80, "v_dim": 48, "num_kv_heads": 1},
    "three heads a KV head": {"num_heads": 6, "dtype": "float16"},
    "batch invariant": {},
}


class Interpreted:
    """What `AskedBackend` is to the kit, for a device that the plugin refuses."""

    torch_device, device = torch.device("cpu"), Device("cpu")

    def __init__(self, **options):
        self.options = options

    def offer(self, query):
        target = "vllm_plugin_triton_attention.backend:TritonAttention"
        return Offer(
            name="triton", target=target, capabilities=("lse",), options={"block_sizes": (16,), **self.options}
        )

    def views(self, layout, query):
        return HeadLayout(layout)


def patch():
    """numpy 2.4 no longer makes an int of an array with one element, which Triton 3.6 counts on."""
    plain = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        plain(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


def main(names):
    patch()
    for name in names:
        query = make_query({**SMALL, **CASES[name]}, Device("cpu"))
        trial = Trial(
            Interpreted(batch_invariant=name == "batch invariant"), query, layout="NHD" if query.window else "HND"
        )
        tolerance = 4e-3 if query.dtype == "float16" else 1e-5
        with np.errstate(divide="ignore"):  # log2(0) is what a query without keys has
            trial.play(trial.batch(BATCH), name, tolerance, lse=True)
        print("agrees:", name)


if __name__ == "__main__":
    main(sys.argv[1:])
