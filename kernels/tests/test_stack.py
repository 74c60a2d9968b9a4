"""What the stack of layers serves and how it is laid out, without a GPU."""

from __future__ import annotations

import re
from types import SimpleNamespace as Thing
from typing import Any

import pytest
import torch
import vllm_kernels
from vllm_kernels import stack, stack_sizes
from vllm_kernels.compiler import SOURCES
from vllm_kernels.stack_limits import stack_limits
from vllm_kernels.stack_records import page_strides, readable, records
from vllm_kernels.stack_sizes import MOST_SHARED, StackShape

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import OpQuery
from vllm_core.plugin import Offer, Refusal

LLAMA_8B = {
    "layers": 32,
    "attention.hidden": 4096,
    "attention.heads": 32,
    "attention.kv_heads": 8,
    "attention.head_dim": 128,
    "attention.norm": "RMSNorm",
    "attention.qk_norm": None,
    "attention.post_norm": None,
    "attention.rotary_dim": 128,
    "attention.interleaved": False,
    "attention.bias": False,
    "attention.out_bias": False,
    "attention.causal": True,
    "attention.window": None,
    "attention.soft_cap": None,
    "attention.sinks": False,
    "attention.linear": "DenseLinear",
    "mlp.hidden": 4096,
    "mlp.intermediate": 14336,
    "mlp.act": "silu",
    "mlp.norm": "RMSNorm",
    "mlp.post_norm": None,
    "mlp.bias": False,
    "mlp.linear": "DenseLinear",
}


def query(dtype: str = "bfloat16", capability: tuple[int, int] = (9, 0), **changed: Any) -> OpQuery:
    shape = {**LLAMA_8B, **{name.replace("__", "."): value for name, value in changed.items()}}
    return OpQuery(op="decoder_stack", dtype=dtype, device=Device("cuda", capability=capability), shape=shape)


def test_dense_layers_on_hopper_are_offered():
    answer = vllm_kernels.op_kernel(query())
    assert isinstance(answer, Offer)
    assert answer.target == "vllm_kernels.stack:decoder_stack"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"dtype": "float16"}, "dtype float16 is not bfloat16"),
        ({"capability": (8, 0)}, r"sm_90.*\(8, 0\)"),
        ({"attention__window": 4096}, "attention.window is 4096; served are None"),
        ({"attention__sinks": True}, "attention.sinks is True"),
        ({"attention__norm": "OffsetRMSNorm"}, "'OffsetRMSNorm'; served are 'RMSNorm'"),
        ({"attention__head_dim": 256}, "head_dim is 256; served are 64, 128"),
        ({"mlp__linear": "Fp8Linear"}, "mlp.linear is 'Fp8Linear'"),
        ({"mlp__post_norm": "RMSNorm"}, "mlp.post_norm"),
        ({"attention__hidden": 4100}, "hidden is 4100, not a multiple of 32"),
        ({"attention__kv_heads": 2}, "32 query heads share 2"),
        ({"mlp__intermediate": 160_000}, "no shared memory for weights"),
    ],
)
def test_what_it_does_not_serve_is_refused_with_the_reason(changed, why):
    answer = vllm_kernels.op_kernel(query(**changed))
    assert isinstance(answer, Refusal)
    assert re.search(why, answer.reason), answer.reason


@pytest.mark.parametrize("changed", [{}, {"attention__hidden": 1024, "mlp__intermediate": 3072}])
def test_the_ring_fills_what_shared_memory_is_left(changed):
    shape = StackShape.of(query(**changed).shape)
    for tokens in shape.variants():
        assert MOST_SHARED - 17_000 < shape.shared_bytes(tokens) <= MOST_SHARED
        assert shape.stages(tokens) >= 3
    assert 1 in shape.variants()


def test_a_narrow_model_has_no_more_blocks_than_pairs_of_outputs():
    assert StackShape.of(query(mlp__intermediate=96).shape).fewest_units == 48


def decoders(layers: int = 2, layout: str = "NHD", block: int = 16) -> list[Any]:
    """What the records read of bound decoder layers."""
    table = object()
    shape = (5, block, 2, 64) if layout == "NHD" else (5, 2, block, 64)
    config = Thing(page_layout=layout, kv_dtype=torch.bfloat16, block_size=block)

    def weights(**names: int) -> dict[str, torch.Tensor]:
        return {name: torch.zeros(size, dtype=torch.bfloat16) for name, size in names.items()}

    def linear(**names: int) -> Any:
        return Thing(_parameters=weights(**names), method=Thing(pack=None), group=Thing(size=1))

    def layer() -> Any:
        bound = Thing(backend=Thing(config=config), pages=tuple(torch.zeros(shape, dtype=torch.bfloat16) for _ in "kv"))
        norm = [Thing(eps=1e-6, _parameters=weights(weight=64)) for _ in range(4)]
        attention = Thing(
            norm=norm[0],
            q_norm=norm[1],
            k_norm=norm[2],
            qkv=linear(weight=64, bias=8),
            out=linear(weight=64),
            attend=Thing(scale=0.1, cache_of=None, attend=bound),
            rotary=Thing(table=table),
        )
        return Thing(attention=attention, mlp=Thing(norm=norm[3], gate_up=linear(weight=64), down=linear(weight=64)))

    return [layer() for _ in range(layers)]


