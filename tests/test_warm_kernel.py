"""The kernel that is forked from a warm process: it works as any other, and nothing of it is left behind."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from foleylib.paths import ROOT

# A command that has warm kernels, in the place of `dvc repro`: it asks one what it has and where it is, and ends.
COMMAND = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
import warm_kernel
if {warm}:
    warm_kernel.start(Path({folder!r}))
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python3", cwd={cwd!r}, env=os.environ | {{"TOLD": "yes"}})
code = "import os, sys; print(os.environ['TOLD'], os.getcwd(), 'torch' in sys.modules, 'foleylib' in sys.modules)"
found = []
client.execute_interactive(code, output_hook=lambda m: found.append(m["content"].get("text", "")), timeout=60)
client.stop_channels()
manager.shutdown_kernel(now=True)
print(json.dumps("".join(found).split()))
"""


def asked(tmp_path, warm, **environment):
    """What a kernel says: its environment, its folder, whether torch and the package are loaded."""
    names = {"root": str(ROOT), "folder": str(tmp_path / "kernel"), "cwd": str(tmp_path), "warm": warm}
    known = {name: value for name, value in os.environ.items() if name not in ("JUPYTER_PATH", "WARM_KERNEL_SOCKET")}
    command = [sys.executable, "-c", COMMAND.format(**names)]
    done = subprocess.run(command, env=known | environment, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux alone")
def test_a_warm_kernel_knows_what_it_is_told_and_ends_with_its_command(tmp_path):
    assert asked(tmp_path, warm=True) == ["yes", str(tmp_path), "True", "False"]
    deadline = time.monotonic() + 30
    while (tmp_path / "kernel").exists():
        assert time.monotonic() < deadline, "the process that forks is still there"
        time.sleep(0.1)


def test_where_nobody_answers_it_is_an_ordinary_kernel(tmp_path):
    spec = tmp_path / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [sys.executable, str(ROOT / "warm_kernel.py"), "ask", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    own = {"JUPYTER_PATH": str(tmp_path), "WARM_KERNEL_SOCKET": str(tmp_path / "gone")}
    assert asked(tmp_path, warm=False, **own) == ["yes", str(tmp_path), "False", "False"]


@pytest.mark.parametrize(
    "command, gpu, warm",
    [("dvc repro -s codec", False, True), ("dvc exp run -S seed=1", False, True), ("dvc status", False, False)]
    + [("dvc repro", True, False)],
)
def test_only_what_runs_stages_without_a_gpu_has_warm_kernels(command, gpu, warm, monkeypatch):
    import warm_kernel

    started, became = [], []
    monkeypatch.setattr("foleylib.params.experiment.check", lambda command: None)
    monkeypatch.setattr(warm_kernel, "start", started.append)
    monkeypatch.setattr(warm_kernel.os, "execvp", lambda program, arguments: became.append((program, *arguments[1:])))
    monkeypatch.setattr(warm_kernel, "GPUS", ("null",) if gpu else ("no such device",))
    monkeypatch.setattr(warm_kernel.tempfile, "mkdtemp", lambda prefix: "folder")
    warm_kernel.before(*command.split())
    assert became == [tuple(command.split())]
    assert started == ([Path("folder")] if warm and sys.platform == "linux" else [])
