"""Whether a model's tokens meet anywhere but in attention: then pages alone cannot serve it.

A convolution over neighbouring tokens, a state passed on, a mean over the sequence: run on a batch of several
sequences end to end they would mix them, and in a later step they would miss the tokens before. Shapes give them
away: with a prime number of tokens, what is computed token by token has a multiple of that many elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vllm_plugin_transformers.errors import CannotServe

ALONG = {"cumsum", "cumprod", "logcumsumexp", "cummax", "cummin", "roll", "flip", "sort", "argsort"}
"""Operations that mix along a dimension and keep its length."""
WHOLE = ("scaled_dot_product", "flash_attention", "lstm", "gru", "rnn")
"""In the names of operations that mix a sequence whatever their arguments."""


class TokenWise(TorchDispatchMode):
    """While active, an operation over ``tokens`` tokens (a prime number that no other size has) is refused."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        most = max(map(self._times, inputs), default=0)
        outputs = [x for x in tree_leaves(made) if isinstance(x, Tensor) and x.numel()]
        name = func.__name__.partition(".")[0]
        if most and (not all(1 <= self._times(x) <= most for x in outputs) or self._mixes(name, func, args, kwargs)):
            raise CannotServe(f"its tokens meet outside of attention (in {name}), as in convolutions and recurrences")
        return made

    def _times(self, x: Tensor) -> int:
        """How often the number of elements can be divided by the number of tokens."""
        times, rest = 0, x.numel()
        while rest and rest % self.tokens == 0:
            times, rest = times + 1, rest // self.tokens
        return times

    def _mixes(self, name: str, func: Any, args: Any, kwargs: Any) -> bool:
        """Operations that keep the number of tokens and mix them all the same."""
        if name == "convolution":
            return max(args[1].shape[2:]) > 1
        if name not in ALONG:
            return any(word in name for word in WHOLE)
        dims: Sequence[int] = ()  # without one: along all
        for number, argument in enumerate(func._schema.arguments):
            if argument.name in ("dim", "dims"):
                given = args[number] if number < len(args) else kwargs.get(argument.name, argument.default_value)
                dims = given if isinstance(given, list | tuple) else [given]
        shape = args[0].shape
        return any(shape[d] % self.tokens == 0 for d in dims or range(len(shape)))
