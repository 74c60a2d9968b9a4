"""What ``complete`` and ``chat`` share: sampling flags, an engine, text as it comes, figures at the end."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Container, Iterator
from contextlib import closing, contextmanager
from typing import Any

import attrs

from vllm_core.cli.clock import seconds_since_start
from vllm_core.cli.engine_flags import add_engine_flags, check_plugins, engine_settings, tell
from vllm_core.cli.errors import UsageError

__all__ = ["add_generation_flags", "engine", "stream"]

_SAMPLING = ("temperature", "top_p", "top_k", "max_tokens", "stop")


def add_generation_flags(parser: argparse.ArgumentParser, *, max_tokens: int | None) -> None:
    """Sampling, output, and all that ``engine`` needs. ``max_tokens`` is the default; None: all that fit."""
    group = parser.add_argument_group("sampling", "Without a flag the model's generation_config.json decides.")
    group.add_argument("--temperature", type=float, metavar="X", help="0 always takes the likeliest token")
    group.add_argument("--top-p", type=float, metavar="X", help="draw from the likeliest tokens of this total share")
    group.add_argument("--top-k", type=int, metavar="N", help="draw from the N likeliest tokens; 0: all")
    default = str(max_tokens) if max_tokens else "what the model's files say, or what fits"
    longest = f"longest output, in tokens; default: {default}"
    group.add_argument("--max-tokens", type=int, metavar="N", default=max_tokens, help=longest)
    group.add_argument("--stop", action="append", metavar="TEXT", help="end before this text; may be repeated")
    parser.add_argument("-q", "--quiet", action="store_true", help="print the text and no figures")
    parser.add_argument("--verbose", action="store_true", help="show where the time of the start went")
    add_engine_flags(parser)


@contextmanager
def engine(args: argparse.Namespace) -> Iterator[tuple[Any, Any]]:
    """An ``LLM`` with the settings of the command line, ended afterwards, and its sampling parameters."""
    from vllm_core.engine.sampling_params import SamplingParams

    given = {name: getattr(args, name) for name in _SAMPLING if getattr(args, name) is not None}
    try:
        SamplingParams(**given)  # a wrong value is refused before a model is loaded
    except ValueError as error:
        raise UsageError(str(error)) from None
    loaded = engine_settings(args)
    catalog = check_plugins(loaded)
    from vllm_core import LLM

    llm = LLM.from_settings(loaded.settings)
    try:
        tell(llm.built.warnings, known=catalog.notices)
        # Where the model's files are silent, a person wants all of an answer, not 16 tokens.
        silent = "max_new_tokens" not in llm.built.generation_config
        params = attrs.evolve(
            llm.get_default_sampling_params(), **{**({"max_tokens": None} if silent else {}), **given}
        )
        if args.verbose:
            _print_timings(llm.timings)
            _print_sampling(params, given)
        yield llm, params
    finally:
        llm.shutdown()


@attrs.define
class Streamed:
    """What a stream has shown."""

    text: str = ""  # where a parser told them apart, without the reasoning
    tokens: int = 0
    prompt_tokens: int = 0
    error: str = ""


def stream(llm: Any, prompt: Any, params: Any, *, quiet: bool, first_answer: bool = True) -> Streamed:
    """Print the answer as it comes, then a line of figures unless ``quiet``. Returns what was said."""
    shown = Streamed()
    voices = Voices(quiet)
    begun = time.perf_counter()
    first = since_start = 0.0
    with closing(llm.stream(prompt, params)) as outputs:
        for output in outputs:
            completion = output.outputs[0]
            if not first and completion.token_ids:
                first, since_start = time.perf_counter(), seconds_since_start() if first_answer else 0.0
            text = completion.text
            if completion.delta is not None:
                text = completion.content or ""
                voices.think(completion.delta.reasoning)
                voices.say(completion.delta.content)
            else:
                print(text[len(shown.text) :], end="", flush=True)
            shown = Streamed(text, len(completion.token_ids), len(output.prompt_token_ids))
            if completion.finish_reason == "error":
                shown.error = getattr(output, "error", "") or "the request failed"
    print(flush=True)
    if shown.error:
        raise RuntimeError(shown.error)
    if not quiet:
        print(_figures(shown, begun, first, time.perf_counter(), since_start), file=sys.stderr, flush=True)
    return shown


@attrs.define
class Voices:
    """Reasoning and answer, apart: dimmed on a terminal, headed elsewhere, and only the answer if ``quiet``."""

    quiet: bool
    thinking: bool = False

    def think(self, text: str) -> None:
        if not text:
            return
        dim, head = sys.stdout.isatty(), "" if self.thinking else "[reasoning]\n"
        self.thinking = True
        if not self.quiet:
            print(f"\x1b[2m{text}\x1b[22m" if dim else head + text, end="", flush=True)

    def say(self, text: str) -> None:
        if text and self.thinking:
            between = "" if self.quiet else "\n\n" if sys.stdout.isatty() else "\n[answer]\n"
            text, self.thinking = between + text.lstrip(), False
        print(text, end="", flush=True)


def _figures(shown: Streamed, begun: float, first: float, end: float, since_start: float) -> str:
    if not first:
        return "[no tokens]"
    rate = f"{(shown.tokens - 1) / (end - first):.1f} tokens/s, " if shown.tokens > 1 and end > first else ""
    started = f", {since_start:.2f} s after process start" if since_start else ""
    return (
        f"[{shown.prompt_tokens} prompt tokens, {shown.tokens} tokens, {rate}first token {first - begun:.2f} s"
        f" after submission{started}]"
    )


def _print_sampling(params: Any, given: Container[str]) -> None:
    """What is not as it would be without flags and generation_config.json."""
    shown = [
        f"{name}={value!r} ({'flag' if name in given else 'generation_config.json'})"
        for name, value in params.changed().items()
        if value is not None
    ]
    print(f"sampling: {', '.join(shown) or 'no parameters are set'}", file=sys.stderr)


def _print_timings(timings: dict[str, float]) -> None:
    print("start:", file=sys.stderr)
    for stage, seconds in timings.items():
        print(f"  {seconds:7.3f} s  {stage}", file=sys.stderr)
    whole = seconds_since_start()
    print(f"  {whole - sum(timings.values()):7.3f} s  Python and imports", file=sys.stderr)
    print(f"  {whole:7.3f} s  since the process started", file=sys.stderr)
