"""y = act(norm(x + residual) W^T + b) for few tokens, in one launch: cuda/small.cu."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

from vllm_kernels.driver import use_context
from vllm_kernels.dtypes import CUDA_NAMES, SIZES
from vllm_kernels.kernel import Kernel
from vllm_kernels.small_tiling import GPU, Problem, Tiling, choose
from vllm_kernels.variant import Variant

FILE, NAME = "small.cu", "small_product"
SIGNATURE = "PPPfPPPPii"
GATES = {"": 0, "silu": 1, "gelu": 2, "gelu_pytorch_tanh": 3}
SIZES_OF_BATCH = (8, 16)  # tokens: a variant each


class Product:
    """Compiles in the background when made; the first call waits for that. Get one by `product`.

    most   tokens a call may have; 0: the shape does not fit this GPU
    """

    def __init__(self, in_size: int, out_size: int, dtype: str, norm: str, act: str, device: int) -> None:
        self.in_size, self.out_size = in_size, out_size
        self._made: dict[int, tuple[Tiling, Future[Kernel]]] = {
            size: (tiling, _pool().submit(_kernel, variant_of(tiling, dtype, norm, act), tiling, device))
            for size, tiling in tilings(in_size, out_size, norm, act, gpu_of(device)).items()
        }
        self.most = max((tiling.problem.worth for tiling, _ in self._made.values()), default=0)
        self._kernels: dict[int, tuple[Tiling, Kernel]] = {}

    def takes(self, x: Tensor) -> bool:
        """Whether ``x`` can be passed to ``__call__``."""
        return 0 < x.shape[0] <= self.most and x.is_contiguous() and not x.data_ptr() % 16

    def __call__(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        residual: Tensor | None = None,
        scale: Tensor | None = None,
        eps: float = 0.0,
        total: Tensor | None = None,
    ) -> Tensor:
        """x [T, in_size] -> [T, out_size]. Nothing but the result and ``total`` is written.

        weight     [out_size, in_size]; with an activation [2 out_size, in_size], gates before ups
        residual   like x, added to it before the norm, or None; the sum is stored in ``total``, which is neither
        scale      the norm's weight, if there is a norm
        """
        tokens = x.shape[0]
        tiling, kernel = self._kernel(next(size for size in SIZES_OF_BATCH if size >= tokens))
        y = x.new_empty(tokens, self.out_size)
        kernel(
            tiling.grid, tiling.warps * 32,
            x, residual, scale, eps, weight, bias, y, total, tokens, self.out_size,
            shared=tiling.shared(tokens),
        )  # fmt: skip
        return y

    def _kernel(self, size: int) -> tuple[Tiling, Kernel]:
        made = self._kernels.get(size)
        if made is None:
            tiling, future = self._made[size]
            made = self._kernels[size] = tiling, future.result()
        return made


def tilings(in_size: int, out_size: int, norm: str, act: str, gpu: GPU) -> dict[int, Tiling]:
    """Size of batch -> tiling, for those sizes that more tokens are worth it with, and that fit."""
    found: dict[int, Tiling] = {}
    most, scale_bytes = 0, SIZES[norm] if norm else 0
    for size in SIZES_OF_BATCH:
        problem = Problem(in_size=in_size, out_size=out_size, gate=bool(act), scale_bytes=scale_bytes, tokens=size)
        if problem.worth <= most or (tiling := choose(problem, gpu)) is None:
            break
        most, found[size] = problem.worth, tiling
    return found


@cache
def gpu_of(device: int) -> GPU:
    about = torch.cuda.get_device_properties(device)
    return GPU(
        multiprocessors=about.multi_processor_count,
        most_shared=about.shared_memory_per_block_optin,
    )


@cache
def product(in_size: int, out_size: int, dtype: str, norm: str = "", act: str = "", device: int = 0) -> Product:
    """``norm``: the dtype of its weight, "" if there is none; ``act``: a key of `GATES`. Equal ones are shared."""
    return Product(in_size, out_size, dtype, norm, act, device)


def variant_of(tiling: Tiling, dtype: str, norm: str, act: str) -> Variant:
    defines: dict[str, str | int] = {
        "ELEMENT": CUDA_NAMES[dtype], "INPUTS": tiling.problem.in_size, "TOKENS": tiling.problem.tokens,
        "WARPS": tiling.warps, "TILES": tiling.tiles, "STEPS": tiling.steps, "DEPTH": tiling.depth, "SPAN": tiling.span,
        "ONCE": int(tiling.once), "STREAM": int(tiling.stream),
        "NORM": int(bool(norm)), "SCALE": CUDA_NAMES[norm or dtype], "GATE": GATES[act],
    }  # fmt: skip
    return Variant(file=FILE, defines=defines, names=(NAME,))


def variants() -> list[Variant]:
    """Of the shapes that figures are kept for, and odd ones, on two sizes of GPU."""
    big = GPU(multiprocessors=132, most_shared=232448)
    little = GPU(multiprocessors=82, most_shared=101376)
    shapes = [
        (1024, 4096, "bfloat16", "", big), (2048, 1024, "", "", big), (1024, 3072, "bfloat16", "silu", big),
        (3072, 1024, "", "", big), (1024, 151936, "", "", big), (4096, 14336, "bfloat16", "silu", big),
        (14336, 4096, "", "", big), (4096, 32768, "", "", big), (1000, 1300, "float32", "gelu", little),
        (72, 24, "", "", little), (2304, 9216, "float32", "gelu_pytorch_tanh", little),
    ]  # fmt: skip
    found = []
    for in_size, out_size, norm, act, gpu in shapes:
        dtype = "float16" if in_size % 32 else "bfloat16"
        found += [variant_of(one, dtype, norm, act) for one in tilings(in_size, out_size, norm, act, gpu).values()]
    return list({str(variant): variant for variant in found}.values())


def _kernel(variant: Variant, tiling: Tiling, device: int) -> Kernel:
    use_context(device)  # of a thread of the pool
    shared = tiling.shared(tiling.problem.worth)
    return Kernel(FILE, NAME, SIGNATURE, variant.defines, shared=shared, dependent=True, device=device)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(8, thread_name_prefix="small-products")