def test_a_record_has_the_addresses_in_the_order_of_the_source():
    made = decoders()
    table = records(made, torch.device("cpu"))
    source = (SOURCES / "stack_shape.cuh").read_text()
    fields = source.partition("struct LayerRecord {")[2].partition("}")[0]
    names = fields.replace("const bf16", "").replace("bf16", "").replace("*", "").replace(";", ",").split(",")
    names = [name.strip() for name in names if name.strip()]
    assert table.shape == (2, len(names))
    attention, mlp = made[1].attention, made[1].mlp
    found = dict(zip(names, table[1].tolist(), strict=True))
    parts = {
        "norm": attention.norm,
        "qkv": attention.qkv,
        "q_norm": attention.q_norm,
        "k_norm": attention.k_norm,
        "out": attention.out,
        "mlp_norm": mlp.norm,
        "gate_up": mlp.gate_up,
        "down": mlp.down,
    }
    want = {name: part._parameters["weight"].data_ptr() for name, part in parts.items()}
    want |= {"qkv_bias": attention.qkv._parameters["bias"].data_ptr(), "out_bias": 0, "gate_up_bias": 0, "down_bias": 0}
    keys, values = attention.attend.attend.pages
    assert found == want | {"k_pages": keys.data_ptr(), "v_pages": values.data_ptr()}


@pytest.mark.parametrize(("layout", "strides"), [("NHD", (2048, 128, 64)), ("HND", (2048, 64, 1024))])
def test_strides_are_those_of_page_token_and_head_in_either_layout(layout, strides):
    found = page_strides(decoders(layout=layout))
    assert found is not None
    assert found.block_bits == 4
    assert found.strides == strides * 2


@pytest.mark.parametrize("spoil", ["other layout", "odd block", "small block", "other dtype", "pages differ"])
def test_pages_that_it_cannot_read_leave_the_layers_composed(spoil):
    made = decoders(block={"odd block": 24, "small block": 8}.get(spoil, 16))
    bound = made[1].attention.attend.attend
    if spoil == "other layout":
        made[0].attention.attend.attend.backend.config.page_layout = "interleaved"
    elif spoil == "other dtype":
        made[0].attention.attend.attend.backend.config.kv_dtype = torch.float8_e4m3fn
    elif spoil == "pages differ":
        bound.pages = tuple(torch.zeros(5, 32, 2, 64, dtype=torch.bfloat16) for _ in "kv")
    assert page_strides(made) is None


@pytest.mark.parametrize("spoil", ["packed", "split over ranks", "another epsilon", "another table"])
def test_layers_that_differ_or_are_stored_otherwise_are_not_taken(spoil):
    made = decoders()
    assert readable(made)
    if spoil == "packed":
        made[1].mlp.down.method.pack = lambda weight: weight
    elif spoil == "split over ranks":
        made[0].attention.out.group.size = 2
    elif spoil == "another epsilon":
        made[1].mlp.norm.eps = 1e-5
    else:
        made[1].attention.rotary.table = object()
    assert not readable(made)


class Launches(list):
    """Stands for ``Kernel``: keeps what is launched."""

    def __call__(self, *made: Any, **options: Any) -> Any:
        return lambda grid, block, *args: self.append((made[3]["TOKENS"], grid, block, args))


def bound_stack(monkeypatch: Any) -> tuple[Any, Launches]:
    launches, made = Launches(), decoders()
    monkeypatch.setattr(stack_sizes, "LARGE_VARIANTS", (1, 4, 8))
    monkeypatch.setattr(stack, "Kernel", launches)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Thing(multi_processor_count=132))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    layer = Thing(_modules={str(i): made[i] for i in range(2)}, compose=lambda x, residual, batch: "composed")
    step = Thing(longest_query=1, kv_lens=torch.ones(3), slots=torch.zeros(3), block_table=torch.zeros(3, 7))
    for decoder in made:
        decoder.attention.attend.attend.of = lambda batch: (batch.step, None)
        decoder.attention.rotary.table = made[0].attention.rotary.table
    made[0].attention.rotary.table = made[1].attention.rotary.table = Thing(cos=torch.ones(1), sin=torch.ones(1))
    run = stack.decoder_stack(query(), layer)
    return Thing(run=run, step=step, batch=Thing(step=step, positions=torch.zeros(3)), made=made), launches


def test_three_rows_take_the_variant_for_four(monkeypatch):
    case, launches = bound_stack(monkeypatch)
    x = torch.zeros(3, 64, dtype=torch.bfloat16)
    out, total = case.run(x, None, case.batch)
    (variant, grid, block, args) = launches[0]
    assert (variant, grid, block) == (4, 132, 288)
    assert len(args) == len(stack.SIGNATURE)
    assert all(found is given for found, given in zip(args[1:5], (x, None, out, total), strict=True))
    assert out.shape == total.shape == x.shape


@pytest.mark.parametrize("other", ["many rows", "a prompt", "padding rows without queries", "positions with axes"])
def test_other_steps_are_composed(monkeypatch, other):
    case, launches = bound_stack(monkeypatch)
    x = torch.zeros(9 if other == "many rows" else 3, 64)
    if other == "a prompt":
        case.step.longest_query = 3
    elif other == "padding rows without queries":
        case.step.kv_lens = torch.ones(5)
    elif other == "positions with axes":
        case.batch.positions = torch.zeros(3, 3)
    assert case.run(x, None, case.batch) == "composed"
    assert not launches


def test_new_pages_are_recorded_before_the_next_launch_but_not_within_a_capture(monkeypatch):
    case, launches = bound_stack(monkeypatch)
    x = torch.zeros(3, 64, dtype=torch.bfloat16)
    case.run(x, None, case.batch)
    for decoder in case.made:
        decoder.attention.attend.attend.pages = tuple(torch.zeros(5, 16, 2, 64, dtype=torch.bfloat16) for _ in "kv")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert case.run(x, None, case.batch) == "composed"
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    case.run(x, None, case.batch)
    first, second = (args[0] for *_, args in launches)
    assert first[0, -1] != second[0, -1] == case.made[0].attention.attend.attend.pages[1].data_ptr()
    assert stack_limits(query()) == ""
