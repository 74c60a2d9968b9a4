"""torch's names of dtypes -> types of the CUDA sources (cuda/common.cuh). No torch."""

CUDA_NAMES = {"bfloat16": "bf16", "float16": "f16", "float32": "float"}
KV_NAMES = {**CUDA_NAMES, "float8_e4m3fn": "e4m3"}
SIZES = {"bfloat16": 2, "float16": 2, "float32": 4, "float8_e4m3fn": 1}  # bytes
