"""The parts of a step against arithmetic that can be done by hand."""

import attrs
import pytest
from vllm_plugin_simulate.collective import all_gather, all_reduce
from vllm_plugin_simulate.engine import step_tokens
from vllm_plugin_simulate.hardware import Link, read_gpu, read_host, read_link
from vllm_plugin_simulate.shapes import read_shapes
from vllm_plugin_simulate.split import Split
from vllm_plugin_simulate.step_time import StepTime, Work

LINK, NETWORK = Link("link", 100e9, 2e-6), Link("network", 10e9, 10e-6)
PROMPT = Work(0, 0, ((4096, 0),), 1)
STREAM = Work(1, 500, (), 1)


def step_time(model="llama-3.1-8b", **split):
    split = Split(link=LINK, network=NETWORK, **split)
    return StepTime(read_shapes(model), read_gpu("h200"), read_host(), split)


def test_one_rank_has_nothing_to_add_up_or_to_gather():
    assert all_reduce(1, 1e9, LINK, peers=True) == all_gather(1, 1e9, LINK) == 0
    slow = StepTime(
        read_shapes("llama-3.1-8b"), read_gpu("h200"), read_host(), Split(link=Link("s", 1, 1), network=Link("s", 1, 1))
    )
    assert slow.parts(PROMPT) == step_time().parts(PROMPT)


def test_a_sum_takes_one_exchange_when_small_and_moves_the_fewest_bytes_when_large():
    small, large = 1e3, 1e9
    assert all_reduce(8, small, LINK, peers=True) == pytest.approx(2e-6 + 7 * small / 100e9)  # one-shot
    assert all_reduce(8, large, LINK, peers=True) == pytest.approx(4e-6 + 2 * 7 / 8 * large / 100e9)  # two-shot
    assert all_reduce(8, large, LINK, peers=False) == pytest.approx(14 * 2e-6 + 2 * 7 / 8 * large / 100e9)  # ring
    assert all_reduce(8, large, LINK, peers=True, algorithm="one-shot") == pytest.approx(2e-6 + 7 * large / 100e9)


def test_ranks_of_two_hosts_add_up_over_the_network():
    assert Split(tp=8, link=LINK, network=NETWORK).reduce_seconds(1e6) < 1e-4
    across = Split(tp=16, link=LINK, network=NETWORK)
    assert across.reduce_seconds(1e6) == pytest.approx(30 * (10e-6 + 1e6 / 16 / 10e9))


def test_a_stage_sends_over_the_network_only_where_a_host_ends():
    split = Split(tp=4, pp=4, link=LINK, network=NETWORK, gpus_per_host=8)
    sends = [split.send_seconds(stage, 1e6) for stage in range(3)]
    assert sends == pytest.approx([link.seconds(1e6) for link in (LINK, NETWORK, LINK)])


def test_a_stream_reads_every_weight_once_a_token():
    time = step_time()
    gpu, shapes = time.gpu, time.shapes
    weights = 2 * (shapes.layers * shapes.layer_parameters() + shapes.vocab_parameters())
    cache = 500 * 131_072
    least = (weights + cache) / gpu.bandwidth
    beside = gpu.step_seconds + shapes.layers * gpu.stack_seconds
    assert least + beside < time.seconds(STREAM) < least + beside + 1e-5


def test_long_prompts_approach_the_rate_of_products():
    shapes = read_shapes("llama-3.1-8b")
    work = Work(0, 0, ((65_536, 0),), 1)
    floating = 2 * 65_536 * shapes.layers * sum(out * into for out, into in shapes.layer_products(1))
    assert 0.9 < floating / 750e12 / step_time().parts(work)["layers"] < 1


def test_a_step_of_all_stages_is_a_step_of_one_beside_what_each_stage_adds():
    whole, split = step_time(), step_time(pp=4)
    work = Work(64, 64 * 300, (), 64)
    together = sum(split.seconds(work, stage) for stage in range(4))
    assert together == pytest.approx(whole.seconds(work) + 3 * whole.parts(work)["step"])


def test_ranks_share_products_and_attention_but_not_passes():
    one, two = step_time(), step_time(tp=2)
    assert two.attention(PROMPT) < 0.55 * one.attention(PROMPT)
    assert 0.5 < two.seconds(PROMPT) / one.seconds(PROMPT) < 0.75


@pytest.mark.parametrize("model", ["qwen3-0.6b", "llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b"])
@pytest.mark.parametrize("pp", [1, 2, 3, 4, 8])
def test_stages_have_the_layers_that_the_engine_gives_them(model, pp):
    from vllm_core.layers.stages import stage_ranges

    shapes = read_shapes(model)
    costs = [sum(out * into for out, into in shapes.layer_products(1))] * shapes.layers
    assert shapes.stages(pp) == tuple(map(len, stage_ranges(costs, pp, behind=shapes.vocab_parameters())))


@pytest.mark.parametrize(
    ("model", "billions"), [("llama-3.1-8b", 8.03), ("llama-3.1-70b", 70.6), ("qwen3-0.6b", 0.596)]
)
def test_shapes_have_the_parameters_of_their_model(model, billions):
    assert read_shapes(model).parameters / 1e9 == pytest.approx(billions, rel=0.002)


def test_links_may_be_given_in_numbers():
    assert attrs.astuple(read_link("450GB/s,3us", "--link")) == ("450GB/s,3us", 450e9, 3e-6)
    assert read_link("ib400", "--network").bandwidth == 40e9


def test_a_step_has_as_many_tokens_as_the_engine_itself_would_choose(monkeypatch):
    from vllm_core.interfaces.device import Device
    from vllm_core.runner.platforms import CudaPlatform

    monkeypatch.setattr(CudaPlatform, "facts", lambda self: Device(type="cuda", capability=(9, 0)))
    for parameters in (6e8, 8e9, 3.2e10, 7e10, 4e11):
        assert step_tokens(int(parameters), read_gpu("h200")) == CudaPlatform().token_budget(int(parameters))
