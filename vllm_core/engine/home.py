"""The folder of an engine, which its owner alone may enter: where processes that share an engine find each other.

engine   the socket
pulse    what the engine is doing (`engine.pulse`)
status   what the process that started the engine knows of it
facts    what other fronts need to know of it (`engine.shared_facts`), before its status is "ready"
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from vllm_core.engine.folders import OwnedFolder
from vllm_core.engine.pulse import Pulse

__all__ = ["Home", "Status"]

SCHEME = "ipc://"


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Written by the owner, read by other fronts."""

    state: str  # "starting", "ready", "restarting", "dead"
    owner: int  # pid
    engine: int = 0  # pid; 0: there is none
    starts: int = 0  # of engines so far
    cause: str = ""  # why the last engine has ended
    start_seconds: float = 0.0  # that the last start took
    far: bool = False  # on another host: the pid of the engine is that one's


class Home:
    """``owned``: of the process that made it, which alone mends and removes it."""

    def __init__(self, folder: Path, owned: OwnedFolder | None = None) -> None:
        self.folder, self._owned = folder, owned
        self.pulse = folder / "pulse"
        self._status = folder / "status"
        self.facts = folder / "facts"

    @classmethod
    def make(cls) -> Home:
        owned = OwnedFolder.make()
        home = cls(owned.path, owned)
        Pulse.create(home.pulse)
        return home

    def mend(self) -> None:
        """Make again what a tool that clears temporary folders has removed."""
        if self._owned is not None:
            self._owned.mend()
        if not self.pulse.exists():
            Pulse.create(self.pulse)

    @classmethod
    def at(cls, address: str) -> Home:
        """Of an address that somebody gave us."""
        folder = Path(address.removeprefix(SCHEME)).parent
        try:
            shared = folder.stat().st_mode & 0o077
        except OSError as error:
            raise ValueError(f"there is no engine at {address}: {error.strerror}") from None
        if not address.startswith(SCHEME) or shared:
            raise ValueError(
                f"{address} is no address of an engine: it must be {SCHEME} and a path in a folder that its owner alone"
                " may enter, as AsyncLLM.address gives it"
            )
        return cls(folder)

    @property
    def address(self) -> str:
        return f"{SCHEME}{self.folder}/engine"

    def write(self, status: Status) -> None:
        """Replace the status at once, so that nobody reads half of one."""
        new = self.folder / "status.new"
        try:
            new.write_bytes(msgspec.msgpack.encode(status))
            new.replace(self._status)
        except OSError:  # the folder has been removed: everybody has been told to end
            return

    def read(self) -> Status | None:
        """None if the folder is gone."""
        try:
            return msgspec.msgpack.decode(self._status.read_bytes(), type=Status)
        except (OSError, msgspec.MsgspecError):
            return None

    def remove(self) -> None:
        if self._owned is not None:
            self._owned.remove()
