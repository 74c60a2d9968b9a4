"""``vllm-core plugins``."""

import json
import subprocess
import sys

import pytest

BACKEND = """
@hookimpl
def provides():
    return [Provides("sampler", "quick", "draws fast"), Provides("rope_variant", "slow")]

@hookimpl
def settings():
    return "{module}_conf:Conf"
"""
CONF = """
import attrs
from vllm_core.config.setting import setting

@attrs.frozen(kw_only=True)
class Conf:
    workspace_mib: int = setting(128, help="Room for partial results.", unit="MiB")
"""


@pytest.fixture
def three(install):
    """One plugin that works, and two that do not; returns nothing."""
    install("works", BACKEND, conf=CONF)
    install("raises", "raise RuntimeError('no such library')")
    install("future", "HOOK_API = 99")


def rows(out):
    return {row["name"]: row for row in json.loads(out)}


def test_the_list_shows_state_reason_remedy_and_offers(run, three, home):
    home.joinpath("vllm.toml").write_text('[plugins]\nblock = ["sampler:quick"]')
    code, out, _ = run("plugins", "list")
    lines = {line.split()[0]: line for line in out.splitlines() if not line.startswith(" ")}
    assert code == 0
    assert lines["works"].split() == ["works", "1.5", "dummy-works", "active"]
    assert "    offers  sampler:quick (off), rope_variant:slow\n" in out
    assert "quarantined because importing it raised RuntimeError: no such library" in lines["raises"]
    assert "quarantined because it is written for hook API 99" in lines["future"]
    assert "    remedy  upgrade vllm-core: pip install -U vllm-core\n" in out


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_no_line_is_wider_than_it(run, install, monkeypatch, width):
    reason = "libsomething.so.13: cannot open shared object file: No such file or directory\\nand " + "more " * 30
    install("raises", f"raise ImportError('{reason}')")
    monkeypatch.setattr("vllm_core.cli.plugins.listing.columns", lambda: width)
    _, out, _ = run("plugins", "list")
    assert max(map(len, out.splitlines())) <= width
    assert "raises" in out
    assert "quarantined\n    why     importing it raised ImportError: libsomething.so.13: cannot open" in out


def test_offers_that_this_version_never_asks_for_are_shown_as_unused(run, install):
    source = """
@hookimpl
def provides(): return [Provides("pooler", "quick"), Provides("rope_variant", "slow")]
@hookimpl
def http_endpoints(): return [Endpoint("/v1/x", "a:B")]
@hookimpl
def pooler(query): return None
"""
    install("early", source)
    _, out, _ = run("plugins", "list")
    offers = "endpoint:/v1/x, pooler:quick (not asked by this version), rope_variant:slow\n"
    assert f"    offers  {offers}" in out
    _, out, _ = run("plugins", "show", "early")
    assert "pooler:quick  [not asked by this version]\n" in out
    assert "pooler (not asked by this version)" in out
    _, out, _ = run("plugins", "list", "--json")
    assert {o["name"]: o["asked"] for o in rows(out)["early"]["provides"]} == {
        "/v1/x": True, "quick": False, "slow": True,
    }  # fmt: skip


def test_reprobe_imports_again_what_had_failed(run, install, tmp_path):
    awake = tmp_path / "awake"
    install("moody", f"import os\nif not os.path.exists({str(awake)!r}): raise RuntimeError('not yet')")
    run("plugins", "list")
    awake.touch()
    assert "not yet" in run("plugins", "list")[1]
    assert "not yet" not in run("plugins", "list", "--reprobe")[1]
    assert "not yet" not in run("plugins", "list")[1]
    assert "--reprobe" in run("plugins", "list", "--help")[1]
    assert "[NAME]" not in run("plugins", "list", "--help")[1].splitlines()[0]


