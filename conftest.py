"""The smoke workspace, in which the smoke graph runs once a session, beside the tests that do not need it."""

import os
import subprocess
from pathlib import Path

# Two processes work at once, the graph and the tests: with a thread each they do not wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from workspace import environment, make_workspace

import warm_kernel

GRAPH = pytest.StashKey["Graph"]()


class Graph:
    """`dvc repro` of the smoke profile in a workspace of its own, in the background.

    From here on, notebooks run in kernels that a warm process forks (`warm_kernel`), also those that tests start.
    """

    def __init__(self, workspace: Path):
        self.workspace, self.log, self.process, self.problem = workspace, workspace.with_suffix(".log"), None, None
        warm_kernel.start(workspace.with_suffix(".kernel"))
        try:
            make_workspace(workspace)
        except pytest.fail.Exception as error:  # told by the tests that wait for the graph, not instead of all others
            self.problem = str(error)
            return
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["dvc", "repro"],
                cwd=workspace,
                env=environment(workspace),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> Path:
        """The workspace, once the whole graph has run."""
        if self.problem is None and self.process.wait():
            self.problem = f"dvc repro failed:\n{self.log.read_text()[-6000:]}"
        if self.problem is not None:
            pytest.fail(self.problem, pytrace=False)
        return self.workspace

    def stop(self) -> None:
        """Kill what is left of it."""
        import psutil

        if self.process is not None and self.process.poll() is None:
            left = psutil.Process(self.process.pid).children(recursive=True)
            for process in [self.process, *left]:
                process.kill()


def needs_graph(item) -> bool:
    """Whether a test works in the smoke workspace."""
    return "smoke" in getattr(item, "fixturenames", ())


def pytest_collection_modifyitems(config, items):
    """What needs the graph comes last: by then it has run beside the others. Of several processes, the one that runs the
    graph begins with it."""
    items.sort(key=needs_graph, reverse=hasattr(config, "workerinput"))


def pytest_collection_finish(session):
    config, several = session.config, hasattr(session.config, "workerinput")
    # Of several processes, only the one that gets these tests runs the graph (`ByFile` in tests/conftest.py).
    if any(map(needs_graph, session.items)) and not several and not config.option.collectonly:
        begin(config)


def pytest_sessionfinish(session):
    if GRAPH in session.config.stash:
        session.config.stash[GRAPH].stop()


def begin(config) -> None:
    config.stash[GRAPH] = Graph(config._tmp_path_factory.mktemp("smoke"))


@pytest.fixture(scope="session")
def smoke(request) -> Path:
    """A workspace in which the whole smoke graph has run."""
    if GRAPH not in request.config.stash:
        begin(request.config)
    return request.config.stash[GRAPH].wait()
