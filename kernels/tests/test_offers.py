"""What this package says it offers is what the core takes from it."""

import pytest
from vllm_kernels import machine_limits, op_kernel, provides, sampler

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import OpQuery, SamplerQuery

GPU = Device(type="cuda", name="a GPU", count=1, memory=1 << 36, capability=(9, 0))


def listed():
    return {(p.kind, p.name) for p in provides()}


@pytest.fixture(autouse=True)
def compiler(monkeypatch):
    monkeypatch.setattr("vllm_kernels.machine_limits", lambda device: "")


def test_the_sampler_it_offers_is_listed():
    offer = sampler(SamplerQuery(vocab_size=100, device=GPU))
    assert ("sampler", offer.name) in listed()


def test_the_kernels_it_offers_are_listed():
    offer = op_kernel(OpQuery(op="rms_norm", dtype="bfloat16", device=GPU, shape={"size": 64}))
    assert ("op_kernel", offer.name) in listed()


def test_an_old_gpu_is_refused_with_its_capability():
    old = Device(type="cuda", name="old", count=1, memory=1 << 33, capability=(7, 5))
    assert "(7, 5)" in machine_limits(old)
