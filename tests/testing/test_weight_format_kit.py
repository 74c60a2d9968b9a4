"""The kit of weight formats passes safetensors, and fails formats that are wrong, each by its mistake."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import pytest

from tests.testing.safetensors_kit import Kit, Sharded
from tests.testing.test_kit_elsewhere import examples
from vllm_core.interfaces.queries import WeightFormatQuery
from vllm_core.plugin import load_target
from vllm_core.testing import WeightFormatConformance
from vllm_core.testing.weight_format_case import AskedFormat


class TestSafetensors(Kit):
    """One file."""


class TestShards(Sharded):
    """Reading is tested; damage is that of one file."""

    def damage(self, asked, written, folder):
        return {"cut off": [], "lies": [], "flipped": [], "pickled": []}


class AskedAs(AskedFormat):
    """Stands for a plugin whose target is one of ``wrong_formats``."""

    def __init__(self, name):
        super().__init__("safetensors")
        self.target = f"tests.testing.wrong_formats:Checkpoints.{name}"

    def offer_for(self, path):
        return SimpleNamespace(target=self.target)

    def open(self, path, load_format=""):
        return load_target(self.target)(str(path))


def opened(name, folder, kit=Kit):
    """(kit, what it asks, what it wrote)"""
    made, asked = kit(), AskedAs(name)
    folder.mkdir()
    return made, asked, made.make(asked, folder)


@pytest.mark.parametrize(
    ("name", "test", "match"),
    [
        ("Wide", "values_are_those_of_the_source", r"is torch\.float32"),
        ("Quiet", "values_are_those_of_the_source", "bytes of .* differ from what was written"),
        ("Shifted", "a_part_is_that_part_of_the_whole", "is not that part of the whole"),
        ("Forgetting", "names_shapes_and_dtypes_are_those_of_the_source", "missing are"),
        ("Seeking", "threads_read_at_the_same_time", "read by 8 threads at a time, "),
        ("Misplaced", "other_ways_to_a_tensor_lead_to_the_same", "does not lie at byte"),
    ],
)
def test_a_source_that_gives_something_else_is_found(tmp_path, name, test, match):
    kit, _, written = opened(name, tmp_path / "x")
    if name == "Seeking":
        kit.test_values_are_those_of_the_source(written)  # one thread sees nothing
    with pytest.raises(AssertionError, match=match):
        getattr(kit, f"test_{test}")(written)


def test_tensors_that_go_with_the_source_are_found(tmp_path):
    kit, asked, written = opened("Wiping", tmp_path / "x")
    with pytest.raises(AssertionError, match="changed when the source was closed"):
        kit.test_what_was_read_outlives_the_source(asked, written)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("Whole", "reading rows 0 to 256 of 16384 needs what lies in the second half of the file"),
        ("Eager", "the last rows of .* could be read when they were no longer in the file"),
    ],
)
def test_a_part_that_costs_the_whole_is_found(tmp_path, name, match):
    kit, asked, written = opened(name, tmp_path / "x")
    (tmp_path / "large").mkdir()
    with pytest.raises(AssertionError, match=match):
        kit.test_a_part_is_read_without_the_rest(asked, written, tmp_path / "large")
    kit.cannot = {"parts": "a test"}
    with pytest.raises(pytest.skip.Exception, match=r"cannot: parts \(a test\)"):
        kit.test_a_part_is_read_without_the_rest(asked, written, tmp_path / "large")


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("Trusting", "lies", "as if nothing were wrong"),
        ("Nameless", "cut off", "refused without its name: ValueError: the file is damaged"),
        ("Dying", "cut off", "the process that read it was ended by signal 7"),
        ("Late", "cut off", "refused only while tensors are read"),
        ("Unpickling", "pickled", "goes through pickle"),
    ],
)
def test_what_is_made_of_damaged_files_is_found(tmp_path, name, kind, words):
    kit, asked, written = opened(name, tmp_path / "x")
    troubles = kit.damage(asked, written, tmp_path)
    assert any(words in line for line in troubles[kind]), troubles[kind][:5]
    with pytest.raises(AssertionError, match="files are not refused as they should be"):
        {
            "lies": kit.test_a_file_that_contradicts_itself_is_refused,
            "cut off": kit.test_a_file_that_is_cut_off_is_refused_when_it_is_opened,
            "pickled": kit.test_nothing_is_unpickled,
        }[kind](troubles)


def test_an_error_that_is_no_refusal_is_found(tmp_path):
    kit, asked, written = opened("Trusting", tmp_path / "x")
    lines = kit.damage(asked, written, tmp_path)["flipped"]
    assert any("it raises UnicodeDecodeError" in line or "it raises KeyError" in line for line in lines), lines[:5]


def test_a_plugin_that_takes_everybodys_files_is_found():
    class Greedy(AskedFormat):
        def answer(self, query):
            return super().answer(WeightFormatQuery(path="x", files=("model.safetensors",)))

    with pytest.raises(AssertionError, match=r'"safetensors" would open config\.json'):
        Kit().test_files_of_other_formats_are_left_to_others(Greedy("safetensors"))


def test_a_kit_that_writes_nothing_says_so(tmp_path):
    class Empty(WeightFormatConformance):
        weight_format = "safetensors"

    with pytest.raises(pytest.UsageError, match=r"Empty writes no checkpoint: override write\(\)"):
        Empty().make(AskedFormat("safetensors"), tmp_path)
    with pytest.raises(pytest.UsageError, match=r"override lies\(\)"):
        Empty().lies(b"")


def test_the_example_of_the_page_is_true(tmp_path):
    (example,) = (code for code in examples() if "(WeightFormatConformance)" in code)
    file = tmp_path / "example.py"
    file.write_text(example)
    spec = importlib.util.spec_from_file_location("example", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kit, folder = module.TestChest(), tmp_path / "chest"
    folder.mkdir()
    path = kit.write(folder, kit.config, kit.tensors())
    assert path.is_file()
    assert len(kit.lies(path.read_bytes())) >= 3
