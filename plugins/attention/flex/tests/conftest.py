"""flex_attention as it is, where compiling is not what a test is about."""

import pytest


@pytest.fixture
def unfused(monkeypatch):
    """No tracing: the same function of torch, called directly, takes milliseconds instead of seconds."""
    import torch.nn.attention.flex_attention as flex
    import vllm_plugin_flex_attention.kernel as kernel

    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(kernel, "kernel", lambda compiled: flex.flex_attention)
