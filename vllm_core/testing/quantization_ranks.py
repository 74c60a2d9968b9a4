"""A quantized matrix split over ranks, left out, planned for: what surrounds its product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from vllm_core.distributed.dry import DryGroup
from vllm_core.layers.dense import DenseLinear
from vllm_core.layers.embedding import LMHead
from vllm_core.layers.linear import ColumnLinear, MergedLinear, RowLinear
from vllm_core.layers.qkv import QKVLinear
from vllm_core.plugins.errors import PluginError
from vllm_core.testing.plugin_module import assert_imports_light
from vllm_core.testing.quantization_case import (
    AskedMethod,
    Bound,
    QuantizationScheme,
    assert_product,
    random_rows,
    stored,
)

RANKS = 2
DENSE = {"float32": 1e-6, "bfloat16": 8e-3, "float16": 1e-3}  # of a dense product


class QuantizedRanks:
    """Tests of each scheme."""

    schemes: ClassVar[Mapping[str, QuantizationScheme]]
    tolerance: ClassVar[Mapping[str, float]]
    cannot: ClassVar[Mapping[str, str]]
    dense: ClassVar[tuple[str, ...]]
    needs: Any
    bound: Any
    matrix: Any
    products: Any

    def test_ranks_with_a_share_of_the_outputs_give_what_one_gives(
        self, scheme: str, dtype: str, size: tuple[int, int]
    ) -> None:
        self.needs("column shards")
        kind, (inputs, out) = getattr(torch, dtype), size
        x = random_rows(17, inputs, kind)
        for make, sizes in (
            (lambda: ColumnLinear(inputs, out, bias="bias" not in self.cannot), {"": out}),
            (lambda: MergedLinear(inputs, {"gate": out, "up": 2 * out}), {"gate": out, "up": 2 * out}),
            (lambda: QKVLinear(inputs, 4, 1, out // 2), {"q": 2 * out, "k": out // 2, "v": out // 2}),
        ):
            if len(sizes) > 1 and "fused slots" in self.cannot:
                continue
            names = {slot: f"model.layers.0.{slot or 'net'}_proj" for slot in sizes}
            biased = "" in sizes and "bias" not in self.cannot
            parts = [
                self.matrix(scheme, names[slot], inputs, n, kind, biased=biased, seed=i)
                for i, (slot, n) in enumerate(sizes.items())
            ]
            models = [self.bound(scheme, kind, make(), names, DryGroup(r, RANKS)) for r in range(RANKS)]
            whole = self.bound(scheme, kind, make(), names)
            for model in (whole, *models):
                model.load(stored(parts))
            _share(scheme, models, whole)
            self.products(scheme, whole, parts, x)
            got = _gathered([model.product(x) for model in models], [len(p.means) for p in parts], "q" in sizes)
            self.products(scheme, got, parts, x, f"{len(sizes)} slots over {RANKS} ranks")

    def test_ranks_with_a_share_of_the_inputs_add_up_to_what_one_gives(
        self, scheme: str, dtype: str, size: tuple[int, int]
    ) -> None:
        self.needs("row shards")
        kind, (inputs, out) = getattr(torch, dtype), size
        biased = "bias" not in self.cannot
        matrix = self.matrix(scheme, "model.net", inputs, out, kind, biased=biased)
        models = [
            self.bound(scheme, kind, RowLinear(inputs, out, bias=biased), {"": "model.net"}, DryGroup(r, RANKS))
            for r in range(RANKS)
        ]
        whole = self.bound(scheme, kind, RowLinear(inputs, out, bias=biased), {"": "model.net"})
        for model in (whole, *models):
            model.load(matrix.stored)
        _share(scheme, models, whole)
        x = random_rows(17, inputs, kind)
        share = inputs // RANKS
        parts, got = [], torch.zeros(17, out, dtype=torch.float64)
        for rank, model in enumerate(models):
            mine = slice(rank * share, (rank + 1) * share)
            means = matrix.means[:, mine]
            if self.schemes[scheme].online:  # each rank quantizes what it reads
                means = self.matrix(scheme, "", share, out, kind, weight=matrix.weight[:, mine]).means
            parts.append((self.inputs_of(scheme, x[:, mine]), means))  # type: ignore[attr-defined]
            got += model.product(x[:, mine]).double()
        what = f"{scheme}, inputs over {RANKS} ranks"
        assert_product(got, parts, matrix.bias, self.tolerance[dtype], what)

    def test_a_head_whose_rows_do_not_divide_is_padded(self, scheme: str, dtype: str) -> None:
        self.needs("column shards")
        kind, (inputs, out) = getattr(torch, dtype), self.sizes[0]  # type: ignore[attr-defined]
        if "padded rows" in self.cannot:
            self.needs("padded rows")
        matrix = self.matrix(scheme, "model.net", inputs, out - 1, kind)
        models = [
            self.bound(scheme, kind, LMHead(out - 1, inputs), {"": "model.net"}, DryGroup(r, RANKS))
            for r in range(RANKS)
        ]
        for model in models:
            model.load(matrix.stored)
        x = random_rows(3, inputs, kind)
        got = torch.cat([model.product(x) for model in models], -1)[:, : out - 1]
        self.products(scheme, got, [matrix], x, "a head over two ranks")

    def test_a_matrix_on_the_skip_list_stays_dense(self, scheme: str, dtype: str) -> None:
        self.needs("skip list")
        kind, (inputs, out) = getattr(torch, dtype), self.sizes[0]  # type: ignore[attr-defined]
        skipped = "model.layers.0.mlp.down_proj"
        for name in (skipped, "model.layers.1.mlp.down_proj"):
            model = self.bound(scheme, kind, ColumnLinear(inputs, out), {"": name}, ignoring=[skipped])
            is_dense = isinstance(model.net.method, DenseLinear)
            assert is_dense == (name == skipped), (
                f"{scheme}: with {skipped} on the skip list, {name} is {'dense' if is_dense else 'quantized'}"
            )
            if is_dense:
                matrix = self.matrix(scheme, name, inputs, out, kind)
                model.load({f"{name}.weight": matrix.weight.to(kind)})
                x = random_rows(3, inputs, kind)
                nothing = torch.zeros(out, dtype=torch.float64)
                assert_product(model.product(x), [(x, matrix.weight)], nothing, DENSE[dtype], name)

    def test_what_is_dense_by_default_stays_so(self, scheme: str) -> None:
        inputs, out = self.sizes[0]  # type: ignore[attr-defined]
        dtype = getattr(torch, next(iter(self.tolerance)))
        for name in self.dense:
            model = self.bound(scheme, dtype, LMHead(out, inputs), {"": name})
            assert isinstance(model.net.method, DenseLinear), f"{scheme}: {name} is quantized"

    def test_no_more_is_held_than_stated_and_planned(self, scheme: str) -> None:
        """The memory plan counts the parameters of the meta device, before anything is read."""
        inputs, out = self.largest()  # type: ignore[attr-defined]
        dtype = getattr(torch, next(iter(self.tolerance)))
        planned = self.bound(scheme, dtype, ColumnLinear(inputs, out), {"": "model.net"}, on_meta=True)
        model = self.bound(scheme, dtype, ColumnLinear(inputs, out), {"": "model.net"})
        model.load(self.matrix(scheme, "model.net", inputs, out, dtype).stored)
        count, held = sum(p.nbytes for p in planned.parameters()), _held(model)
        bits, stated = 8 * held / (inputs * out), self.schemes[scheme].bits
        assert bits <= stated, f"{scheme}: {bits:.2f} bits are held for each weight, stated are {stated:.2f}"
        assert held <= count, f"{scheme}: {held:,} bytes are held, and the memory plan counts {count:,}"

    def test_a_checkpoint_that_another_method_quantized_is_refused(self, asked: AskedMethod, dtype: str) -> None:
        other = {"quant_method": "another-method", "bits": 4}
        with pytest.raises(PluginError) as error:
            asked.quantization(other, dtype, by_user=True)
        assert "another-method" in str(error.value), (
            f"the refusal does not name the method that quantized the checkpoint: {error.value}"
        )

    def test_what_it_does_not_read_is_refused_with_a_reason(self, asked: AskedMethod, refused: str) -> None:
        config = self.refused[refused]  # type: ignore[attr-defined]
        with pytest.raises(PluginError) as error:
            asked.quantization(config, next(iter(self.tolerance)))
        assert "raised" not in str(error.value), f"{refused}: not refused, but failed: {error.value}"

    def test_the_plugin_module_imports_without_torch(self, asked: AskedMethod) -> None:
        assert_imports_light(asked.module)


def _gathered(products: list[Tensor], sizes: list[int], last_two_are_copies: bool) -> Tensor:
    """The ranks' outputs [T, of all slots] in the order of one rank's."""
    found, at = [], 0
    for slot, size in enumerate(sizes):
        copied = last_two_are_copies and slot > 0
        share = size if copied else size // RANKS
        pieces = [y[:, at : at + share] for y in products]
        assert not copied or torch.equal(*pieces), "ranks that share a head have different copies of it"
        found += pieces[:1] if copied else pieces
        at += share
    return torch.cat(found, -1)


def _share(scheme: str, models: list[Bound], whole: Bound) -> None:
    for model in models:
        assert _held(model) < 0.8 * _held(whole), f"{scheme}: a rank of {RANKS} holds {_held(model) / _held(whole):.0%}"


def _held(model: Bound) -> int:
    """Bytes of parameters, and of tensors that the method keeps beside them."""
    beside = (
        [*vars(model.net).values(), *vars(model.net.method).values()] if hasattr(model.net.method, "__dict__") else []
    )
    tensors = [*model.parameters(), *(value for value in beside if isinstance(value, Tensor))]
    return sum({t.data_ptr(): t.nbytes for t in tensors if t.numel()}.values())
