"""A cache that the plan has room for and the device has not is refused, with the bill."""

from __future__ import annotations

import pytest
import torch

from vllm_core.runner.device_memory import check_free, device_memory

GiB = 1 << 30
PLANNED = {"weights": 15 * GiB, "kv_cache": 50 * GiB, "activations": GiB, "graphs": GiB, "process": GiB}


@pytest.fixture
def gpu(monkeypatch):
    """``gpu(free=...)``: a device of 80 GiB, with the weights on it."""

    def make(free):
        for name, value in {
            "mem_get_info": (free, 80 * GiB),
            "memory_reserved": 16 * GiB,
            "memory_allocated": 15 * GiB,
        }.items():
            monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)

    return make


def test_what_torch_has_in_reserve_counts_as_free(gpu):
    gpu(free=51 * GiB)  # and 1 GiB in torch's cache, for 52 of pages, activations and graphs
    check_free(torch.device("cuda", 0), PLANNED)


def test_memory_that_others_have_is_an_error_with_sizes_and_settings(gpu):
    gpu(free=31 * GiB)
    with pytest.raises(MemoryError) as error:
        check_free(torch.device("cuda", 0), PLANNED)
    text = str(error.value)
    assert "cuda:0 has 32.00 GiB free beside the weights, and 52.00 are needed" in text
    assert "planned weights 15.00 | kv_cache 50.00 | activations 1.00 | graphs 1.00 | process 1.00 GiB of 80.00" in text
    assert "about 32.00 GiB are others'" in text
    assert "--gpu-memory-utilization" in text


def test_a_cpu_is_not_asked():
    check_free(torch.device("cpu"), {"kv_cache": 1 << 60})
    if not torch.cuda.is_initialized():
        assert device_memory() == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_device_tells_what_is_taken():
    torch.zeros(1, device="cuda")
    found = device_memory()
    assert found["total"] >= found["taken"] >= found["reserved"] > 0
    assert found["peak_reserved"] >= found["peak_allocated"] >= found["allocated"]
