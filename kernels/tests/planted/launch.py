"""``python launch.py KERNEL``: one launch of a kernel of wrong.cu on 100 floats, by this package's own means."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import torch
from vllm_kernels.arguments import Arguments
from vllm_kernels.compiler import options_of
from vllm_kernels.driver import Config, check, find_function, library, load_module
from vllm_kernels.kernel import arch
from vllm_kernels.nvrtc import compile_file


def main(name: str) -> None:
    x = torch.zeros(100, device="cuda")
    options = [f"-arch=sm_{arch(0)}", "-lineinfo", *options_of(None)]
    function = find_function(load_module(compile_file(str(Path(__file__).parent), "wrong.cu", options), name), name, "")
    arguments = Arguments("Pi")
    arguments.pack((x, len(x)))
    config = Config(grid=(1, 1, 1), block=(128, 1, 1), stream=torch.cuda.current_stream().cuda_stream)
    check(library().cuLaunchKernelEx(ctypes.byref(config), function, arguments.pointers, None), name)
    torch.cuda.synchronize()


if __name__ == "__main__":
    main(sys.argv[1])
