"""Every setting of the engine does something, or is refused: one test a setting, and none is left out."""

import logging

import pytest

from tests.loading.checkpoints import greedy
from vllm_core import LLM, SamplingParams
from vllm_core.config.declared import declared
from vllm_core.config.engine import EngineSettings
from vllm_core.engine.loop import OverlappedLoop, PlainLoop
from vllm_core.engine.resolve import resolve
from vllm_core.plugins import index
from vllm_core.plugins.errors import PluginError
from vllm_core.runner import host

PROMPT = [5, 60, 70, 200, 399]
GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


class Case:
    """One setting at work on a real tiny model."""

    def __init__(self, folder, tmp_path, model):
        self.folder, self.tmp_path, self.model = str(folder), tmp_path, model

    def built(self, **settings):
        """The running engine's parts, after the engine has ended."""
        with LLM(self.folder, **settings) as llm:
            self.output = llm.generate([PROMPT], GREEDY, use_tqdm=False)[0]
            self.steps = llm._engine.core.scheduler.next_step
            return llm

    def tokens(self, **settings):
        self.built(**settings)
        return self.output.outputs[0].token_ids

    def winner(self, hook, **settings):
        return next(d.offer.name for d in self.built(**settings).built.decisions if d.hook == hook)

    def refused(self, **settings):
        with pytest.raises((ValueError, OSError, PluginError)) as error:
            LLM(self.folder, **settings)
        return str(error.value)

    # ---- model

    def model_(self):
        assert self.tokens() == greedy(self.model, PROMPT, 8)

    def tokenizer(self):
        assert "neither a folder here nor a Hub id" in self.refused(tokenizer="/nowhere")
        assert "skip_tokenizer_init" in self.refused(tokenizer=self.folder, skip_tokenizer_init=True)

    def structured_outputs_config(self):
        assert 'did you mean "backend"' in self.refused(structured_outputs_config={"backnd": "any"})
        assert '"nobody" was asked for (structured_outputs_config)' in self.refused(
            structured_outputs_config={"backend": "nobody"}
        )

    def tokenizer_mode(self):
        assert self.winner("tokenizer", tokenizer_mode="hf") == "hf"
        refused = self.refused(tokenizer_mode="slow")
        assert 'tokenizer "slow" was asked for (--tokenizer-mode)' in refused
        assert "transformers 5 has one implementation" in refused
        assert "leave tokenizer_mode at auto" in refused
        assert 'no active plugin offers it; did you mean "auto"?' in self.refused(tokenizer_mode="autoo")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(index, "lookup", lambda *key: ["some-words"] if key == ("tokenizer", "words") else [])
            assert "pip install some-words" in self.refused(tokenizer_mode="words")

    def tokenizer_revision(self):
        assert "files have no revisions" in self.refused(tokenizer_revision="main")
        assert "files have no revisions" in self.refused(tokenizer_revision="main", tokenizer=self.folder)
        seen = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "huggingface_hub.snapshot_download",
                lambda repo, **asked: seen.append((repo, asked["revision"])) or self.folder,
            )
            LLM("org/name", revision="v1", tokenizer_revision="v2").shutdown()
            LLM("org/name", revision="v1", tokenizer="org/name").shutdown()
            LLM("org/name", revision="v1", tokenizer="org/other", tokenizer_revision="v3").shutdown()
        of_model = ("org/name", "v1")
        assert seen == [of_model, ("org/name", "v2"), of_model, of_model, of_model, ("org/other", "v3")]

    def chat_template(self):
        text = "{{ messages[0]['content'] | upper }}"
        file = self.tmp_path / "shout.jinja"
        file.write_text(text)
        for given in (text, str(file)):
            with LLM(self.folder, chat_template=given) as llm:
                assert llm.render_chat([{"role": "user", "content": "hi"}]) == "HI"
        assert "no such file here, and not a Jinja template" in self.refused(chat_template="shout.jina")
        assert "chat_template was given together with skip_tokenizer_init" in self.refused(
            chat_template=text, skip_tokenizer_init=True
        )

    def skip_tokenizer_init(self):
        assert self.built(skip_tokenizer_init=True).built.tokenizer is None

    def revision(self):
        assert "files have no revisions" in self.refused(revision="main")

    def download_dir(self):
        seen = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("huggingface_hub.snapshot_download", lambda repo, **asked: seen.update(asked) or self.folder)
            LLM("org/name", download_dir="there").shutdown()
        assert seen["cache_dir"] == "there"

    def load_format(self):
        assert self.tokens(load_format="dummy") != self.tokens(load_format="safetensors")
        assert 'did you mean "safetensors"?' in self.refused(load_format="safetensor")

    def dtype(self):
        assert self.built(dtype="float32").built.lock.settings["dtype"] == "float32"
        assert "dtype must be one of" in self.refused(dtype="float8")

    def quantization(self):
        assert 'quantization method "q" was asked for (--quantization)' in self.refused(quantization="q")

    def hf_overrides(self):
        assert self.built(hf_overrides={"max_position_embeddings": 99}).built.max_model_len == 99

        def shorter(config):
            config.max_position_embeddings = 77
            return config

        built = self.built(hf_overrides=shorter).built
        assert built.max_model_len == 77
        assert built.settings.hf_overrides == {"max_position_embeddings": 77}
        assert built.lock.settings["hf_overrides"] == {"max_position_embeddings": 77}
        assert "must return the configuration" in self.refused(hf_overrides=lambda config: None)

    def generation_config(self):
        folder = self.tmp_path / "sampling"
        folder.mkdir()
        (folder / "generation_config.json").write_text('{"top_k": 9, "eos_token_id": [1, 7]}')
        for name, params in (("none", {}), ("vllm", {}), (str(folder), {"top_k": 9})):
            built = self.built(generation_config=name)
            assert built.get_default_sampling_params() == SamplingParams(**params)
            assert (7 in built.built.eos_token_ids) == (name == str(folder))
        assert "there is no such folder" in self.refused(generation_config="nonne")
        assert "that folder has no generation_config.json" in self.refused(generation_config=str(self.tmp_path))

    def override_generation_config(self):
        given = {"temperature": 0.25, "max_new_tokens": 3, "eos_token_id": 5}
        built = self.built(override_generation_config=given, generation_config="none")
        assert built.get_default_sampling_params() == SamplingParams(temperature=0.25, max_tokens=3)
        assert 5 in built.built.eos_token_ids
        assert 'did you mean "temperature"?' in self.refused(override_generation_config={"temprature": 1})
        assert "temperature must be at least 0" in self.refused(override_generation_config={"temperature": -1})
        assert "not supported yet" in self.refused(override_generation_config={"typical_p": 0.5})

    def max_model_len(self):
        with LLM(self.folder, max_model_len=9) as llm:
            params = SamplingParams(temperature=0, max_tokens=None, ignore_eos=True)
            assert len(llm.generate([PROMPT], params, use_tqdm=False)[0].outputs[0].token_ids) == 9 - len(PROMPT)

    def seed(self):
        texts = set()
        for seed in (0, 0, 1):
            with LLM(self.folder, seed=seed) as llm:
                params = SamplingParams(max_tokens=20, ignore_eos=True)
                texts.add(tuple(llm.generate([PROMPT], params, use_tqdm=False)[0].outputs[0].token_ids))
        assert len(texts) == 2
        assert "seed must be at least 0, not -1" in self.refused(seed=-1)
        assert "seed must be at most" in self.refused(seed=2**63)

    # ---- device

    def device(self):
        assert self.winner("platform", device="cpu") == "cpu"
        assert 'did you mean "cpu"?' in self.refused(device="cpuu")

    def enforce_eager(self):
        assert self.tokens(enforce_eager=True) == self.tokens(enforce_eager=False) == greedy(self.model, PROMPT, 8)

    def attention_backend(self):
        assert self.winner("attention_backend", attention_backend="reference") == "reference"
        assert self.output.outputs[0].token_ids == greedy(self.model, PROMPT, 8)

    def tensor_parallel_size(self):
        assert "over 7 ranks" in self.refused(tensor_parallel_size=7)
        assert self.winner("executor", tensor_parallel_size=2) == "mp"

    def enable_expert_parallel(self):
        assert "enable_expert_parallel" in self.refused(enable_expert_parallel=True)

    def decode_context_parallel_size(self):
        assert "decode_context_parallel_size is 2" in self.refused(decode_context_parallel_size=2)

    def collective_timeout(self):
        settings = EngineSettings(model=self.folder, tensor_parallel_size=2, collective_timeout=3.5)
        assert resolve(settings).build.recipe.settings["collective_timeout"] == 3.5
        assert "collective_timeout" in self.refused(collective_timeout=0.0)

    def pipeline_parallel_size(self):
        assert "over 7 pipeline stages" in self.refused(pipeline_parallel_size=7)
        assert self.tokens(pipeline_parallel_size=2) == greedy(self.model, PROMPT, 8)

    def pipeline_layers(self):
        assert "must be 1 numbers of layers" in self.refused(pipeline_layers="1,1")
        assert "must give each of 2 pipeline stages" in self.refused(pipeline_parallel_size=2, pipeline_layers="5,5")
        settings = EngineSettings(model=self.folder, pipeline_parallel_size=2, pipeline_layers="1,1")
        assert resolve(settings).build.model.stage_layers == (1, 1)

    def distributed_executor_backend(self):
        assert self.winner("executor", distributed_executor_backend="in-process") == "in-process"
        assert 'executor "rey" was asked for' in self.refused(distributed_executor_backend="rey")

    # ---- several engines, which LLM has not (tests/async_engine/test_data_parallel.py has those that act)

    def of_several(self, **setting):
        (name,) = setting
        said = self.refused(**setting)
        return said.startswith(f"{name} is ") and f"AsyncLLM(model, {name}=" in said

    def data_parallel_size(self):
        assert self.of_several(data_parallel_size=2)
        assert self.built(data_parallel_size=1)

    def data_parallel_size_local(self):
        assert self.of_several(data_parallel_size_local=2)

    def data_parallel_start_rank(self):
        assert self.of_several(data_parallel_start_rank=1)

    def data_parallel_rank(self):
        assert self.of_several(data_parallel_rank=1)

    def data_parallel_external_lb(self):
        assert self.of_several(data_parallel_external_lb=True)

    def data_parallel_address(self):
        assert self.of_several(data_parallel_address="10.0.0.1")

    def data_parallel_rpc_port(self):
        assert self.of_several(data_parallel_rpc_port=5)

    def data_parallel_secret_file(self):
        assert self.of_several(data_parallel_secret_file="/somewhere")

    def data_parallel_routing(self):
        assert self.of_several(data_parallel_routing="prefix")
        assert "must be one of 'load', 'prefix'" in self.refused(data_parallel_routing="round")

    # ---- scheduler, cache

    def max_num_seqs(self):
        assert self.built(max_num_seqs=3).built.capacity.max_rows == 3
        assert "at most 65,536 requests" in self.refused(max_num_seqs=10**9)

    def max_num_batched_tokens(self):
        self.built(max_num_batched_tokens=64)
        whole = self.steps
        self.built(max_num_batched_tokens=1)
        assert self.steps == whole + len(PROMPT) - 1
        assert self.output.outputs[0].token_ids == greedy(self.model, PROMPT, 8)

    def scheduling_policy(self):
        assert self.winner("scheduler_policy", scheduling_policy="fcfs") == "fcfs"
        assert 'scheduler policy "lifo" was asked for' in self.refused(scheduling_policy="lifo")
        assert self.winner("scheduler_policy", scheduling_policy="priority") == "priority"

    def max_waiting_requests(self):
        with LLM(self.folder, max_num_seqs=1, max_waiting_requests=1) as llm:
            outputs = llm.generate([PROMPT] * 3, GREEDY, use_tqdm=False)
        answers = [output.outputs[0].token_ids for output in outputs]
        assert answers[:2] == [greedy(self.model, PROMPT, 8)] * 2
        assert answers[2] == []
        assert "the queue is full (max_waiting_requests=1)" in outputs[2].error

    def async_scheduling(self):
        for on, loop in ((True, OverlappedLoop), (False, PlainLoop)):
            assert type(self.built(async_scheduling=on)._engine.core.loop) is loop

    def block_size(self):
        assert self.built(block_size=8).built.capacity.caches.groups[0].block_size == 8

    def enable_prefix_caching(self):
        for on in (True, False):
            with LLM(self.folder, enable_prefix_caching=on, block_size=4) as llm:
                hits = [llm.generate([[7] * 30], GREEDY, use_tqdm=False)[0].num_cached_tokens for _ in range(2)]
            assert hits == [0, 28 if on else 0]

    def kv_cache_memory(self):
        assert self.built(kv_cache_memory=100_000).built.capacity.num_pages == 100_000 // 4096
        assert "Any one of these starts" in self.refused(kv_cache_memory=1)
        both = self.refused(kv_cache_memory=100_000, gpu_memory_utilization=0.5)
        assert "kv_cache_memory and gpu_memory_utilization were both given" in both

    def batch_invariant(self):
        refused = self.refused(batch_invariant=True, attention_backend="reference")
        assert 'does not say that it is "batch_invariant" (--batch-invariant)' in refused

    def gpu_memory_utilization(self):
        resolved = resolve(EngineSettings(model=self.folder, gpu_memory_utilization=0.05, max_num_seqs=60_000))
        budget = resolved.memory.budget
        assert budget.memory == host.usable_memory()
        assert budget.cache == int(budget.memory * 0.05) - budget.weights - budget.beside.activations
        assert budget.beside.activations > 0
        assert budget.cache - 2 * 4096 < resolved.memory.cache_bytes <= budget.cache
        assert "at most 1" in self.refused(gpu_memory_utilization=1.1)
        assert "at least 0.01" in self.refused(gpu_memory_utilization=0.0)

    def kv_cache_dtype(self):
        assert self.tokens(kv_cache_dtype="auto") == greedy(self.model, PROMPT, 8)
        assert "the cache has the number format of the activations so far" in self.refused(kv_cache_dtype="fp8")

    # ---- sampling

    def max_logprobs(self):
        asks = [SamplingParams(logprobs=k, max_tokens=1) for k in (3, -1)]
        with LLM(self.folder, max_logprobs=3) as llm:
            fits, everything = llm.generate([PROMPT, PROMPT], asks, use_tqdm=False)
        assert len(fits.outputs[0].logprobs[0]) in (3, 4)
        assert "logprobs=-1 asks for 400 tokens a position, and this engine gives at most 3" in everything.error
        with LLM(self.folder, max_logprobs=-1) as llm:
            assert len(llm.generate(PROMPT, asks[1], use_tqdm=False)[0].outputs[0].logprobs[0]) == 400

    def sampler(self):
        assert self.tokens(sampler="reference") == greedy(self.model, PROMPT, 8)
        assert 'sampler "mutter" was asked for (--sampler)' in self.refused(sampler="mutter")

    def logits_processors(self):
        assert 'logits processor "mutter" was asked for (--logits-processors)' in self.refused(
            logits_processors=["mutter"]
        )

    # ---- plugins

    def speculative_config(self):
        config = {"method": "no-such", "num_speculative_tokens": 2}
        assert 'draft proposer "no-such" was asked for' in self.refused(speculative_config=config)
        for wrong in ({"method": "x"}, {"method": "x", "num_speculative_tokens": True}, {"metod": "x"}):
            assert 'speculative_config needs "method"' in self.refused(speculative_config=wrong)

    def prefer(self):
        assert 'did you mean "attention_backend"?' in self.refused(prefer={"attention_backnd": ["x"]})
        self.built(prefer={"attention_backend": ["refrence", "cpu"]})
        assert 'nothing to prefer; did you mean "reference"?' in self.logged()

    def plugins(self):
        blocked = self.refused(plugins={"block": ["llama", "transformers"]})  # the latter serves what nobody else does
        assert "vllm-plugin-llama" in blocked
        assert 'did you mean "block"?' in self.refused(plugins={"blok": ["llama"]})
        assert 'did you mean "attention_backend"?' in self.refused(plugins={"prefer": {"attention_backnd": ["x"]}})
        self.built(plugins={"block": ["no-such-plugin"]})
        assert '"no-such-plugin" in block' in self.logged()

    def tool_call_parser(self):
        assert 'did you mean "hermes"?' in self.refused(tool_call_parser="hermez")
        assert self.winner("tool_parser", tool_call_parser="hermes") == "hermes"

    def reasoning_parser(self):
        assert 'did you mean "qwen3"?' in self.refused(reasoning_parser="qwen4")
        assert self.winner("reasoning_parser", reasoning_parser="qwen3") == "qwen3"

    def plugin(self):
        assert 'did you mean "llama"?' in self.refused(plugin={"lama": {"a": 1}})
        assert 'plugin "llama" has no settings' in self.refused(plugin={"llama": {"a": 1}})


@pytest.mark.parametrize("name", declared(EngineSettings))
def test_it_acts_or_is_refused(name, folder, tmp_path, model, caplog):
    caplog.set_level(logging.WARNING)
    case = Case(folder, tmp_path, model)
    case.logged = lambda: caplog.text
    getattr(case, "model_" if name == "model" else name)()
