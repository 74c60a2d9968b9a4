"""All figures of a server, as Prometheus reads them."""

import asyncio
import os
import subprocess
import sys
import time
from types import SimpleNamespace as Bag

import attrs
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from vllm_plugin_server.metrics import shared
from vllm_plugin_server.metrics.board import Board
from vllm_plugin_server.metrics.http import MAX_HANDLERS
from vllm_plugin_server.metrics.prefix import check_prefix
from vllm_plugin_server.metrics.totals import SharedTotals
from vllm_plugin_server.observe import Call

from vllm_core.interfaces.metrics import RequestStats, StepStats
from vllm_core.serving import EngineDeadError

STATS = Bag(
    engines=[Bag(engine=0, state="ready", running=3, waiting=2, cache_usage=0.25, prefix_queries=100, prefix_hits=40)]
)
STEP = StepStats(
    seconds=0.25, running=3, waiting=2, prompt_tokens=60, output_tokens=3, prefix_queries=100, prefix_hits=40,
    preemptions=1, drafted=6, accepted=4, pages_used=4, pages_total=16, drafts=2, accepted_at=(3, 1),
    gaps=((0.02, 2), (0.3, 1)),
)  # fmt: skip
REQUEST = RequestStats(
    request_id="r", finish_reason="stop", prompt_tokens=60, cached_tokens=40, output_tokens=9, queued=1.0,
    first_token=3.0, between_tokens=0.5, total=7.0, prefill=2.0, decode=4.0,
)  # fmt: skip


async def answering():
    return STATS


async def dead():
    raise EngineDeadError("it was killed")


async def stuck():
    await asyncio.sleep(60)


def board(ask=answering, state="ready", **options):
    return Board(
        model="tiny", longest=100, ask=ask, states=lambda: {0: state}, pids=lambda: [os.getpid()],
        timings={"weights": 1.5, "model": 0.25},
        cache={"block_size": 16, "enable_prefix_caching": True}, **options,
    )  # fmt: skip


def samples(board, refreshed=True):
    if refreshed:
        asyncio.run(board.refresh())
    content_type, text = board.text("")
    assert content_type.startswith("text/plain")
    return {(s.name, *sorted(s.labels.items())): s.value for m in parse(text.decode()) for s in m.samples}


def one(found, name, **labels):
    return found[(f"vllm:{name}", *sorted({"model_name": "tiny", "engine": "0", **labels}.items()))]


def test_figures_are_written_beside_the_event_loop():
    """A scrape of many series takes dozens of milliseconds, in which no answer may stand still."""
    made = board()

    class Slow:
        def collect(self):
            time.sleep(0.3)
            return ()

    made._registry.register(Slow())

    async def go():
        scrape = asyncio.create_task(made.page(""))
        longest = 0.0
        while not scrape.done():
            begin = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - begin)
        return longest, await scrape

    begin = time.perf_counter()
    longest, (content_type, text) = asyncio.run(go())
    assert time.perf_counter() - begin > 0.25
    assert longest < 0.2
    assert content_type.startswith("text/plain")
    assert b"vllm:engine_up" in text


def test_the_load_is_the_engines_while_it_lives_and_of_all_processes():
    made = board()
    asyncio.run(made.refresh())
    made.calls.began(Bag(notes={}))
    assert asyncio.run(made.load()) == {"server_load": 1, "running": 3, "waiting": 2, "cache_usage": 0.25}
    gone = board(state="dead")
    asyncio.run(gone.refresh())
    assert asyncio.run(gone.load()) == {"server_load": 0, "running": 0, "waiting": 0, "cache_usage": 0.0}


