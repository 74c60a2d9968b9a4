"""The backend "flex" among the others: chosen when it is asked for, refused with the reason, right when compiled."""

from __future__ import annotations

import attrs
import pytest
import torch
import vllm_plugin_flex_attention as plugin
from vllm_plugin_flex_attention.schedule import COPY_BYTES, schedule
from vllm_plugin_flex_attention.settings import Settings
from vllm_plugin_flex_attention.tiles import MASK_BLOCK, tiles
from vllm_plugin_flex_attention.toolchain import missing_compiler

from vllm_core.config.plugins import plugin_settings
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import AttentionQuery
from vllm_core.plugin import Offer, Rank, Refusal
from vllm_core.plugins import PluginError, Selector, load_catalog
from vllm_core.plugins.policy import Policy
from vllm_core.testing import AttentionConformance
from vllm_core.testing.attention_asked import AskedBackend
from vllm_core.testing.attention_cases import BATCHES, FEATURES, make_query
from vllm_core.testing.attention_trial import Trial

CPU = Device("cpu", features=["avx2"])
CUDA = Device("cuda", capability=(9, 0))
QUERY = make_query({}, CPU)
HERE = ["attention_backend:cpu", "attention_backend:flex", "attention_backend:reference"]


def choose(named=None, query=QUERY, settings=None, **policy):
    """The choice among the three backends that are installed here, as the engine makes it."""
    catalog = load_catalog(Policy(**{"allow": HERE, **policy}))
    catalog.settings = plugin_settings(catalog, {"flex-attention": settings or {}})
    return Selector(catalog).choose("attention_backend", query, named, asked_by="--attention-backend")


def answers(decision):
    return {a.name: a.refusal or a.note for a in decision.answers}


def test_on_a_cpu_it_is_not_chosen_unless_somebody_says_so():
    decision = choose()
    assert decision.offer.name == "cpu"
    assert answers(decision)["flex"] == "the winner goes before it: rank PORTABLE over REFERENCE"
    without = choose(block=["cpu-attention"])
    assert without.offer.name == "reference"
    assert without.why == "the core's own before a plugin's of the lowest rank"


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("device", [CPU, CUDA], ids=lambda device: device.type)
def test_no_device_is_served_by_it_unasked(monkeypatch, device, compiled):
    """Compiling takes place while it serves; what is not asked for must not do that."""
    monkeypatch.setattr(plugin, "missing_compiler", lambda device: "")
    assert ask(attrs.evolve(QUERY, device=device), compile=compiled).rank == Rank.REFERENCE


def test_it_is_chosen_by_name_by_prefer_and_by_allow():
    assert choose("flex").offer.name == "flex"
    assert choose(block=["cpu-attention"], prefer={"attention_backend": ["flex"]}).why == "named in prefer"
    assert choose(allow=["attention_backend:flex"]).offer.name == "flex"
    # prefer orders equals: it does not put a slow backend before a fast one.
    assert choose(prefer={"attention_backend": ["flex", "cpu"]}).offer.name == "cpu"


def test_blocked_and_asked_for_it_says_where_it_was_blocked():
    with pytest.raises(PluginError, match="disabled by block") as error:
        choose("flex", block=["attention_backend:flex"])
    assert "cpu (vllm-plugin-cpu-attention" in str(error.value)


def test_asked_for_and_unable_it_says_why_who_would_serve_and_what_would_help():
    sinks = attrs.evolve(QUERY, sinks=True)
    with pytest.raises(PluginError) as error:
        choose("flex", sinks)
    said = str(error.value)
    assert 'attention backend "flex" was asked for (--attention-backend) and cannot be used.' in said
    assert "sinks need log-sum-exp, which torch's compiled flex_attention does not return on CPUs" in said
    assert "--plugin.flex-attention.compile false" in said
    assert "cpu (vllm-plugin-cpu-attention" in said
    assert choose(query=sinks).offer.name == "cpu"
    assert answers(choose(query=sinks))["flex"].startswith("sinks need log-sum-exp")
    assert choose("flex", sinks, {"compile": False}).offer.capabilities == {"lse"}


def ask(query=QUERY, **settings):
    return plugin.attention_backend(query, Settings(**settings))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kv_dtype": "float8_e4m3fn"}, "float8_e4m3fn beside float32"),
        ({"dtype": "float64", "kv_dtype": "float64"}, "float64"),
        ({"kind": "latent"}, "latent"),
        ({"device": attrs.evolve(CPU, features=[])}, "AVX2"),
    ],
    ids=str,
)
def test_what_it_cannot_do_is_refused_with_the_reason(change, reason):
    answer = ask(attrs.evolve(QUERY, **change))
    assert isinstance(answer, Refusal)
    assert reason in answer.reason


