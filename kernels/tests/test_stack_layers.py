"""All decoder layers as one launch, over pages, against the same layers composed of the core's own operations.

On a GPU; and without one a few small cases, by the kernel's own source with emulated threads (``emulated/``).
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch
import vllm_kernels
from vllm_kernels import stack
from vllm_kernels.compiler import SOURCES

from vllm_core import builtin
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import OpQuery
from vllm_core.layers import (
    CausalLM,
    DecoderAttention,
    DecoderLayer,
    GatedMLP,
    LayerStack,
    LMHead,
    RMSNorm,
    Rotary,
    TokenEmbedding,
)
from vllm_core.plugin import Rank
from vllm_core.testing.chooser import HandChooser
from vllm_core.testing.paged import PagedModel
from vllm_core.weights.rules import rule

HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9
DEVICE = "cuda" if HOPPER else "cpu"
on_gpu = pytest.mark.skipif(not HOPPER, reason="needs a CUDA device of compute capability 9")
emulated = pytest.mark.skipif(HOPPER or not shutil.which("g++"), reason="needs g++, and is for machines without a GPU")
BLOCKS = 4  # of an emulated device
EMULATED = Path(__file__).parent / "emulated"


class EmulatedKernel:
    """Stands for ``Kernel``: the same source, compiled for the CPU."""

    folder: Path

    def __init__(self, file: str, name: str, signature: str, defines: dict[str, Any], **options: Any) -> None:
        at = self.folder / "-".join(map(str, defines.values()))
        if not at.exists():
            at.mkdir()
            for source in SOURCES.glob("stack*"):
                text = source.read_text().replace("extern __shared__ __align__(128) char memory[];", "")
                (at / source.name).write_text(text)
            for replaced in EMULATED.iterdir():
                shutil.copy(replaced, at)
            flags = ["-O1", "-std=c++17", "-fPIC", "-shared", "-w", *(f"-D{k}={v}" for k, v in defines.items())]
            subprocess.run(["g++", *flags, "run.cpp", "-o", "run.so"], cwd=at, check=True)
        self.run, self.launches = ctypes.CDLL(str(at / "run.so")).run_stack, 0

    def __call__(self, grid: int, block: int, *args: Any) -> None:
        pointers = [ctypes.c_void_p(a.data_ptr() if a is not None else None) for a in args[:12]]
        strides = (ctypes.c_int64 * 6)(*args[15:21])
        self.launches += 1
        failed = self.run(grid, self.launches, *pointers, *args[12:15], strides, *map(ctypes.c_float, args[21:]))
        assert not failed, ("", "the emulated threads wait for each other", "copies were left")[failed]


@pytest.fixture
def emulation(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.getbasetemp() / "emulated-kernels"
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(EmulatedKernel, "folder", folder, raising=False)
    monkeypatch.setattr(stack, "Kernel", EmulatedKernel)
    properties = SimpleNamespace(multi_processor_count=BLOCKS)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)


@attrs.frozen(kw_only=True)
class Config:
    vocab: int = 97
    layers: int = 3
    hidden: int = 1120
    intermediate: int = 352
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 128
    qk_norm: bool = False
    rope: dict[str, Any] = attrs.field(factory=lambda: {"rope_theta": 10000.0})
    bias: bool = False
    act: str = "silu"


def _layer(c: Config, i: int) -> DecoderLayer:
    attention = DecoderAttention(
        hidden=c.hidden,
        heads=c.heads,
        kv_heads=c.kv_heads,
        head_dim=c.head_dim,
        norm=RMSNorm(c.hidden),
        qk_norm=RMSNorm(c.head_dim) if c.qk_norm else None,
        rotary=Rotary(c.head_dim, c.rope) if c.rope else None,
        bias=c.bias,
        out_bias=c.bias,
    )
    return DecoderLayer(attention, GatedMLP(c.hidden, c.intermediate, norm=RMSNorm(c.hidden), bias=c.bias, act=c.act))


class SmallLM(CausalLM):
    """Tensors have the names of parameters; ``{slot}`` in front of those of merged matrices."""

    Config = Config
    weights = [
        rule("{x:q|k|v}.layers.{i}.attention.qkv.{w}", "layers.{i}.attention.qkv.{w}", slot="{x}"),
        rule("{x:gate|up}.layers.{i}.mlp.gate_up.{w}", "layers.{i}.mlp.gate_up.{w}", slot="{x}"),
        rule("layers.{i}.{half:attention|mlp}.{part:norm|q_norm|k_norm|out|down}.{w}", "layers.{i}.{half}.{part}.{w}"),
        rule("{part:embedding|norm|head}.{w}", "{part}.{w}"),
    ]

    def __init__(self, c: Config) -> None:
        super().__init__(
            embed=TokenEmbedding(c.vocab, c.hidden),
            layers=LayerStack(c.layers, partial(_layer, c)),
            norm=RMSNorm(c.hidden),
            head=LMHead(c.vocab, c.hidden),
        )


def random_tensors(c: Config) -> dict[str, torch.Tensor]:
    """bfloat16 numbers as float32. Activations stay spread, attention is far from uniform."""
    torch.manual_seed(1)
    out: dict[str, torch.Tensor] = {}

    def linear(path: str, n: int, k: int, gain: float = 1.2) -> None:
        out[f"{path}.weight"] = torch.randn(n, k) * gain / k**0.5
        if c.bias and "layers" in path:
            out[f"{path}.bias"] = torch.randn(n)

    for i in range(c.layers):
        attention, mlp = f"layers.{i}.attention", f"layers.{i}.mlp"
        for slot, heads in (("q", c.heads), ("k", c.kv_heads), ("v", c.kv_heads)):
            linear(f"{slot}.{attention}.qkv", heads * c.head_dim, c.hidden, 1.5)
        linear(f"{attention}.out", c.hidden, c.heads * c.head_dim)
        linear(f"gate.{mlp}.gate_up", c.intermediate, c.hidden)
        linear(f"up.{mlp}.gate_up", c.intermediate, c.hidden)
        linear(f"{mlp}.down", c.hidden, c.intermediate)
        norms = {f"{attention}.norm": c.hidden, f"{mlp}.norm": c.hidden}
        if c.qk_norm:
            norms |= {f"{attention}.{x}_norm": c.head_dim for x in "qk"}
        out |= {f"{path}.weight": 1 + 0.3 * torch.randn(size) for path, size in norms.items()}
    out["norm.weight"] = 1 + 0.3 * torch.randn(c.hidden)
    linear("embedding", c.vocab, c.hidden, c.hidden**0.5)
    linear("head", c.vocab, c.hidden)
    return {name: tensor.bfloat16().float() for name, tensor in out.items()}


class OnlyTheStack:
    """A plugin whose only kernel is this one; and, for a layout, the core's attention with such pages."""

    __name__ = "only the stack"

    def __init__(self, fused: bool, layout: str) -> None:
        self.fused, self.layout = fused, layout

    def op_kernel(self, query: OpQuery) -> Any:
        if query.op != "decoder_stack" or not self.fused:
            return None
        return vllm_kernels.op_kernel(attrs.evolve(query, device=Device("cuda", capability=(9, 0))))

    def attention_backend(self, query: Any) -> Any:
        offer = builtin.attention_backend(query)
        return attrs.evolve(offer, rank=Rank.TUNED, takes={**offer.takes, "kv.page_layout": (self.layout,)})


