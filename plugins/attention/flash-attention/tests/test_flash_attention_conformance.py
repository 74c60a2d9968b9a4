"""The backend "flash-attention" passes the kit on a GPU, with each of its engines."""

import pytest
import torch
from vllm_plugin_flash_attention.engines import CUTE, TORCH, refusal_of_cute

from vllm_core.interfaces.device import Device
from vllm_core.testing import AttentionConformance
from vllm_core.testing.attention_cases import make_query

GPU = torch.cuda.is_available()
ONLY_HALF = "FlashAttention's kernels multiply 16-bit numbers"


def reason() -> str:
    """Why flash-attn-4 cannot run here."""
    if not GPU:
        return "needs a CUDA device"
    return refusal_of_cute(make_query({}, Device("cuda", capability=torch.cuda.get_device_capability())))


@pytest.mark.gpu
@pytest.mark.skipif(bool(reason()), reason=f"{CUTE}: {reason()}")
class TestPaged(AttentionConformance):
    backend = "flash-attention"
    device = "cuda"
    plugin_settings = {"engine": CUTE}
    cannot = {"float32": ONLY_HALF}


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a CUDA device")
class TestGathered(AttentionConformance):
    backend = "flash-attention"
    device = "cuda"
    plugin_settings = {"engine": TORCH}
    cannot = {
        "float32": ONLY_HALF,
        "soft_cap": "torch's kernel does not cap scores",
        "v_dim": "torch's kernel takes values of the size of keys only",
    }


@pytest.mark.gpu
@pytest.mark.skipif(bool(reason()), reason=f"{CUTE}: {reason()}")
class TestCaptured:
    """What is captured once gives the eager results when lengths and pages have changed in place."""

    def test_a_step_captured_with_other_lengths_gives_what_runs_eagerly(self):
        import attrs

        from vllm_core.testing.attention_asked import AskedBackend
        from vllm_core.testing.attention_trial import Trial

        asked = AskedBackend("flash-attention", "cuda", {"engine": CUTE})
        trial = Trial(asked, make_query({"dtype": "bfloat16"}, asked.device))
        steps = [trial.prepare(trial.batch(lengths)) for lengths in ([(9, 1), (200, 1)], [(77, 1), (3, 1)])]
        width = max(step.block_table.shape[1] for step, _ in steps) + 40  # wide enough to be split

        def padded(step):
            return torch.nn.functional.pad(step.block_table, (0, width - step.block_table.shape[1]))

        (first, layers), (second, others) = steps
        static = attrs.evolve(
            first, query_lens=(), kv_bounds=(), kv_lens=first.kv_lens.clone(), block_table=padded(first),
            longest_query=1, longest_kv=width * 16, static=True,
        )  # fmt: skip
        q = layers[0].q.clone()
        pages = trial.pages[0]
        with torch.inference_mode():
            for step, each in steps:
                trial.backend.write(each[0].k, each[0].v, pages, step)
            trial.backend.attend(q, pages, static, trial.backend.begin_step(static))
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                got = trial.backend.attend(q, pages, static, trial.backend.begin_step(static))
            for step, each in ((second, others), (first, layers)):
                static.kv_lens.copy_(step.kv_lens)
                static.block_table.copy_(padded(step))
                q.copy_(each[0].q)
                graph.replay()
                want = each[0].want
                assert (got.double() - want).abs().max() <= 2e-2 * want.abs().max()
