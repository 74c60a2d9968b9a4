"""The flags of ``vllm-core bench serve``: vLLM's names. A long file: it is a list."""

from __future__ import annotations

import argparse
import json
import math
import uuid
from typing import Any

from vllm_plugin_server.bench.ask import BACKENDS
from vllm_plugin_server.bench.figures import METRICS, SLOS

__all__ = ["DATASETS", "SAMPLING", "add_flags", "goodput_of", "numbers"]

DATASETS = ("random", "sharegpt", "sonnet", "prefix_repetition", "custom")
SAMPLING = {
    "temperature": float, "top_p": float, "top_k": int, "min_p": float, "frequency_penalty": float,
    "presence_penalty": float, "repetition_penalty": float,
}  # fmt: skip


def _rates(text: str) -> list[float]:
    rates = numbers(text)
    if not rates or any(rate <= 0 or math.isnan(rate) for rate in rates):
        raise argparse.ArgumentTypeError(f"{text!r}: numbers above 0, or inf, with commas between them")
    return rates


def _counts(text: str) -> list[int]:
    try:
        counts = [int(word) for word in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: whole numbers of at least 1, with commas between them")
    return counts


def numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: numbers with commas between them") from None


def _percentiles(text: str) -> list[float]:
    found = numbers(text)
    if not all(0 <= percent <= 100 for percent in found):
        raise argparse.ArgumentTypeError(f"{text!r}: from 0 to 100")
    return found


def _metrics(text: str) -> list[str]:
    found = text.split(",")
    if unknown := [name for name in found if name not in METRICS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(METRICS)}")
    return found


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object")
    return value


def goodput_of(words: list[str] | None) -> dict[str, float]:
    """``KEY:VALUE`` words, the most milliseconds of a good request."""
    found = {}
    for word in words or ():
        name, _, value = word.partition(":")
        try:
            found[name] = float(value)
        except ValueError:
            raise ValueError(f"--goodput {word!r} is no NAME:MILLISECONDS") from None
        if name not in SLOS or not found[name] >= 0:
            raise ValueError(f"--goodput {word!r}: NAME is one of {', '.join(SLOS)}, and milliseconds are at least 0")
    return found


def add_flags(parser: argparse.ArgumentParser) -> None:
    _server(parser.add_argument_group("server"))
    _load(parser.add_argument_group("load"))
    _data(parser.add_argument_group("data"))
    sampling = parser.add_argument_group("sampling; what is not given is the server's choice")
    for name, kind in SAMPLING.items():
        sampling.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="X")
    sampling.add_argument("--ignore-eos", action="store_true", help="go on to the wanted length; always so for random")
    sampling.add_argument("--logprobs", type=int, metavar="N", help="log-probabilities of N tokens")
    sampling.add_argument("--extra-body", type=_object, metavar="JSON", help="more fields of each request")
    _results(parser.add_argument_group("results"))


def _server(group: Any) -> None:
    group.add_argument("--backend", default="openai", choices=list(BACKENDS), help="what to ask; default: openai")
    group.add_argument("--base-url", metavar="URL", help="the server, in place of host and port")
    group.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    group.add_argument("--port", type=int, default=8000, help="default: 8000")
    group.add_argument("--endpoint", metavar="PATH", help="the route; default: the backend's")
    group.add_argument("--model", metavar="NAME", help="default: the first that the server names")
    group.add_argument("--served-model-name", metavar="NAME", help="the model's name in requests; default: --model")
    group.add_argument("--header", nargs="*", metavar="KEY=VALUE", help="sent with every request")
    group.add_argument("--insecure", action="store_true", help="check no TLS certificate")
    group.add_argument("--ready-check-timeout-sec", type=float, default=0.0, metavar="S",
                       help="wait so long for the server to answer the first prompt; 0: no check")  # fmt: skip
    group.add_argument("--request-id-prefix", default=f"bench-{uuid.uuid4().hex[:8]}-", metavar="TEXT")


