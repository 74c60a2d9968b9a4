"""What is launched fits the sources: signatures, counts, grids; without a GPU."""

from __future__ import annotations

import ctypes
import itertools

import pytest
import torch
from vllm_kernels import activation, arguments, cache, driver, kernel, norm, offers, qk, rotary, rows

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import OpQuery
from vllm_core.plugin import load_target

HOPPER = Device("cuda", capability=(9, 0))


def op(name, dtype="bfloat16", **shape):
    return load_target(offers.OPS[name].target)(OpQuery(op=name, dtype=dtype, device=HOPPER, shape=shape))


def rand(*shape, dtype=torch.bfloat16):
    return torch.randn(shape).to(dtype)


def run_all(dtype: str, size: int) -> None:
    """Every op once."""
    kind = getattr(torch, dtype)
    x, w = rand(3, size, dtype=kind), rand(size, dtype=kind)
    op("rms_norm", dtype, size=size)(x, w, 1e-6)
    op("rms_norm", dtype, size=size)(x.view(3, 1, size), w, 1e-6)
    op("add_rms_norm", dtype, size=size)(x, x.clone(), w, 1e-6)
    op("rms_norm", dtype, size=size, weight="float32")(x, w.float(), 1e-6)
    op("add_rms_norm", dtype, size=size, weight="float32")(x, x.clone(), w.float(), 1e-6)
    op("layer_norm", dtype, size=size)(x, w, None, 1e-6)
    op("add_layer_norm", dtype, size=size)(x, x.clone(), w, w, 1e-6)
    for name in activation.GATED:
        assert op(name, dtype, size=size)(rand(3, 2 * size, dtype=kind)).shape == (3, size)
    for name in activation.ALONE:
        assert op(name, dtype, size=size)(x).shape == x.shape
    for pairs in (False, True):
        angles = rand(3, 8, dtype=torch.float32)
        op("rotary", dtype, head_dim=32, rotary_dim=16, interleaved=pairs)(
            rand(3, 2, 32, dtype=kind), angles, angles, pairs
        )
    pages = rand(4, 16, 2, size, dtype=kind)
    shape = {"num_kv_heads": 2, "k_dim": size, "v_dim": size, "head_axis": 2, "kv_dtype": dtype}
    op("write_kv", dtype, **shape)(
        rand(3, 2, size, dtype=kind), rand(3, 2, size, dtype=kind), pages, pages, torch.arange(3)
    )
    for ids in (torch.arange(3), torch.arange(3).int()):
        assert op("embedding", dtype, size=size, vocab=3)(ids, x).shape == x.shape
    op("copy_pages", dtype)(pages, torch.arange(2), torch.arange(2))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("size", [32, 40, 77, 1024, 20480])
def test_every_op_launches_what_its_source_takes(pretend, dtype, size):
    run_all(dtype, size)
    names = {launch[0] for launch in pretend.launches}
    assert {"rms_norm", "add_rms_norm", "layer_norm", "add_layer_norm", "act_and_mul", "act_alone"} <= names
    assert {"rotary", "write_kv", "gather_rows", "scatter_rows"} <= names
    for _, grid, block, _ in pretend.launches:
        grid, block = (
            kernel._three((grid,) if isinstance(grid, int) else grid),
            kernel._three((block,) if isinstance(block, int) else block),
        )
        assert 32 <= block[0] * block[1] <= 512
        assert block[0] % 32 == 0
        assert max(grid[1:]) < 2**16


def test_every_kernel_made_is_listed_as_a_variant(pretend):
    for dtype, size in itertools.product(("bfloat16", "float16", "float32"), (32, 40, 77, 1024, 8192, 16384, 20480)):
        run_all(dtype, size)
    modules = (activation, cache, norm, qk, rotary, rows)
    listed = {(v.file, tuple(sorted(v.defines.items()))): v.names for module in modules for v in module.variants()}
    for file, name, defines in pretend.made:
        assert name in listed[file, tuple(sorted(defines.items()))], (file, name, defines)


