"""``vllm-core bench attention MODEL``: which of the installed attention backends is fastest for its layers here."""

from __future__ import annotations

import argparse
from typing import Any

import attrs

from vllm_core.cli.bench.record import add_output_flag, environment, kept, write
from vllm_core.cli.engine_flags import add_engine_flags, check_plugins, engine_settings
from vllm_core.cli.errors import UsageError

__all__ = ["Attention"]

HOOK = "attention_backend"
_ABOUT = """Times every attention backend that offers to serve the model's layers: a step of 32 decoding rows at 1,024
tokens, captured where the backend can be, and one of 8 prompts of 1,024 tokens. Milliseconds a layer. No weight is
read. "together" is 256 of the first and 4 of the second: 32 requests of 1,024 tokens in and 256 out."""


class Attention:
    """A table of backends, and with ``--record`` the figures that choose among those of equal rank from then on."""

    about = _ABOUT
    examples = (
        ("bench attention ./my-model", ""),
        ("bench attention ./my-model --record", "the fastest of equal rank is taken from then on"),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--record", action="store_true", help="keep the figures for choices of later starts")
        parser.add_argument("--num-iters", type=int, default=5, metavar="N", help="measured runs of a step; default: 5")
        add_output_flag(parser)
        add_engine_flags(parser)

    def run(self, args: argparse.Namespace) -> int:
        kept(args)
        if args.num_iters < 1:
            raise UsageError("--num-iters must be at least 1")
        loaded = engine_settings(args)
        check_plugins(loaded)
        from vllm_core.engine.resolve import resolve
        from vllm_core.plugins.figures import record, shape_class
        from vllm_core.runner.attention_times import measure

        # All of them answer; which one is taken does not matter here, and it could be that nothing tells them apart.
        settings = attrs.evolve(loaded.settings, attention_backend=loaded.settings.attention_backend or "reference")
        resolved = resolve(settings)
        found = []
        for decision in (d for d in resolved.selector.decisions if d.hook == HOOK):
            query = decision.query
            kind = f"{query.kind}, {query.num_heads}/{query.num_kv_heads} heads of {query.k_dim}, {query.dtype}"
            print(f"{kind} on {query.device.name or query.device.type}")
            for answer in decision.answers:
                row: dict[str, Any] = {"query": kind, "name": answer.name or answer.plugin, "by": answer.owner}
                if answer.offer is None:
                    if answer.refusal:
                        print(f"  {row['name']:<18} refuses: {answer.refusal}")
                    continue
                times = measure(answer.offer, query, resolved.build.torch_device, resolved.selector, args.num_iters)
                found.append({**row, "rank": answer.offer.rank.name, "milliseconds": times.milliseconds})
                print(f"  {row['name']:<18} {times.line}, rank {answer.offer.rank.name}")
                if args.record:
                    record(HOOK, answer.offer.name, query.device, shape_class(query), times.seconds)
        write(args, {"backends": found, "recorded": args.record, **environment()})
        return 0
