"""Launches in captured graphs, dependent ones among other work."""

from __future__ import annotations

from threading import Thread

import pytest
import torch
from vllm_kernels.bench.cases_elementwise import kernel
from vllm_kernels.bench.timing import captured
from vllm_kernels.driver import LaunchError
from vllm_kernels.kernel import Kernel

pytestmark = pytest.mark.usefixtures("gpu")


def rand(*shape):
    return torch.randn(shape, dtype=torch.bfloat16)


def test_a_replay_is_the_eager_run_bit_for_bit_whatever_stands_between_the_kernels():
    """A memset, copies, torch's kernels, another stream; and chains whose next kernel starts before the last ended."""
    add, norm, gate = kernel("add_rms_norm", size=1024), kernel("rms_norm", size=1024), kernel("silu_and_mul", size=512)
    weight, start, other = rand(1024), rand(64, 1024), rand(64, 1024)
    x, y, zeros = torch.empty_like(start), torch.empty_like(start), torch.empty_like(start)
    side, found = torch.cuda.Stream(), {}

    def run():
        zeros.zero_()
        found["after a memset"] = norm(zeros, weight, 1e-6)
        x.copy_(start)
        y.copy_(other)
        h, total = x, y
        for _ in range(50):
            h, total = add(h, total, weight, 1e-6)
            h = norm(torch.cat((gate(h), gate(h)), dim=-1), weight, 1e-6)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            beside = norm(total, weight, 1e-6)
        h = norm(h, weight, 1e-6)
        torch.cuda.current_stream().wait_stream(side)
        found.update({"chain": norm(h, weight, 1e-6), "after a join": norm(beside, weight, 1e-6), "sum": total})

    run()
    torch.cuda.synchronize()
    eager = {name: one.clone() for name, one in found.items()}
    graph = captured(run)
    for _ in range(10):
        for one in found.values():
            one.fill_(float("nan"))
        graph.replay()
        for name, one in found.items():
            assert torch.equal(one, eager[name]), name


def test_shared_memory_of_one_launch_is_not_that_of_the_next():
    launch = Kernel("norm.cu", "rms_norm", "PPPiiillf", _defines(), shared=64)
    x, w = rand(1, 1024), rand(1024)
    for shared in (None, 32, None):
        launch(1, 128, x, torch.empty_like(x), w, 1, 1024, 1, 1024, 0, 1e-6, shared=shared)
        assert launch._config.shared == (64 if shared is None else shared)


def test_a_second_kernel_of_a_function_does_not_lower_its_limit():
    large = Kernel("norm.cu", "rms_norm", "PPPiiillf", _defines(), shared=90_000).finish()
    Kernel("norm.cu", "rms_norm", "PPPiiillf", _defines(), shared=60_000).finish()
    x, w, out = rand(1, 1024), rand(1024), torch.empty(1, 1024, dtype=torch.bfloat16)
    large(1, 128, x, out, w, 1, 1024, 1, 1024, 0, 1e-6)
    assert torch.equal(out, kernel("rms_norm", size=1024)(x, w, 1e-6))


def test_a_refused_launch_says_which_and_why():
    launch = Kernel("norm.cu", "rms_norm", "PPPiiillf", _defines())
    x = rand(1, 1024)
    with pytest.raises(LaunchError, match=r"rms_norm: grid 1, block 4096, 0 bytes shared: .*\(CUDA driver error \d+\)"):
        launch(1, 4096, x, x, x, 1, 1024, 1, 1024, 0, 1e-6)
    with pytest.raises(LaunchError, match=r"no_such in norm.cu"):
        Kernel("norm.cu", "no_such", "P", _defines()).finish()


def _defines():
    return {"TYPE": "bf16", "W_TYPE": "bf16", "MEAN": 0, "WIDTH": 8, "ACCESSES": 1}


def test_a_new_thread_can_make_a_kernel_and_launch_it():
    x, w, out = rand(1, 1024), rand(1024), torch.empty(1, 1024, dtype=torch.bfloat16)
    found = []

    def work():
        launch = Kernel("norm.cu", "rms_norm", "PPPiiillf", {**_defines(), "ACCESSES": 4}, device=0)
        found.append(launch)

    thread = Thread(target=work)
    thread.start()
    thread.join()
    args = (1, 128, x, out, w, 1, 1024, 1, 1024, 0, 1e-6)
    thread = Thread(target=lambda: found[0](*args))
    thread.start()
    thread.join()
    torch.cuda.synchronize()
    assert torch.equal(out, kernel("rms_norm", size=1024)(x, w, 1e-6))
