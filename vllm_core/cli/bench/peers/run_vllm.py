"""The workload through vLLM's LLM. Run by the Python of an environment that has vLLM; see measure.py."""

from __future__ import annotations

from typing import Any


def make(job: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    import vllm

    settings = {
        "dtype": job["dtype"], "max_model_len": job["max_model_len"], "max_num_seqs": job["max_num_seqs"],
        "enable_prefix_caching": False, "seed": job["seed"], **job["arguments"],
    }  # fmt: skip
    llm = vllm.LLM(job["model"], **settings)

    def generate(prompts: list[list[int]], output_lens: list[int]) -> int:
        wanted = [vllm.SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in output_lens]
        outputs = llm.generate([{"prompt_token_ids": p} for p in prompts], wanted, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    import torch

    return generate, {"version": vllm.__version__, "torch": torch.__version__, "settings": settings}


if __name__ == "__main__":
    import measure

    measure.run(make)
