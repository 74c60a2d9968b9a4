"""What a plan chooses, how often it asks, and what it says when there is nothing to choose."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest
import torch

from vllm_core.engine.cache.grouping import plan_caches
from vllm_core.interfaces.cache import FullAttentionCache
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.quantization import LinearShape
from vllm_core.layers import Attention, Layer, LayerStack
from vllm_core.layers.page_layouts import HeadLayout
from vllm_core.layers.reference_attention import ReferenceAttention
from vllm_core.ops import paged_attention, rms_norm
from vllm_core.plugin import Offer, Rank, Refusal
from vllm_core.plugins.errors import NoOffer, PluginError
from vllm_core.runner.plan import EnginePlan
from vllm_core.testing.chooser import HandChooser
from vllm_core.testing.paged import PagedModel
from vllm_core.weights.rules import Table, rule

from .tiny import Config, TinyLM, assert_close, plain_logits, random_tensors

HERE = __name__
ROOT = Path(__file__).parents[2]
IDS = list(range(2, 30))


def make_plan(*plugins, device="cpu", **kwargs):
    return EnginePlan(HandChooser(*plugins), torch.float32, torch.device(device), Device("cpu"), {}, 64, 64, **kwargs)


def plugin(**hooks):
    """A plugin module with these hook implementations."""
    return SimpleNamespace(__name__="a-plugin", **hooks)


made: list = []


def doubling_kernel(query):
    made.append(query)
    return lambda x, weight, eps: 2 * rms_norm(x, weight, eps)


def halving_layer(query, layer):
    made.append((query, layer))
    if layer.path.startswith("layers.1"):
        return None

    def halved(x, residual, batch):
        x, residual = layer.compose(x, residual, batch)
        return 0.5 * x, residual

    return halved


@pytest.fixture(autouse=True)
def _nothing_made():
    made.clear()


def offer_of(op, target):
    """An op_kernel hook that offers ``target`` for one op."""
    return plugin(op_kernel=lambda query: Offer(name="mine", target=f"{HERE}:{target}") if query.op == op else None)


def test_an_offered_kernel_is_made_once_for_a_shape_and_the_reference_serves_the_rest():
    plan = make_plan(offer_of("rms_norm", "doubling_kernel"))
    x, w = torch.randn(3, 8), torch.ones(8)
    first, again, wider = (plan.op("rms_norm", size=n) for n in (8, 8, 16))
    assert first is again
    assert first is not wider
    assert [query.shape["size"] for query in made] == [8, 16]
    assert torch.equal(first(x, w, 1e-5), 2 * rms_norm(x, w, 1e-5))
    assert plan.op("silu_and_mul", size=8).__name__ == "silu_and_mul"


def test_a_kernel_is_chosen_but_not_made_on_the_meta_device():
    plan = make_plan(offer_of("rms_norm", "doubling_kernel"), device="meta")
    assert plan.op("rms_norm", size=8) is rms_norm
    assert made == []
    assert [d.offer.name for d in plan.choose.decisions] == ["mine"]


def test_a_refused_op_falls_back_to_the_reference():
    plan = make_plan(plugin(op_kernel=lambda query: Refusal("too narrow")))
    assert plan.op("rms_norm", size=8) is rms_norm


def test_unknown_ops_are_errors_with_the_nearest_name():
    with pytest.raises(ValueError, match=r'no op is called \'rms_nrom\'; did you mean "rms_norm"\?'):
        make_plan().op("rms_nrom")
    with pytest.raises(ValueError, match="no fused layer is called"):
        make_plan().fused("rms_norm", None)


def test_a_fused_layer_takes_the_place_of_the_composition_where_it_wants_to():
    config = Config()
    tensors = random_tensors(config)
    paged = PagedModel(
        TinyLM, attrs.asdict(config), tensors, chooser=HandChooser(offer_of("gated_mlp", "halving_layer"))
    )
    assert [(query.op, layer.path) for query, layer in made] == [
        ("gated_mlp", "layers.0.mlp"),
        ("gated_mlp", "layers.1.mlp"),
    ]
    assert made[0][0].shape["intermediate"] == config.intermediate
    tensors["layers.0.down.weight"] = tensors["layers.0.down.weight"] / 2
    assert_close(paged.step([(paged.row(), IDS)])[0], plain_logits(config, tensors, IDS))


DRY = """
import sys
from tests.layers.test_plan import make_plan
make_plan(device="meta").rotary(8, {"rope_theta": 100.0, "rope_type": "default"})
sys.exit("torch._dynamo" in sys.modules)
"""


def test_a_dry_plan_imports_no_compiler():
    assert subprocess.run([sys.executable, "-c", DRY], cwd=ROOT, timeout=60).returncode == 0


def test_rotary_tables_are_made_once_for_equal_parameters():
    plan = make_plan()
    first = plan.rotary(8, {"rope_theta": 100.0, "rope_type": "default"})
    assert first is plan.rotary(8, {"rope_type": "default", "rope_theta": 100.0})
    assert first is not plan.rotary(8, {"rope_type": "default", "rope_theta": 101.0})
    assert first.cos.shape == (64, 4)


def test_a_rope_type_that_nobody_offers_is_an_error_that_names_it():
    with pytest.raises(NoOffer, match="spiral"):
        make_plan().rotary(8, {"rope_type": "spiral", "rope_theta": 100.0})


class TwoScales(Layer):
    """Two attention slots on equal caches that differ in scale, and one that reads the first one's cache."""

    def __init__(self):
        super().__init__()
        self.a = Attention(2, 1, 8, scale=0.5)
        self.b = Attention(2, 1, 8, scale=2.0)
        self.c = Attention(2, 1, 8, scale=0.5, cache_of="a")


