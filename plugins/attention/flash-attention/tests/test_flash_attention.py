"""The backend "flash-attention": which engine serves, what is refused and why, and all that is not the library's."""

from __future__ import annotations

import attrs
import pytest
import torch
import vllm_plugin_flash_attention as plugin
import vllm_plugin_flash_attention.engines as engines
import vllm_plugin_flash_attention.gathered as gathered
from vllm_plugin_flash_attention.settings import Settings
from vllm_plugin_flash_attention.splits import merge, split

from vllm_core.config.plugins import plugin_settings
from vllm_core.interfaces.device import Device
from vllm_core.plugin import Offer, Rank, Refusal
from vllm_core.plugins import PluginError, Selector, load_catalog
from vllm_core.plugins.figures import record, shape_class
from vllm_core.plugins.policy import Policy
from vllm_core.testing.attention_cases import BATCHES, make_query
from vllm_core.testing.attention_trial import Trial

H200 = Device("cuda", name="NVIDIA H200", capability=(9, 0))
A100 = Device("cuda", capability=(8, 0))
QUERY = make_query({"dtype": "bfloat16"}, H200)
FLOAT = {"dtype": "float32"}  # the stand-ins take it, so that a mistake is not taken for rounding


@pytest.fixture
def installed(monkeypatch):
    """flash-attn-4 and its compiler, as far as a hook can see."""
    monkeypatch.setattr(engines, "version", lambda name: "4.0.0b36")
    monkeypatch.setattr(engines, "find_spec", lambda name: object())


@pytest.fixture
def bare(monkeypatch):
    def version(name):
        raise engines.PackageNotFoundError(name)

    monkeypatch.setattr(engines, "version", version)


def ask(query=QUERY, **settings):
    return plugin.attention_backend(query, Settings(**settings))


def test_on_a_cpu_it_refuses_and_another_is_chosen():
    catalog = load_catalog(Policy(allow=["attention_backend:flash-attention", "attention_backend:reference"]))
    catalog.settings = plugin_settings(catalog, {})
    decision = Selector(catalog).choose("attention_backend", make_query({}, Device("cpu")), None, asked_by="")
    assert decision.offer.name == "reference"
    assert {a.name: a.refusal for a in decision.answers}["flash-attention"] == (
        "FlashAttention is for CUDA, and the device is cpu"
    )
    with pytest.raises(PluginError, match="FlashAttention is for CUDA"):
        Selector(catalog).choose(
            "attention_backend", make_query({}, Device("cpu")), "flash-attention", asked_by="--attention-backend"
        )


@pytest.mark.usefixtures("installed")
def test_with_the_library_pages_are_read_in_place_and_steps_can_be_captured():
    offer = ask()
    assert offer.target.endswith("paged:PagedFlashAttention")
    assert offer.capabilities == {"lse", "graph", "device_metadata"}
    assert offer.options["engine"] == "flash-attn-4"
    assert offer.rank == Rank.REFERENCE
    assert 128 not in offer.options["block_sizes"]  # a tile of keys: slots that nobody wrote would be loaded


@pytest.mark.usefixtures("bare")
def test_without_the_library_torch_serves_and_the_offer_says_why():
    offer = ask()
    assert offer.target.endswith("gathered:GatheredFlashAttention")
    assert offer.capabilities == {"lse"}
    assert offer.options["flash-attn-4 is not used"] == "the package is not installed"
    assert offer.rank == Rank.PORTABLE


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"device": A100}, "compute capability 9.0, and the device's is 8.0"),
        ({"device": Device("cuda")}, "the device's is unknown"),
        ({"k_dim": 72, "v_dim": 72}, "multiples of 16, and are 72 and 72"),
    ],
    ids=str,
)
def test_what_its_kernels_for_pages_do_not_do_is_left_to_torch_with_the_reason(change, reason):
    offer = ask(attrs.evolve(QUERY, **change))
    assert offer.options["engine"] == "torch"
    assert reason in offer.options["flash-attn-4 is not used"]


