"""Training by two processes under torchrun: one model on both, one of them writes."""

import os
import shutil
import subprocess
import sys

import parallel_stages
import pytest
import torch
import yaml
from made_corpora import dcase
from workspace import environment, make_workspace

from foleylib.datasets import manifest
from foleylib.networks.judge import load
from foleylib.paths import ROOT
from foleylib.train import gathered

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
QUIET = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def together(*command, cwd=None, env=None):
    return subprocess.run(
        [*TORCHRUN, *command],
        cwd=cwd,
        env=(env or os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}) | QUIET,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,  # where one waits for ever
    )


def fitted(out, names, tiny_root):
    """The weights of trainers on both processes, by name, whose checkpoints stay in `out`."""
    done = together(parallel_stages.__file__, out, tiny_root / "params.yaml", *names)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: [torch.load(out / f"{name}-{rank}.pt") for rank in range(2)] for name in names}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def two_processes(tiny_root, checkpoints):
    return fitted(checkpoints, list(parallel_stages.FITS), tiny_root)


@pytest.mark.slow
@pytest.mark.parametrize("name", parallel_stages.FITS)
def test_both_processes_end_with_the_same_weights_and_statistics(two_processes, name):
    first, second = two_processes[name]
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert all(value.isfinite().all() for value in first.values() if value.is_floating_point())


@pytest.mark.slow
def test_pairs_of_both_processes_count_as_those_of_one(two_processes, tiny, tmp_path):
    alone = parallel_stages.fit_pairs(tiny, tmp_path).state_dict()
    for name, value in two_processes["pairs"][0].items():
        torch.testing.assert_close(value, alone[name], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_training_of_two_processes_goes_on_to_the_same_end(two_processes, checkpoints, tiny_root, tmp_path):
    names = ["clap", "vocoder", "ldm"]  # with statistics of batches, with two sides, with averaged weights
    shutil.copytree(checkpoints / "scratch", tmp_path / "scratch")
    states = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("state.pt") if path.parent.name in names}
    assert len(states) == len(names)
    again = fitted(tmp_path, names, tiny_root)
    for name in names:
        for one, other in zip(again[name], two_processes[name]):
            assert all(torch.equal(value, other[key]) for key, value in one.items())
    # From the beginning, a run would have written its checkpoint again.
    assert states == {path: path.stat().st_mtime_ns for path in states}


def test_without_torchrun_nothing_is_gathered():
    values = torch.randn(3, 2)
    assert gathered(values) is values and gathered(["a"]) == ["a"]


@pytest.mark.slow
def test_an_uneven_batch_is_refused(tmp_path, tiny_root):
    settings = yaml.safe_load((tiny_root / "params.yaml").read_text())
    script = tmp_path / "uneven.py"
    script.write_text(
        "import sys, parallel_stages as p; p.STEPS['batch_size'] = 5\n"
        "from foleylib.params import settings\nfrom pathlib import Path\n"
        "p.fit_judge(settings.load(Path(sys.argv[1])), Path(sys.argv[2]))\n"
    )
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    done = together(script, tmp_path / "params.yaml", tmp_path)
    assert done.returncode and "batch_size 5: no multiple of the 2 processes; give one that is" in done.stderr


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """The smoke profile with a judge that learns a tiny corpus, which is there."""
    folder = make_workspace(tmp_path_factory.mktemp("workspace"))
    settings = yaml.safe_load((folder / "params.yaml").read_text())
    dcase(folder / "raw", per_class=6)
    settings["corpora"]["foley"] = {
        "kind": "folder", "root": "raw", "rate": 16000, "seconds": 1.28, "padding": "dataset", "jobs": 1
    }  # fmt: skip
    settings["judge"]["corpus"] = "foley"
    (folder / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    prepared = "from foleylib.stages import corpora; from foleylib.params import settings; corpora.make('foley', settings.load())"
    subprocess.run([sys.executable, "-c", prepared], cwd=folder, env=environment(folder), check=True)
    return folder


@pytest.mark.slow
def test_a_stage_under_torchrun_is_written_once(workspace):
    done = together("-m", "foleylib.stages", "judge", cwd=workspace, env=environment(workspace))
    assert done.returncode == 0, done.stderr[-3000:]
    made = workspace / "models" / "judge"
    assert {file.name for file in made.iterdir()} >= {
        "model.safetensors",
        "config.json",
        "provenance.json",
        "history.csv",
    }
    assert load(made).model.labels == tuple(manifest.classes(manifest.load(workspace / "data/clips/foley")).label)
    assert not any((workspace / "scratch").rglob("state.pt"))


@pytest.mark.slow
def test_a_stage_that_is_none_is_named(workspace):
    done = subprocess.run(
        [sys.executable, "-m", "foleylib.stages", "papers"],
        cwd=workspace,
        env=environment(workspace),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and done.stderr.startswith("give one of clap, vae") and "Traceback" not in done.stderr


@pytest.fixture
def copied(project, tmp_path):
    """A copy of the tiny project, without its systems."""
    root = shutil.copytree(project, tmp_path / "project")
    shutil.rmtree(root / "models" / "systems")
    return root


@pytest.mark.slow
def test_the_models_of_a_system_are_trained_by_both_and_replaced_by_the_next_run(copied, tiny):
    env = environment(copied) | {"PYTHONPATH": str(ROOT)}
    for _ in range(2):
        done = together("-m", "foleylib.stages", "finetune", "ldm", cwd=ROOT, env=env)
        assert done.returncode == 0, done.stderr[-3000:]
    seeds = {int(folder.name) for folder in (copied / "models/systems/ldm").iterdir()}
    assert seeds == set(tiny.trained_seeds("ldm"))
    assert all((copied / f"models/systems/ldm/{seed}/README.md").is_file() for seed in seeds)
    assert not (copied / "scratch/finetune-ldm").exists()


@pytest.mark.slow
def test_a_stage_that_trains_nothing_is_refused(copied):
    settings = yaml.safe_load((copied / "params.yaml").read_text())
    settings["judge"]["source"] = "bundled"
    (copied / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    env = environment(copied) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "foleylib.stages", "judge"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("judge: its source is 'bundled', so nothing is trained")
