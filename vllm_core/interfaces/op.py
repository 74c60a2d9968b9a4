"""The contract of kernels: fast ops of the op table, and layers fused into one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from vllm_core.interfaces.queries import OpQuery

if TYPE_CHECKING:
    from torch import Tensor


class OpKernel(Protocol):
    """Called when a layer is bound; what it returns is called in every step."""

    def __call__(self, query: OpQuery) -> Callable[..., Any]:
        """A callable with the signature of the op's plain reference in ``vllm_core.ops``.

        Called from any thread, and for several queries at a time.

        It takes and returns the same shapes and dtypes, writes only to the arguments that the
        reference writes to, and never synchronises with the host. May compile or allocate
        work space here, once; equal queries may share it.
        """


class PackingKernel(Protocol):
    """What an `OpKernel` for ``linear`` may return: it reads weights in a layout of its own.

    Each weight is packed when it has been loaded, and the unpacked one is given back unless
    something else reads it. Loaded again, it is packed again, at another address.
    """

    def pack(self, weight: Tensor) -> Tensor:
        """[out_size, in_size] -> what ``__call__`` takes in its place; of the same ``shape``."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """As the op; ``weight`` is packed."""


class FusedLayer(Protocol):
    """A whole layer in one: offered like an op, under the layer's name."""

    def __call__(self, query: OpQuery, layer: Any) -> Callable[..., Any] | None:
        """A callable to use in place of the bound layer's ``forward``, or None: not this one.

        The target may also have ``prepare(query)``, which compiles what a call will need: called
        before, while other kernels are made, from any thread.

        ``layer`` is bound: it has its parameters, and keeps their addresses when it is loaded
        again. The callable gives what composing the layer's ops gives, up to rounding.
        """
