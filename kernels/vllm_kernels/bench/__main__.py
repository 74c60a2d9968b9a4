"""``python -m vllm_kernels.bench [--only NAME] [--cases MODULE] [--json FILE]``: a table of all kernels' figures."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import attrs
import torch

from vllm_kernels.bench.case import Case, all_cases
from vllm_kernels.bench.ceilings import Ceilings, ceilings
from vllm_kernels.bench.timing import microseconds

HEAD = f"{'kernel':24} {'shape':34} {'dtype':9} {'us':>8} {'rate':>12} {'of ceiling':>10} {'torch us':>9} {'faster':>7}"


def measure(case: Case, top: Ceilings) -> dict[str, Any]:
    us = microseconds(case.make, case.bytes)
    torch_us = microseconds(case.reference, case.bytes) if case.reference is not None else None
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


def line(row: dict[str, Any]) -> str:
    rate = f"{row['rate']:.0f} {row['unit']}"
    other = row["torch_us"]
    torch_part = f"{other:9.2f} {other / row['us']:6.1f}x" if other is not None else f"{'-':>9} {'-':>7}"
    head = f"{row['kernel']:24} {row['shape']:34} {row['dtype']:9}"
    return f"{head} {row['us']:8.2f} {rate:>12} {row['share']:10.0%} {torch_part}"


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m vllm_kernels.bench", description=__doc__)
    parser.add_argument("--only", metavar="NAME", help="kernels whose line contains this")
    parser.add_argument("--cases", metavar="MODULE", action="append", default=[], help="another module with cases()")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    args = parser.parse_args(words)
    if not torch.cuda.is_available():
        print("the bench needs a CUDA device, and torch sees none", file=sys.stderr)
        return 2
    top = ceilings()
    name = torch.cuda.get_device_name()
    print(f"{name}: copy {top.gb_per_s:.0f} GB/s, bfloat16 product {top.tflop_per_s:.0f} TFLOP/s\n{HEAD}")
    rows = []
    for case in all_cases(args.cases):
        if args.only is None or args.only in str(case):
            rows.append(measure(case, top))
            print(line(rows[-1]), flush=True)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"device": name, "ceilings": attrs.asdict(top), "rows": rows}, file, indent=1)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