def model(fused: bool, dtype: torch.dtype = torch.bfloat16, layout: str = "NHD", **options: Any) -> PagedModel:
    config = Config(**options)
    made = PagedModel(
        SmallLM,
        attrs.asdict(config),
        random_tensors(config),
        chooser=HandChooser(OnlyTheStack(fused, layout)),  # type: ignore[arg-type]
        dtype=dtype,
        device=DEVICE,
        num_pages=1400,
        max_position=8192,
    )
    assert isinstance(made.model.layers.run, stack.Stack) == fused
    return made


IDS = torch.randint(0, 97, (8192,), generator=torch.Generator().manual_seed(3)).tolist()


def run(paged: PagedModel, contexts: list[int], steps: int = 2) -> torch.Tensor:
    """Logits of decoding steps of rows with so many tokens before; [steps, rows, vocab] on the CPU."""
    rows = [paged.row() for _ in contexts]
    for row, context in zip(rows, contexts, strict=True):
        if context:
            paged.step([(row, IDS[:context])])
    found = []
    for i in range(steps):
        found.append(torch.cat(paged.step([(row, [IDS[n + i]]) for row, n in zip(rows, contexts, strict=True)])))
    return torch.stack(found).double().cpu()


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).norm() / want.norm())


def assert_as_near_as_composed(contexts: list[int], steps: int = 2, **options: Any) -> None:
    layout = {"layout": options.pop("layout", "NHD")}
    exact = run(model(False, torch.float32, **options), contexts, steps)
    got, composed = (run(model(fused, **layout, **options), contexts, steps) for fused in (True, False))
    assert error(got, exact) < 1.3 * error(composed, exact) + 1e-3
    assert error(got, exact) < 0.05