class Counting(ReferenceAttention):
    """The reference, which knows its steps; any layout is NHD to it."""

    def __init__(self, config):
        self.config, self.head_axis = config, 2

    def begin_step(self, step):
        return self.config.scale

    def attend(self, q, pages, step, metadata, sinks=None):
        assert metadata == self.config.scale
        return super().attend(q, pages, step, None, sinks)


def counting_offer(query):
    return Offer(name="counting", target=f"{HERE}:Counting", takes={"kv.page_layout": ("NHD",)})


def test_slots_of_one_group_that_differ_have_backends_of_their_own_and_may_share_a_cache():
    class Model(TwoScales):
        weights = []
        from_config = classmethod(lambda cls, config: cls())

    paged = PagedModel(Model, {}, {}, chooser=HandChooser(plugin(attention_backend=counting_offer)))
    assert [group.names for group in paged.caches.groups] == [("a", "b")]
    row = paged.row()
    batch = paged.batch([(row, IDS)])
    torch.manual_seed(0)
    q, k, v = torch.randn(28, 2, 8), torch.randn(28, 1, 8), torch.randn(28, 1, 8)
    model = paged.model
    got = {"a": model.a(q, k, v, batch), "b": model.b(q, k, v, batch), "c": model.c(q, None, None, batch)}
    for name, scale in (("a", 0.5), ("b", 2.0), ("c", 0.5)):
        table = torch.arange(28, dtype=torch.int32)[None]
        lens = torch.tensor([28])
        want = paged_attention(q, k[:, None], v[:, None], table, [28], lens, [28], scale=scale)
        torch.testing.assert_close(got[name], want)


def test_attention_before_it_has_pages_says_so():
    plan = make_plan()
    layer = Attention(2, 1, 8)
    layer.bind(plan, "x")
    plan.finish(plan_caches, 16)
    with pytest.raises(RuntimeError, match=r"x: attention was called before EnginePlan\.bind_caches"):
        layer.attend.write()


def test_the_question_of_a_distinct_group_is_asked_once():
    asked = []
    chooser = plugin(attention_backend=lambda query: asked.append(query))
    model = LayerStack(4, lambda i: Attention(4, 2, 8, window=7 if i % 2 else None))
    plan = make_plan(chooser)
    model.bind(plan, "m")
    plan.finish(plan_caches, None)
    assert [(q.kind, q.window, q.num_kv_heads) for q in asked] == [("full", None, 2), ("sliding_window", 7, 2)]


def attention_offer(name, **options):
    takes = {"kv.page_layout": options.pop("layouts", ("NHD",))}
    return Offer(
        name=name, target=f"{HERE}:Counting", takes=takes, options=options, rank=options.pop("rank", Rank.TUNED)
    )


def finish(hook, layouts=None, block_size=None, windows=(None, None)):
    plan = make_plan(plugin(attention_backend=hook, kv_cache_layout=layouts or (lambda query: None)))
    LayerStack(len(windows), lambda i: Attention(4, 2, 8, scale=1.0 + i, window=windows[i])).bind(plan, "m")
    return plan, plan.finish(plan_caches, block_size)


