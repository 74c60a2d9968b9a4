"""Allow, block, require, prefer: where they come from and what they do."""

import json
from pathlib import Path

import pytest
from dummies import BACKEND, MODEL, status

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import ModelQuery
from vllm_core.plugins import PluginError, Selector, load_catalog, read_policy
from vllm_core.plugins import index as index_module
from vllm_core.plugins.index import scan
from vllm_core.plugins.policy import Policy


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def in_folder(home, monkeypatch, key):
    write(home / "vllm.toml", f'[plugins]\n{key} = ["alpha"]\n')
    return read_policy(), "./vllm.toml"


def in_xdg(home, monkeypatch, key):
    path = home.parent / "config" / "vllm-core" / "vllm.toml"
    write(path, f'[plugins]\n{key} = ["alpha"]\n')
    return read_policy(), str(path)


def in_environment(home, monkeypatch, key):
    variable = f"VLLM_CORE_PLUGINS_{key.upper()}"
    monkeypatch.setenv(variable, " alpha ,")
    return read_policy(), variable


def in_flags(home, monkeypatch, key):
    return read_policy({key: ["alpha"], "allow" if key == "block" else "block": None}), f"--plugins-{key}"


def in_named_file(home, monkeypatch, key):
    return read_policy({"file": {"name": "mine.yaml", "table": {key: ["alpha"]}}}), "mine.yaml"


SOURCES = pytest.mark.parametrize("source", [in_folder, in_xdg, in_environment, in_flags, in_named_file])


@SOURCES
def test_one_line_in_any_source_disables_a_plugin_and_the_state_says_where(home, monkeypatch, site, source):
    site.install("alpha", MODEL)
    policy, shown = source(home, monkeypatch, "block")
    row = status(load_catalog(policy), "alpha")
    assert (row.state, row.reason) == ("disabled", f"disabled by block in {shown}")
    assert 'remove "alpha"' in row.remedy


@SOURCES
def test_allow_in_any_source_disables_what_it_does_not_name(home, monkeypatch, site, source):
    site.install("alpha", MODEL)
    site.install("beta", MODEL)
    policy, shown = source(home, monkeypatch, "allow")
    catalog = load_catalog(policy)
    assert status(catalog, "alpha").state == "active"
    assert status(catalog, "core").state == "active"
    assert status(catalog, "beta").reason == f"disabled by allow in {shown}"


@SOURCES
def test_require_in_any_source_fails_when_the_plugin_is_not_active(home, monkeypatch, site, source):
    site.install("alpha", "HOOK_API = 1\nraise OSError('no driver')\n")
    policy, shown = source(home, monkeypatch, "require")
    with pytest.raises(PluginError) as error:
        load_catalog(policy)
    assert f'plugin "alpha" is required (require in {shown}) and is quarantined' in str(error.value)
    assert "no driver" in str(error.value)


def test_a_higher_source_replaces_the_list_of_a_lower_one(home, monkeypatch):
    write(home.parent / "config" / "vllm-core" / "vllm.toml", '[plugins]\nblock = ["a"]\nrequire = ["r"]\n')
    assert [item.text for item in read_policy().block] == ["a"]
    write(home / "vllm.toml", '[plugins]\nblock = ["b"]\nimport_timeout_s = 5\n')
    assert [item.text for item in read_policy().block] == ["b"]
    monkeypatch.setenv("VLLM_CORE_PLUGINS_BLOCK", "c,d")
    assert [item.text for item in read_policy().block] == ["c", "d"]
    policy = read_policy({"block": []})
    assert policy.block == ()
    assert [item.text for item in policy.require] == ["r"]
    assert policy.import_timeout == 5.0


def test_a_file_given_by_name_stands_in_place_of_the_others_and_below_the_environment(home, monkeypatch):
    write(home / "vllm.toml", "not even TOML")
    mine = {"file": {"name": "mine.toml", "table": {"block": ["b"], "require": ["r"]}}}
    assert [item.text for item in read_policy(mine).block] == ["b"]
    monkeypatch.setenv("VLLM_CORE_PLUGINS_BLOCK", "c")
    assert [item.text for item in read_policy(mine).block] == ["c"]
    assert [item.text for item in read_policy({**mine, "block": ["d"]}).block] == ["d"]
    assert [item.source for item in read_policy(mine).require] == ["mine.toml"]
    with pytest.raises(PluginError, match=r'key "blok" of \[plugins\] in mine.toml is not known; did you mean "block"'):
        read_policy({"file": {"name": "mine.toml", "table": {"blok": []}}})


