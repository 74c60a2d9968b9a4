"""The contract of kernels: fast ops of the op table, and layers fused into one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from vllm_core.interfaces.queries import OpQuery


class OpKernel(Protocol):
    """Called when a layer is bound; what it returns is called in every step."""

    def __call__(self, query: OpQuery) -> Callable[..., Any]:
        """A callable with the signature of the op's plain reference in ``vllm_core.ops``.

        It takes and returns the same shapes and dtypes, writes only to the arguments that the
        reference writes to, and never synchronises with the host. May compile or allocate
        work space here, once; equal queries may share it.
        """


class FusedLayer(Protocol):
    """A whole layer in one: offered like an op, under the layer's name."""

    def __call__(self, query: OpQuery, layer: Any) -> Callable[..., Any] | None:
        """A callable to use in place of the bound layer's ``forward``, or None: not this one.

        ``layer`` is bound: it has its parameters, and keeps their addresses when it is loaded
        again. The callable gives what composing the layer's ops gives, up to rounding.
        """