def test_the_engines_figures_are_passed_on():
    made = board()
    made.engines.took(Bag(engine=0, steps=[STEP, STEP], requests=[REQUEST]))
    found = samples(made)
    assert one(found, "num_requests_running") == 3
    assert one(found, "num_requests_waiting") == 2
    assert one(found, "kv_cache_usage_perc") == 0.25
    assert one(found, "prefix_cache_hit_rate") == 0.4
    assert one(found, "generation_tokens_total") == 6
    assert one(found, "prefix_cache_queries_total") == 200
    assert one(found, "prefix_cache_hits_total") == 80
    assert one(found, "num_preemptions_total") == 2
    assert one(found, "iteration_tokens_total_bucket", le="32.0") == 0
    assert one(found, "iteration_tokens_total_bucket", le="64.0") == 2
    assert one(found, "iteration_tokens_total_sum") == 126
    assert one(found, "inter_token_latency_seconds_bucket", le="0.025") == 4
    assert one(found, "inter_token_latency_seconds_count") == 6
    assert one(found, "inter_token_latency_seconds_sum") == pytest.approx(0.68)
    assert one(found, "spec_decode_num_drafts_total") == 4
    assert one(found, "spec_decode_num_draft_tokens_total") == 12
    assert one(found, "spec_decode_num_accepted_tokens_total") == 8
    assert one(found, "spec_decode_num_accepted_tokens_per_pos_total", position="1") == 2
    for part, seconds in {"queue": 1, "prefill": 2, "decode": 4, "inference": 6}.items():
        assert one(found, f"request_{part}_time_seconds_sum") == seconds
    assert one(found, "request_time_per_output_token_seconds_sum") == 0.5


def test_a_request_that_did_not_get_so_far_has_no_times_of_it():
    made = board()
    waited = attrs.evolve(
        REQUEST, finish_reason="abort", queued=None, first_token=None, between_tokens=None, prefill=None, decode=None
    )
    made.engines.took(Bag(engine=0, steps=[], requests=[waited]))
    found = samples(made)
    assert one(found, "request_queue_time_seconds_count") == 0
    assert one(found, "request_inference_time_seconds_count") == 0


def test_the_start_the_cache_and_the_processes_are_told():
    found = samples(board())
    assert one(found, "startup_seconds", stage="weights") == 1.5
    assert one(found, "cache_config_info", block_size="16", enable_prefix_caching="True") == 1
    assert found[("engine_process_resident_memory_bytes",)] > 1e6
    assert found[("process_resident_memory_bytes",)] > 1e6


# What dashboards made for vLLM draw must be there under these names.
DRAWN = (
    "e2e_request_latency_seconds_bucket",
    "generation_tokens_total",
    "inter_token_latency_seconds_bucket",
    "iteration_tokens_total_bucket",
    "kv_cache_usage_perc",
    "num_preemptions_total",
    "num_requests_running",
    "num_requests_waiting",
    "prefix_cache_hits_total",
    "prefix_cache_queries_total",
    "prompt_tokens_total",
    "request_decode_time_seconds_sum",
    "request_generation_tokens_bucket",
    "request_inference_time_seconds_bucket",
    "request_max_num_generation_tokens_sum",
    "request_params_max_tokens_bucket",
    "request_params_n_bucket",
    "request_prefill_time_seconds_sum",
    "request_prompt_tokens_bucket",
    "request_queue_time_seconds_sum",
    "request_success_total",
    "request_time_per_output_token_seconds_bucket",
    "time_to_first_token_seconds_bucket",
    "cache_config_info",
    "spec_decode_num_drafts_total",
    "spec_decode_num_draft_tokens_total",
    "prompt_tokens_cached_total",
    "request_prefill_kv_computed_tokens_bucket",
)


def test_vllms_names_are_there():
    names = {key[0] for key in samples(board())}
    assert not [name for name in DRAWN if f"vllm:{name}" not in names]


def test_one_switch_renames_all_of_them():
    names = {key[0] for key in samples(board(prefix="mine_"))}
    assert not [name for name in names if name.startswith("vllm")]
    assert "mine_num_requests_running" in names


@pytest.mark.parametrize("prefix", ["vllm-", "9x", "a b", 'x"', "x{", "ü:", "x" * 65])
def test_a_prefix_that_would_break_names_is_refused(prefix):
    with pytest.raises(ValueError, match="--metrics-prefix"):
        check_prefix(prefix)


