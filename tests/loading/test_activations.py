"""The plan's activations against what a step really holds: the bytes of all tensors alive, counted op by op."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.loading.checkpoints import tiny_config
from vllm_core import LLM, SamplingParams

MODELS = {
    "wide": {"hidden_size": 64, "intermediate_size": 256, "vocab_size": 80},
    "narrow": {"hidden_size": 96, "intermediate_size": 64, "vocab_size": 80},
    "wordy": {"hidden_size": 32, "intermediate_size": 48, "vocab_size": 3000},
}


class Alive(TorchDispatchMode):
    """Bytes of storages that ops made and nobody has let go of yet, at their most."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._known = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        result = op(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in given:
                storage = tensor.untyped_storage()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, storage.nbytes())
        return result

    def _gone(self, nbytes):
        self.now -= nbytes


@pytest.mark.parametrize("name", MODELS)
def test_a_step_holds_about_what_was_planned(name, tmp_path, monkeypatch):
    tiny_config(**MODELS[name], max_position_embeddings=2048, architectures=["LlamaForCausalLM"]).save_pretrained(
        tmp_path
    )
    llm = LLM(
        str(tmp_path),
        load_format="dummy",
        skip_tokenizer_init=True,
        dtype="float32",
        max_num_batched_tokens=1024,
        max_num_seqs=64,
        enable_prefix_caching=False,
        async_scheduling=False,
        plugins={"allow": ["vllm-plugin-llama"]},
    )
    runner, seen = llm.built.executor._runner, []
    attend = type(runner.backends[0]).attend
    # The reference's own work is not a layer's: it builds whole matrices of scores.
    monkeypatch.setattr(type(runner.backends[0]), "attend", lambda backend, q, *a, **k: torch.empty_like(q))
    execute = runner.execute

    def watched(plan):
        with Alive() as alive:
            found = execute(plan)
        seen.append((sum(plan.num_tokens), alive.peak))
        return found

    monkeypatch.setattr(runner, "execute", watched)
    llm.generate(
        [{"prompt_token_ids": [i + 2] * 16} for i in range(64)],
        SamplingParams(temperature=0.9, max_tokens=2, ignore_eos=True, detokenize=False),
        use_tqdm=False,
    )
    llm.shutdown()
    assert attend is not None
    tokens, peak = max(seen, key=lambda found: found[1])
    assert tokens == 1024
    planned = llm.built.capacity.memory["activations"]
    assert 0.75 * planned < peak < 1.1 * planned, (planned, seen)
