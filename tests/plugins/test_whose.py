"""Whose code an error came from."""

import importlib.util

import pytest

from vllm_core.plugins.whose import blamed, whose_error

SOURCE = """
def fail(call=None):
    if call is not None:
        call()
    raise OSError("no such device")

def wrap():
    try:
        fail()
    except OSError as error:
        raise KeyError("wrapped") from error
"""


@pytest.fixture
def owners(tmp_path):
    return {f"{tmp_path}/pack/": "vllm-plugin-pack 1.0", str(tmp_path / "single.py"): "vllm-plugin-single 2.0"}


@pytest.fixture
def load(tmp_path):
    """``load("pack/a.py")``: a module at that place."""

    def made(place):
        file = tmp_path / place
        file.parent.mkdir(exist_ok=True)
        file.write_text(SOURCE)
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return made


def error_of(call, *arguments):
    try:
        call(*arguments)
    except Exception as error:
        return error


def test_the_innermost_plugin_on_the_stack_is_named(load, owners):
    outer, inner = load("pack/deep.py"), load("single.py")
    assert blamed(error_of(outer.fail), owners) == "no such device (in vllm-plugin-pack 1.0)"
    assert whose_error(error_of(outer.fail, inner.fail), owners) == "vllm-plugin-single 2.0"
    assert whose_error(error_of(inner.fail, outer.fail), owners) == "vllm-plugin-pack 1.0"


def test_what_was_wrapped_is_found_by_its_cause(load, owners):
    elsewhere = load("elsewhere.py")
    elsewhere.fail = load("single.py").fail
    assert blamed(error_of(elsewhere.wrap), owners) == "'wrapped' (in vllm-plugin-single 2.0)"


def test_a_plugin_beside_whose_name_begins_alike_is_not_blamed(load, owners):
    assert whose_error(error_of(load("packages.py").fail), owners) == ""
    assert blamed(error_of(load("packages.py").fail), owners) == "no such device"


def test_what_the_core_stumbles_over_may_come_from_any_of_them(owners):
    said = blamed(error_of(lambda: (7).ids), owners)
    assert said.endswith("(in the core, perhaps over what came from vllm-plugin-pack 1.0, vllm-plugin-single 2.0)")
    assert blamed(error_of(lambda: (7).ids), {}) == "'int' object has no attribute 'ids'"