def test_an_old_library_or_none_to_compile_with_is_not_used(monkeypatch):
    monkeypatch.setattr(engines, "version", lambda name: "4.0.0b4")
    assert ask().options["flash-attn-4 is not used"].startswith("version 4.0.0b4 is installed, and the oldest")
    monkeypatch.setattr(engines, "version", lambda name: "4.0.0")
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert "nvidia-cutlass-dsl" in ask().options["flash-attn-4 is not used"]


@pytest.mark.usefixtures("installed")
def test_an_engine_that_is_named_serves_or_refuses():
    assert ask(engine="torch").options == {"engine": "torch", "flash-attn-4 is not used": "the setting says so"}
    answer = ask(attrs.evolve(QUERY, device=A100), engine="flash-attn-4")
    assert isinstance(answer, Refusal)
    assert answer.reason.startswith("flash-attn-4: its kernels are used on compute capability 9.0")
    with pytest.raises(ValueError, match="engine must be one of"):
        Settings(engine="fa3")


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "latent"}, "latent caches"),
        ({"dtype": "float32", "kv_dtype": "float32"}, "dtype float32 is not one of"),
        ({"kv_dtype": "float8_e4m3fn"}, "float8_e4m3fn beside bfloat16"),
        ({"k_dim": 512, "v_dim": 512}, "up to 256 elements, not 512"),
        ({"soft_cap": 30.0}, "torch: its kernel does not cap scores"),
        ({"k_dim": 192, "v_dim": 128}, "torch: keys and values must be of one size, and are of 192 and 128"),
        ({"k_dim": 20, "v_dim": 20}, "torch: head sizes must be multiples of 8"),
        ({"device": Device("cuda", capability=(7, 5))}, "torch: needs compute capability 8.0, and 7.5"),
    ],
    ids=str,
)
def test_what_neither_can_do_is_refused_with_the_reason(change, reason):
    answer = ask(attrs.evolve(QUERY, **change))
    assert isinstance(answer, Refusal)
    assert reason in answer.reason


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("change", [{"soft_cap": 30.0}, {"k_dim": 192, "v_dim": 128}, {"sinks": True}], ids=str)
def test_the_library_serves_more_than_torch(change):
    assert ask(attrs.evolve(QUERY, **change)).options["engine"] == "flash-attn-4"


PAGED = Offer(name="flash-attention", target="vllm_plugin_flash_attention.paged:PagedFlashAttention",
              capabilities=["lse"], options={"block_sizes": (16, 32)})  # fmt: skip
GATHERED = Offer(name="flash-attention", target="vllm_plugin_flash_attention.gathered:GatheredFlashAttention",
                 capabilities=["lse"])  # fmt: skip
LAYERS = {
    "plain": {},
    "window 7": {"window": 7},
    "window 20": {"window": 20},
    "window and sinks": {"window": 16, "sinks": True, "num_heads": 16},
    "sinks": {"sinks": True},
    "non_causal": {"causal": False},
    "mqa": {"num_heads": 6, "num_kv_heads": 1},
}


@pytest.mark.parametrize("lse", [False, True])
@pytest.mark.parametrize("batch", ["all at once", "many decode", "idle rows", "drafts", "a prompt"])
@pytest.mark.parametrize("layer", list(LAYERS))
@pytest.mark.parametrize("offer", [PAGED, GATHERED], ids=["paged", "gathered"])
def test_given_what_the_library_documents_it_agrees_with_float64(cute, aten, asked, offer, layer, batch, lse):
    trial = Trial(asked(offer), make_query({**FLOAT, **LAYERS[layer]}, Device("cpu")))
    trial.play(trial.batch(BATCHES[batch]), f"{layer}, {batch}", 1e-5, lse=lse)
    assert len(aten if offer is GATHERED else cute)


