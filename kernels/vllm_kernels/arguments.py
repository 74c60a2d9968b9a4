"""Arguments of a kernel in memory as the driver wants them: one buffer, and a pointer to each value in it."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

PackError = struct.error  # a number of arguments or a value that the signature has no place for
KINDS = {"P": "P", "i": "i", "l": "q", "f": "f", "d": "d"}


class Arguments:
    """``pack(values)`` puts them where ``pointers`` (``void**``) says, each in its own place of its own size.

    A launch copies them, so the next may follow at once.
    """

    def __init__(self, signature: str) -> None:
        if unknown := set(signature) - KINDS.keys():
            raise ValueError(f"signature {signature!r}: {sorted(unknown)} are no kinds of arguments, {[*KINDS]} are")
        form, offsets = "@", []
        for kind in signature:
            code = KINDS[kind]
            form += code
            offsets.append(struct.calcsize(form) - struct.calcsize("@" + code))
        self._struct = struct.Struct(form)
        self._buffer = ctypes.create_string_buffer(max(1, self._struct.size) + 8)
        start = -ctypes.addressof(self._buffer) % 8
        self.start = start
        base = ctypes.addressof(self._buffer) + start
        self.pointers = (ctypes.c_void_p * max(1, len(signature)))(*(base + offset for offset in offsets))
        self.count = len(signature)

    def pack(self, values: tuple[Any, ...]) -> None:
        """Tensors count as their addresses, None as null."""
        self._struct.pack_into(self._buffer, self.start, *[_plain(value) for value in values])


def _plain(value: Any) -> Any:
    if type(value) is int or type(value) is float:
        return value
    if value is None:
        return 0
    address = getattr(value, "data_ptr", None)
    return value if address is None else address()