def test_without_a_compiler_it_refuses_and_names_the_setting_that_needs_none(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    answer = ask()
    assert answer.reason == "compiling flex_attention needs a C++ compiler, and there is no g++"
    assert "compile false" in answer.remedy
    monkeypatch.setenv("CXX", "icx")
    assert "icx, which CXX names, is not there" in ask().reason
    assert isinstance(ask(compile=False), Offer)


def test_on_cuda_it_needs_triton_and_heads_of_sixteen_to_512(monkeypatch):
    on_cuda: AttentionQuery = attrs.evolve(QUERY, device=CUDA)
    found = {"triton": None}
    monkeypatch.setattr("vllm_plugin_flex_attention.toolchain.find_spec", found.get)
    assert "needs triton" in ask(on_cuda).reason
    found["triton"] = object()
    assert ask(on_cuda).capabilities == {"lse"}
    assert "heads of at least 16" in ask(attrs.evolve(on_cuda, k_dim=8, v_dim=8)).reason
    assert "heads of more than 512" in ask(attrs.evolve(on_cuda, v_dim=513)).reason
    assert ask(attrs.evolve(on_cuda, k_dim=8, v_dim=8), compile=False).capabilities == {"lse"}
    assert ask(attrs.evolve(QUERY, device=Device("tpu"))) is None


@pytest.mark.usefixtures("unfused")
def test_greedy_tokens_through_the_engine_are_those_of_the_cpu_backend(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    from vllm_core import LLM, SamplingParams

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.3,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    folder = tmp_path / "tiny"
    model.save_pretrained(folder)
    prompts = [list(range(5, 5 + n)) for n in (3, 40, 1, 90)]
    sampling = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)

    def tokens(backend, **more):
        settings = {"dtype": "float32", "device": "cpu", "max_num_seqs": 3, "skip_tokenizer_init": True, **more}
        llm = LLM(str(folder), attention_backend=backend, **settings)
        outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    flex = tokens("flex", plugin={"flex-attention": {"compile": False}})
    assert flex == tokens("cpu")
    known = list(prompts[1])
    with torch.inference_mode():
        for _ in range(12):
            known.append(int(model(torch.tensor([known])).logits[0, -1].argmax()))
    assert flex[1] == known[-12:]


@pytest.mark.usefixtures("unfused")
def test_a_step_that_would_copy_too_much_at_once_is_cut(monkeypatch):
    monkeypatch.setitem(COPY_BYTES, "cpu", 600_000)
    asked = AskedBackend("flex", "cpu", {"compile": False})
    trial = Trial(asked, make_query({}, asked.device))
    step, _ = trial.prepare(trial.batch(BATCHES["many decode"]))
    pieces = schedule(step, trial.config)
    assert sorted(len(piece.tokens) for piece in pieces) == [1, 2, 2, 2]
    trial.play(trial.batch(BATCHES["many decode"]), "in pieces", 1e-5)


def test_lengths_far_apart_are_not_padded_to_the_longest():
    asked = AskedBackend("flex", "cpu", {"compile": False})
    trial = Trial(asked, make_query({"num_heads": 2, "num_kv_heads": 1, "k_dim": 8, "v_dim": 8}, asked.device))
    step, _ = trial.prepare(trial.batch([(9, 1), (500, 1), (20, 1)]))
    step.kv_bounds = [10, 1500, 21]  # pieces are shaped by the host's bounds
    pieces = schedule(step, trial.config)
    assert [(len(p.tokens), p.hidden.shape[1]) for p in pieces] == [(1, 1536), (2, 256)]


def of(sequences, queries, heads, dim, dtype=torch.bfloat16):
    q, kv = torch.empty(sequences, heads, queries, dim, dtype=dtype), torch.empty(sequences, 2, 256, dim, dtype=dtype)
    return tiles(q, kv, kv)


def test_torchs_kernel_for_decoding_decodes_one_sequence_and_nothing_else():
    assert of(1, 1, 8, 64) == {}
    assert of(1, 1, 8, 256, torch.float32) == {}
    for other in [of(2, 1, 8, 64), of(1, 2, 8, 64), of(1, 50, 8, 64), of(1, 1, 6, 64), of(1, 1, 512, 64)]:
        assert other == {"BACKEND": "TRITON"}


def test_tiles_of_large_heads_are_small_and_divide_the_masks_blocks():
    fits = 227 << 10  # bytes of shared memory on an H200
    for dtype, dim in [(torch.float32, n) for n in (80, 128, 192, 256, 512)] + [(torch.half, n) for n in (192, 512)]:
        options = of(3, 40, 8, dim, dtype)
        queries, keys = options["BLOCK_M"], options["BLOCK_N"]
        assert MASK_BLOCK % queries == MASK_BLOCK % keys == 0
        padded = 1 << (dim - 1).bit_length()
        assert (queries * padded + 2 * options["num_stages"] * keys * padded + queries * keys) * dtype.itemsize < fits


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("sizes", [("float32", 192, 128), ("float32", 512, 512), ("bfloat16", 512, 512)], ids=str)
def test_heads_that_torchs_own_tiles_do_not_fit_are_served(sizes):
    asked = AskedBackend("flex", "cuda")
    trial = Trial(asked, make_query(dict(zip(("dtype", "k_dim", "v_dim"), sizes, strict=True)), asked.device))
    trial.play(trial.batch(BATCHES["all at once"]), f"{sizes}", 1e-5 if sizes[0] == "float32" else 2e-2)


@pytest.mark.slow
def test_compiled_it_agrees_and_sizes_that_change_compile_nothing_new():
    """Seconds go to the compiler; the second time torch finds what it compiled."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    asked = AskedBackend("flex", device)
    if reason := missing_compiler(asked.device):
        pytest.skip(reason)
    torch._dynamo.utils.counters.clear()
    trial = Trial(asked, make_query({"window": 20, "soft_cap": 2.5}, asked.device))
    for lengths in (BATCHES["many decode"], [(300, 1), (40, 1)], [(300, 1), (40, 1), (3, 1), (4, 1)]):
        trial.play(trial.batch(lengths), f"{lengths}, compiled", 1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_compiled_on_a_cpu_it_refuses_sinks_and_log_sum_exp_and_nothing_else():
    class Kit(AttentionConformance):
        backend = "flex"
        cannot = {"sinks": "the lowering returns no log-sum-exp", "lse": "the same"}

    asked = AskedBackend("flex", "cpu")
    if reason := missing_compiler(asked.device):
        pytest.skip(reason)
    for feature in FEATURES:
        if feature in Kit.cannot:
            Kit().test_what_cannot_lists_is_refused_with_a_reason(asked, feature)
        else:
            Kit().test_what_cannot_does_not_list_is_offered(asked, feature)