def test_heads_are_written_by_one_launch_and_q_is_apart(pretend):
    weights = rand(128), rand(128)
    write = qk.QKWrite(
        heads=4, kv_heads=2, head_dim=128, dtype="bfloat16", kv_dtype="bfloat16", rotary_dim=128,
        q_weight=weights[0], k_weight=weights[1], eps=1e-6,
    )  # fmt: skip
    pages, angles = rand(3, 16, 2, 128), rand(9, 64, dtype=torch.float32)
    assert write.fits((pages, pages), "NHD")
    assert not write.fits((pages[..., 1:], pages), "NHD")
    assert not write.fits((pages, pages), "of somebody's own")
    q = write(rand(5, 8 * 128), angles, angles, torch.arange(5), pages, pages, torch.arange(5), "NHD")
    ((name, grid, block, args),) = pretend.launches
    assert (name, grid, block) == ("qk_norm_rope_write", (5, 1), 256)
    assert q.shape == (5, 4, 128)
    assert args[1] is q
    assert args[-6:] == (16 * 256, 256, 128) * 2
    write(rand(5, 8 * 128), angles, angles, None, pages.mT, pages.mT, torch.arange(5), "HND")
    assert (pretend.made[-1][0], len(pretend.made)) == ("qk.cu", 1)


def test_other_dtypes_and_strides_fall_back_to_the_reference(pretend):
    x, w = rand(3, 64, dtype=torch.float32), rand(64, dtype=torch.float32)
    torch.testing.assert_close(op("rms_norm", size=64)(x, w, 1e-6), torch.nn.functional.rms_norm(x, (64,), w, 1e-6))
    y, total = op("add_rms_norm", "float32", size=64)(x.mT.contiguous().mT, x, w, 1e-6)
    assert torch.equal(total, x + x)
    assert y.shape == x.shape
    torch.testing.assert_close(op("gelu", size=64)(x), torch.nn.functional.gelu(x))
    assert pretend.launches == []


def test_arguments_lie_where_the_pointers_say():
    tensor = torch.empty(3)
    packed = arguments.Arguments("PifPldi")
    packed.pack((tensor, -7, 0.5, None, 2**40, 1e300, 9))
    kinds = (
        ctypes.c_void_p,
        ctypes.c_int32,
        ctypes.c_float,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_double,
        ctypes.c_int32,
    )
    read = [kind.from_address(where).value for kind, where in zip(kinds, packed.pointers, strict=True)]
    assert read == [tensor.data_ptr(), -7, 0.5, None, 2**40, 1e300, 9]
    assert all(where % ctypes.sizeof(kind) == 0 for kind, where in zip(kinds, packed.pointers, strict=True))


def test_a_wrong_count_or_kind_of_arguments_is_refused():
    with pytest.raises(ValueError, match="no kinds of arguments"):
        arguments.Arguments("Px")
    packed = arguments.Arguments("Pi")
    for values in ((None,), (None, 1, 2), (None, 2**31), (None, 0.5)):
        with pytest.raises(arguments.PackError):
            packed.pack(values)


def test_launch_records_are_laid_out_as_in_cuda_h():
    """Sizes and offsets as a C compiler finds them in the headers of CUDA 13.0, for 64 bits."""
    config, attribute = driver.Config, driver.Attribute
    assert ctypes.sizeof(config) == 56
    assert (config.shared.offset, config.stream.offset, config.attributes.offset, config.count.offset) == (
        24,
        32,
        40,
        48,
    )
    assert (ctypes.sizeof(attribute), attribute.value.offset) == (72, 8)
    record = config(count=3)
    kernel._HEAD.pack_into(record, 0, 1, 2, 3, 4, 5, 6, 7, 2**40 + 1)
    assert [*record.grid, *record.block, record.shared, record.stream, record.count] == [
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        2**40 + 1,
        3,
    ]
