"""The data set that was asked for."""

from __future__ import annotations

import argparse
import random

from vllm_plugin_server.bench.ask import Sample
from vllm_plugin_server.bench.random_data import prefix_repetition, random_prompts
from vllm_plugin_server.bench.text_data import custom, sharegpt, sonnet
from vllm_plugin_server.bench.tokens import RawTokens, Tokens

__all__ = ["check_data", "samples"]


def check_data(args: argparse.Namespace) -> None:
    """Refuse what cannot be, before a server is asked."""
    name = args.dataset_name
    if name in ("random", "prefix_repetition") and args.dataset_path:
        raise ValueError(f"--dataset-name {name} reads no --dataset-path; sharegpt, custom and sonnet do")
    if name in ("sharegpt", "custom") and not args.dataset_path:
        raise ValueError(f"--dataset-name {name} needs --dataset-path FILE")
    if args.input_len is not None and name in ("sharegpt", "custom"):
        raise ValueError(f"--input-len: the prompts of {name} are as long as the file has them")
    if args.skip_tokenizer_init:
        if name not in ("random", "prefix_repetition") or args.backend == "openai-chat":
            raise ValueError("--skip-tokenizer-init: only random prompts for /v1/completions do without a tokenizer")
        if args.vocab_size is None or args.vocab_size < 1:
            raise ValueError("--skip-tokenizer-init needs --vocab-size N, so that random token ids are the model's")
    elif args.vocab_size is not None:
        raise ValueError("--vocab-size is for --skip-tokenizer-init; a tokenizer knows its own")


async def samples(args: argparse.Namespace, tokens: Tokens) -> list[Sample]:
    chance, count, name = random.Random(args.seed), args.num_prompts, args.dataset_name
    given_in, given_out = args.input_len, args.output_len

    def length(given: int | None, own: int) -> int:
        found = own if given is None else given
        if found < 1:
            raise ValueError(f"lengths are at least 1 token, not {found}")
        return found

    if name == "random":
        return await random_prompts(
            tokens, chance, count=count, input_len=length(given_in, args.random_input_len),
            output_len=length(given_out, args.random_output_len), range_ratio=args.random_range_ratio,
            prefix_len=args.random_prefix_len,
        )  # fmt: skip
    if name == "prefix_repetition":
        suffix = args.prefix_repetition_suffix_len
        if given_in is not None:
            suffix = length(given_in - args.prefix_repetition_prefix_len, 1)
        return await prefix_repetition(
            tokens, chance, count=count, prefix_len=args.prefix_repetition_prefix_len, suffix_len=suffix,
            num_prefixes=args.prefix_repetition_num_prefixes,
            output_len=length(given_out, args.prefix_repetition_output_len),
        )  # fmt: skip
    if isinstance(tokens, RawTokens):
        raise ValueError(f"--dataset-name {name} needs a tokenizer")
    if name == "sonnet":
        return await sonnet(
            tokens, chance, path=args.dataset_path, count=count, input_len=length(given_in, args.sonnet_input_len),
            prefix_len=args.sonnet_prefix_len, output_len=length(given_out, args.sonnet_output_len),
        )  # fmt: skip
    if name == "sharegpt":
        wanted = args.sharegpt_output_len if given_out is None else given_out
        return await sharegpt(tokens, chance, path=args.dataset_path, count=count, output_len=wanted)
    wanted = args.custom_output_len if given_out is None else given_out
    return await custom(tokens, chance, path=args.dataset_path, count=count, output_len=wanted)
