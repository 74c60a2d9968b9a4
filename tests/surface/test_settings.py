"""Settings: where values come from, what they become, and what is said about wrong ones."""

from typing import Any

import attrs
import pytest

from vllm_core.config.convert import Given
from vllm_core.config.declared import declared
from vllm_core.config.engine import EngineSettings
from vllm_core.config.errors import SettingError
from vllm_core.config.load import from_kwargs, load, load_settings
from vllm_core.config.setting import setting
from vllm_core.config.vllm_names import vllm_names


@attrs.frozen(kw_only=True)
class Sample:
    count: int = setting(3, help="How many.", unit="things", low=1, high=9)
    limit: int | None = setting(None, help="At most.", unit="bytes")
    share: float = setting(0.5, help="A share.")
    fast: bool = setting(True, help="Fast.")
    mode: str = setting("auto", help="Mode.", choices=("auto", "manual"))
    names: list[str] = setting([], help="Names.")
    pair: tuple[int, ...] = setting((), help="Numbers.")
    table: dict[str, int] = setting({}, help="Numbers by name.")
    either: int | str = setting(0, help="A number or a word.")
    anything: dict[str, Any] | None = setting(None, help="JSON.")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty working directory and an empty configuration home; returns both."""
    work, config = tmp_path / "work", tmp_path / "config" / "vllm-core"
    work.mkdir()
    config.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config.parent))
    return work, config


def refused(cls=Sample, **arguments):
    with pytest.raises(SettingError) as error:
        load(cls, **arguments)
    return str(error.value)


def text(value):
    return Given(value, "--flag", text=True)


# ---- precedence and sources


def test_defaults_hold_where_nobody_says_anything():
    assert load_settings(Sample) == Sample()
    assert set(load(Sample).sources.values()) == {"default"}
    assert load(Sample).given == {}


def test_flags_beat_the_environment_which_beats_the_folder_which_beats_home(home, monkeypatch):
    work, config = home
    config.joinpath("vllm.toml").write_text("[engine]\ncount = 1\nshare = 0.1\nmode = 'manual'\nnames = ['home']")
    work.joinpath("vllm.toml").write_text("[engine]\ncount = 2\nshare = 0.2\nmode = 'auto'")
    monkeypatch.setenv("VLLM_CORE_COUNT", "3")
    monkeypatch.setenv("VLLM_CORE_SHARE", "0.3")
    loaded = load(Sample, overrides={"count": text("4")})
    assert (loaded.settings.count, loaded.settings.share, loaded.settings.mode) == (4, 0.3, "auto")
    assert loaded.settings.names == ["home"]
    assert loaded.sources["count"] == "--flag"
    assert loaded.sources["share"] == "environment variable VLLM_CORE_SHARE"
    assert loaded.sources["mode"] == "[engine] of ./vllm.toml"
    assert loaded.sources["names"] == f"[engine] of {config / 'vllm.toml'}"
    assert loaded.given == {"count": 4, "share": 0.3, "mode": "auto", "names": ["home"]}


def test_a_file_named_by_the_user_is_read_instead_of_the_others(home):
    work, _ = home
    work.joinpath("vllm.toml").write_text("[engine]\nfast = false")
    work.joinpath("mine.toml").write_text("[engine]\ncount = 7")
    loaded = load(Sample, file="mine.toml")
    assert (loaded.settings.count, loaded.settings.fast) == (7, True)


@pytest.mark.parametrize("ending", ["yaml", "yml"])
def test_yaml_has_the_same_tables(home, ending):
    home[0].joinpath(f"c.{ending}").write_text("engine:\n  count: 5\n  names: [a, b]\n  table: {x: 1}\n")
    settings = load_settings(Sample, file=f"c.{ending}")
    assert (settings.count, settings.names, settings.table) == (5, ["a", "b"], {"x": 1})


def test_an_empty_variable_is_unset_and_the_policys_variables_are_left_alone(monkeypatch):
    monkeypatch.setenv("VLLM_CORE_COUNT", "")
    monkeypatch.setenv("VLLM_CORE_PLUGINS_BLOCK", "x")
    assert load_settings(Sample) == Sample()


def test_llm_arguments_read_neither_files_nor_the_environment(home, monkeypatch):
    home[0].joinpath("vllm.toml").write_text("[engine]\nseed = 1")
    monkeypatch.setenv("VLLM_CORE_SEED", "2")
    monkeypatch.setenv("VLLM_CORE_NONSENSE", "2")
    assert from_kwargs(EngineSettings, {"model": "m"}).seed == 0


# ---- conversion


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("count", "5", 5),
        ("limit", "none", None),
        ("limit", "2GiB", 2 << 30),
        ("limit", "1.5MB", 1_500_000),
        ("share", "1", 1.0),
        ("fast", "off", False),
        ("fast", "TRUE", True),
        ("names", "a, b", ["a", "b"]),
        ("names", '["a,b"]', ["a,b"]),
        ("names", "", []),
        ("pair", "[1, 2]", (1, 2)),
        ("table", '{"a": 1}', {"a": 1}),
        ("anything", '{"a": [1, {"b": null}]}', {"a": [1, {"b": None}]}),
        ("anything", "none", None),
        ("either", "5", 5),
        ("either", "five", "five"),
    ],
)
def test_text_becomes_the_annotated_type(name, written, value):
    got = getattr(load_settings(Sample, overrides={name: text(written)}), name)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("count", "5", "count must be a whole number, not '5'"),
        ("count", 5.0, "count must be a whole number, not 5.0"),
        ("count", True, "count must be a whole number, not True"),
        ("fast", 1, "fast must be true or false, not 1"),
        ("mode", None, "mode must be text, not None"),
        ("names", "abc", "names must be a list (list[str]), not 'abc'"),
        ("names", [1], "names must be a list"),
        ("table", {"a": "1"}, "table must be a table"),
        ("table", [1], "table must be a table"),
        ("either", 1.5, "either must be a whole number or text, not 1.5"),
    ],
)
def test_a_typed_value_of_another_type_is_refused(name, value, why):
    assert why in refused(overrides={name: value})


@pytest.mark.parametrize(
    ("name", "written", "why"),
    [
        ("count", "many", "count must be a whole number, not 'many'"),
        ("count", "2GiB", "count must be a whole number"),
        ("count", "0", "count must be at least 1 things, not 0"),
        ("count", "10", "count must be at most 9 things, not 10"),
        ("fast", "perhaps", "fast must be true or false, not 'perhaps'"),
        ("table", "{a: 1}", "table must be JSON: Expecting property name"),
        ("mode", "manul", """mode must be one of 'auto', 'manual', not 'manul'; did you mean "manual"?"""),
    ],
)
def test_text_that_does_not_fit_is_refused_with_its_source(name, written, why):
    message = refused(overrides={name: text(written)})
    assert why in message
    assert message.endswith("where   --flag")


def test_a_whole_number_may_stand_for_a_float():
    assert load_settings(Sample, overrides={"share": 1}).share == 1.0


# ---- unknown names


def test_an_unknown_key_names_the_nearest_and_its_file(home):
    home[0].joinpath("vllm.toml").write_text("[engine]\ncuont = 2")
    message = refused()
    assert '"cuont" is not a setting; did you mean "count"?' in message
    assert "[engine] of ./vllm.toml" in message


def test_an_unknown_table_names_the_nearest(home):
    home[0].joinpath("vllm.toml").write_text("[engin]\ncount = 2")
    assert '"engin" in ./vllm.toml is not known; did you mean "engine"?' in refused()


def test_an_engine_setting_outside_its_table_is_told_where_it_belongs(home):
    home[0].joinpath("c.yaml").write_text("max-model-len: 5")
    assert 'settings of the engine stand in the table "engine", as max_model_len' in refused(file="c.yaml")


def test_an_unknown_variable_names_the_nearest(monkeypatch):
    monkeypatch.setenv("VLLM_CORE_CUONT", "1")
    assert 'VLLM_CORE_CUONT is not a setting; did you mean "VLLM_CORE_COUNT"?' in refused()


def test_an_unknown_argument_names_the_nearest():
    with pytest.raises(SettingError, match='"max_model_ln" is not a setting; did you mean "max_model_len"'):
        from_kwargs(EngineSettings, {"max_model_ln": 5})


@pytest.mark.parametrize("name", sorted(vllm_names()))
def test_an_argument_of_vllms_that_we_lack_names_what_takes_its_place(name):
    with pytest.raises(SettingError) as error:
        from_kwargs(EngineSettings, {name: 1})
    assert f'"{name}" is not a setting, though vLLM has it.\n  instead {vllm_names()[name]}' in str(error.value)


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("c.toml", "[engine", "c.toml is not valid TOML"),
        ("c.yaml", "a: [", "c.yaml is not valid YAML"),
        ("c.yaml", "- a", "c.yaml must hold the tables"),
        ("c.json", "{}", "c.json must end in .toml, .yaml or .yml"),
        ("c.toml", "engine = 1", '"engine" in c.toml must be a table'),
        ("c.toml", "[plugin]\nx = 1", '"plugin.x" in c.toml must be a table'),
    ],
)
def test_a_broken_file_is_named(home, file, content, why):
    home[0].joinpath(file).write_text(content)
    assert why in refused(file=file)


def test_a_missing_file_is_named():
    assert "nowhere.toml is not a file" in refused(file="nowhere.toml")


# ---- tables that sources add to


def test_plugins_settings_of_all_sources_join_and_keep_their_sources(home):
    work, config = home
    config.joinpath("vllm.toml").write_text("[plugin.a]\nx = 1\ny = 1\n[plugin.b]\nz = 1")
    work.joinpath("vllm.toml").write_text("[plugin.a]\ny = 2")
    flags = {"plugin": {"a": {"w": Given("3", "--plugin.a.w", text=True)}}}
    plugin = load_settings(EngineSettings, overrides=flags).plugin
    assert {k: v.value for k, v in plugin["a"].items()} == {"x": 1, "y": 2, "w": "3"}
    assert plugin["a"]["y"].source == "[plugin.a] of ./vllm.toml"
    assert plugin["a"]["w"].source == "--plugin.a.w"
    assert plugin["b"]["z"].source == f"[plugin.b] of {config / 'vllm.toml'}"


def test_the_policy_table_counts_only_in_a_file_named_by_the_user(home):
    """The usual places are read by the policy itself; a flag replaces its list and leaves the others."""
    work, _ = home
    work.joinpath("vllm.toml").write_text("[plugins]\nblock = ['x']")
    assert load_settings(EngineSettings).plugins == {}
    work.joinpath("mine.toml").write_text("[plugins]\nblock = ['x']\nrequire = ['y']")
    flags = {"plugins": {"block": ["z"]}}
    assert load_settings(EngineSettings, file="mine.toml", overrides=flags).plugins == {
        "block": ["z"],
        "file": {"name": "mine.toml", "table": {"block": ["x"], "require": ["y"]}},
    }


def test_a_class_that_is_no_class_of_settings_is_refused():
    @attrs.frozen
    class Plain:
        x: int = 1

    with pytest.raises(TypeError, match=r"Plain.x is not declared with setting\(\)"):
        declared(Plain)
    with pytest.raises(TypeError, match="is not an attrs class"):
        declared(int)
