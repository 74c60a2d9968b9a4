import pytest
from vllm_plugin_simulate.engine import Engine
from vllm_plugin_simulate.hardware import Link, read_gpu, read_host
from vllm_plugin_simulate.memory import Limits
from vllm_plugin_simulate.shapes import read_shapes
from vllm_plugin_simulate.split import Split

FAST = Link("fast", 1e12, 1e-6)


@pytest.fixture
def engine_of():
    def make(model="qwen3-0.6b", gpu="h200", tp=1, pp=1, **limits):
        limits = Limits(**{"max_model_len": 2048, "max_num_seqs": 32} | limits)
        split = Split(tp=tp, pp=pp, link=FAST, network=FAST)
        return Engine.of(read_shapes(model), read_gpu(gpu), read_host(), split, limits)

    return make
