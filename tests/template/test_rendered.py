"""Each kind's package on its own: its tests pass, and the command that shows it at work works.

Some tens of seconds a kind: `make test` takes the kinds that a change touches and one other, `make test-all` all.
"""

from __future__ import annotations

import shutil

import pytest

from tests.template.kinds import EXAMPLES, KINDS
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