def test_plugins_alone_lists_and_its_help_shows_all_commands(run, install):
    install("works", BACKEND, conf=CONF)
    code, out, _ = run("plugins", "--json")
    assert (code, out) == run("plugins", "list", "--json")[:2]
    assert rows(out)["works"]["state"] == "active"
    code, out, _ = run("plugins", "--help")
    assert code == 0
    assert out.startswith("usage: vllm-core plugins [COMMAND] ...\n")
    assert {line.split()[0] for line in out.splitlines() if line.startswith("  ")} >= {"list", "show", "new"}
    assert "\nWithout a command: list.\n" in out


def test_a_flag_disables_a_plugin_and_the_list_says_so(run, three):
    _, out, _ = run("plugins", "list", "--plugins-block", "works")
    line = next(line for line in out.splitlines() if line.startswith("works "))
    assert line.endswith("disabled by block in --plugins-block")


def test_a_file_given_by_name_disables_a_plugin_and_the_list_says_so(run, three, home):
    home.joinpath("vllm.toml").write_text('[plugins]\nblock = ["core"]')
    home.joinpath("mine.yaml").write_text("plugins:\n  block: [works]")
    _, out, err = run("plugins", "list", "--config", "mine.yaml")
    line = next(line for line in out.splitlines() if line.startswith("works "))
    assert line.endswith("disabled by block in mine.yaml")
    assert err == ""


def test_json_has_everything(run, three):
    code, out, _ = run("plugins", "list", "--json")
    works, raises = rows(out)["works"], rows(out)["raises"]
    assert code == 0
    assert (works["version"], works["distribution"], works["state"]) == ("1.5", "dummy-works", "active")
    first = {"kind": "sampler", "name": "quick", "summary": "draws fast", "disabled": "", "remedy": "", "asked": True}
    assert works["provides"][0] == first
    assert works["hooks"] == ["provides", "settings"]
    assert works["settings"][0]["name"] == "workspace_mib"
    assert works["settings"][0]["default"] == 128
    assert raises["state"] == "quarantined"
    assert raises["remedy"]
    assert rows(out)["core"]["distribution"] == "vllm-core"


def test_show_prints_one_plugin_with_its_settings(run, three):
    code, out, _ = run("plugins", "show", "dummy-works")
    assert code == 0
    assert out.startswith("works 1.5  (dummy-works, module ")
    assert "offers  sampler:quick  draws fast" in out
    assert "--plugin.works.workspace-mib  Room for partial results. Default: 128 MiB." in out


def test_show_gives_the_remedy_of_a_broken_plugin(run, three):
    _, out, _ = run("plugins", "show", "future")
    assert "  remedy  upgrade vllm-core" in out


def test_show_of_an_unknown_name_names_the_nearest(run, three):
    code, _, err = run("plugins", "show", "wroks")
    assert code == 1
    assert 'no plugin "wroks" is installed; did you mean "works"?' in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show",), "plugins show needs the name of a plugin"),
        (("list", "works"), "vllm-core plugins show works does"),
        (("lst",), 'did you mean "list"?'),
        (("--plugins-blck", "x"), 'did you mean "--plugins-block"?'),
        (("--plugins-require", "nonsense"), '"nonsense" in require in --plugins-require is not installed'),
    ],
)
def test_wrong_arguments_are_refused(run, words, said):
    code, _, err = run("plugins", *words)
    assert code in (1, 2)
    assert said in err


def test_sixty_plugins_are_listed_without_importing_any(install):
    for i in range(60):
        site = install(f"many-{i}", f'@hookimpl\ndef provides():\n    return [Provides("sampler", "s{i}")]\n')
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import vllm_core.cli as c\n"
        "assert c.main(['plugins', 'list']) == 0\n"
        "assert c.main(['--help']) == 0\n"
        "bad = [m for m in sys.modules if m.startswith('dummy_') or m in ('torch', 'transformers', 'cattrs')]\n"
        "sys.exit(str(bad) if bad else 0)"
    )
    for _ in range(2):  # the first start probes them in a child, the second remembers
        done = subprocess.run([sys.executable, "-c", code], timeout=120, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "sampler:s59" in done.stdout
