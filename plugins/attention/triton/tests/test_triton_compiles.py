"""All kernels compile for GPUs that are not here, and those of usual models keep to their registers."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from vllm_core.interfaces.attention import AttentionConfig

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
USUAL = {"num_heads": 32, "num_kv_heads": 8, "k_dim": 128, "v_dim": 128}


def config(**settings):
    found = {"dtype": torch.bfloat16, "block_size": 16, "page_layout": "HND", **USUAL, **settings}
    found.setdefault("kv_dtype", found["dtype"])
    return AttentionConfig(scale=found["k_dim"] ** -0.5, device=torch.device("cuda", 0), **found)


def compiled(arch, **settings):
    """name -> bytes of a thread's stack, where registers are spilled to."""
    import triton
    from vllm_plugin_triton_attention.variants import variants

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    found = {}
    for name, variant in variants(config(**settings), arch).items():
        (path := Path(variant.compile(arch).metadata_group[f"{variant.fn.__name__}.cubin"])).stat()
        said = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True).stdout
        found[name] = int(said.split("STACK:")[1].split()[0])
    return found


@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("heads", [16, 32])
def test_the_kernels_of_usual_models_spill_no_registers(arch, heads):
    stacks = compiled(arch, num_heads=heads)
    assert {"schedule", "write", "decode16", "decode64", "combine16", "combine64", "prefill", "prefill_static"} == set(
        stacks
    )
    # So that two programs share a multiprocessor, this one is held to 128 registers; its loops spill next to none.
    assert stacks.pop("prefill") <= (128 if arch == 90 else 0)
    assert not any(stacks.values()), stacks


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": torch.float32},
        {"k_dim": 256, "v_dim": 256, "soft_cap": 50.0, "window": 4096, "num_heads": 8, "num_kv_heads": 4},
        {"k_dim": 64, "v_dim": 64, "sinks": True, "window": 128, "num_heads": 64, "page_layout": "NHD"},
        {"kv_dtype": torch.float8_e4m3fn, "block_size": 32},
        {"kv_dtype": torch.float8_e5m2, "dtype": torch.float16, "k_dim": 72, "v_dim": 80, "causal": False},
        {"num_heads": 48, "num_kv_heads": 1},
    ],
    ids=str,
)
def test_other_layers_compile(settings):
    assert compiled(90, **settings)


def test_float8_of_range_compiles_for_sm_80():
    """In a process of its own: Triton 3.6 keeps the conversions of the first GPU that it compiled for."""
    code = "import test_triton_compiles as t, torch; t.compiled(80, kv_dtype=torch.float8_e5m2)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True, timeout=300)
