"""From files to a device's memory: every thread reads into its own pinned buffers, and copies run behind it."""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable
from types import TracebackType
from typing import Any

import numpy as np
import torch

from vllm_core.weights.errors import CheckpointError
from vllm_core.weights.pieces import CHUNK, Piece

__all__ = ["Lanes"]

THREADS = 8  # of 4, 8, 12 and 16 the fastest on an H200 with 16 cores: 18.8 GB/s out of the page cache
BUFFERS = 2  # of a thread: one is read into while the other is copied from; 128 MiB in all


class Lanes:
    """The threads' buffers and streams, made when a thread first needs one. A context: leaving it waits for all copies.

    device   where pieces go; None: there are none
    An owner is whatever pieces are filled for (a layer): `made_room`, then `fill` from any thread, then `wait_for`.
    """

    def __init__(self, device: torch.device | None) -> None:
        self.device = device
        self.threads = max(1, min(THREADS, os.cpu_count() or 1))
        self._own = threading.local()
        self._made: list[_Lane] = []
        self._files: dict[str, _File] = {}
        self._lock = threading.Lock()
        self._room: dict[Hashable, Any] = {}  # owner -> event behind which it has memory
        self._filled: dict[Hashable, set[_Lane]] = {}

    def __enter__(self) -> Lanes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for lane in self._made:
            lane.finish()
        for file in self._files.values():
            file.close()
        if self._made and self.device is not None and self.device.type == "cuda":
            self._made.clear()
            torch.cuda.empty_cache()  # what the streams used in between is of no use to others
            if callable(give_back := getattr(torch._C, "_host_emptyCache", None)):
                give_back()

    def made_room(self, owner: Hashable) -> None:
        """The owner's memory was made on this thread's stream: copies wait for what used it before."""
        if self.device is not None and self.device.type == "cuda":
            self._room[owner] = torch.cuda.current_stream(self.device).record_event()

    def wait_for(self, owner: Hashable) -> None:
        """This thread's stream goes on when everything that was filled for the owner is there."""
        for lane in self._filled.pop(owner, ()):
            lane.let_wait()
        self._room.pop(owner, None)

    @torch.inference_mode()
    def fill(self, piece: Piece, owner: Hashable) -> None:
        """Read a piece and send it off. Returns when it has been read."""
        lane: _Lane | None = getattr(self._own, "lane", None)
        if lane is None:
            assert self.device is not None
            lane = self._own.lane = _Lane(self.device)
            with self._lock:
                self._made.append(lane)
        buffer = lane.take()
        try:
            self._file(piece.path).read(piece, buffer[: piece.nbytes])
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise CheckpointError(
                f"{piece.copy.name} cannot be read: {why}\n  where   {piece.path}, {piece.nbytes:,} bytes from byte"
                f" {piece.start:,}"
            ) from error
        lane.send(piece, self._room.get(owner))
        with self._lock:
            self._filled.setdefault(owner, set()).add(lane)

    def _file(self, path: str) -> _File:
        with self._lock:
            if path not in self._files:
                self._files[path] = _File(path)
            return self._files[path]


class _Lane:
    """One thread's buffers in turn, and the stream that empties them."""

    def __init__(self, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self._device = device
        self._stream = torch.cuda.Stream(device) if cuda else None
        self._buffers = [torch.empty(CHUNK, dtype=torch.uint8, pin_memory=cuda) for _ in range(BUFFERS)]
        self._copied = [torch.cuda.Event(blocking=True) if cuda else None for _ in range(BUFFERS)]
        self._at = 0

    def take(self) -> np.ndarray:
        """The next buffer, when what was in it has been copied."""
        self._at = (self._at + 1) % BUFFERS
        if (copied := self._copied[self._at]) is not None:
            copied.synchronize()
        return self._buffers[self._at].numpy()

    def send(self, piece: Piece, room: Any) -> None:
        """The buffer taken last into its place."""
        target = piece.copy.target()[piece.where]
        data = self._buffers[self._at][: piece.nbytes].view(piece.dtype).view(piece.shape)
        if self._stream is None:
            target.copy_(data)
            return
        with torch.cuda.stream(self._stream):
            if room is not None:
                self._stream.wait_event(room)
            if target.is_contiguous() and target.dtype == data.dtype:
                target.copy_(data, non_blocking=True)
            else:  # the device converts and scatters far faster than a thread
                target.copy_(data.to(self._device, non_blocking=True))
            self._copied[self._at].record(self._stream)  # type: ignore[union-attr]

    def let_wait(self) -> None:
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def finish(self) -> None:
        if self._stream is not None:
            self._stream.synchronize()


class _File:
    def __init__(self, path: str) -> None:
        self._path, self._fd = path, os.open(path, os.O_RDONLY)
        self._mapped: np.ndarray | None = None
        self._lock = threading.Lock()

    def read(self, piece: Piece, into: np.ndarray) -> None:
        """Fill ``into`` (uint8) with the piece's bytes."""
        if piece.rectangle is None:
            self._read_run(piece.start, into)
            return
        offset, shape, part = piece.rectangle
        size = piece.dtype.itemsize
        with self._lock:
            if self._mapped is None:
                self._mapped = np.memmap(self._path, dtype=np.uint8, mode="r")
        count = size * int(np.prod(shape, dtype=np.int64))
        rows = self._mapped[offset : offset + count].reshape(*shape[:-1], shape[-1] * size)
        *outer, (first, last) = part
        found = rows[(*(slice(a, b) for a, b in outer), slice(first * size, last * size))]
        np.copyto(into.reshape(found.shape), found)

    def _read_run(self, start: int, into: np.ndarray) -> None:
        if hasattr(os, "posix_fadvise"):  # all of it is on its way from the disk at once
            os.posix_fadvise(self._fd, start, len(into), os.POSIX_FADV_WILLNEED)
        done = 0
        while done < len(into):
            count = os.preadv(self._fd, [into[done:].data], start + done)
            if count == 0:
                raise ValueError(f"the file ends after {start + done:,} bytes")
            done += count

    def close(self) -> None:
        os.close(self._fd)
