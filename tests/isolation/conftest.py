"""One environment a package: wheels of the core, of the package and of those that it declares."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path

import attrs
import pytest
from packaging.requirements import Requirement

from tests.isolation.environment import OFFLINE, Environment, build_wheel, declared, link, pip
from tests.packages import ROOT, Package, core, needed, plugin_packages

PACKAGES = plugin_packages()
OURS = [core(), *PACKAGES]
THIRD_PARTY = partial(declared, without=[one.distribution for one in OURS])
# A model that no package of ours serves, for those that are no model.
STRANGER = ROOT / "tests" / "third_party" / "packages" / "owl"


def dev_requirements() -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in ROOT.joinpath("dev-requirements.txt").read_text().splitlines())
    found = [Requirement(line) for line in lines if line]
    return [one for one in found if one.marker is None or one.marker.evaluate()]


@attrs.frozen(kw_only=True)
class Alone:
    """A package in an environment of its own. ``testing``: a folder for ``sys.path`` with what its tests may use."""

    package: Package
    wheel: Path
    beside: list[Package]  # of ours, declared
    libraries: set[str]  # distributions of others that these declare
    stranger: bool  # whether the stranger's model is there, too
    run: Environment
    testing: Path

    @property
    def files(self) -> set[str]:
        """Names in its wheel."""
        return set(zipfile.ZipFile(self.wheel).namelist())


@pytest.fixture(scope="session")
def wheel_of(tmp_path_factory):
    """``wheel_of(folder)``: each is built once."""
    made = {}

    def build(folder: Path) -> Path:
        if folder not in made:
            made[folder] = build_wheel(folder, tmp_path_factory.mktemp("wheel") / "built")
        return made[folder]

    return build


@pytest.fixture(scope="module", params=PACKAGES, ids=str)
def alone(request, wheel_of, tmp_path_factory) -> Alone:
    package = request.param
    folder = tmp_path_factory.mktemp("alone")
    beside = [other for other in needed(package.requirements, OURS) if other not in (OURS[0], package)]
    ours = [OURS[0], package, *beside]
    stranger = package.folder.parent.name != "models"
    wheels = [wheel_of(one.folder) for one in ours] + [wheel_of(STRANGER)] * stranger
    libraries = THIRD_PARTY(r for one in ours for r in one.requirements)
    # What only the tests need comes on top, when they run.
    more = [other for other in needed(package.test_requirements, OURS) if other not in ours]
    wanted = [*dev_requirements(), *package.test_requirements, *(r for one in more for r in one.requirements)]
    testing = link(THIRD_PARTY(wanted).keys() - libraries, folder / "testing")
    if more:
        pip("install", *OFFLINE, "--target", testing, *(wheel_of(one.folder) for one in more))
    return Alone(
        package=package,
        wheel=wheel_of(package.folder),
        beside=beside,
        stranger=stranger,
        libraries=set(libraries),
        run=Environment(folder, wheels, link(libraries, folder / "libraries")),
        testing=testing,
    )
