"""The workload through transformers' generate: static batches of at most max_num_seqs, all as long as the longest."""

from __future__ import annotations

from typing import Any


def make(job: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    settings = {"dtype": job["dtype"], **job["arguments"]}
    given = {**settings, "dtype": getattr(torch, job["dtype"])}
    if job.get("load_format") == "dummy":
        config = transformers.AutoConfig.from_pretrained(job["model"])
        model = transformers.AutoModelForCausalLM.from_config(config, **given)
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], **given)
    model = model.eval().to(job["device"])
    model.generation_config.eos_token_id = None  # every output is as long as asked for

    def batch(prompts: list[list[int]], output_len: int, temperature: float) -> None:
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=job["device"])  # [B, width]
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=job["device"])
        how = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=mask, **how, min_new_tokens=output_len, max_new_tokens=output_len,
                pad_token_id=0,
            )  # fmt: skip
        if out.shape[1] != width + output_len:
            raise RuntimeError(f"generate gave {out.shape[1] - width} tokens instead of {output_len}")

    def generate(prompts: list[list[int]], output_lens: list[int], temperature: float = 0) -> int:
        size = job["max_num_seqs"]
        for i in range(0, len(prompts), size):
            batch(prompts[i : i + size], max(output_lens[i : i + size]), temperature)
        return sum(output_lens)  # what a batch computes beyond them is its own loss

    return generate, {"version": transformers.__version__, "torch": torch.__version__, "settings": settings}


if __name__ == "__main__":
    import measure

    measure.run(make)
