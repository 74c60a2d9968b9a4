"""Which tests `make test` runs, so that it stays short: ``python -m tests.which`` prints arguments of pytest.

The core's; those of packages that the change touches, and of packages that require these; and of the others as many
as fit, another part of them at every commit; and of the template's kinds those touched and one other. What the change
is: everything since main, on main since the last commit, and what is not committed. Where that cannot be told, the
tests of all packages. What is left out is said on stderr.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs

from tests.packages import ROOT, Package, needed, plugin_packages
from tests.template.kinds import EXAMPLES, KINDS

AT_ONCE = 24  # packages: about 15 s each, two at a time
ALONE = "tests/isolation/test_alone.py"
RENDERED = "tests/template/test_rendered.py"


@attrs.frozen(kw_only=True)
class Choice:
    """``touched``: None if that cannot be told. ``part`` of ``parts``: the sample. ``kinds`` of the template's."""

    touched: list[Package] | None
    sample: list[Package]
    left_out: list[Package]
    part: int
    parts: int
    kinds: list[str]

    @property
    def arguments(self) -> list[str]:
        packages = [*(self.touched or ()), *self.sample]
        tests = [f"{package.place}/tests" for package in packages if package.folder.joinpath("tests").is_dir()]
        return [*core_tests(), *tests, *self.alone, *self.rendered]

    @property
    def alone(self) -> list[str]:
        """Each touched package in an environment of its own, or one of the others; not its own tests once more."""
        packages = self.touched or self.sample[:1]
        names = quick_tests(ROOT.joinpath(ALONE).read_text())
        return [f"{ALONE}::{name}[{package.label}]" for package in packages for name in names]

    @property
    def rendered(self) -> list[str]:
        """Packages that the template makes, each with its own tests."""
        names = quick_tests(ROOT.joinpath(RENDERED).read_text())
        return [f"{RENDERED}::{name}[{kind}]" for kind in self.kinds for name in names]

    def __str__(self) -> str:
        if self.touched is None:
            return "what the change touches cannot be told: all packages"
        template = ", ".join(self.kinds)
        parts = f", part {self.part + 1} of {self.parts}" if self.parts > 1 else ""
        return (
            f"the core; of the template: {template}; touched: {_labels(self.touched)}"
            f"; of the others{parts}: {_labels(self.sample)}"
            f"\nleft out (make test-all has them): {_labels(self.left_out)}"
        )


def choose(packages: Sequence[Package], files: set[str] | None, commits: int, at_once: int = AT_ONCE) -> Choice:
    """``files``: changed ones, relative to the repository; None: not known. ``commits``: how many there are."""
    parts = -(-len(packages) // at_once) or 1
    part = commits % parts
    if files is None:
        return Choice(
            touched=None, sample=list(packages), left_out=[], part=0, parts=1, kinds=some_kinds(set(), commits)
        )
    changed = [p for p in packages if any(file.startswith(f"{p.place}/") for file in files)]
    touched = [p for p in packages if p in changed or _requires(p, changed)]
    sample = [p for i, p in enumerate(packages) if i % parts == part and p not in touched]
    left_out = [p for p in packages if p not in touched and p not in sample]
    return Choice(
        touched=touched, sample=sample, left_out=left_out, part=part, parts=parts, kinds=some_kinds(files, commits)
    )


def some_kinds(files: set[str], commits: int, known: Sequence[str] = (*KINDS, *EXAMPLES)) -> list[str]:
    """Those whose folder is changed, and another one of the others at every commit."""
    touched = [kind for kind in known if any(file.startswith(f"plugin_template/{kind}/") for file in files)]
    others = [kind for kind in known if kind not in touched]
    return [*touched, *others[commits % len(others) :][:1]] if others else touched


def changed_files(root: Path = ROOT) -> set[str] | None:
    """Relative to the repository; None if git cannot tell."""
    base = next((found for name in ("origin/main", "main") if (found := _git(root, "merge-base", "HEAD", name))), None)
    if base is None:
        return None
    if base == _git(root, "rev-parse", "HEAD"):
        base = ["HEAD~1"]
    committed = _git(root, "diff", "--name-only", "--no-renames", *base)
    untracked = _git(root, "ls-files", "--others", "--exclude-standard")
    return None if committed is None or untracked is None else {*committed, *untracked}


def commits(root: Path = ROOT) -> int:
    count = _git(root, "rev-list", "--count", "HEAD")
    return int(count[0]) if count else 0


def core_tests(root: Path = ROOT) -> list[str]:
    """All of tests/ but `ALONE` and `RENDERED`, by its parts: of ``tests`` and a test in it pytest takes ``tests``."""
    apart = [root / ALONE, root / RENDERED]
    folders = [path.parent for path in apart]
    found = [path for path in root.joinpath("tests").iterdir() if path not in folders and _has_tests(path)]
    found += [path for folder in folders for path in folder.glob("test_*.py") if path not in apart]
    return sorted(str(path.relative_to(root)) for path in found)


def _has_tests(path: Path) -> bool:
    return any(path.rglob("test_*.py")) if path.is_dir() else path.match("test_*.py")


def quick_tests(source: str) -> list[str]:
    """Names of a file's test functions without a mark."""
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return [node.name for node in functions if node.name.startswith("test_") and not node.decorator_list]


def _git(root: Path, *words: str) -> list[str] | None:
    """Lines that git prints; None if it fails."""
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=60)
    except OSError:
        return None
    return done.stdout.splitlines() if done.returncode == 0 else None


def _requires(package: Package, changed: Sequence[Package]) -> bool:
    return bool(needed([*package.requirements, *package.test_requirements], changed))


def _labels(packages: Sequence[Package]) -> str:
    return ", ".join(package.label for package in packages) or "none"


if __name__ == "__main__":
    choice = choose(plugin_packages(), changed_files(), commits())
    print(choice, file=sys.stderr)
    print(*choice.arguments)
