"""The workload through vLLM's LLM. Run by the Python of an environment that has vLLM; see measure.py."""

from __future__ import annotations

from typing import Any


def make(job: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    import vllm

    settings = {
        "dtype": job["dtype"], "max_model_len": job["max_model_len"], "max_num_seqs": job["max_num_seqs"],
        "enable_prefix_caching": bool(job.get("workloads")), "seed": job["seed"],
    }  # fmt: skip
    if job.get("load_format") == "dummy":
        settings["load_format"] = "dummy"
    if job.get("skip_tokenizer"):
        settings["skip_tokenizer_init"] = True
    if job.get("gpu_memory_utilization") is not None:
        settings["gpu_memory_utilization"] = job["gpu_memory_utilization"]
    settings |= job["arguments"]
    more = {"detokenize": False} if settings.get("skip_tokenizer_init") else {}
    llm = vllm.LLM(job["model"], **settings)

    def generate(prompts: list[list[int]], output_lens: list[int], temperature: float = 0) -> int:
        wanted = [
            vllm.SamplingParams(temperature=temperature, max_tokens=n, ignore_eos=True, **more) for n in output_lens
        ]
        outputs = llm.generate([{"prompt_token_ids": p} for p in prompts], wanted, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    import torch

    return generate, {"version": vllm.__version__, "torch": torch.__version__, "settings": settings}


if __name__ == "__main__":
    import measure

    measure.run(make)
