"""Each kind's package on its own: its tests pass, and the command that shows it at work works.

Some tens of seconds a kind: `make test` takes the kinds that a change touches and one other, `make test-all` all,
and the commands of docs/new-plugin.md.
"""

from __future__ import annotations

import json
import shutil

import pytest

from tests.template.kinds import EXAMPLES, KINDS
from tests.template.page import code, section
from vllm_core.cli.template.kinds import kinds
from vllm_core.cli.template.names import Names
from vllm_core.cli.template.render import render_text


@pytest.fixture(params=[*KINDS, *EXAMPLES])
def kind(request):
    return request.param


def test_its_own_tests_pass(workshop, kind, tmp_path):
    package = tmp_path / "package"  # without what is beside it here
    shutil.copytree(workshop.render(kind) / "tests", package / "tests")
    shutil.copyfile(workshop.render(kind) / "pyproject.toml", package / "pyproject.toml")
    line = ["python", "-m", "pytest", "-p", "no:cacheprovider", "-rs"]
    done = workshop.run(line, workshop.site(kind), package)
    assert done.code == 0, done.out[-6000:] + done.err[-2000:]
    assert " passed" in done.out


def test_the_command_that_shows_it_at_work_works(workshop, kind):
    folder, site, name = workshop.render(kind), workshop.site(kind), workshop.name(kind)
    if kind in EXAMPLES:
        use = f"vllm-core plugins show {name}"
    else:
        names = Names(name)
        data = {field: getattr(names, field) for field in ("name", "distribution", "module", "class_name")}
        use = render_text(kinds()[kind].use, data)
        assert use in folder.joinpath("README.md").read_text(), "the README does not say it"
    done = workshop.run(["bash", "-e", "-o", "pipefail", "-c", use], site, folder)
    assert done.code == 0, f"{use}\n{done.out}\n{done.err}"


@pytest.mark.slow
def test_the_first_half_runs_as_it_is_written(workshop, tmp_path):
    """But for pip, whose place takes the wheel of the same package."""
    begin, see = section("Begin"), section("See it work")
    assert begin[0] == 'pip install "vllm-core[sdk]"'
    assert see[:2] == ["cd vllm-plugin-heron", "pip install -e '.[test]'"]
    for line in begin[1:]:
        done = workshop.run(["bash", "-c", line], tmp_path, tmp_path)
        assert done.code == 0, done.err
    package = tmp_path / "vllm-plugin-heron"
    workshop.folders["heron"] = package
    site = workshop.site("heron")
    for line in see[2:]:
        if "plugins check" in line:  # the tests of an editable install are found beside it
            line += f" --tests {package / 'tests'} --no-figures"
        done = workshop.run(["bash", "-c", line], site, package)
        assert done.code == 0, f"{line}\n{done.out}\n{done.err}"


@pytest.mark.slow
def test_the_model_is_begun_as_it_is_written(workshop, tmp_path):
    import transformers

    (line,) = section("A model")
    config = transformers.Olmo2Config().to_dict() | {"architectures": ["Olmo2ForCausalLM"]}
    folder = tmp_path / line.rpartition("./")[2]
    folder.mkdir()
    folder.joinpath("config.json").write_text(json.dumps(config))
    done = workshop.run(["bash", "-c", line], tmp_path, tmp_path)
    assert done.code == 0, done.err
    (said,) = code("text")
    assert said in done.out