def test_a_blocked_plugin_is_not_imported_even_in_the_child(site, tmp_path):
    witness = tmp_path / "imported"
    site.install("alpha", f"HOOK_API = 1\nopen({str(witness)!r}, 'w')\n")
    load_catalog(Policy(block=["alpha"]))
    assert not witness.exists()


def test_a_distribution_can_be_named_in_any_spelling(site):
    site.install("alpha", MODEL, distribution="Dummy_Alpha.x")
    assert status(load_catalog(Policy(block=["dummy-alpha-X"])), "alpha").state == "disabled"


@pytest.mark.parametrize("item", ["model:alphaForCausalLM", "models:alphaForCausalLM"])
def test_one_line_disables_a_single_offering_and_leaves_the_plugin(site, item):
    site.install("alpha", MODEL.rstrip() + ' + [ModelEntry("OtherForCausalLM", "m:M")]\n')
    catalog = load_catalog(Policy(block=[item]))
    row = status(catalog, "alpha")
    assert row.state == "active"
    assert {str(o): o.disabled for o in row.provides} == {
        "model:alphaForCausalLM": "disabled by block in the Policy given",
        "model:OtherForCausalLM": "",
    }
    assert "OtherForCausalLM" in catalog.models()
    assert "alphaForCausalLM" not in catalog.models()
    query = ModelQuery(architectures=("alphaForCausalLM",), config={}, device=Device("cpu"))
    with pytest.raises(PluginError, match="disabled by block in the Policy given"):
        Selector(catalog).choose_model(query)


def test_an_offering_of_the_core_can_be_disabled_but_not_the_core(site):
    catalog = load_catalog(Policy(block=["attention_backend:reference"]))
    assert status(catalog, "core").state == "active"
    assert "reference" not in catalog.names("attention_backend")
    with pytest.raises(PluginError, match="the core itself cannot be disabled"):
        load_catalog(Policy(block=["vllm-core"]))


def test_allow_with_an_offering_restricts_only_its_kind(site):
    site.install("alpha", BACKEND)
    site.install("beta", BACKEND)
    site.install("gamma", MODEL)
    catalog = load_catalog(Policy(allow=["attention_backend:alpha"]))
    assert catalog.names("attention_backend") == ["alpha"]
    assert "gammaForCausalLM" in catalog.models()
    assert status(catalog, "beta").state == "active"


@pytest.mark.parametrize("key", ["allow", "require", "block"])
@pytest.mark.parametrize(
    ("wrong", "right"),
    [("alpa", "alpha"), ("model:alphForCausalLM", "model:alphaForCausalLM"), ("dummy-alpa", "dummy-alpha")],
)
def test_a_misspelt_name_is_an_error_with_the_nearest_match(site, key, wrong, right):
    site.install("alpha", MODEL)
    with pytest.raises(PluginError) as error:
        load_catalog(Policy(**{key: [wrong]}))
    assert f'"{wrong}" in {key} in the Policy given is not installed; did you mean "{right}"?' in str(error.value)


def test_blocking_what_is_not_installed_is_a_warning_and_requiring_it_an_error(site):
    site.install("alpha", MODEL)
    catalog = load_catalog(Policy(block=["something-entirely-different"]))
    assert catalog.warnings == (
        '"something-entirely-different" in block in the Policy given is not installed: nothing to disable.',
    )
    with pytest.raises(PluginError, match="is not installed"):
        load_catalog(Policy(require=["something-entirely-different"]))


@pytest.mark.parametrize("absent", ["attention_backend:zeta", "attention_backend:alpha2", "alpha3", "rope_variant:x"])
def test_blocking_something_that_only_resembles_what_is_installed_is_a_warning(site, absent):
    site.install("alpha", BACKEND)
    site.install("alpha2", MODEL)
    (warning,) = load_catalog(Policy(block=[absent])).warnings
    assert f'"{absent}"' in warning


