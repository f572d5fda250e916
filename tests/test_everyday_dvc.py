"""DVC from day to day: a plan before anything ran, the target of an ablation, and tables and plots that can be read."""

import json
import os
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo
from workspace import environment, make_workspace, run

from foleylib.evaluation import scores
from foleylib.evaluation.metrics import HEADLINES
from foleylib.params import settings
from foleylib.paths import ROOT

BEFORE = (sys.executable, "warm_kernel.py", "before")  # what ./run puts before dvc


@pytest.fixture(scope="module")
def graph():
    """Stages of the repository's dvc.yaml: what each depends on comes after it."""
    with Repo(str(ROOT)) as repo:
        yield repo.index.graph


@pytest.fixture(scope="module")
def pipeline():
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())


def plan(graph, setting: str, target: str) -> set[str]:
    """The stages on the way to a target that run where a setting has changed, each name up to where all outputs are there."""

    def reads(stage) -> bool:
        of = [name for dep in stage.deps if isinstance(dep, ParamsDependency) for name in dep.params]
        return any(f"{setting}.".startswith(f"{name}.") or name.startswith(f"{setting}.") for name in of)

    (wanted,) = (stage for stage in graph if stage.name == target)
    runs = reached(filter(reads, graph), graph.predecessors)
    return {stage.name for stage in reached([wanted], graph.successors) & runs}


def reached(stages, follow) -> set:
    """Stages, and all that `follow` leads to from them."""
    found, new = set(), set(stages)
    while new:
        found |= new
        new = {after for stage in new for after in follow(stage)} - found
    return found


@pytest.mark.parametrize(
    ("setting", "target", "stages"),
    [
        ("systems.latent.loss.lclap", "evaluate", {"finetune@latent", "sample@latent", "selection@latent_filter"}),
        ("systems.large.tuning", "evaluate", {"finetune@large", "sample@large", "selection@large_filter"}),
        ("systems.label.prompts", "evaluate", {"finetune@label", "sample@label"}),
        ("evaluate.baseline", "evaluate", set()),
        ("transfer.steps", "paper_transfer", {"transfer"}),
        ("re_audioldm.models.both.k", "paper_re_audioldm", {"re_audioldm"}),
        ("src_gaudio.guidance", "paper_src_gaudio", {"src_gaudio"}),
        ("combined.lclap", "paper_combined", {"combined"}),
    ],
)
def test_an_ablation_reruns_what_it_concerns_up_to_its_score(graph, setting, target, stages):
    assert plan(graph, setting, target) == {*stages, target}


def test_a_setting_of_the_sampler_trains_nothing(graph):
    planned = plan(graph, "sampling.guidance", "evaluate")
    assert {"sample@ldm", "thresholds", "selection@ldm_filter", "evaluate"} <= planned
    assert not {name.split("@")[0] for name in planned} & {
        "finetune",
        "pretrain",
        "pretrain_size",
        "clap",
        "vae",
        "judge",
    }


def test_dvc_compares_one_file_of_few_numbers(pipeline):
    stages = [stage.get("do", stage) for stage in pipeline["stages"].values()]
    metrics = [name for stage in stages for entry in stage.get("metrics", []) for name in entry]
    assert metrics == ["results/headline.json"] and "metrics" not in pipeline
    cfg, numbers = settings.load(), json.loads((ROOT / "results/headline.json").read_text())
    assert next(iter(numbers)) == cfg.evaluate.baseline and set(numbers[cfg.evaluate.baseline]) == set(HEADLINES)
    assert set(numbers) == {row for row in cfg.runs | cfg.filters if cfg.system_of(row)}
    assert sum(map(len, numbers.values())) <= 20
    table = scores.headlines(pd.read_csv(ROOT / "results/summary.csv")).set_index("run")
    for row, told in numbers.items():
        assert told == pytest.approx(table.loc[row, list(told)].to_dict(), abs=1e-3)


def test_every_plot_says_what_its_axes_are(pipeline):
    plots = [plot for entry in pipeline["plots"] for plot in entry.values()]
    assert 3 <= len(plots) <= 6
    for plot in plots:
        assert plot["title"] and plot["x_label"] and plot["y_label"]
        for file, column in plot["y"].items():
            if (ROOT / file).exists():
                assert {plot["x"], column} <= set(pd.read_csv(ROOT / file).columns)


