"""Several engines behind a front, without any: who gets a request, which settings contradict each other."""

from __future__ import annotations

import os

import attrs
import pytest

from vllm_core import LLM
from vllm_core.config.engine import EngineSettings
from vllm_core.config.errors import SettingError
from vllm_core.engine.fleet.load import GUESS, Load, burden_of
from vllm_core.engine.fleet.plan import alone, devices_of_one, environments, plan_fleet, plan_node
from vllm_core.engine.fleet.routing import BLOCK, LeastLoaded, SamePrefix
from vllm_core.engine.messages import NewRequest
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.steps import RowSampling


def request(ids, max_tokens=10, **more):
    ids = list(ids)
    return NewRequest(
        request_id="r", token_ids=ids, sampling=RowSampling(temperature=0), stop_ids=[],
        max_total=len(ids) + max_tokens, **more,
    )  # fmt: skip


def settings(**given):
    return EngineSettings(model="m", **{f"data_parallel_{name}": value for name, value in given.items()})


# ---- load


def test_equal_engines_take_turns():
    router, loads = LeastLoaded(), {i: Load(8) for i in range(3)}
    assert [router.choose(request([1]), loads) for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_the_engine_with_fewer_waiting_requests_comes_first_then_the_one_with_fewer_tokens():
    router = LeastLoaded()
    crowded, long, short = (
        Load(2, requests=4, tokens=1),
        Load(2, requests=2, tokens=900),
        Load(2, requests=2, tokens=90),
    )
    assert router.choose(request([1]), {0: crowded, 1: long, 2: short}) == 2
    assert router.choose(request([1]), {0: crowded, 1: long}) == 1


def test_requests_of_other_fronts_count():
    router = LeastLoaded()
    assert router.choose(request([1]), {0: Load(4, others=9), 1: Load(4, requests=4, tokens=10_000)}) == 1


def test_a_prompt_weighs_until_its_first_token_and_once_for_all_its_samples():
    news = [request(range(100), 5), request(range(100), 5)]
    load, burden = Load(8), burden_of(news)
    load.add(burden)
    assert (load.requests, load.tokens) == (2, 110)
    load.begun(burden)
    assert load.tokens == 10
    load.remove(burden)
    assert (load.requests, load.tokens) == (0, 0)


def test_an_output_without_an_end_weighs_as_a_usual_one():
    assert burden_of([request([1, 2], 10**9)]).tokens == 2 + GUESS


# ---- prefixes

PREFIX = list(range(3 * BLOCK))


def two(**held):
    return {i: Load(100, requests=n, tokens=n * GUESS) for i, n in enumerate((held.get("a", 0), held.get("b", 0)))}


def test_prompts_that_begin_alike_go_to_the_same_engine():
    router = SamePrefix()
    first = router.choose(request([*PREFIX, 7]), two())
    for tail in range(5):
        assert router.choose(request([*PREFIX, 100 + tail]), two()) == first
    others = {router.choose(request([9_000 + i] * BLOCK), two()) for i in range(4)}
    assert others == {0, 1}


def test_the_longest_common_beginning_decides():
    router = SamePrefix()
    a = router.choose(request([*PREFIX, *[5] * BLOCK]), two())
    b = router.choose(request([*PREFIX, *[6] * BLOCK]), two(**{"ab"[a]: 50}))
    assert a != b
    for last, engine in ((5, a), (6, b)):
        assert router.choose(request([*PREFIX, *[last] * BLOCK, 1]), two()) == engine


def test_an_engine_beyond_the_bound_is_passed_over_and_the_other_one_learns_the_prefix():
    router = SamePrefix()
    first = router.choose(request(PREFIX), two())
    busy = two(**{"ab"[first]: 40})
    assert router.choose(request(PREFIX), busy) == 1 - first
    assert router.choose(request(PREFIX), two(**{"ab"[first]: 4})) == 1 - first  # both know it now: the idler one


def test_a_slightly_busier_engine_keeps_its_prefixes():
    router = SamePrefix()
    first = router.choose(request(PREFIX), two())
    assert router.choose(request(PREFIX), two(**{"ab"[first]: 4})) == first


@pytest.mark.parametrize("more", [{"salt": b"mine"}, {"reads_prefix": False}])
def test_what_may_not_share_pages_does_not_follow_a_prefix(more):
    router = SamePrefix()
    first = router.choose(request(PREFIX), two())
    assert router.choose(request(PREFIX, **more), two(**{"ab"[first]: 1})) == 1 - first


def test_an_engine_that_was_replaced_knows_no_prefix():
    router = SamePrefix()
    first = router.choose(request(PREFIX), two())
    router.forget(first)
    assert router.choose(request(PREFIX), two(**{"ab"[first]: 1})) == 1 - first


# ---- settings


def test_all_engines_are_here_unless_told_otherwise():
    assert plan_fleet(settings(size=3)).here == (0, 1, 2)
    plan = plan_fleet(settings(size=3, size_local=1, address="10.0.0.1", secret_file="f"))
    assert (plan.here, plan.elsewhere) == ((0,), (1, 2))
    assert plan_fleet(settings(size=4, rank=2)).here == (2,)
    node = settings(size=4, size_local=2, start_rank=2, address="10.0.0.1", secret_file="f")
    assert plan_node(node).here == (2, 3)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"size": 2, "rank": 2}, "data_parallel_rank is 2, and there are 2 engines"),
        ({"size": 2, "size_local": 3}, "data_parallel_size_local is 3, and there are 2 engines"),
        ({"size": 2, "external_lb": True}, "add --data-parallel-rank N, 0 to 1"),
        ({"size": 2, "rank": 1, "size_local": 2}, "means one engine here"),
        ({"size": 2, "size_local": 1}, "add --data-parallel-address"),
        ({"size": 2, "size_local": 1, "address": "h"}, "add --data-parallel-secret-file"),
        ({"size": 2, "address": "10.0.0.1"}, "all 2 engines are on this host"),
        ({"size": 2, "start_rank": 1}, "--headless"),
    ],
)
def test_a_server_with_settings_that_contradict_each_other_is_refused(given, error):
    with pytest.raises(SettingError, match=error):
        plan_fleet(settings(**given))


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"size": 2}, "missing --data-parallel-address, --data-parallel-start-rank, --data-parallel-size-local"),
        ({"size": 2, "size_local": 2, "start_rank": 1}, "missing --data-parallel-address"),
        (
            {"size": 2, "size_local": 2, "start_rank": 1, "address": "h", "secret_file": "f"},
            "numbers 0 to 1",
        ),
        ({"size": 2, "size_local": 1, "start_rank": 1, "address": "h", "secret_file": "f", "rank": 1}, "a balancer"),
    ],
)
def test_a_node_with_settings_that_contradict_each_other_is_refused(given, error):
    with pytest.raises(SettingError, match=error):
        plan_node(settings(**given))


