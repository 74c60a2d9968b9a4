"""``python -m vllm_plugin_server.testing GATE URL``: attack a running server and print what was found."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from vllm_plugin_server.testing import gates
from vllm_plugin_server.testing.advisories import counts, table
from vllm_plugin_server.testing.endings import run_endings
from vllm_plugin_server.testing.faults import run_faults
from vllm_plugin_server.testing.kills import run_kills
from vllm_plugin_server.testing.memory_failures import run_memory_failures
from vllm_plugin_server.testing.partial import run_partial
from vllm_plugin_server.testing.soak import run_soak
from vllm_plugin_server.testing.wire import Unanswered

__all__ = ["main"]

Gate = Callable[[argparse.Namespace], Awaitable[tuple[bool, dict[str, Any]]]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vllm_plugin_server.testing",
        description="Attacks on a running server: only on your own. docs/reliability.md says what each is for.",
    )
    commands = parser.add_subparsers(required=True, metavar="GATE")

    def gate(name: str, run: Gate, text: str, nargs: str | None = None) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        command.add_argument("url", nargs=nargs, help="of the server, http://HOST:PORT")
        command.add_argument("--api-key", metavar="KEY", help="if it wants one")
        command.add_argument("--ready", type=float, default=60.0, metavar="S", help="wait so long for it; default: 60")
        return command

    one = gate("hostile", gates.hostile, "R1, R2, R4: a set of malformed and hostile requests")
    one.add_argument("--group", action="append", metavar="NAME", help="only these groups of the set")
    one.add_argument("--no-probe", action="store_true", help="no good question after each: faster, and proves less")
    one.add_argument(
        "--neighbours",
        action="store_true",
        help="8 good streams beside it, and beside 2,000 mutants, compared with a quiet run",
    )
    one = gate("loop", gates.run_loop, "R19: what holds the event loop: the set, and bodies of up to 30 MB")
    one.add_argument("--only", default="", metavar="TEXT", help="requests with this in their names")
    one = gate("auth", gates.auth, "R17: tricks to pass without the key")
    text = "R17: whether the time to refuse a key tells of the right ones; in this process, without a server"
    one = commands.add_parser("timing", help=text, description=text)
    one.set_defaults(run=gates.run_timing)
    one.add_argument("--comparisons", type=int, default=100_000, metavar="N", help="a question; default: 100,000")
    one.add_argument("--seed", type=int, default=1, metavar="N", help="default: 1")
    one = gate("fuzz", gates.run_fuzz, "R3: mutated requests, the same for the same seed")
    one.add_argument("--requests", type=int, default=100_000, metavar="N", help="default: 100,000")
    one.add_argument("--seed", type=int, default=1, metavar="N", help="default: 1")
    one.add_argument("--only", type=int, metavar="N", help="this one again")
    one.add_argument("--at-once", type=int, default=4, metavar="N", help="default: 4")
    one = gate("vanish", gates.run_vanish, "R6: clients that hang up, and the blocks they leave")
    one.add_argument("--drops", type=int, default=1000, metavar="N", help="one by one; default: 1,000")
    one.add_argument("--waves", type=int, default=320, metavar="N", help="then, 16 at once; default: 320")
    one.add_argument("--seed", type=int, default=1, metavar="N", help="default: 1")
    one = gate("burst", gates.run_burst, "R7: far more requests than there is room for, at once and for a while")
    one.add_argument("--places", type=int, default=16, metavar="N", help="its --max-concurrent-requests; default: 16")
    one.add_argument("--seconds", type=float, default=20.0, metavar="S", help="of each load; default: 20")
    one.add_argument("--pid", type=int, help="of the server, for its memory")
    one.add_argument("--requests", type=int, default=1000, metavar="N", help="default: 1,000")
    commands.add_parser("advisories", help="R20: the table of docs/advisories.md").set_defaults(run=None)
    one = gate(
        "memory", gates.memory, "R5: what the server holds after 100 requests, and after the set and many requests more"
    )
    one.add_argument("--rest", type=float, default=65.0, metavar="S", help="before each look; default: 65")
    one.add_argument("--pid", type=int, required=True, help="of the server")
    one.add_argument("--requests", type=int, default=10_000, metavar="N", help="default: 10,000")
    text = "R13: servers of its own, ended in ten ways at random moments"
    one = commands.add_parser("endings", help=text, description=text)
    one.set_defaults(run=run_endings)
    one.add_argument("--runs", type=int, default=100, metavar="N", help="default: 100")
    one.add_argument("--seed", type=int, default=1, metavar="N", help="default: 1")
    one.add_argument("--model", metavar="MODEL", help="of at least 16,384 tokens; default: a tiny random one")
    text = "R12: a server of its own, and faults in its processes: when /health turns red, and when it must not"
    one = commands.add_parser("faults", help=text, description=text)
    one.set_defaults(run=run_faults)
    one.add_argument("--kind", action="append", metavar="NAME", help="only these; default: all")
    one.add_argument("--model", metavar="MODEL", help="default: a tiny random one")
    text = "R14: memory that cannot be had, at points in all parts of a server of its own"
    one = commands.add_parser("memory-failures", help=text, description=text)
    one.set_defaults(run=run_memory_failures)
    one.add_argument("--points", type=int, default=100, metavar="N", help="default: 100")
    one.add_argument("--seed", type=int, default=1, metavar="N", help="default: 1")
    one.add_argument("--model", metavar="MODEL", help="default: a tiny random one")
    text = "R9, R10: a server of its own whose engine is killed under load, again and again"
    one = commands.add_parser("kills", help=text, description=text)
    one.set_defaults(run=run_kills)
    one.add_argument("--kills", type=int, default=100, metavar="N", help="default: 100")
    one.add_argument("--streams", type=int, default=12, metavar="N", help="at once; default: 12")
    one.add_argument("--tokens", type=int, default=400, metavar="N", help="of an answer, at least; default: 400")
    one.add_argument("--carry-over", action="store_true", help="R10: streams must go on in the next engine")
    one.add_argument("--seed", type=int, default=1, metavar="N", help="default: 1")
    one.add_argument("--model", metavar="MODEL", help="default: a tiny random one")
    text = "R11: a server of its own with two engines, one of which is killed under load, again and again"
    one = commands.add_parser("partial", help=text, description=text)
    one.set_defaults(run=run_partial)
    one.add_argument("--kills", type=int, default=20, metavar="N", help="default: 20")
    one.add_argument("--streams", type=int, default=12, metavar="N", help="at once; default: 12")
    one.add_argument("--tokens", type=int, default=400, metavar="N", help="of an answer, at least; default: 400")
    one.add_argument("--seed", type=int, default=1, metavar="N", help="default: 1")
    one.add_argument("--model", metavar="MODEL", help="default: a tiny random one")
    text = "R21: a server of its own under load, and a fault every few seconds"
    one = commands.add_parser("soak", help=text, description=text)
    one.set_defaults(run=run_soak)
    one.add_argument("--seconds", type=float, default=600.0, metavar="S", help="default: 600")
    one.add_argument("--every", type=float, default=15.0, metavar="S", help="between two faults; default: 15")
    one.add_argument("--tokens", type=int, default=64, metavar="N", help="of an answer, at least; default: 64")
    one.add_argument("--seed", type=int, default=1, metavar="N", help="default: 1")
    one.add_argument("--model", metavar="MODEL", help="default: a tiny random one")
    one = gate(
        "streams",
        gates.run_streams,
        "R8: open streams beside slow and silent peers; of an echo engine without URL",
        "?",
    )
    one.add_argument("--gap", type=float, default=10.0, metavar="S", help="of the echo engine's tokens; default: 10")
    one.add_argument("--streams", type=int, default=10_000, metavar="N", help="default: 10,000")
    one.add_argument(
        "--slow", type=int, default=1000, metavar="N", help="peers that send a byte a second; default: 1,000"
    )
    one.add_argument("--silent", type=int, default=1000, metavar="N", help="peers that read nothing; default: 1,000")
    one.add_argument("--tokens", type=int, default=4, metavar="N", help="of each stream; default: 4")
    one.add_argument("--pid", type=int, help="of the server, for its memory")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(words)
    if args.run is None:
        print(table(), end="")
        return int("open" in counts())
    with contextlib.suppress(ImportError):
        import resource  # thousands of connections

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        well, report = asyncio.run(args.run(args))
    except (Unanswered, ValueError) as error:
        print(f"the gate could not run: {error}", file=sys.stderr)
        return 2
    print(json.dumps(report, indent=1, default=str))
    print("passed" if well else "FAILED")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
