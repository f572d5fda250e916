"""The graph at smoke size: it runs whole, reruns nothing needlessly, repeats itself exactly and survives being killed."""

import json
import re
import subprocess
import time

import pandas as pd
import psutil
import pytest
import torch
import yaml
from workspace import environment, run

from foleylib import params
from foleylib.embedders import weights_sha256
from foleylib.evaluation import COLUMNS

UNET = "models/foley/ldm/0/unet/diffusion_pytorch_model.safetensors"


def stale(workspace) -> set[str]:
    """Stages that `dvc repro` would run."""
    return {k for k in json.loads(run(workspace, "dvc", "status", "--json")) if not k.endswith(".dvc")}


def test_every_stage_wrote_its_report(smoke):
    commands = [
        s["do"]["cmd"] if "do" in s else s["cmd"]
        for s in yaml.safe_load((smoke / "dvc.yaml").read_text())["stages"].values()
    ]
    settings = params.load(smoke / "params.yaml")
    keys = [settings.corpora, settings.foundation.sizes, settings.foley.variants, settings.runs, settings.filters]
    keys.append(["plain", "tuned", "lambda_plain", "lambda_tuned"])  # 08_foley_* finds those of 08_foley_lambda_* too
    for command in commands:
        report = re.search(r"reports/(\S+)\.ipynb", command).group(1)
        stem = report.replace("${key}", "")
        found = {p.stem for p in (smoke / "reports").glob(f"{stem}*.ipynb")}
        assert found, report
        if "${key}" in report:
            assert found <= {stem + k for group in keys for k in group}


def test_summary_holds_every_run_and_metric(smoke):
    summary = pd.read_csv(smoke / "results" / "summary.csv")
    settings = params.load(smoke / "params.yaml")
    assert list(summary.columns) == COLUMNS
    assert set(summary.run) == {*settings.runs, *settings.filters, "latent_clap"}
    whole = summary[(summary["class"] == "all") & (summary.run != "latent_clap")]
    for _, rows in whole.groupby("run"):
        assert {"fad", "fd", "is", "kl", "clap_score", "judge_accuracy"} == set(rows.metric)
    assert {"cosine", "mse"} <= set(summary[summary.run == "latent_clap"].metric)
    trained = summary[summary.run == "tuning_filter"]
    assert set(trained.seed) == set(settings.seeds_of("tuning"))
    assert summary.value.notna().all() and (summary.low <= summary.value + 1e-9).all()
    assert not summary.comparable.any()  # synthetic clips are not the papers' clips
    for protocol in summary[summary.run != "latent_clap"].protocol.unique():
        card = json.loads((smoke / protocol).read_text())["card"]
        assert all(len(digest) == 64 for digest in card["clips"].values()) and card["embedders_sha256"]["judge"]


def test_nothing_reruns_without_a_reason(smoke):
    assert stale(smoke) == set()
    plots = smoke / "foleylib" / "plots.py"
    text = plots.read_text()
    plots.write_text(text + "\n# an edit\n")
    try:
        assert stale(smoke) == set()
    finally:
        plots.write_text(text)


def test_editing_a_variant_reruns_that_variant_alone(smoke):
    file = smoke / "params.yaml"
    text = file.read_text()
    edited = re.sub(r"^    ldm: \{init: ldm\}", "    ldm: {init: ldm, condition: audio}", text, flags=re.MULTILINE)
    assert edited != text
    file.write_text(edited)
    try:
        assert stale(smoke) == {"foley@ldm"}
    finally:
        file.write_text(text)


def test_editing_a_corpus_reruns_what_reads_it(smoke):
    file = smoke / "params.yaml"
    text = file.read_text()
    file.write_text(text.replace("ambience: 0.5", "ambience: 0.4"))
    try:
        assert stale(smoke) == {"corpora@foley"}
    finally:
        file.write_text(text)


def test_the_model_opens_in_the_stock_pipeline(smoke):
    from diffusers import AudioLDMPipeline

    for folder in ("models/foundation/ldm", "models/foley/ldm/0", "models/foley/tuning/1"):
        pipeline = AudioLDMPipeline.from_pretrained(smoke / folder)
        pipeline.set_progress_bar_config(disable=True)
        wave = pipeline("a dog bark", audio_length_in_s=1.28, num_inference_steps=2, generator=torch.Generator().manual_seed(0)).audios  # fmt: skip
        assert wave.shape == (1, 20480) and wave.std() >= 0


def test_a_stage_that_runs_again_gives_the_same_bytes(smoke):
    before = (
        (smoke / "results" / "evaluate" / "scratch.json").read_text(),
        weights_sha256(smoke / "models/foley/scratch"),
    )
    run(smoke, "dvc", "repro", "-f", "-s", "foley@scratch", "sample@scratch", "evaluate")
    after = (
        (smoke / "results" / "evaluate" / "scratch.json").read_text(),
        weights_sha256(smoke / "models/foley/scratch"),
    )
    assert before == after


@pytest.fixture
def longer(smoke):
    """The smoke workspace with a fine-tuning long enough to be killed in the middle; put back afterwards."""
    file = smoke / "params.yaml"
    text = file.read_text()
    settings = yaml.safe_load(text)
    settings["foley"]["common"]["train"] |= {"steps": 80, "checkpoint_every": 10}
    file.write_text(yaml.safe_dump(settings))
    yield smoke
    file.write_text(text)
    run(smoke, "dvc", "repro", "-s", "foley@ldm")


def test_a_killed_fine_tuning_ends_as_the_unbroken_one(longer):
    command = ["dvc", "repro", "-f", "-s", "foley@ldm"]
    run(longer, *command)
    unbroken = weights_sha256(longer / UNET)
    process = subprocess.Popen(command, cwd=longer, env=environment(longer), start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    deadline = time.monotonic() + 120
    while not (states := list((longer / "scratch").glob("foley-ldm/*/state.pt"))):
        assert process.poll() is None and time.monotonic() < deadline, "no checkpoint appeared before the stage ended"
        time.sleep(0.005)
    children = psutil.Process(process.pid).children(recursive=True)  # papermill and its kernel
    for victim in [process, *children]:  # DVC first: else it sees its child die and is killed writing its lock
        victim.kill()
    process.wait()
    step = torch.load(states[0], weights_only=True)["step"]
    assert 0 < step < 80 and not (longer / UNET).exists()
    run(longer, *command)
    assert weights_sha256(longer / UNET) == unbroken
    assert not list((longer / "scratch").glob("foley-ldm/*/state.pt"))