def test_an_engine_knows_nothing_of_the_others():
    assert alone(settings(size=4, rank=2, routing="prefix")) == settings()


def test_the_offline_engine_refuses_several_and_names_what_has_them():
    with pytest.raises(SettingError, match=r"AsyncLLM\(model, data_parallel_size=2, ...\) or vllm-core serve"):
        LLM("nothing", data_parallel_size=2)


def test_each_engine_has_devices_and_cores_of_its_own():
    given = attrs.evolve(settings(size=2), tensor_parallel_size=2)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments(given, 2, {})] == ["0,1", "2,3"]
    some = environments(given, 2, {"CUDA_VISIBLE_DEVICES": "7,GPU-5,3,1", "OMP_NUM_THREADS": "6"})
    assert some == [{"CUDA_VISIBLE_DEVICES": "7,GPU-5"}, {"CUDA_VISIBLE_DEVICES": "3,1"}]
    cores = len(os.sched_getaffinity(0))
    assert [e["OMP_NUM_THREADS"] for e in environments(given, 2, {})] == [str(max(1, cores // 4))] * 2
    assert "CUDA_VISIBLE_DEVICES" not in environments(attrs.evolve(given, device="cpu"), 2, {})[0]
    assert environments(settings(size=2, rank=1), 1, {}) == [{}]


def test_too_few_devices_are_told_before_anything_is_read():
    card = Device("cuda", "card", count=4)
    given = attrs.evolve(settings(size=3), tensor_parallel_size=2)
    with pytest.raises(SettingError, match="need 6 devices, 2 each, and 4 are visible"):
        devices_of_one(card, given)
    assert devices_of_one(card, attrs.evolve(given, data_parallel_size=2)).count == 2
    assert devices_of_one(Device("cpu"), given) == Device("cpu")
