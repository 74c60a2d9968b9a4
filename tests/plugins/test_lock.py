"""The lock: what workers build from."""

import attrs
import pytest
from dummies import BACKEND, MODEL

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import ModelQuery
from vllm_core.plugins import Lock, LockedChooser, LockMismatch, NoOffer, Question, Selector, load_catalog

DEVICE = Device("cpu", features=frozenset({"b", "a"}))
MODEL_QUERY = ModelQuery(architectures=("alphaForCausalLM",), config={"x": [1, {"y": None}]}, device=DEVICE)


@pytest.fixture
def decided(site):
    """A lock with a model and a named backend, both from dummy distributions."""
    module = site.install("alpha", MODEL, version="1.0")
    site.folder.joinpath(f"{module}_model.py").write_text("class Model: pass\n")
    module = site.install("fast", BACKEND, version="2.0")
    site.folder.joinpath(f"{module}_impl.py").write_text("class Backend: pass\n")
    selector = Selector(load_catalog())
    selector.choose_model(MODEL_QUERY)
    selector.choose("attention_backend", {"heads": 9}, "fast")
    return selector.decisions


def test_a_worker_gets_the_recorded_decisions_and_can_load_them(decided):
    lock = Lock.from_bytes(Lock.from_decisions(decided, {"model": "m"}).to_bytes())
    lock.verify()
    chooser = LockedChooser(lock)
    model = chooser.choose_model(MODEL_QUERY)
    assert model.load().__name__ == "Model"
    assert model.offer == decided[0].offer
    assert model.provided == decided[0].provided
    backend = chooser.choose("attention_backend", {"heads": 9}, "fast")
    assert backend.load().__name__ == "Backend"


def test_a_layer_that_does_not_know_what_was_named_gets_the_decision_all_the_same(decided):
    chooser = LockedChooser(Lock.from_decisions(decided))
    (decision,) = chooser.choose_set([Question("attention_backend", {"heads": 9})])
    assert decision.offer == decided[1].offer


def test_a_question_that_the_parent_never_asked_is_an_error(decided):
    chooser = LockedChooser(Lock.from_decisions(decided))
    for hook, query, named in [
        ("attention_backend", {"heads": 10}, "fast"),
        ("attention_backend", {"heads": 9}, "slow"),
        ("rope_variant", {"heads": 9}, None),
    ]:
        with pytest.raises(NoOffer, match="the lock has no decision"):
            chooser.choose(hook, query, named)


def test_the_digest_is_the_same_for_equal_locks_and_differs_with_everything_that_counts(decided):
    settings = {"model": "m", "seed": 0}
    lock = Lock.from_decisions(decided, settings)
    assert lock.digest == Lock.from_decisions(decided, dict(reversed(settings.items()))).digest
    assert lock.digest == Lock.from_bytes(lock.to_bytes()).digest
    name = next(iter(lock.distributions))
    others = [
        attrs.evolve(lock, distributions={**lock.distributions, name: "9.9"}),
        attrs.evolve(lock, settings={**lock.settings, "seed": 1}),
        attrs.evolve(lock, records=lock.records[:1]),
        attrs.evolve(lock, modules={**lock.modules, next(iter(lock.modules)): "0"}),
    ]
    assert len({lock.digest, *(other.digest for other in others)}) == 5


def test_another_installed_version_changes_the_digest_and_is_refused_by_name(decided, site):
    lock = Lock.from_decisions(decided)
    info = site.folder / "dummy_fast-2.0.dist-info"
    info.joinpath("METADATA").write_text(info.joinpath("METADATA").read_text().replace("Version: 2.0", "Version: 2.1"))
    info.rename(site.folder / "dummy_fast-2.1.dist-info")
    with pytest.raises(LockMismatch, match=r"dummy-fast was 2\.0 when the lock was made, here it is 2\.1"):
        lock.verify()
    selector = Selector(load_catalog())
    selector.choose_model(MODEL_QUERY)
    selector.choose("attention_backend", {"heads": 9}, "fast")
    assert Lock.from_decisions(selector.decisions).digest != lock.digest


def test_a_distribution_that_is_gone_is_refused_by_name(decided, site):
    lock = Lock.from_decisions(decided)
    site.folder.joinpath("dummy_fast-2.0.dist-info").rename(site.folder / "elsewhere")
    with pytest.raises(LockMismatch, match=r"dummy-fast was 2\.0 when the lock was made, here it is not installed"):
        lock.verify()


def test_a_changed_module_is_refused_by_name(decided, site):
    lock = Lock.from_decisions(decided)
    file = next(site.folder.glob("*_model.py"))
    file.write_text("class Model: changed = True\n")
    with pytest.raises(LockMismatch, match=rf"module {file.stem} \(dummy-alpha\) has other content"):
        lock.verify()


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b.replace(b"alphaForCausalLM", b"betasForCausalLM"), lambda b: b""]
)
def test_a_damaged_lock_is_refused(decided, damage):
    data = Lock.from_decisions(decided).to_bytes()
    with pytest.raises(LockMismatch):
        Lock.from_bytes(damage(data))


def test_settings_that_are_no_plain_data_cannot_be_locked(decided):
    with pytest.raises(TypeError, match="is not plain data"):
        Lock.from_decisions(decided, {"x": object()})
