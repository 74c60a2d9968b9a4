"""`make test` runs what a change touches, and over a few commits everything."""

from __future__ import annotations

import subprocess

import pytest

from tests.packages import ROOT, plugin_packages
from tests.which import ALONE, RENDERED, changed_files, choose, commits, core_tests, quick_tests, some_kinds

KINDS = {"models/owl": [], "models/rook": [], "rope/bent": ["vllm-plugin-owl"], "parsers/xml": []}


@pytest.fixture
def repository(tmp_path):
    """A repository with one commit on main; ``repository(*words)`` runs git there."""

    def git(*words):
        names = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *names, *words], check=True, capture_output=True)

    for label, required in KINDS.items():
        folder = tmp_path / "plugins" / label
        folder.joinpath("tests").mkdir(parents=True)
        folder.joinpath("pyproject.toml").write_text(
            f'[project]\nname = "vllm-plugin-{folder.name}"\ndependencies = ["vllm-core>=0.1"]\n'
            f"[dependency-groups]\ntest = {required}\n"
        )
    git("init", "-b", "main")
    git("add", ".")
    git("commit", "-m", "first")
    git.root = tmp_path
    git.commit = lambda message: (git("add", "."), git("commit", "-m", message))
    return git


def labels(packages):
    return [package.label for package in packages]


def test_a_change_touches_its_package_and_those_that_require_it(repository):
    packages = plugin_packages(repository.root)
    choice = choose(packages, {"plugins/models/owl/vllm_plugin_owl/model.py", "vllm_core/plugin.py"}, 0, at_once=1)
    assert labels(choice.touched) == ["models/owl", "rope/bent"]
    assert labels(choice.sample + choice.left_out) == ["models/rook", "parsers/xml"]
    folders = ["plugins/models/owl/tests", "plugins/rope/bent/tests"]
    assert choice.arguments == [*core_tests(), *folders, *choice.alone, *choice.rendered]
    isolated = {argument.partition("[")[2] for argument in choice.alone}
    assert isolated == {"models/owl]", "rope/bent]"}


def test_kernels_are_a_package_like_those_in_plugins(repository):
    folder = repository.root / "kernels"
    folder.joinpath("tests").mkdir(parents=True)
    folder.joinpath("pyproject.toml").write_text(
        '[project]\nname = "vllm-kernels"\ndependencies = ["vllm-plugin-owl"]\n'
    )
    packages = plugin_packages(repository.root)
    assert labels(packages) == [*sorted(KINDS), "kernels"]
    for file in ("kernels/vllm_kernels/kernel.py", "plugins/models/owl/README.md"):
        choice = choose(packages, {file}, 0, at_once=1)
        assert "kernels" in labels(choice.touched)
        assert "kernels/tests" in choice.arguments
        assert any(argument.endswith("[kernels]") for argument in choice.alone)


def test_whatever_is_not_touched_comes_by_in_turn(repository):
    packages = plugin_packages(repository.root)
    seen = [choose(packages, {"README.md"}, number, at_once=2) for number in (7, 8)]
    assert [len(choice.sample) for choice in seen] == [2, 2]
    assert sorted(labels(seen[0].sample + seen[1].sample)) == sorted(KINDS)
    assert labels(seen[0].left_out) == labels(seen[1].sample)
    assert f"left out (make test-all has them): {', '.join(labels(seen[0].left_out))}" in str(seen[0])
    again = choose(packages, {"README.md"}, 7, at_once=2)
    assert again == seen[0]


def test_all_packages_are_taken_while_they_are_few(repository):
    choice = choose(plugin_packages(repository.root), {"README.md"}, 5, at_once=4)
    assert labels(choice.sample) == sorted(KINDS)
    assert choice.left_out == []


def test_a_branch_is_compared_with_main_and_main_with_the_commit_before(repository):
    root = repository.root
    root.joinpath("plugins/models/owl/a.py").write_text("1")
    repository.commit("second, on main")
    assert changed_files(root) == {"plugins/models/owl/a.py"}
    repository("checkout", "-b", "topic")
    for name in ("b", "c"):
        root.joinpath(f"plugins/models/rook/{name}.py").write_text("1")
        repository.commit(name)
    assert changed_files(root) == {"plugins/models/rook/b.py", "plugins/models/rook/c.py"}
    assert commits(root) == 4


def test_what_is_not_committed_counts_and_so_does_what_was_moved_away(repository):
    root = repository.root
    root.joinpath("plugins/models/owl/a.py").write_text("1\n" * 50)
    repository.commit("second")
    repository("commit", "--allow-empty", "-m", "third")
    root.joinpath("plugins/models/owl/a.py").rename(root / "plugins/models/rook/a.py")
    repository("add", ".")
    root.joinpath("new.py").write_text("1")
    assert changed_files(root) == {"plugins/models/owl/a.py", "plugins/models/rook/a.py", "new.py"}


def test_everything_is_taken_where_the_change_cannot_be_told(repository):
    only_commit = changed_files(repository.root)
    assert only_commit is None
    choice = choose(plugin_packages(repository.root), None, 3, at_once=1)
    assert labels(choice.sample) == sorted(KINDS)
    assert "cannot be told" in str(choice)


def test_every_test_of_the_core_is_taken():
    taken = [ROOT / part for part in core_tests()]
    missed = [
        file
        for file in ROOT.joinpath("tests").rglob("test_*.py")
        if not any(file.is_relative_to(part) for part in taken)
        and file not in (ROOT / ALONE, ROOT / RENDERED)
        and not file.is_relative_to(ROOT / "tests" / "third_party" / "packages")  # strangers' own
    ]
    assert missed == []
    assert ROOT / "tests" not in taken


def test_kinds_of_the_template_are_taken_when_touched_and_else_in_turn():
    known = ["a", "b", "c"]
    assert some_kinds({"plugin_template/b/kind.toml"}, 0, known) == ["b", "a"]
    assert some_kinds({"plugin_template/b/kind.toml"}, 1, known) == ["b", "c"]
    assert [some_kinds({"README.md"}, number, known) for number in (3, 4, 5)] == [["a"], ["b"], ["c"]]
    assert some_kinds({f"plugin_template/{kind}/kind.toml" for kind in known}, 7, known) == known


def test_tests_that_are_marked_are_not_quick():
    source = "def test_a(): ...\n@pytest.mark.slow\ndef test_b(): ...\ndef helper(): ...\ndef test_c(): ..."
    assert quick_tests(source) == ["test_a", "test_c"]