def _load(group: Any) -> None:
    group.add_argument("--num-prompts", type=int, default=1000, metavar="N", help="default: 1000")
    group.add_argument("--request-rate", type=_rates, default=[math.inf], metavar="R[,R...]",
                       help="requests a second, several for a run of each; inf: all at once; default: inf")  # fmt: skip
    group.add_argument("--burstiness", type=float, default=1.0, metavar="B",
                       help="shape of gamma-distributed gaps: 1 Poisson, below bursts, inf even")  # fmt: skip
    group.add_argument("--max-concurrency", type=_counts, metavar="N[,N...]",
                       help="most requests at once, several for a run of each")  # fmt: skip
    group.add_argument("--ramp-up-strategy", choices=["linear", "exponential"], help="let the rate grow")
    group.add_argument("--ramp-up-start-rps", type=float, metavar="R", help="its first rate")
    group.add_argument("--ramp-up-end-rps", type=float, metavar="R", help="its last rate")
    group.add_argument("--num-warmups", type=int, default=0, metavar="N", help="requests before; default: 0")


def _data(group: Any) -> None:
    def length(flag: str, default: int | None, text: str) -> None:
        shown = "" if default is None else f"; default: {default}"
        group.add_argument(flag, type=int, default=default, metavar="N", help=text + shown)

    group.add_argument("--dataset-name", default="random", choices=DATASETS, help="default: random")
    group.add_argument("--dataset-path", metavar="FILE", help="of sharegpt (JSON), custom (JSON lines), sonnet (text)")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of prompts and arrivals; default: 0")
    group.add_argument("--tokenizer", metavar="NAME", help="folder or Hub id; default: the server's /tokenize")
    group.add_argument("--skip-tokenizer-init", action="store_true", help="random prompts are token ids: --vocab-size")
    length("--vocab-size", None, "ids of such prompts are below it")
    length("--input-len", None, "tokens in, of any data set that has such a length")
    length("--output-len", None, "tokens out, of any data set")
    length("--random-input-len", 1024, "tokens in")
    length("--random-output-len", 128, "tokens out")
    group.add_argument("--random-range-ratio", type=float, default=0.0, metavar="X",
                       help="lengths from (1 - X) to (1 + X) of these; default: 0")  # fmt: skip
    length("--random-prefix-len", 0, "tokens before, the same in all prompts")
    length("--sharegpt-output-len", None, "tokens out in place of the recorded answers'")
    length("--custom-output-len", None, "tokens out in place of the file's")
    length("--sonnet-input-len", 550, "tokens in, about")
    length("--sonnet-output-len", 150, "tokens out")
    length("--sonnet-prefix-len", 200, "tokens that are the same in all prompts, about")
    length("--prefix-repetition-prefix-len", 256, "tokens of each beginning")
    length("--prefix-repetition-suffix-len", 256, "tokens after it")
    length("--prefix-repetition-num-prefixes", 10, "beginnings")
    length("--prefix-repetition-output-len", 128, "tokens out")


def _results(group: Any) -> None:
    group.add_argument("--percentile-metrics", type=_metrics, default=["ttft", "tpot", "itl"], metavar="NAMES",
                       help=f"of {', '.join(METRICS)}; default: ttft,tpot,itl")  # fmt: skip
    group.add_argument(
        "--metric-percentiles", type=_percentiles, default=[99.0], metavar="P[,P...]", help="default: 99"
    )
    group.add_argument("--goodput", nargs="+", metavar="NAME:MS", help="limits of a good request: ttft, tpot, e2el")
    group.add_argument("--save-result", action="store_true", help="write a JSON file for each run")
    group.add_argument("--save-detailed", action="store_true", help="with the times, texts and errors of all requests")
    group.add_argument("--append-result", action="store_true", help="add a line to the file if it is there")
    group.add_argument("--result-dir", metavar="DIR", help="where; default: here")
    group.add_argument("--result-filename", metavar="FILE", help="default: LABEL-RATEqps-MODEL-DATE.json")
    group.add_argument("--label", help="first word of that name; default: the backend")
    group.add_argument("--metadata", nargs="*", metavar="KEY=VALUE", help="kept in the file")
    group.add_argument("--plot", metavar="FILE", help="latency against rate, as .svg or .html, or .png (matplotlib)")
    group.add_argument("--disable-tqdm", action="store_true", help="no line of progress")
