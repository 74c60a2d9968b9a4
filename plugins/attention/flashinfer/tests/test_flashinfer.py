"""The backend "flashinfer": what is refused and why, and all that is not the library's."""

from __future__ import annotations

from types import SimpleNamespace

import attrs
import pytest
import torch
import vllm_plugin_flashinfer as plugin
import vllm_plugin_flashinfer.library as library_of
from vllm_plugin_flashinfer.pinned import PinnedBuffers
from vllm_plugin_flashinfer.settings import Settings

from vllm_core.config.plugins import plugin_settings
from vllm_core.interfaces.attention import AttentionConfig
from vllm_core.interfaces.device import Device
from vllm_core.plugin import Offer, Rank, Refusal
from vllm_core.plugins import PluginError, Selector, load_catalog
from vllm_core.plugins.policy import Policy
from vllm_core.testing.attention_cases import BATCHES, make_query
from vllm_core.testing.attention_trial import Trial

H200 = Device("cuda", name="NVIDIA H200", capability=(9, 0))
QUERY = make_query({"dtype": "bfloat16"}, H200)
OFFER = Offer(name="flashinfer", target="vllm_plugin_flashinfer.backend:FlashInferAttention", capabilities=["lse"])


def ask(query=QUERY, **settings):
    return plugin.attention_backend(query, Settings(**settings))


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """The package and what compiles its kernels, as far as a hook can see."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").touch()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(library_of, "version", lambda name: "0.6.4")
    monkeypatch.setattr(library_of, "find_spec", lambda name: None)
    monkeypatch.setattr(library_of.shutil, "which", lambda name: name)


def test_on_a_cpu_it_refuses_and_another_is_chosen():
    catalog = load_catalog(Policy(allow=["attention_backend:flashinfer", "attention_backend:reference"]))
    catalog.settings = plugin_settings(catalog, {})
    on_cpu = make_query({}, Device("cpu"))
    decision = Selector(catalog).choose("attention_backend", on_cpu, None, asked_by="")
    assert decision.offer.name == "reference"
    assert {a.name: a.refusal for a in decision.answers}["flashinfer"] == (
        "FlashInfer has kernels for CUDA only, and the device is cpu"
    )
    with pytest.raises(PluginError, match="FlashInfer has kernels for CUDA only"):
        Selector(catalog).choose("attention_backend", on_cpu, "flashinfer", asked_by="--attention-backend")


@pytest.mark.usefixtures("installed")
def test_with_the_library_it_offers_and_does_not_claim_captured_steps():
    offer = ask(workspace_mib=256)
    assert offer.rank == Rank.REFERENCE
    assert offer.capabilities == {"lse"}
    assert offer.takes["kv.page_layout"] == ("NHD", "HND")
    assert offer.options == {"workspace_mib": 256}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"device": Device("cuda", capability=(7, 5))}, "needs compute capability 8.0, and 7.5"),
        ({"kind": "latent"}, "latent caches"),
        ({"dtype": "float32", "kv_dtype": "float32"}, "dtype float32 is not one of"),
        ({"kv_dtype": "float8_e4m3fn"}, "float8_e4m3fn beside bfloat16"),
        ({"v_dim": 96}, "of one size, and are of 64 and 96"),
        ({"k_dim": 80, "v_dim": 80}, "heads of 80 elements are not served, only of 64, 128, 256"),
    ],
    ids=str,
)
def test_what_it_cannot_do_is_refused_with_the_reason(change, reason):
    answer = ask(attrs.evolve(QUERY, **change))
    assert isinstance(answer, Refusal)
    assert reason in answer.reason


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "change", [{"sinks": True}, {"soft_cap": 9.0}, {"causal": False}, {"window": 20, "kind": "sliding_window"}], ids=str
)
def test_what_models_ask_for_beside_that_is_offered(change):
    assert isinstance(ask(attrs.evolve(QUERY, **change)), Offer)


@pytest.mark.usefixtures("installed")
def test_without_the_library_or_what_compiles_it_it_refuses_and_says_what_to_install(monkeypatch):
    monkeypatch.setattr(library_of.shutil, "which", lambda name: None)
    assert "compiles its kernels with ninja" in ask().reason
    monkeypatch.setenv("CUDA_HOME", "/nowhere")
    assert "compiles its kernels with nvcc" in ask().reason
    monkeypatch.setattr(library_of, "find_spec", lambda name: name)
    assert isinstance(ask(), Offer), "flashinfer-jit-cache brings compiled kernels"
    for other in ("0.5.3", "0.8.0"):
        monkeypatch.setattr(library_of, "version", lambda name, found=other: found)
        assert ask().reason == f"flashinfer-python {other} is installed, and this plugin knows versions >=0.6,<0.8"

    def absent(name):
        raise library_of.PackageNotFoundError(name)

    monkeypatch.setattr(library_of, "version", absent)
    assert ask().reason == "the package flashinfer-python is not installed"
    assert "pip install 'flashinfer-python>=0.6,<0.8'" in ask().remedy


LAYERS = {
    "plain": {},
    "window 7": {"window": 7},
    "window 20": {"window": 20},
    "window and sinks": {"window": 16, "sinks": True, "num_heads": 16},
    "soft_cap": {"soft_cap": 2.5},
    "non_causal": {"causal": False},
    "mqa": {"num_heads": 6, "num_kv_heads": 1},
}


@pytest.mark.parametrize("lse", [False, True])
@pytest.mark.parametrize("batch", ["all at once", "many decode", "idle rows", "drafts", "a prompt"])
@pytest.mark.parametrize("layer", list(LAYERS))
def test_planned_from_bounds_it_computes_with_exact_lengths(library, layer, batch, lse):
    trial = Trial(library(OFFER), make_query(LAYERS[layer], Device("cpu")))
    trial.play(trial.batch(BATCHES[batch]), f"{layer}, {batch}", 1e-5, lse=lse)


@pytest.mark.parametrize("block_size", [1, 24])
@pytest.mark.parametrize("layout", ["NHD", "HND"])
def test_every_layout_and_size_of_pages_is_served(library, layout, block_size):
    trial = Trial(library(OFFER), make_query({"window": 20}, Device("cpu")), layout=layout, block_size=block_size)
    trial.play(trial.batch(BATCHES["all at once"]), layout, 1e-5)


def test_steps_without_tokens_are_not_planned(library):
    trial = Trial(library(OFFER), make_query({}, Device("cpu")))
    for rows in ([], [(0, 0), (9, 0)]):
        trial.play(trial.batch(rows), "nothing", 0.0)


def test_a_step_whose_plan_was_replaced_is_not_attended_to(library):
    trial = Trial(library(OFFER), make_query({}, Device("cpu")))
    step, layers = trial.prepare(trial.batch(BATCHES["a prompt"]))
    old = trial.backend.begin_step(step)
    trial.backend.begin_step(step)
    with pytest.raises(RuntimeError, match="step 2 has begun, and step 1 is attended to"):
        trial.backend.attend(layers[0].q, trial.pages[0], step, old)


def test_a_library_whose_wrapper_is_another_is_named_at_the_start(library, monkeypatch):
    from vllm_plugin_flashinfer import planner

    monkeypatch.setattr(planner, "LENGTHS", ("_elsewhere", "_nowhere"))
    with pytest.raises(RuntimeError, match="its wrapper has no _elsewhere"):
        Trial(library(OFFER), make_query({}, Device("cpu")))


def test_memory_for_a_plan_is_not_lent_again_before_the_device_has_read_it(monkeypatch):
    done = {}

    class Event:
        def query(self):
            return done.get(self, True)

        def record(self):
            done[self] = False

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch, "empty_like", lambda like, pin_memory: like.clone())
    owner = SimpleNamespace(place=None)
    buffers = PinnedBuffers(torch.zeros(4))
    lent = []
    for _ in range(3):
        with buffers.lend(owner, "place"):
            lent.append(owner.place)
    assert len({x.data_ptr() for x in lent}) == 3
    done.update(dict.fromkeys(done, True))
    with buffers.lend(owner, "place"):
        assert owner.place is lent[0]


def test_a_workspace_that_plans_could_overrun_is_refused_with_the_size_that_would_do(monkeypatch, library):
    import vllm_plugin_flashinfer.planner as planner

    monkeypatch.undo()
    config = AttentionConfig(
        num_heads=32, num_kv_heads=8, k_dim=128, v_dim=128, scale=1.0, dtype=torch.bfloat16, kv_dtype=torch.bfloat16,
        device=torch.device("cuda"), block_size=16, page_layout="NHD",
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(multi_processor_count=132))
    need = planner.workspace_bytes(config)
    assert need == 32 * 33 * 128 * 129 * 4 + 4096
    assert planner.workspace_bytes(attrs.evolve(config, options={"workspace_mib": 128})) == 128 << 20
    with pytest.raises(ValueError, match=r"workspace-mib 64 is too small: .* may need 67 MiB"):
        planner.workspace_bytes(attrs.evolve(config, options={"workspace_mib": 64}))
