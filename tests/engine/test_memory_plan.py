"""The memory plan: who gets what, what does not fit, and only suggestions that fit by the same arithmetic."""

from types import SimpleNamespace

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_core.config.engine import EngineSettings
from vllm_core.engine.memory import Beside, Budget, MemoryPlanError, Need, memory_budget, plan_memory
from vllm_core.interfaces.cache import CacheGroup, CachePlan, FullAttentionCache, SlidingWindowCache
from vllm_core.interfaces.device import Device

PAGE = 128  # bytes: 4 tokens of 32 bytes
SHAPE = {"num_kv_heads": 1, "k_dim": 4, "v_dim": 4, "dtype": "float32"}
FULL = FullAttentionCache(**SHAPE)
WINDOW = SlidingWindowCache(**SHAPE, window=8)


def cache_plan(*specs):
    groups = tuple(CacheGroup(index=i, spec=s, names=(f"c{i}",), block_size=4) for i, s in enumerate(specs))
    return CachePlan(groups=groups, page_bytes=PAGE, num_tensors=1)


def need(**changes):
    return Need(**{"max_model_len": 100, "max_rows": 2, "max_step_tokens": 8, "num_drafts": 0, **changes})


def budget(**changes):
    fixed = {"device": "box", "memory": 100_000, "weights": 10_000, "cache": 90_000, "source": "kv_cache_memory"}
    return Budget(**{**fixed, **changes})


def suggestions(error):
    _, found, lines = str(error).partition("Any one of these starts:\n")
    return [tuple(line.split()) for line in lines.splitlines()] if found else []


def applied(suggestion, budget, need):
    """The plan's input after a user followed a suggestion."""
    flag, value = suggestion
    if flag == "--kv-cache-memory":
        return attrs.evolve(budget, cache=int(value), source="kv_cache_memory"), need
    if flag == "--gpu-memory-utilization":
        return budget.with_share(float(value), budget.weights), need
    field = {"--max-model-len": "max_model_len", "--max-num-batched-tokens": "max_step_tokens"}[flag]
    return budget, attrs.evolve(need, **{field: int(value)})


def test_pages_are_no_more_than_all_rows_can_use():
    plan = plan_memory(cache_plan(FULL), budget(), need())
    assert plan.num_pages == 2 * 25 + 1
    assert plan.cache_bytes == 51 * PAGE
    assert plan.sequences == 2.0


def test_pages_are_no_more_than_the_budget_holds():
    plan = plan_memory(cache_plan(FULL), budget(cache=40 * PAGE + 5), need())
    assert plan.num_pages == 40
    assert plan.sequences == 39 / 25


def test_a_platforms_choice_gives_way_to_weights_and_what_the_user_said_is_refused():
    tight = budget(weights=100_000 - 40 * PAGE, cache=1 << 40, source="the platform's choice")
    assert plan_memory(cache_plan(FULL), tight, need()).num_pages == 40
    said = attrs.evolve(tight, source="kv_cache_memory")
    with pytest.raises(MemoryPlanError, match=r"weights and cache together do not fit on box \(97.7 KiB\)"):
        plan_memory(cache_plan(FULL), said, need())


def test_weights_larger_than_the_device_are_refused_before_they_are_read():
    with pytest.raises(MemoryPlanError) as error:
        plan_memory(cache_plan(FULL), budget(weights=100_001), need())
    assert "the weights of this model do not fit on box" in str(error.value)
    assert "weights 97.7 KiB | KV cache" in str(error.value)
    assert "no single setting makes it fit" in str(error.value)
    assert suggestions(error.value) == []


def test_half_the_bytes_a_number_are_suggested_where_they_are_enough():
    with pytest.raises(MemoryPlanError) as error:
        plan_memory(cache_plan(FULL), budget(weights=150_000), need(narrower="bfloat16"))
    assert suggestions(error.value) == [("--dtype", "bfloat16")]
    with pytest.raises(MemoryPlanError) as error:
        plan_memory(cache_plan(FULL), budget(weights=199_000), need(narrower="bfloat16"))
    assert suggestions(error.value) == []


def test_a_smaller_step_is_suggested_where_windows_hold_steps():
    plan = cache_plan(FULL, WINDOW)
    with pytest.raises(MemoryPlanError) as error:
        plan_memory(plan, budget(cache=38 * PAGE), need(max_step_tokens=32))
    assert ("--max-num-batched-tokens", "16") in suggestions(error.value)


def test_a_suggestion_leaves_room_for_activations():
    short = {"weights": 90_000, "cache": 1000, "memory": 100_000}
    flags = []
    for activations in (0, 9_500):
        beside = Beside(activations=activations)
        with pytest.raises(MemoryPlanError) as error:
            plan_memory(cache_plan(FULL), budget(**short, beside=beside), need())
        flags.append([flag for flag, _ in suggestions(error.value)])
    assert flags == [["--max-model-len", "--kv-cache-memory"], []]


def test_a_share_is_all_that_a_process_takes_of_a_device():
    settings = EngineSettings(gpu_memory_utilization=0.5)
    platform, device = SimpleNamespace(cache_memory=lambda taken: 10_000 - taken), Device("gpu", memory=10_000)
    beside = Beside(activations=700, graphs=400, process=1500, max_step_tokens=8192)
    found = memory_budget(settings, platform, device, 1000, beside)
    assert found.cache == 5000 - 1000 - 700 - 400 - 1500
    assert memory_budget(EngineSettings(), platform, device, 1000, beside).cache == 10_000 - 1000 - 2600
    with pytest.raises(MemoryPlanError) as error:
        plan_memory(cache_plan(FULL), found, need())
    bill = "weights 1.0 KiB | activations 0.7 KiB (8,192 tokens) | graphs 0.4 KiB | process 1.5 KiB | KV cache 1.4 KiB"
    assert f"{bill} (gpu_memory_utilization 0.5) | gpu has 9.8 KiB" in str(error.value)
    with pytest.raises(ValueError, match="nobody knows how much memory gpu has"):
        memory_budget(settings, SimpleNamespace(cache_memory=lambda weights: 1), Device("gpu"), 100)


@given(
    specs=st.sampled_from([(FULL,), (WINDOW,), (FULL, WINDOW)]),
    length=st.integers(1, 400),
    step=st.integers(1, 64),
    drafts=st.integers(0, 3),
    weights=st.integers(0, 120_000),
    cache=st.integers(0, 30_000),
    share=st.none() | st.floats(0.01, 1),
    taken=st.sampled_from([0, 5000]),
)
def test_whatever_is_asked_each_suggestion_fits(specs, length, step, drafts, weights, cache, share, taken):
    plan = cache_plan(*specs)
    there = budget(weights=weights, cache=cache, beside=Beside(activations=taken, process=taken))
    there = there if share is None else there.with_share(share, weights)
    wanted = need(max_model_len=length, max_step_tokens=max(step, drafts + 1), num_drafts=drafts)
    try:
        found = plan_memory(plan, there, wanted)
        assert found.cache_bytes + weights + 2 * taken <= there.memory
        assert found.cache_bytes <= there.for_pages
    except MemoryPlanError as refusal:
        for suggestion in suggestions(refusal):
            plan_memory(plan, *applied(suggestion, there, wanted))