def test_a_block_size_is_one_that_the_backend_takes():
    assert finish(lambda query: attention_offer("x", block_sizes=(24,)))[1].groups[0].block_size == 24
    with pytest.raises(ValueError, match="16"):
        finish(lambda query: attention_offer("x", block_sizes=(24,)), block_size=16)


class Padded(HeadLayout):
    """NHD with 64 bytes more a page."""

    def __init__(self, layout):
        super().__init__("NHD")

    def page_bytes(self, spec, block_size):
        return super().page_bytes(spec, block_size) + 64


class Swelling(Padded):
    """A layout that breaks its promise."""

    def page_bytes(self, spec, block_size):
        return super().page_bytes(spec, block_size) + block_size**3


def test_a_layout_of_a_plugin_is_taken_from_whoever_offers_it():
    def layouts(query):
        return Offer(name="odd", target=f"{HERE}:Padded", gives={"kv.page_layout": query.layout})

    _, usual = finish(lambda query: attention_offer("x", layouts=("NHD",)), block_size=8)
    plan, caches = finish(lambda query: attention_offer("x", layouts=("odd", "NHD")), layouts, block_size=8)
    assert caches.page_bytes == usual.page_bytes + 64  # pages are planned with what the layout adds
    pages = [torch.zeros(4, caches.page_bytes, dtype=torch.uint8)] * caches.num_tensors
    plan.bind_caches(caches, pages)
    with pytest.raises(ValueError, match=r"Swelling: a page of 64 tokens .* asks more a token"):
        finish(
            lambda query: attention_offer("x", layouts=("odd",), block_sizes=(64, 8)),
            lambda query: attrs.evolve(layouts(query), target=f"{HERE}:Swelling"),
        )
    plan, _ = finish(lambda query: attention_offer("x", layouts=("odd", "HND")))
    assert isinstance(plan._attention._views[0], HeadLayout)
    assert plan._attention._views[0].layout == "HND"


def test_backends_without_a_known_layout_are_an_error_that_lists_them():
    with pytest.raises(PluginError, match=r'share no page layout(.|\n)*"x" takes odd(.|\n)*nobody offers odd'):
        finish(lambda query: attention_offer("x", layouts=("odd",)))


def test_declaring_a_cache_or_an_attention_twice_is_an_error():
    plan = make_plan()
    spec = FullAttentionCache(num_kv_heads=1, k_dim=8, v_dim=8, dtype="float32")
    plan.cache("x", spec)
    with pytest.raises(ValueError, match="cache 'x' is declared twice"):
        plan.cache("x", spec)
    plan.attention("x", v_dim=8)
    with pytest.raises(ValueError, match="attention of 'x' is declared twice"):
        plan.attention("x", v_dim=8)


class Half:
    """A quantization of everything but one matrix."""

    def linear(self, name, shape):
        return None if name.endswith("k_proj") else self


def test_a_fused_matrix_stored_in_two_ways_is_an_error_that_names_its_parts():
    table = Table([rule("a.{i}.{x:q|k}_proj.{w}", "b.{i}.{w}", slot="{x}")])
    plan = make_plan(quantization=Half(), weight_table=table)
    shape = LinearShape(in_size=4, out_sizes=(4, 4), slots=("q", "k"))
    with pytest.raises(ValueError, match=r"(?s)b\.3 multiplies 2 matrices.*a\.3\.q_proj: Half.*a\.3\.k_proj: dense"):
        plan.linear("b.3", shape)


@pytest.mark.parametrize("layout", ["NHD", "HND"])
def test_page_views_cover_a_page_without_overlap(layout):
    spec = FullAttentionCache(num_kv_heads=2, k_dim=3, v_dim=5, dtype="float32")
    views = HeadLayout(layout)
    raw = torch.zeros(3, views.page_bytes(spec, 4) + 8, dtype=torch.uint8)
    k, v = views.views(raw, spec, 4)
    assert (k.shape, v.shape) == (((3, 4, 2, 3), (3, 4, 2, 5)) if layout == "NHD" else ((3, 2, 4, 3), (3, 2, 4, 5)))
    k[1], v[1] = 1.0, 2.0
    floats = raw.view(torch.float32)
    assert floats[1, :24].eq(1).all()
    assert floats[1, 24:64].eq(2).all()
    assert not floats[[0, 2]].any()
    assert not floats[1, 64:].any()