def test_openmetrics_is_given_to_who_prefers_it():
    made = board()
    asyncio.run(made.refresh())
    content_type, text = made.text("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert list(parse_openmetrics(text.decode()))


def test_a_dead_engine_is_down_and_its_last_counts_stand():
    made = board()
    made.engines.took(Bag(engine=0, steps=[STEP], requests=[]))
    samples(made)
    made._ask, made.engines.figures[0]._state = dead, lambda: "restarting"
    found = samples(made)
    assert one(found, "engine_up") == 0
    assert one(found, "engine_state", state="restarting") == 1
    assert one(found, "engine_state", state="ready") == 0
    assert one(found, "num_requests_running") == 0
    assert one(found, "prefix_cache_queries_total") == 100


def test_several_engines_have_their_own_numbers_and_each_figure_is_told_once():
    both = Bag(engines=[
        Bag(engine=0, state="restarting", running=0, waiting=0, cache_usage=0.0, prefix_queries=0, prefix_hits=0),
        Bag(engine=1, state="ready", running=3, waiting=2, cache_usage=0.5, prefix_queries=100, prefix_hits=40),
    ])  # fmt: skip

    async def ask():
        return both

    states = {0: "restarting", 1: "ready"}
    made = Board(
        model="tiny", longest=100, ask=ask, states=lambda: states, pids=lambda: [os.getpid()], timings={}, cache={}
    )
    made.engines.took(Bag(engine=0, steps=[STEP], requests=[]))
    made.engines.took(Bag(engine=1, steps=[STEP, STEP], requests=[REQUEST]))
    now = Bag(arrival_time=0.0, first_token_time=1.0, time_to_first_token=1.0, engine=1)
    call = Call("r", "/v1/completions", "tiny", 10, Bag(n=1, max_tokens=4))
    made.calls.began(call)
    made.calls.output(
        call, Bag(outputs=[Bag(token_ids=[1])], metrics=now, prompt_token_ids=[0] * 10, num_cached_tokens=0)
    )
    found = samples(made)
    of = {n: lambda name, n=n: found[(f"vllm:{name}", ("engine", str(n)), ("model_name", "tiny"))] for n in (0, 1)}
    assert (of[0]("engine_up"), of[1]("engine_up")) == (0, 1)
    assert (of[0]("generation_tokens_total"), of[1]("generation_tokens_total")) == (3, 6)
    assert of[1]("num_requests_running") == 3
    assert (of[0]("prompt_tokens_total"), of[1]("prompt_tokens_total")) == (0, 10)
    text = made.text("")[1].decode()
    assert text.count("# TYPE vllm:generation_tokens_total counter") == 1
    load = asyncio.run(made.load())
    assert (load["running"], load["waiting"], load["cache_usage"]) == (3, 2, 0.5)
    assert [(one["engine"], one["state"], one["running"]) for one in load["engines"]] == [
        (0, "restarting", 0), (1, "ready", 3)
    ]  # fmt: skip


def test_an_engine_in_a_long_step_does_not_hold_up_the_figures(monkeypatch):
    monkeypatch.setattr("vllm_plugin_server.metrics.board.PATIENCE", 0.01)
    found = samples(board(stuck))
    assert one(found, "engine_up") == 1
    assert ("vllm:num_requests_running", ("engine", "0"), ("model_name", "tiny")) not in found


def exchange(**fields):
    return Bag(
        **{"method": "GET", "route": "/v1/models", "status": 200, "seconds": 0.2, "disconnected": False, **fields}
    )


def test_http_requests_are_counted_by_route_and_status():
    made = board()
    for fields in ({}, {}, {"status": 404, "route": "none"}, {"disconnected": True, "status": 0}):
        made.http.answered(exchange(**fields))
    found = samples(made)
    labels = {"handler": "/v1/models", "method": "GET", "status": "2xx", "code": "200"}
    assert found[("http_requests_total", *sorted(labels.items()))] == 2
    assert found[("http_requests_disconnected_total", ("handler", "/v1/models"))] == 1
    assert found[("http_request_duration_highr_seconds_count",)] == 4


def test_no_client_can_make_labels_without_end():
    made = board()
    for i in range(3 * MAX_HANDLERS):
        made.http.answered(exchange(route=f"/{i}", method=f"M{i}", status=i))
    found = samples(made)
    labels = {dict(key[1:])["handler"] for key in found if key[0] == "http_requests_total"}
    methods = {dict(key[1:])["method"] for key in found if key[0] == "http_requests_total"}
    assert len(labels) == MAX_HANDLERS + 1
    assert methods == {"other"}


FRONT = """
import asyncio, sys, time
from types import SimpleNamespace as Bag
from vllm_core.interfaces.metrics import StepStats
from vllm_plugin_server.metrics.board import Board
from vllm_plugin_server.observe import Call

async def ask():
    return Bag(engines=[
        Bag(engine=0, state="ready", running=3, waiting=0, cache_usage=0.0, prefix_queries=10, prefix_hits=5)])

board = Board(model="tiny", longest=100, ask=ask, states=lambda: {0: "ready"}, pids=lambda: [], timings={}, cache={})
board.engines.took(Bag(engine=0, requests=[], steps=[StepStats(
    seconds=0.1, running=3, waiting=0, prompt_tokens=30, output_tokens=12, prefix_queries=10, prefix_hits=5,
    preemptions=0, drafted=0, accepted=0, pages_used=1, pages_total=9)]))
for i in range(int(sys.argv[1])):
    call = Call(f"r{i}", "/v1/completions", "tiny", 10, Bag(n=1, max_tokens=4))
    board.calls.began(call)
    now = time.time()
    metrics = Bag(arrival_time=now - 1, first_token_time=now, time_to_first_token=1.0, engine=0)
    if i:
        out = Bag(outputs=[Bag(token_ids=[1, 2], finish_reason="stop")], metrics=metrics, prompt_token_ids=[0] * 10,
                  num_cached_tokens=0)
        board.calls.output(call, out)
        board.calls.ended(call, "stop", out)
print("counted", flush=True)
sys.stdin.readline()
asyncio.run(board.refresh())
sys.stdout.write(board.text("")[1].decode())
"""


def front(count):
    process = subprocess.Popen(
        [sys.executable, "-c", FRONT, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "counted\n"
    return process


def said(process):
    out, _ = process.communicate("\n", timeout=60)
    assert process.returncode == 0
    return {(s.name, *sorted(s.labels.items())): s.value for m in parse(out) for s in m.samples}


def test_the_next_process_goes_on_counting_where_one_ended(tmp_path, monkeypatch):
    monkeypatch.setenv(shared.VARIABLE, str(tmp_path))
    (tmp_path / shared.PIDS).mkdir()
    first, second = SharedTotals(tmp_path), SharedTotals(tmp_path)
    first._file = tmp_path / "1.totals0"  # as if of another process
    for pids, counts in (((1, os.getpid()), False), ((os.getpid(),), True)):
        monkeypatch.setattr(shared, "live_pids", lambda pids=pids: list(pids))
        second.took(Bag(steps=[STEP], requests=[REQUEST]))
        assert (tmp_path / f"{os.getpid()}.totals0").exists() == counts
    first.took(Bag(steps=[STEP, STEP], requests=[]))
    for totals in (first.now(), second.now()):
        assert totals.counts["generation_tokens"] == 9
        assert totals.accepted_at == [9, 3]
        assert totals.tallies["inter_token_latency_seconds"].rows()[-1] == ("+Inf", 9.0)
        assert totals.tallies["request_queue_time_seconds"].total == 1.0


def test_several_server_processes_are_added_up_and_the_engine_is_counted_once():
    folder = shared.share()
    try:
        fronts = [front(3), front(5), front(2)]  # the first request of each is still held
        first = said(fronts[0])
        assert one(first, "prompt_tokens_total") == 10 * (2 + 4 + 1)
        assert one(first, "request_success_total", finished_reason="stop") == 7
        assert one(first, "time_to_first_token_seconds_count") == 7
        assert one(first, "generation_tokens_total") == 12  # the engine tells all of them, and it is counted once
        assert one(first, "prefix_cache_queries_total") == 10
        assert one(first, "api_server_requests") == 3
        shared.gone(fronts[0].pid)  # what it counted stays, what it held is gone
        second = said(fronts[1])
        assert one(second, "prompt_tokens_total") == 70
        assert one(second, "generation_tokens_total") == 12  # though its process has ended
        assert one(second, "api_server_requests") == 2
        assert second[("process_resident_memory_bytes",)] > 1e6
        fronts[2].communicate("\n", timeout=60)
    finally:
        shared.unshare(folder)
    assert not folder.path.exists()
    assert shared.folder() is None