OPTIONS = {
    "plain": {},
    "norms of q and k": {"qk_norm": True},
    "biases": {"bias": True},
    "no positions": {"rope": {}},
    "part of a head rotated": {"rope": {"rope_theta": 100.0, "partial_rotary_factor": 0.5}},
    "short heads": {"head_dim": 64, "heads": 6, "kv_heads": 2},
    "one key/value head": {"kv_heads": 1},
    "every head its own": {"heads": 3, "kv_heads": 3},
    "eight heads a key/value head": {"heads": 8, "kv_heads": 1, "head_dim": 64},
    "gelu": {"act": "gelu"},
    "gelu by tanh": {"act": "gelu_pytorch_tanh"},
    "rows of several tiles": {"hidden": 2560, "intermediate": 3104},
    "narrow rows": {"hidden": 288, "intermediate": 320},
    "fewer outputs than multiprocessors": {"hidden": 96, "intermediate": 64},
}


@emulated
@pytest.mark.parametrize(
    ("contexts", "options"),
    [
        ([40], {"layers": 2, "hidden": 288, "qk_norm": True}),
        ([0, 200, 15], {"bias": True, "layout": "HND"}),
        ([130, 16, 1, 0, 31], {"head_dim": 64, "heads": 6, "kv_heads": 2, "hidden": 288}),
    ],
)
def test_emulated_threads_give_what_composed_layers_give(emulation, contexts, options):
    assert_as_near_as_composed(contexts, steps=1, **{"layers": 1, **options})


@on_gpu
@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_is_as_near_to_float32_as_composed_layers(options):
    assert_as_near_as_composed([40, 300, 0], **OPTIONS[options])


@on_gpu
@pytest.mark.parametrize("contexts", [[0], [1], [15], [16], [255, 256], [1023], [5000], [5000, 1, 700, 64]])
def test_contexts_of_any_length_are_split_right(contexts):
    assert_as_near_as_composed(contexts, qk_norm=True)


@on_gpu
@pytest.mark.parametrize("rows", range(1, 9))
def test_any_number_of_rows_up_to_its_limit(rows):
    assert_as_near_as_composed([17 * i for i in range(rows)])


@on_gpu
def test_pages_with_heads_before_tokens_are_read_and_written():
    assert_as_near_as_composed([0, 77, 600], layout="HND")


@on_gpu
def test_other_steps_are_composed():
    fused, plain = model(True), model(False)
    both = [m.step([(m.row(), IDS[:5]), (m.row(), IDS[:1])]) for m in (fused, plain)]
    many = [m.step([(m.row(), IDS[:1]) for _ in range(9)]) for m in (fused, plain)]
    for got, want in (both, many):
        assert torch.equal(torch.cat(got), torch.cat(want))


@on_gpu
def test_a_replayed_graph_gives_what_a_launch_gives_as_the_sequence_grows():
    paged = model(True, qk_norm=True)
    rows = [paged.row(), paged.row()]
    paged.step([(rows[0], IDS[:700]), (rows[1], IDS[:30])])
    batch = paged.batch([(row, [1]) for row in rows])
    step, layers = batch.attention[0], paged.model.layers
    x = torch.randn(2, 1120, device="cuda", dtype=torch.bfloat16)
    layers(x, batch)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed = layers(x, batch)
    for _ in range(20):
        x.normal_()
        graph.replay()
        kept = [part.clone() for part in replayed]
        assert all(torch.equal(a, b) for a, b in zip(kept, layers(x, batch), strict=True))
        assert kept[0].isfinite().all()
        for tensor in (step.kv_lens, batch.positions, step.slots):
            tensor -= 1  # back into pages that the sequences have


@on_gpu
def test_two_stacks_take_turns():
    first, second = model(True), model(True, hidden=512, layers=5, qk_norm=True)
    alone = run(first, [50]), run(second, [90])
    rows = [m.row() for m in (first, second)]
    for m, row, context in zip((first, second), rows, (50, 90), strict=True):
        m.step([(row, IDS[:context])])
    for i in range(3):
        for m, row, context, want in zip((first, second), rows, (50, 90), alone, strict=True):
            got = m.step([(row, [IDS[context + i]])])[0]
            assert torch.equal(got.double().cpu(), want[i])


@on_gpu
def test_new_pages_are_found():
    paged = model(True)
    want = run(paged, [40])
    tensors = [torch.full_like(page, 255) for page in paged.pages]
    for page in paged.pages:
        page.fill_(255)
    paged.pages = tensors
    paged.backends = paged.plan.bind_caches(paged.caches, tensors)
    assert torch.equal(run(paged, [40]), want)
