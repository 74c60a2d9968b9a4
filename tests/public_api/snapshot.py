"""The public API as it was accepted, and what a change of it takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import attrs

from tests.public_api.differences import Change, differences
from tests.public_api.reading import surface
from vllm_core import __version__
from vllm_core.plugin import HOOK_API

FILE = Path(__file__).with_name("snapshot.json")
ACCEPT = ".venv/bin/python -m tests.public_api accept"


@attrs.frozen(kw_only=True)
class Snapshot:
    """``since``: version of vllm-core that first spoke this hook API. Until it is out, nobody's plugin can break."""

    hook_api: int
    since: str
    names: dict[str, str]

    @classmethod
    def read(cls, file: Path = FILE) -> Snapshot:
        return cls(**json.loads(file.read_text()))

    @classmethod
    def now(cls, before: Snapshot | None = None) -> Snapshot:
        same = before is not None and before.hook_api == HOOK_API
        return cls(hook_api=HOOK_API, since=before.since if same and before else __version__, names=surface())

    def write(self, file: Path = FILE) -> None:
        """A line a name, so that a change of it can be read."""
        head = {"hook_api": self.hook_api, "since": self.since}
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(line)}" for name, line in self.names.items())
        file.write_text(f'{json.dumps(head)[:-1]}, "names": {{\n{lines}\n}}}}\n')


@attrs.frozen
class Verdict:
    """What lies between a snapshot and now."""

    before: Snapshot
    now: Snapshot
    version: str = __version__

    @property
    def changes(self) -> list[Change]:
        return differences(self.before.names, self.now.names)

    @property
    def risen(self) -> int:
        return self.now.hook_api - self.before.hook_api

    @property
    def released(self) -> bool:
        """Whether a release speaks the snapshot's hook API, so that there may be plugins for it."""
        return self.version != self.before.since

    @property
    def must_rise(self) -> bool:
        return any(change.breaks for change in self.changes) and self.risen == 0

    @property
    def wrong(self) -> str:
        """Why HOOK_API cannot be what it is; "" if it can."""
        if self.risen not in (0, 1):
            return f"HOOK_API was {self.before.hook_api} and is {self.now.hook_api}: it rises by one"
        return ""

    def __str__(self) -> str:
        """For a person; "" if nothing changed."""
        breaking, adding = (_part(self.changes, breaks) for breaks in (True, False))
        if not self.changes and not self.risen:
            return ""
        lines = [f"The public API is not that of {FILE.parent.name}/{FILE.name} (hook API {self.before.hook_api})."]
        lines += ["", "Breaks plugins:", *breaking] if breaking else []
        lines += ["", "Breaks no plugin:", *adding] if adding else []
        return "\n".join([*lines, "", *self._advice()])

    def _advice(self) -> list[str]:
        if self.wrong:
            return [self.wrong]
        if self.must_rise:
            api = self.before.hook_api
            rise = (
                f"HOOK_API must rise from {api} to {api + 1}, and OLDEST_HOOK_API with it (vllm_core/plugin.py), or the"
            )
            lines = [f"{rise} old way stay", "beside the new one, deprecated (docs/compatibility.md). Then: " + ACCEPT]
            if not self.released:
                lines += [
                    f"vllm-core {self.before.since}, the first with hook API {api}, is not out yet:",
                    f"{ACCEPT} --unreleased takes it without that.",
                ]
            return lines
        if self.risen:
            return [f"HOOK_API has risen to {self.now.hook_api}. If that is meant: {ACCEPT}"]
        return [f"HOOK_API stays {self.now.hook_api}. If that is meant: {ACCEPT}"]


def _part(changes: Sequence[Change], breaks: bool) -> list[str]:
    return [str(change) for change in changes if change.breaks == breaks]
