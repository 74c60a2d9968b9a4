"""``python -m tests.public_api``: what changed since the snapshot. ``accept``: take it as it is now."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.public_api.snapshot import FILE, Snapshot, Verdict


def main(words: Sequence[str], file: Path = FILE) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.public_api", description=__doc__)
    parser.add_argument("action", nargs="?", choices=("show", "accept"), default="show")
    parser.add_argument(
        "--unreleased",
        action="store_true",
        help="accept what breaks plugins under the same HOOK_API, as long as no release speaks it",
    )
    args = parser.parse_args(words)
    before = Snapshot.read(file)
    verdict = Verdict(before, Snapshot.now(before))
    print(str(verdict) or "nothing has changed")
    if args.action == "show":
        return bool(str(verdict))
    if verdict.wrong:
        return 1
    if args.unreleased and verdict.released:
        print(f"\nnot accepted: hook API {before.hook_api} is that of release {before.since}")
        return 1
    if verdict.must_rise and not args.unreleased:
        print("\nnot accepted")
        return 1
    verdict.now.write(file)
    print(f"\naccepted: {file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
