"""A workspace: a copy of the repository in which stages run without touching the real results."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def environment(workspace: Path) -> dict[str, str]:
    """Environment of a command that works in `workspace` with this interpreter's programs."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {
        "FOLEYLIB_ROOT": str(workspace),
        "PATH": path,
        "JUPYTER_PREFER_ENV_PATH": "1",
        "DVC_NO_ANALYTICS": "1",
    }


def make_workspace(workspace: Path, profile: str | None = "smoke") -> Path:
    """Copy what Git tracks or would track, apply a profile, and make it a repository of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file() and name != "dvc.lock":
            (workspace / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, workspace / name)
    subprocess.run(["git", "init", "-q"], cwd=workspace, check=True)
    if profile is not None:
        run(workspace, sys.executable, "-m", "foleylib.params", profile)
    return workspace


def run(workspace: Path, *command: str) -> str:
    """Run a command in a workspace; its output is the failure's message."""
    done = subprocess.run(
        command, cwd=workspace, env=environment(workspace), capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}", pytrace=False)
    return done.stdout
