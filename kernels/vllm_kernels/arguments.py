"""Arguments of a kernel in memory as the driver wants them: one buffer, and a pointer to each value in it."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

PackError = struct.error  # a number of arguments or a value that the signature has no place for
_NUMBERS = frozenset((int, float, bool))
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
        """Numbers, tensors for their addresses, None for null. `PackError` if they do not fit the signature."""
        # In one line without calls: this runs at every launch.
        plain = [v if type(v) in _NUMBERS else 0 if v is None else v.data_ptr() for v in values]
        self._struct.pack_into(self._buffer, self.start, *plain)