@pytest.mark.parametrize("sinks", [False, True])
def test_decoding_with_few_sequences_is_split_and_the_parts_put_together(cute, asked, monkeypatch, sinks):
    monkeypatch.setattr("vllm_plugin_flash_attention.splits.SHORTEST", 16)
    trial = Trial(asked(PAGED), make_query({**FLOAT, "sinks": sinks}, Device("cpu")))
    cute.clear()
    trial.play(trial.batch([(200, 1), (0, 1), (37, 1)]), "in parts", 1e-5, lse=True)
    assert cute == [3 * 14] * 2  # of 14 pages; one a part and layer


def test_parts_cover_every_column_of_the_table_once_and_every_key():
    table, lengths = torch.arange(26, dtype=torch.int32).view(2, 13), torch.tensor([200, 3], dtype=torch.int32)
    parts = split(table, lengths, 512, wanted=3)
    assert parts.table.tolist() == [
        *([0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 0, 0]),
        *([13, 14, 15, 16, 17], [18, 19, 20, 21, 22], [23, 24, 25, 0, 0]),
    ]
    assert parts.kv_lens.tolist() == [200, 0, 0, 3, 0, 0]
    assert split(table, lengths, 16, wanted=3) is None  # 208 keys are not worth it
    assert split(table, lengths, 512, wanted=1) is None


@pytest.mark.parametrize("left", [5.0, float("nan"), float("inf")])
def test_a_part_without_keys_has_no_share_whatever_stands_there(left):
    out = torch.tensor([[[1.0]], [[left]]])
    whole, total = merge(out, torch.tensor([[0.3, -torch.inf]]), 2, None)
    assert whole.item() == 1.0
    assert total.item() == pytest.approx(0.3)
    whole, total = merge(out, torch.tensor([[0.0, -torch.inf]]), 2, torch.zeros(1))
    assert whole.item() == 0.5
    assert total.item() == pytest.approx(0.6931472)


def test_a_step_that_would_copy_too_much_at_once_is_cut(aten, asked, monkeypatch):
    monkeypatch.setattr(gathered, "COPY_BYTES", 150_000)
    trial = Trial(asked(GATHERED), make_query(FLOAT, Device("cpu")))
    trial.play(trial.batch(BATCHES["all at once"]), "in pieces", 1e-5)
    assert sum(aten) == 2 * 8  # every sequence with queries, once a layer
    assert len(aten) > 2


def test_pages_that_the_library_would_copy_are_refused(cute, asked):
    trial = Trial(asked(PAGED), make_query(FLOAT, Device("cpu")))
    step, layers = trial.prepare(trial.batch(BATCHES["a prompt"]))
    odd = torch.zeros(9 * 4999).as_strided((9, 16, 4, 64), (4999, 256, 64, 1))
    with pytest.raises(ValueError, match="multiples of 16 bytes"):
        trial.backend.attend(layers[0].q, (odd, odd), step, trial.backend.begin_step(step))


@pytest.mark.usefixtures("installed")
def test_beside_another_of_equal_rank_the_faster_is_taken_once_both_were_measured(monkeypatch, tmp_path):
    library = pytest.importorskip("vllm_plugin_flashinfer", reason="vllm-plugin-flashinfer is not installed")
    monkeypatch.setattr(library, "missing", lambda: "")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    catalog = load_catalog(Policy(allow=["attention_backend:flash-attention", "attention_backend:flashinfer"]))
    catalog.settings = plugin_settings(catalog, {})

    def choose():
        return Selector(catalog, H200).choose("attention_backend", QUERY, None, asked_by="")

    with pytest.raises(PluginError) as error:
        choose()
    assert "vllm-plugin-flash-attention" in str(error.value)
    assert "vllm-plugin-flashinfer" in str(error.value)
    assert "prefer" in str(error.value)
    for name, seconds in (("flash-attention", 0.03), ("flashinfer", 0.02)):
        record("attention_backend", name, H200, shape_class(QUERY), seconds)
    decision = choose()
    assert decision.offer.name == "flashinfer"
    assert decision.why == "recorded figures: 0.02 s against 0.03 s"
