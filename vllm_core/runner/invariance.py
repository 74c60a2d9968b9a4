"""--batch-invariant: nothing may compute a row of a batch differently because of the rows beside it.

The Selector takes only offers that say so. What nobody offers is the core's own plain version, where torch computes
that row by row; otherwise a `Dependent` stands in its place, and `check` names those that would run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import attrs
from torch import nn

from vllm_core.interfaces.queries import OpQuery
from vllm_core.plugins.errors import NoOffer
from vllm_core.plugins.index import absent

ANY, CUDA = ("cpu", "cuda"), ("cuda",)

REFERENCES = {
    **dict.fromkeys(("rms_norm", "add_rms_norm", "layer_norm", "add_layer_norm", "rotary", "relu"), ANY),
    **dict.fromkeys(("embedding", "argmax", "write_kv", "copy_pages"), ANY),
    **dict.fromkeys(("step_inputs", "page_slots", "sampling_rows", "commit_tokens", "penalize", "edit_logits"), ANY),
    "apply_token_bitmask": ANY,
    "token_logprobs": ("cpu",),  # torch cuts a GPU's sums by the number of rows
    # On a CPU torch rounds numbers at the end of a thread's share otherwise than those before.
    **dict.fromkeys(("silu_and_mul", "gelu_and_mul", "gelu_tanh_and_mul", "gelu", "gelu_tanh"), CUDA),
}
"""Ops whose plain version computes a row from that row alone, in an order that its length fixes -> devices where it
does. Products are not among them: libraries choose an algorithm by the number of rows."""


@attrs.frozen(slots=False)
class Dependent:
    """Stands in a layer for an op whose results depend on the batch. A fused layer may never call it."""

    query: OpQuery
    why: tuple[str, ...]  # refusals

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(f"{self.query.op} was called, and its result depends on the batch (--batch-invariant)")


def is_invariant(query: OpQuery) -> bool:
    """Whether the core's own version of an op will do."""
    return query.device.type in REFERENCES.get(query.op, ())


def check(model: nn.Module, covered: Sequence[nn.Module], others: Sequence[Any] = ()) -> None:
    """Refuse a bound model of which some part would compute rows together. No weight has been read.

    covered   layers that a fused kernel computes as a whole, which said of itself that it is batch-invariant
    others    ops of a step beside the model
    """
    found: dict[tuple[str, Any], Dependent] = {(op.query.op, ""): op for op in others if isinstance(op, Dependent)}
    quantized: dict[str, str] = {}
    skipped = {id(layer) for layer in covered}
    for path, layer in _walk(model, skipped):
        for op in _ops_of(layer):
            found.setdefault((op.query.op, op.query.dtype), op)
        method = getattr(layer, "method", None)
        # Products of other methods are their own business, unless they are the op "scaled_linear".
        told = any(hasattr(method, name) for name in ("linear", "scaled")) or getattr(method, "batch_invariant", False)
        if method is not None and not told:
            quantized.setdefault(type(method).__name__, path)
    if not found and not quantized:
        return
    why = [_line(op) for op in found.values()]
    why += [f"{path} is multiplied by {name}, which does not say that it is" for name, path in quantized.items()]
    others = ", ".join(absent("op_kernel")) if found else ""
    raise NoOffer(
        "batch_invariant was asked for, and parts of this model would depend on the batch.",
        why=why,
        install=f"packages with kernels that are not installed here, and may have some for this device: {others}"
        if others
        else "",
        instead="leave --batch-invariant out",
    )


def _line(op: Dependent) -> str:
    sizes = ", ".join(f"{name} {value}" for name, value in op.query.shape.items() if value)
    said = "".join(f"\n{reason}" for reason in op.why) or "\nnobody else offers it"
    return f"{op.query.op} ({sizes}, {op.query.dtype}): the core's own version is not, on {op.query.device.type}{said}"


def _walk(layer: nn.Module, skipped: set[int], path: str = "") -> Iterator[tuple[str, nn.Module]]:
    if id(layer) in skipped:
        return
    yield path, layer
    for name, child in layer.named_children():
        yield from _walk(child, skipped, f"{path}.{name}".lstrip("."))


def _ops_of(layer: nn.Module) -> Iterator[Dependent]:
    """Those that a layer, or the method of its weights, would call."""
    for value in [*vars(layer).values(), *getattr(getattr(layer, "method", None), "__dict__", {}).values()]:
        if isinstance(value, Dependent):
            yield value
