"""The kit of quantization methods passes right ones and finds each mistake."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from tests.testing.quantized_kit import Asked, Bytes, Kit, Nibbles, Quantization, kit_with, rounded
from tests.testing.test_kit_elsewhere import examples
from vllm_core.interfaces.quantization import ParamSpec
from vllm_core.weights import WeightsError

SIZE = (64, 48)


class TestRight(Kit):
    """Both right ones, through all tests."""


def test_numbers_unpacked_in_the_wrong_order_are_found():
    class Swapped(Nibbles):
        def weight(self, layer):
            numbers = torch.stack([layer.packed >> 4, layer.packed & 15], -1).flatten(1).float() - 8
            return (numbers.unflatten(1, (-1, 16)) * layer.scales[..., None]).flatten(1)

    with pytest.raises(AssertionError, match=r"nibbles: \d+ of 3072 weights differ.*\n  first   output 0, input \d"):
        kit_with(nibbles=Swapped).test_stored_numbers_are_unpacked_as_the_reference_unpacks_them("nibbles", SIZE)


def test_an_inexact_product_is_found():
    class Rough(Nibbles):
        def apply(self, layer, x):
            return super().apply(layer, x.bfloat16().float())

    with pytest.raises(AssertionError, match="elements are off by more than"):
        kit_with(nibbles=Rough).test_products_are_those_of_float64("nibbles", "float32", SIZE, False)


def test_a_bias_that_is_left_out_is_found():
    class Unbiased(Nibbles):
        def apply(self, layer, x):
            return x @ self.weight(layer).T

    kit = kit_with(nibbles=Unbiased)
    kit.test_products_are_those_of_float64("nibbles", "float32", SIZE, False)
    with pytest.raises(AssertionError, match="elements are off"):
        kit.test_products_are_those_of_float64("nibbles", "float32", SIZE, True)


def test_a_row_of_zeros_that_becomes_nan_is_found():
    class Divides(Bytes):
        def apply(self, layer, x):
            scales = x.abs().amax(-1, keepdim=True) / 127
            return ((x / scales).round() @ layer.numbers.float().T) * scales * layer.scales.T

    with pytest.raises(AssertionError, match=r"3 rows.*\n  first   row 2, output 0: nan"):
        kit_with(bytes=Divides).test_products_are_those_of_float64("bytes", "float32", SIZE, False)


def test_one_scale_for_all_rows_is_found():
    class Common(Bytes):
        def apply(self, layer, x):
            scale = x.abs().max() / 127 if len(x) else x.new_ones(())
            return ((x / scale).round() @ layer.numbers.float().T) * scale * layer.scales.T

    kit = kit_with(bytes=Common)
    with pytest.raises(AssertionError, match="3 rows"):
        kit.test_products_are_those_of_float64("bytes", "float32", SIZE, False)


def test_a_product_that_overwrites_its_input_is_found():
    class Overwrites(Nibbles):
        def apply(self, layer, x):
            y = super().apply(layer, x)
            x.mul_(2)
            return y

    with pytest.raises(AssertionError, match="writes to its input"):
        kit_with(nibbles=Overwrites).test_products_are_those_of_float64("nibbles", "float32", SIZE, False)


def test_a_product_of_another_dtype_is_found():
    class Wide(Nibbles):
        def apply(self, layer, x):
            return super().apply(layer, x.float())

    with pytest.raises(AssertionError, match=r"a product of torch\.bfloat16 is torch\.float32"):
        kit_with(nibbles=Wide).test_products_are_those_of_float64("nibbles", "bfloat16", SIZE, False)


def test_inputs_taken_for_contiguous_are_found():
    class Packed(Nibbles):
        def apply(self, layer, x):
            return super().apply(layer, x.as_strided(x.shape, (x.shape[-1], 1), x.storage_offset()))

    kit = kit_with(nibbles=Packed)
    kit.test_products_are_those_of_float64("nibbles", "float32", SIZE, False)
    with pytest.raises(AssertionError, match="elements are off"):
        kit.test_rows_of_a_wider_tensor_are_multiplied_as_their_copy("nibbles", "float32")


def test_a_loss_larger_than_stated_is_found():
    class Coarse(Kit):
        schemes = {name: type(s)(config=s.config, bits=s.bits, loss=s.loss / 2) for name, s in Kit.schemes.items()}

    kit = Coarse()
    kit._asked = Asked()
    with pytest.raises(AssertionError, match=r"off by \d+\.\d+% of its norm, stated are 5.50%"):
        kit.test_the_error_against_dense_weights_is_as_small_as_stated("nibbles")


def test_slots_taken_for_equally_large_are_found():
    class Halves(Bytes):
        def filled(self, layer):
            super().filled(layer)
            if layer.weight.shape[0] != 48:
                layer.scales.copy_(layer.scales.flatten().view(2, -1).mean(0).repeat(2)[:, None])

    with pytest.raises(AssertionError, match="elements are off"):
        kit_with(bytes=Halves).test_fused_matrices_give_what_they_give_apart("bytes", "float32", SIZE)


def test_what_is_computed_at_the_first_load_only_is_found():
    class Once(Nibbles):
        def loaded(self, layer):
            if "dense" not in layer.__dict__:
                layer.__dict__["dense"] = super().weight(layer)

        def weight(self, layer):
            return layer.__dict__["dense"]

    kit = kit_with(nibbles=Once)
    with pytest.raises(AssertionError, match="read a second time"):
        kit.test_weights_read_again_replace_the_old_ones_in_place("nibbles", "float32")
    with pytest.raises(AssertionError, match=r"nibbles: 38\.00 bits are held for each weight, stated are 6\.10"):
        kit.test_no_more_is_held_than_stated_and_planned("nibbles")


def test_a_parameter_that_moves_is_found():
    class Moves(Nibbles):
        def loaded(self, layer):
            layer.scales.data = layer.scales.clone()
            layer.__dict__.setdefault("old", []).append(layer.scales.data)

    with pytest.raises(AssertionError, match=r"net\.scales moved to another address"):
        kit_with(nibbles=Moves).test_weights_read_again_replace_the_old_ones_in_place("nibbles", "float32")


def test_what_the_memory_plan_does_not_count_is_found():
    class Late(Nibbles):
        def loaded(self, layer):
            layer.register_parameter("unpacked", nn.Parameter(self.weight(layer).to(torch.int8), requires_grad=False))

    class Roomy(Kit):
        schemes = {"nibbles": type(Kit.schemes["nibbles"])(config={"quant_method": "nibbles"}, bits=99, loss=1)}

    kit = Roomy()
    kit._asked = kit_with(nibbles=Late)._asked
    with pytest.raises(AssertionError, match=r"6,720 bytes are held, and the memory plan counts 2,880"):
        kit.test_no_more_is_held_than_stated_and_planned("nibbles")


def test_scales_that_ranks_do_not_share_out_are_found():
    class Whole(Nibbles):
        def params(self, shape, dtype):
            packed, scales, *bias = super().params(shape, dtype)
            return [packed, ParamSpec(name="scales", shape=scales.shape, dtype=scales.dtype, in_dim=None), *bias]

    kit = kit_with(nibbles=Whole)
    kit.test_products_are_those_of_float64("nibbles", "float32", SIZE, False)
    with pytest.raises((AssertionError, WeightsError)):
        kit.test_ranks_with_a_share_of_the_inputs_add_up_to_what_one_gives("nibbles", "float32", SIZE)


def test_columns_in_another_order_on_a_rank_are_found():
    class Backwards(Nibbles):
        def apply(self, layer, x):
            y = super().apply(layer, x)
            return y.flip(-1) if layer.packed.shape[0] == 24 else y

    with pytest.raises(AssertionError, match="1 slots over 2 ranks"):
        kit_with(nibbles=Backwards).test_ranks_with_a_share_of_the_outputs_give_what_one_gives(
            "nibbles", "float32", SIZE
        )


def test_a_skip_list_that_is_not_read_is_found():
    class Deaf(Quantization):
        def linear(self, name, shape):
            return self.methods[self.config.get("quant_method", "")]()

    with pytest.raises(AssertionError, match=r"mlp\.down_proj on the skip list, .* is quantized"):
        kit_with(quantization=Deaf).test_a_matrix_on_the_skip_list_stays_dense("nibbles", "float32")


def test_a_plugin_that_takes_anothers_checkpoint_is_found():
    class Takes(Asked):
        def quantization(self, config, dtype, settings=None, *, by_user=False):
            return Quantization({})

    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        Kit().test_a_checkpoint_that_another_method_quantized_is_refused(Takes(), "float32")
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        Kit().test_what_it_does_not_read_is_refused_with_a_reason(Takes(), "five bits")


def test_what_it_cannot_do_is_skipped_and_told():
    class Short(Kit):
        cannot = {"row shards": "a test"}

    with pytest.raises(pytest.skip.Exception, match=r"Short cannot: row shards \(a test\)"):
        Short().test_ranks_with_a_share_of_the_inputs_add_up_to_what_one_gives("nibbles", "float32", SIZE)
    Short.cannot = {"row shards": " "}
    with pytest.raises(AssertionError, match="no reason for row shards"):
        Short().test_what_it_cannot_do_is_printed()


def test_a_kit_without_references_says_so():
    from vllm_core.testing import QuantizationConformance

    class Empty(QuantizationConformance):
        schemes = Kit.schemes

    with pytest.raises(pytest.UsageError, match=r"Empty gives no reference packer: override pack\(\)"):
        Empty().matrix("nibbles", "x", 64, 48, torch.float32)


def test_bits_that_depend_on_the_batch_are_found_where_they_are_declared_not_to():
    class Depends(Nibbles):
        batch_invariant = True

        def apply(self, layer, x):
            return super().apply(layer, x) * (1 + 1e-6 * len(x))

    test = "test_a_row_has_the_same_bits_in_any_batch_if_so_declared"
    with pytest.raises(AssertionError, match="rows 0 to 1 alone have other bits than among 40"):
        getattr(kit_with(nibbles=Depends), test)("nibbles", "float32")
    with pytest.raises(pytest.skip.Exception, match="does not say batch_invariant"):
        getattr(kit_with(), test)("nibbles", "float32")


def test_numbers_for_other_kernels_that_are_not_the_weights_are_found():
    class Shares(Bytes):
        def scaled(self, layer):
            return layer.numbers, layer.scales.view(-1)

    class Halves(Shares):
        def scaled(self, layer):
            return layer.numbers, layer.scales.view(-1) / 2

    test = "test_whole_numbers_and_scales_for_other_kernels_are_the_weights"
    getattr(kit_with(bytes=Shares), test)("bytes")
    with pytest.raises(AssertionError, match=r"bytes: \d+ of 3072 numbers times scales are other weights"):
        getattr(kit_with(bytes=Halves), test)("bytes")
    with pytest.raises(pytest.skip.Exception, match="gives no numbers and scales"):
        getattr(kit_with(), test)("bytes")


def test_a_table_whose_rows_are_others_is_found():
    class Table(Nibbles):
        def rows(self, layer, ids):
            return self.weight(layer)[ids].to(torch.float32)

    class Shifted(Table):
        def rows(self, layer, ids):
            return self.weight(layer).roll(1, 0)[ids]

    def holding(method):
        def embedding(self, names, shape):
            return method()

        made = type("Tables", (Quantization,), {"embedding": embedding})
        return kit_with(quantization=made, nibbles=method)

    test = "test_rows_of_a_table_are_those_of_the_reference"
    getattr(holding(Table), test)("nibbles", "float32")
    with pytest.raises(AssertionError, match=r"nibbles: rows \[0\] of a table differ"):
        getattr(holding(Shifted), test)("nibbles", "float32")
    with pytest.raises(AssertionError, match=r"rows are torch\.float32"):
        getattr(holding(Table), test)("nibbles", "bfloat16")
    with pytest.raises(pytest.skip.Exception, match="tables of embeddings are dense"):
        getattr(kit_with(), test)("nibbles", "float32")


class StoredBytes(Bytes):
    """The format of the page's example."""

    def params(self, shape, dtype):
        size = (sum(shape.out_sizes), shape.in_size)
        return [
            ParamSpec(name="weight", shape=size, dtype=torch.int8),
            ParamSpec(name="weight_scale", shape=(size[0], 1), dtype=torch.float32, in_dim=None),
        ]

    def filled(self, layer):
        pass

    def apply(self, layer, x):
        return (x.float() @ (layer.weight.float() * layer.weight_scale).T).to(x.dtype)


def test_the_example_of_the_page_is_true(tmp_path):
    (example,) = (code for code in examples() if "QuantizationConformance" in code)
    file = tmp_path / "example.py"
    file.write_text(example)
    spec = importlib.util.spec_from_file_location("example", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kit = module.TestBytes()
    kit._asked = Asked(type("Bytes", (Quantization,), {"methods": {"bytes": StoredBytes}}), name="bytes")
    for size in kit.sizes:
        kit.test_stored_numbers_are_unpacked_as_the_reference_unpacks_them("stored", size)
        for dtype in kit.tolerance:
            kit.test_products_are_those_of_float64("stored", dtype, size, False)
            kit.test_ranks_with_a_share_of_the_inputs_add_up_to_what_one_gives("stored", dtype, size)
            kit.test_ranks_with_a_share_of_the_outputs_give_what_one_gives("stored", dtype, size)
    kit.test_the_error_against_dense_weights_is_as_small_as_stated("stored")
    kit.test_no_more_is_held_than_stated_and_planned("stored")


def test_rounding_keeps_zero():
    numbers, scales = rounded(torch.zeros(2, 4))
    assert numbers.count_nonzero() == scales.count_nonzero() == 0
