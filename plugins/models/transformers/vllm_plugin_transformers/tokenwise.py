"""Whether a model's tokens meet anywhere but in attention: then pages alone cannot serve it.

A convolution over neighbouring tokens, a state passed on, a mean over the sequence: run on a batch of several
sequences end to end they would mix them, and in a later step they would miss the tokens before. Shapes give them
away: with a prime number of tokens, what is computed token by token has a multiple of that many elements.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vllm_plugin_transformers.errors import CannotServe

ALONG = {"cumsum", "cumprod", "logcumsumexp", "cummax", "cummin", "roll", "flip", "sort", "argsort"}
"""Operations that mix along a dimension and keep its length."""


class TokenWise(TorchDispatchMode):
    """While active, an operation over ``tokens`` tokens (a prime number that no other size has) is refused."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if any(self._times(x) for x in inputs):
            most = max(self._times(x) for x in inputs)
            outputs = [x for x in tree_leaves(made) if isinstance(x, Tensor)]
            name = func.__name__.partition(".")[0]
            if any(x.numel() and not 1 <= self._times(x) <= most for x in outputs) or (
                name in ALONG and self._along(args)
            ):
                raise CannotServe(
                    f"its tokens meet outside of attention (in {name}), as in convolutions and recurrences"
                )
        return made

    def _times(self, x: Tensor) -> int:
        """How often the number of elements can be divided by the number of tokens."""
        times, rest = 0, x.numel()
        while rest and rest % self.tokens == 0:
            times, rest = times + 1, rest // self.tokens
        return times

    def _along(self, args: Any) -> bool:
        """Whether one of these operations runs along the tokens; without a dimension it runs along all."""
        shape = args[0].shape
        dims = args[1:] and [d for d in tree_leaves(args[1:]) if type(d) is int and -len(shape) <= d < len(shape)]
        return not dims or any(shape[d] % self.tokens == 0 for d in dims)
