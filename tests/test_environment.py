"""The pins: pyproject.toml is their one source, and uv.lock, requirements.lock and environment.yml follow it."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain

import pytest
import yaml

from foleylib.paths import ROOT

EXPORT = ["export", "--frozen", "--no-hashes", "--no-emit-project", "--all-groups"]
REFRESH = "run: uv lock && uv " + " ".join(EXPORT) + " -o requirements.lock"


def canonical(name):
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))


@pytest.fixture(scope="module")
def direct(project):
    """Requirement lines of the package and of its development tools."""
    return [*project["project"]["dependencies"], *chain.from_iterable(project["dependency-groups"].values())]


@pytest.fixture(scope="module")
def pins(direct):
    return {canonical(name): version for name, _, version in (line.partition("==") for line in direct)}


@pytest.fixture(scope="module")
def exported():
    """The lines of requirements.lock that are no comments."""
    return pinned_lines((ROOT / "requirements.lock").read_text(encoding="utf8"))


@pytest.fixture
def uv(tmp_path):
    """Runs uv without the network and with an empty cache; returns the completed process."""
    program = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
    if not os.access(program, os.X_OK):
        pytest.skip("uv is not at hand (./run gets it): the locks are not compared with pyproject.toml by uv itself")

    def run(*arguments):
        command = [program, *arguments, "--offline", "--cache-dir", str(tmp_path)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    return run


def pinned_lines(text):
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def test_every_direct_dependency_is_pinned_exactly(direct):
    loose = [line for line in direct if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)]
    assert not loose, f"pin these in pyproject.toml as name==version: {loose}"


def test_uv_lock_holds_the_direct_pins(pins):
    packages = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf8"))["package"]
    locked = {(package["name"], package["version"]) for package in packages}
    missing = [f"{name}=={version}" for name, version in pins.items() if (name, version) not in locked]
    assert not missing, f"not in uv.lock: {missing}; {REFRESH}"


def test_requirements_lock_holds_the_direct_pins(pins, exported):
    locked = {canonical(line.partition(";")[0].strip()) for line in exported}
    missing = [f"{n}=={v}" for n, v in pins.items() if canonical(f"{n}=={v}") not in locked]
    assert not missing, f"not in requirements.lock: {missing}; {REFRESH}"


def test_uv_finds_its_lock_current(uv):
    checked = uv("lock", "--check")
    assert checked.returncode == 0, f"uv.lock does not follow pyproject.toml; {REFRESH}\n{checked.stderr}"


def test_requirements_lock_is_the_export_of_uv_lock(uv, exported):
    fresh = uv(*EXPORT)
    assert fresh.returncode == 0, fresh.stderr
    assert pinned_lines(fresh.stdout) == exported, f"requirements.lock is not the export of uv.lock; {REFRESH}"


def test_requirements_lock_names_no_place(exported):
    text = (ROOT / "requirements.lock").read_text(encoding="utf8")
    assert "://" not in text, "requirements.lock names an index or address"
    assert not re.search(r"(^|\s)/", text), "requirements.lock names a path of one machine"
    unpinned = [line for line in exported if "==" not in line]
    assert not unpinned, f"requirements.lock has lines without a version: {unpinned}"


def test_conda_environment_installs_the_same_pins(project):
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf8"))["dependencies"]
    conda, (pip,) = [d for d in listed if isinstance(d, str)], [d["pip"] for d in listed if isinstance(d, dict)]
    assert pip == ["-r requirements.lock", "-e ."], "environment.yml pins nothing itself: requirements.lock does"
    assert {"pip", "git", "ffmpeg", "libsndfile"} <= set(conda)
    (python,) = [line.removeprefix("python=") for line in conda if line.startswith("python=")]
    assert project["project"]["requires-python"].startswith(f">={python},")


def test_what_is_imported_is_pinned(pins):
    """No module leans on a package that only another package happens to bring along."""
    distributions = packages_distributions()
    beside = [*ROOT.glob("*.py"), *(ROOT / "tests").glob("*.py")]
    known = {*sys.stdlib_module_names, "foleylib", "benchmarks", *(path.stem for path in beside)}
    undeclared = {}
    for path in sorted([*(ROOT / "foleylib").rglob("*.py"), *beside]):
        for name in imported(ast.parse(path.read_text(encoding="utf8"))) - known:
            if not pins.keys() & {canonical(d) for d in distributions.get(name, [name])}:
                undeclared.setdefault(name, path.name)
    assert not undeclared, f"imported but not among pyproject.toml's dependencies (name: where): {undeclared}"


def imported(tree):
    """Top-level names of the packages that a module imports, wherever it does."""
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    froms = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level)
    return {name.partition(".")[0] for name in names | {node.module for node in froms}}
