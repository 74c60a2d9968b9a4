"""``explain`` names each package, and configuration takes each away."""

import json

import pytest

from tests.no_need_to_patch.conftest import NAMES
from tests.no_need_to_patch.test_no_patch import WHOSE

FLAGS = (
    *(
        "--device",
        "stub",
        "--attention-backend",
        "tight",
        "--scheduling-policy",
        "deadline",
        "--logits-processors",
        "no-pairs",
    ),
    *("--speculative-config", '{"method": "follow", "num_speculative_tokens": 2}'),
    *("--plugin.sigma.n", "1.5", "--plugin.ledger.file", "lines", "--plugin.deadline.default-ms", "250"),
)


def chosen(done):
    assert done.code == 0, done.err
    return json.loads(done.out)["choices"]


def test_explain_names_all_of_them(shell, heron_file):
    choices = chosen(shell("explain", heron_file, "--json", "--dtype", "bfloat16", *FLAGS))
    owners = {choice["hook"]: choice["chosen"] for choice in choices}
    assert {hook: owners[hook]["distribution"] for hook in WHOSE} == WHOSE
    assert owners["scheduler_policy"]["options"] == {"default_ms": 250.0}
    assert owners["sampler"]["options"] == {"n": 1.5}
    ops = [choice["query"]["op"] for choice in choices if choice["chosen"]["name"] == "halfnorm"]
    assert set(ops) == {"rms_norm"}


def test_in_float32_the_cores_norm_stays(shell, heron_folder):
    choices = chosen(shell("explain", heron_folder, "--json", "--dtype", "float32", "--device", "stub"))
    assert "vllm-plugin-halfnorm" not in {choice["chosen"]["distribution"] for choice in choices}
    # Not asked for, they change nothing by being installed.
    owners = {choice["hook"]: choice["chosen"]["distribution"] for choice in choices}
    assert {owners[hook] for hook in ("sampler", "scheduler_policy", "weight_format", "attention_backend")} == {
        "vllm-core"
    }
    assert not {"metrics_sink", "logits_processor", "draft_proposer"} & set(owners)


def test_one_line_disables_each(shell):
    def rows(*flags):
        return {row["name"]: row for row in json.loads(shell("plugins", "list", "--json", *flags).out)}

    (route,) = rows("--plugins-block", "endpoint:/v1/next")["nextwords"]["provides"]  # one thing that a plugin offers
    assert (route["kind"], route["name"]) == ("endpoint", "/v1/next")
    assert route["disabled"] == "disabled by block in --plugins-block"
    blocked = rows("--plugins-block", ",".join(NAMES))
    for name in NAMES:
        assert (blocked[name]["state"], blocked[name]["reason"]) == ("disabled", "disabled by block in --plugins-block")


MISSED = """
import json, sys
from vllm_core import LLM
folder, file = sys.argv[1:]
said = {}
for name, model, block, settings in (
    ("heron", folder, "heron", {}),
    ("nest", file, "nest", {}),
    ("deadline", folder, "scheduler_policy:deadline", {"scheduling_policy": "deadline"}),
    ("no-pairs", folder, "sigma", {"logits_processors": ["no-pairs"]}),
    ("follow", folder, "sigma", {"speculative_config": {"method": "follow", "num_speculative_tokens": 1}}),
    ("stub", folder, "stub", {"device": "stub"}),
    ("tight", folder, "tight", {"attention_backend": "tight"}),
):
    try:
        LLM(model, plugins={"block": [block]}, **settings)
        said[name] = "it started"
    except Exception as error:
        said[name] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def missed(site, probed, heron_folder, heron_file, tmp_path_factory):
    from tests.third_party.conftest import Shell

    shell = Shell(tmp_path_factory.mktemp("missed"), site, probed)
    shell("plugins", "list")
    return shell.report(MISSED, heron_folder, heron_file)


@pytest.mark.parametrize("name", ["heron", "nest", "deadline", "no-pairs", "follow", "stub", "tight"])
def test_what_was_disabled_and_is_needed_is_missed_by_name(missed, name):
    plugin = {"no-pairs": "sigma", "follow": "sigma"}.get(name, name)
    assert f"vllm-plugin-{plugin}" in missed[name]
    assert "block" in missed[name]
