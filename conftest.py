"""The smoke workspace, in which the smoke graph runs once a session; the notebooks are then tested on it."""

import os
from pathlib import Path

import pytest
from workspace import make_workspace, run

SMOKE = pytest.StashKey[Path]()


@pytest.fixture(scope="session")
def smoke(request) -> Path:
    """A workspace in which the whole smoke graph has run."""
    return _smoke(request.config)


def _smoke(config) -> Path:
    if SMOKE not in config.stash:
        workspace = make_workspace(Path(config._tmp_path_factory.mktemp("smoke")))
        run(workspace, "dvc", "repro")
        config.stash[SMOKE] = workspace
    return config.stash[SMOKE]


def pytest_runtest_setup(item):
    """Notebooks run on the smoke workspace's settings, models and results, never on the real ones."""
    if type(item).__name__ == "IPyNbCell":
        os.environ["FOLEYLIB_ROOT"] = str(_smoke(item.config))