@pytest.mark.parametrize(
    ("command", "became"),
    [
        ("dvc exp show", "dvc exp show --only-changed --drop .*/"),
        ("dvc exp show -A --no-pager", "dvc exp show -A --no-pager --only-changed --drop .*/"),
        ("dvc exp show --csv", "dvc exp show --csv"),
        ("dvc exp show --keep=.*kad", "dvc exp show --keep=.*kad"),
        ("dvc exp diff", "dvc exp diff"),
        ("dvc repro --dry evaluate", "dvc repro --dry evaluate --force-downstream"),
        ("dvc exp run -S seed=1 --dry", "dvc exp run -S seed=1 --dry --force-downstream"),
        ("dvc status --dry", "dvc status --dry"),
    ],
)
def test_plans_and_tables_get_the_options_that_make_them_whole(command, became, monkeypatch):
    import warm_kernel

    ran = []
    monkeypatch.setattr("foleylib.params.experiment.check", lambda command: None)
    monkeypatch.setattr(warm_kernel, "start", lambda folder: pytest.fail("a plan needs no kernel"))
    monkeypatch.setattr(warm_kernel.os, "execvp", lambda program, arguments: ran.append(" ".join(arguments)))
    warm_kernel.before(*command.split())
    assert ran == [became]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A fresh clone of what stands in the repository, without models and data."""
    folder = make_workspace(tmp_path_factory.mktemp("clone"), profile=None)
    who = (["config", "user.name", "a"], ["config", "user.email", "a@b"])
    for arguments in (*who, ["add", "-A"], ["commit", "-qm", "all", "--no-verify"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


@pytest.mark.slow
def test_a_fresh_clone_has_a_plan(clone, graph):
    told = run(clone, *BEFORE, "dvc", "repro", "--dry")
    assert set(re.findall(r"Running stage '(\S+)'", told)) == {stage.name for stage in graph}
    part = set(re.findall(r"Running stage '(\S+)'", run(clone, *BEFORE, "dvc", "repro", "--dry", "finetune@latent")))
    assert {"corpora@foley", "latent_clap", "finetune@latent"} <= part and "finetune@ldm" not in part
    for command in ("dag", "status", "metrics show"):
        assert run(clone, *BEFORE, "dvc", *command.split())


@pytest.mark.slow
def test_what_an_experiment_changed_can_be_read(clone, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    params, headline = clone / "params.yaml", clone / "results/headline.json"
    before = params.read_text(), headline.read_text()
    params.write_text(before[0].replace("loss: {lclap: 30}}    ", "loss: {lclap: 500}}   ", 1))
    numbers = json.loads(before[1])
    numbers["latent"]["kad"] = 21.5
    headline.write_text(json.dumps(numbers))
    shown = run(clone, *BEFORE, "dvc", "exp", "show", "--csv", "--only-changed", "--drop", ".*/").splitlines()[0]
    assert shown.split(",") == ["rev", "Created", "latent.kad", "systems.latent.loss.lclap"]
    table = run(clone, *BEFORE, "dvc", "exp", "show")
    assert "latent.kad" in table and "21.5" in table and "ldm.kad" not in table
    for command in ("exp diff", "metrics diff"):
        told = run(clone, *BEFORE, "dvc", *command.split())
        assert "latent.kad" in told and len(told.strip().splitlines()) <= 6
    assert len(run(clone, *BEFORE, "dvc", "params", "diff").strip().splitlines()) == 2
    command = [*BEFORE, "dvc", "plots", "diff", "HEAD"]
    subprocess.run(command, cwd=clone, env=environment(clone), check=True, capture_output=True)
    page = (clone / "dvc_plots/index.html").read_text()
    assert "Distance of every run to the test clips" in page and "KAD on validation clips" in page
    params.write_text(before[0])
    headline.write_text(before[1])


@pytest.mark.slow
def test_an_experiment_is_a_changed_line(clone):
    settings = ["-S", "systems.latent.loss.lclap=500", "-S", "finetune.seeds=[0,1]"]
    run(clone, *BEFORE, "dvc", "exp", "run", "--queue", *settings, "evaluate")
    changed = run(clone, "git", "diff", "-U0", "HEAD", "refs/exps/celery/stash", "--", "params.yaml").splitlines()
    lines = [line.split("  #")[0].rstrip() for line in changed if re.match(r"[+-](?![+-])", line)]
    latent = "  latent: {corpus: foley, init: ldm, loss: {lclap: "
    assert lines == ["-  - 2", f"-{latent}30}}}}", f"+{latent}500}}}}"]
    assert run(clone, "git", "status", "--porcelain", "params.yaml") == ""


@pytest.fixture
def run_alone(tmp_path):
    """The script `run` in a folder of its own, where a stand-in for uv tells its working folder and its arguments."""
    (tmp_path / "root").mkdir()
    shutil.copy(ROOT / "run", tmp_path / "root")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/uv").write_text('#!/bin/sh\npwd\necho "$@"\n')
    (tmp_path / "bin/uv").chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def call(*arguments) -> list[str]:
        command = [tmp_path / "root/run", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PATH": path}, check=True, capture_output=True)
        return done.stdout.decode().splitlines()

    return call


@pytest.mark.parametrize("command, place", [("foleylib", "."), ("dvc", "root"), ("pytest", "root")])
def test_the_commands_alone_work_where_they_are_called(tmp_path, run_alone, command, place):
    where, told = run_alone(command, "x")
    assert where == str((tmp_path / place).resolve())
    assert told.startswith(f"run --frozen --project {tmp_path / 'root'} ") and told.endswith(f"{command} x")


@pytest.mark.parametrize("content, kept", [("", False), ("{}", True)], ids=["empty", "of a DVC at work"])
def test_a_table_of_locks_that_a_killed_dvc_left_is_removed(tmp_path, run_alone, content, kept):
    """DVC itself stops at an empty .dvc/tmp/rwlock, with the advice to remove it."""
    locks = tmp_path / "root/.dvc/tmp/rwlock"
    locks.parent.mkdir(parents=True)
    locks.write_text(content)
    run_alone("dvc", "status")
    assert locks.exists() == kept
