"""What the plugin offers and refuses."""

import attrs
import pytest
import vllm_plugin_triton_attention as plugin
from vllm_plugin_triton_attention.settings import Settings

from vllm_core.interfaces.device import Device
from vllm_core.plugin import Rank, Refusal
from vllm_core.testing.attention_cases import make_query

H200 = Device("cuda", capability=(9, 0))


def ask(device=H200, more=None, **settings):
    return plugin.attention_backend(attrs.evolve(make_query({}, device), **(more or {})), Settings(**settings))


def test_a_gpu_since_sm_80_gets_a_tuned_offer():
    offer = ask(Device("cuda", capability=(8, 0)))
    assert offer.rank == Rank.TUNED
    assert {"lse", "graph", "device_metadata"} == offer.capabilities


@pytest.mark.parametrize(
    ("device", "more", "reason"),
    [
        (Device("cpu"), {}, "the device is cpu"),
        (Device("cuda", capability=(7, 5)), {}, "sm_75"),
        (H200, {"kind": "latent"}, "latent"),
        (H200, {"dtype": "float64", "kv_dtype": "float64"}, "float64"),
        (H200, {"kv_dtype": "float16"}, "neither the model's float32"),
        (Device("cuda", capability=(8, 6)), {"kv_dtype": "float8_e4m3fn"}, "sm_89"),
        (H200, {"k_dim": 512}, "more than 256"),
        (H200, {"num_heads": 130, "num_kv_heads": 2}, "65 query heads"),
    ],
    ids=str,
)
def test_what_it_cannot_do_is_refused_with_the_reason(device, more, reason):
    answer = ask(device, more)
    assert isinstance(answer, Refusal)
    assert reason in answer.reason


def test_float8_caches_and_batch_invariance_are_offered():
    assert ask(more={"kv_dtype": "float8_e4m3fn"}).rank == Rank.TUNED
    assert "batch_invariant" in ask(batch_invariant=True).capabilities
    assert "batch_invariant" in ask(more={"batch_invariant": True}).capabilities
    assert "batch_invariant" not in ask().capabilities


def test_pages_of_whole_tiles_are_liked_best_and_small_ones_are_taken():
    assert ask().options["block_sizes"] == (64, 32, 16, 128)


def test_without_triton_it_says_so(monkeypatch):
    monkeypatch.setattr(plugin, "find_spec", lambda name: None)
    assert "needs triton" in ask().reason