def test_a_required_offering_must_be_offered(site):
    site.install("alpha", BACKEND)
    load_catalog(Policy(require=["attention_backend:alpha"]))
    with pytest.raises(PluginError, match='"attention_backend:alpha" is required'):
        load_catalog(Policy(require=["attention_backend:alpha"], block=["alpha"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[plugins]\nblok = []\n", 'key "blok" of [plugins] in ./vllm.toml is not known; did you mean "block"?'),
        ('[plugins]\nblock = "alpha"\n', "block in ./vllm.toml must be a list of names"),
        ("[plugins]\nimport_timeout_s = 0\n", "import_timeout_s in ./vllm.toml must be a number of seconds above 0"),
        ('[plugins]\nprefer.attention_backend = "x"\n', "prefer in ./vllm.toml must map hooks to lists"),
        ("plugins = 1\n", "must be a table"),
        ("[plugins\n", "./vllm.toml is not valid TOML"),
    ],
)
def test_a_mistake_in_the_file_names_the_file_and_the_key(home, text, message):
    write(home / "vllm.toml", text)
    with pytest.raises(PluginError) as error:
        read_policy()
    assert message in str(error.value)


def test_a_misspelt_environment_variable_is_an_error(monkeypatch):
    monkeypatch.setenv("VLLM_CORE_PLUGINS_BLOK", "alpha")
    with pytest.raises(PluginError, match='did you mean "VLLM_CORE_PLUGINS_BLOCK"'):
        read_policy()


def test_two_plugins_with_one_architecture_matter_only_when_it_is_asked_for(site):
    site.install("one", MODEL, architecture="SameForCausalLM")
    site.install("two", MODEL, architecture="SameForCausalLM")
    site.install("three", MODEL)
    query = ModelQuery(architectures=("SameForCausalLM",), config={}, device=Device("cpu"))
    catalog = load_catalog()
    other = ModelQuery(architectures=("threeForCausalLM",), config={}, device=Device("cpu"))
    assert Selector(catalog).choose_model(other).provided.plugin == "three"
    for ask in (lambda: Selector(catalog).choose_model(query), lambda: catalog.find("models", "SameForCausalLM")):
        with pytest.raises(PluginError) as error:
            ask()
        assert "dummy-one 1.0 and by dummy-two 1.0" in str(error.value)
        assert 'prefer.models = ["dummy-two"]' in str(error.value)
    catalog = load_catalog(Policy(prefer={"models": ["dummy-two"]}))
    assert Selector(catalog).choose_model(query).provided.plugin == "two"
    assert catalog.find("models", "SameForCausalLM").plugin == "two"


def test_the_index_of_first_party_plugins_is_up_to_date():
    folder = Path(__file__).parents[2] / "plugins"
    assert json.loads(index_module._FILE.read_text()) == scan(folder), "run python -m vllm_core.plugins.index"


def test_what_nobody_offers_comes_with_its_pip_line(site, tmp_path, monkeypatch):
    site.install("alpha", MODEL)
    folder = tmp_path / "plugins" / "models" / "whisper"
    folder.mkdir(parents=True)
    folder.joinpath("pyproject.toml").write_text(
        '[project]\nname = "vllm-plugin-hush"\nversion = "1"\n'
        '[project.entry-points."vllm_core.plugins"]\nhush = "dummy_hush_plugin"\n'
    )
    source = MODEL.replace("{architecture}", "HushForCausalLM").replace("{module}", "dummy_hush_plugin")
    folder.joinpath("dummy_hush_plugin.py").write_text(source)
    found = scan(tmp_path / "plugins")
    assert found == {"model:HushForCausalLM": ["vllm-plugin-hush"]}

    data = tmp_path / "index.json"
    data.write_text(json.dumps(found))
    monkeypatch.setattr(index_module, "_FILE", data)
    query = ModelQuery(architectures=("HushForCausalLM",), config={}, device=Device("cpu"))
    with pytest.raises(PluginError) as error:
        Selector(load_catalog()).choose_model(query)
    assert "install pip install vllm-plugin-hush" in str(error.value)
    assert "alphaForCausalLM" in str(error.value)
