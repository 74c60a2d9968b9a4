"""Arguments lie where the driver reads them."""

import ctypes
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")


def test_each_parameter_is_found_at_its_address_and_descriptors_are_followed_by_zeros():
    from vllm_plugin_triton_attention.launch import _parameters

    types = {"n": "i32", "p": "*bf16", "d": "tensordesc<bf16[1, 64, 128]>", "x": "fp32", "m": "i64", "o": "i32"}
    layout, values, pointers, wide = _parameters(types)
    layout.pack_into(values, 0, -7, 1 << 40, 0.5, -(1 << 50), 9)

    def at(place, kind):
        return kind.from_address(pointers[place]).value

    assert at(0, ctypes.c_int32) == -7
    assert at(1, ctypes.c_uint64) == 1 << 40
    assert wide == [2]
    assert [at(place, ctypes.c_int64) for place in range(3, 9)] == [0] * 6  # three sizes, three strides
    assert at(9, ctypes.c_float) == 0.5
    assert at(10, ctypes.c_int64) == -(1 << 50)
    assert at(11, ctypes.c_int32) == 9
    assert [at(place, ctypes.c_uint64) for place in (12, 13)] == [0, 0]  # scratch memory
    assert len(pointers) == 14


def test_a_kernel_given_arguments_in_another_order_is_refused():
    from vllm_plugin_triton_attention.launch import Variant
    from vllm_plugin_triton_attention.write import write

    with pytest.raises(TypeError, match=r"write takes \['k', 'v'"):
        Variant(write, {"v": "*bf16", "k": "*bf16"}, {})
