"""Kernels are begun before layers ask, made once, and their errors come where they are asked for."""

from __future__ import annotations

import threading

import pytest
import torch

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import OpQuery
from vllm_core.runner import ahead as module
from vllm_core.runner.ahead import Ahead, op_key


@pytest.fixture
def ahead(monkeypatch):
    """As on an accelerator, without one."""
    monkeypatch.setattr(module, "_enter", lambda device: None)
    made = Ahead(torch.device("cuda", 0))
    yield made
    made.close()


def query(op, **shape):
    return OpQuery(op=op, dtype="float32", device=Device("cuda"), shape=shape)


class Choice:
    """Every op's kernel is ``self.kernel``."""

    def __init__(self, kernel):
        self.kernel = kernel

    def choose(self, hook, query):
        return self

    def load(self):
        return self.kernel


def test_what_was_begun_is_made_once_and_beside_the_rest(ahead):
    both = threading.Barrier(2)

    def slow(query):
        both.wait(5)
        return query.op

    queries = [query("silu_and_mul", size=3), query("rms_norm", size=3)]
    ahead.begin_ops([*queries, queries[0]], Choice(slow))
    for one in queries:
        assert ahead.take(op_key(one), lambda: pytest.fail("made twice")) == one.op
    assert ahead.take(op_key(queries[0]), lambda: "now") == "now"  # taken already


def test_an_error_comes_when_the_kernel_is_asked_for(ahead):
    def broken(query):
        raise RuntimeError("does not compile")

    ahead.begin_ops([query("relu", size=1)], Choice(broken))
    with pytest.raises(RuntimeError, match="does not compile"):
        ahead.take(op_key(query("relu", size=1)), lambda: None)


def test_kernels_of_layers_only_prepare(ahead):
    asked = []

    class Layers:
        def __call__(self, query, layer):
            pytest.fail("there is no layer yet")

        def prepare(self, query):
            asked.append(query.op)

    ahead.begin_ops([query("gated_mlp", hidden=3)], Choice(Layers()))
    ahead.begin_ops([query("decoder_attention", hidden=3)], Choice(lambda query, layer: None))
    assert ahead.take(op_key(query("gated_mlp", hidden=3)), lambda: 1) is None
    assert ahead.take(op_key(query("decoder_attention", hidden=3)), lambda: 1) is None
    assert asked == ["gated_mlp"]


def test_on_a_cpu_nothing_is_begun():
    ahead = Ahead(torch.device("cpu"))
    ahead.begin("a", lambda: pytest.fail("begun"))
    assert ahead.take("a", lambda: 3) == 3
