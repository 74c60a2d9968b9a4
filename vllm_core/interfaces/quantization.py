"""The contract of quantization methods: who makes, loads and multiplies a weight matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    from torch import Tensor, nn


@attrs.frozen(kw_only=True)
class LinearShape:
    """y = x W^T + b with W [sum(out_sizes), in_size], already this rank's share."""

    in_size: int
    out_sizes: tuple[int, ...]  # several when matrices are fused: q, k, v or gate, up
    slots: tuple[str, ...] = ("",)  # their names in weight rules, in order
    bias: bool = False


@attrs.frozen(kw_only=True)
class ParamSpec:
    """One parameter of a linear layer, before sharding is applied to what is read from disk.

    ``out_dim`` is the axis along which fused slots lie and column-parallel ranks split;
    ``in_dim`` that of row-parallel ranks; ``pack`` how many logical elements one stored
    element holds along each of them. ``slots`` are those that lie in this parameter, where
    others of a fused matrix lie elsewhere; None: all. A method that quantizes what a checkpoint
    stores dense reads it into a parameter that is not ``kept``, and computes others from it
    that are not ``stored``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Any  # torch.dtype
    out_dim: int | None = 0
    in_dim: int | None = 1
    out_pack: int = 1
    in_pack: int = 1
    slots: tuple[str, ...] | None = None
    stored: bool = True  # read from the checkpoint; False: the method fills it in ``filled``
    kept: bool = True  # False: there only while its layer is filled, empty before and after


class LinearMethod(Protocol):
    """Bound to one layer. ``params`` are made once and may be refilled in place."""

    def params(self, shape: LinearShape, dtype: Any) -> list[ParamSpec]:
        """The parameters to make and to load."""

    def loaded(self, layer: nn.Module) -> None:
        """All parameters of the model were filled: check, repack (keeping addresses on a second call).

        A method may also have ``filling(layer)`` and ``filled(layer)``, called before the layer's
        first tensor is read and after its last one, from any of several threads, while other layers
        are still to be read: what is quantized there never lies in memory all at once.
        """

    def apply(self, layer: nn.Module, x: Tensor) -> Tensor:
        """x [T, in_size] -> [T, sum(out_sizes)], bias included.

        A method may also have ``ask(plan, shape)``, called first of all, to take ops of the table
        (`interfaces.plan.Plan.op`), and ``scaled(layer)``: the int8 numbers [out, in] and the float32
        scales [out] that op ``scaled_linear`` multiplies with, for kernels of whole layers. Only
        methods that multiply with the inputs as they are have the latter.

        ``batch_invariant = True`` says that a row's product is the same bit for bit in any batch, of a
        method whose products are not ops of the table: others are refused under --batch-invariant.
        """


class EmbeddingMethod(LinearMethod, Protocol):
    """Bound to a table of embeddings, whose rows are looked up, and multiplied where the head shares them."""

    def rows(self, layer: nn.Module, ids: Tensor) -> Tensor:
        """ids int64 [T], each below ``out_sizes[0]`` -> [T, in_size]."""


class Quantization(Protocol):
    """One checkpoint's quantization.

    May also have ``matrices``, ``embedding`` and ``bound``. The first two get the names that the
    model's weight rules know; the checkpoint has one of several.

    ``matrices(names: Mapping[str, Sequence[str]], shape) -> LinearMethod | None`` is asked in
    place of ``linear``, once for a fused matrix: slot -> checkpoint names. Its slots may be
    stored in different ways.
    ``embedding(names: Sequence[str], shape) -> EmbeddingMethod | None`` is asked for tables of
    embeddings, [out_sizes[0], in_size]; without it they are dense.
    ``bound()`` is called when all have been asked for; ``ValueError`` for what the user says of
    matrices that are not there.
    """

    def __init__(self, config: dict[str, Any]) -> None: ...

    def linear(self, checkpoint_name: str, shape: LinearShape) -> LinearMethod | None:
        """The method for this matrix, or None: it is stored dense."""
