"""The tiny model as the installed plugin serves it, and with another class in the plugin's place."""

import pytest
import vllm_plugin_llama.model as right

from tests.testing.tiny_kit import Kit


@pytest.fixture
def case(tmp_path):
    return Kit.make_case("base", tmp_path)


@pytest.fixture
def serve(monkeypatch, case):
    """``serve(Wrong)``: the installed plugin's target is this class now; the case that the kit's tests take."""

    def put(model):
        monkeypatch.setattr(right, "LlamaForCausalLM", model)
        return case

    return put
