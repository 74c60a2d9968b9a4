"""``python -m vllm_kernels.bench [--only NAME ...] [--cases MODULE] [--output-json FILE]``: all kernels' figures."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import attrs
import torch

from vllm_kernels.bench.case import Call, Case, all_cases
from vllm_kernels.bench.ceilings import Ceilings, ceilings
from vllm_kernels.bench.timing import microseconds

HEAD = f"{'kernel':24} {'shape':34} {'dtype':9} {'us':>8} {'rate':>12} {'of ceiling':>10} {'torch us':>9} {'faster':>7}"


def measure(case: Case, top: Ceilings) -> dict[str, Any]:
    us = time_of(case, case.make)
    torch_us = time_of(case, case.reference) if case.reference is not None else None
    gb_per_s, tflop_per_s = case.bytes / us / 1e3, case.flops / us / 1e6
    # The nearer ceiling is the one that counts.
    shares = {"GB/s": gb_per_s / top.gb_per_s, "TFLOP/s": tflop_per_s / top.tflop_per_s}
    unit = max(shares, key=lambda name: shares[name])
    return {
        "kernel": case.kernel,
        "shape": case.shape,
        "dtype": case.dtype,
        "us": us,
        "rate": gb_per_s if unit == "GB/s" else tflop_per_s,
        "unit": unit,
        "share": shares[unit],
        "torch_us": torch_us,
    }


def time_of(case: Case, make: Callable[[], Call]) -> float:
    """Microseconds; of what stands behind ``case.before``, what it adds to that."""
    before = case.before
    if before is None:
        return microseconds(make, case.bytes)

    def both() -> Call:
        first, then = before(), make()
        return lambda: (first(), then())

    return microseconds(both, case.bytes) - microseconds(before, case.bytes)


def line(row: dict[str, Any]) -> str:
    rate = f"{row['rate']:.0f} {row['unit']}"
    other = row["torch_us"]
    torch_part = f"{other:9.2f} {other / row['us']:6.1f}x" if other is not None else f"{'-':>9} {'-':>7}"
    head = f"{row['kernel']:24} {row['shape']:34} {row['dtype']:9}"
    return f"{head} {row['us']:8.2f} {rate:>12} {row['share']:10.0%} {torch_part}"


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m vllm_kernels.bench", description=__doc__)
    parser.add_argument("--only", metavar="NAME", nargs="+", help="kernels whose line contains one of these")
    parser.add_argument("--cases", metavar="MODULE", action="append", default=[], help="another module with cases()")
    parser.add_argument("--output-json", metavar="FILE", help="write the figures there, too")
    args = parser.parse_args(words)
    if not torch.cuda.is_available():
        print("the bench needs a CUDA device, and torch sees none", file=sys.stderr)
        return 2
    start = time.perf_counter()
    top = ceilings()
    major = torch.cuda.get_device_capability()[0]
    name = torch.cuda.get_device_name()
    print(f"{name}: copy {top.gb_per_s:.0f} GB/s, bfloat16 product {top.tflop_per_s:.0f} TFLOP/s\n{HEAD}")
    rows, failed = [], 0
    for case in all_cases(args.cases):
        chosen = args.only is None or any(part in str(case) for part in args.only)
        if not chosen or case.major not in (None, major):
            continue
        try:
            rows.append(measure(case, top))
        except Exception as error:  # the others' figures are still of use
            failed += 1
            print(f"{case}: FAILED, {type(error).__name__}: {error}", flush=True)
        else:
            print(line(rows[-1]), flush=True)
    print(f"{len(rows)} lines in {time.perf_counter() - start:.0f} s, {failed} failed")
    if args.output_json:
        with open(args.output_json, "w", encoding="utf-8") as file:
            json.dump({"device": name, "ceilings": attrs.asdict(top), "rows": rows}, file, indent=1)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
