"""The graph at smoke size: it runs whole, reruns what an edit concerns and nothing else, and survives being killed."""

import json
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import yaml
from workspace import environment, run

from foleylib.evaluation.scores import COLUMNS
from foleylib.params import settings
from foleylib.runtime import weights_sha256

UNET = "models/systems/ldm/0/unet/diffusion_pytorch_model.safetensors"

# Stages by what they do; "finetune" stands for finetune@NAME of all systems, and so on.
FOUNDATION = {"clap", "vae", "vocoder"}
LDMS = {"pretrain", "pretrain_size"}
TUNED = {"finetune", "lambda_sweep", "targets", "transfer", "re_audioldm", "combined"}
RATES = {"rates", "src_gaudio"}  # U-Nets that read text tokens and a rate
TRAINED = {*FOUNDATION, *LDMS, *TUNED, *RATES, "judge", "detector", "latent_clap", "retrieval", "rate_vocoder"}
SAMPLED = {
    "controls",
    "sample",
    "thresholds",
    "selection",
    "lambda_sweep",
    "targets",
    "transfer",
    "sensitivity",
    "re_audioldm",
    "src_gaudio",
    "combined",
}
SCORED = {"evaluate", "transfer", "sensitivity", "re_audioldm", "src_gaudio", "combined"}  # with every metric
PAPERS = {"paper_latent_clap", "paper_text_foley", "paper_transfer", "paper_re_audioldm"}
PAPERS |= {"paper_src_gaudio", "paper_combined"}

# What DVC would run at once after an edit: these stages, and no other.
STALE = {
    "foleylib/evaluation/metrics.py": {*SCORED, *PAPERS},
    "foleylib/evaluation/statistics.py": {*SCORED, "latent_clap", *PAPERS},
    "foleylib/networks/judge.py": {"judge", "codec", *SCORED, "lambda_sweep", "targets"},
    "foleylib/networks/embedders.py": {"judge", "detector", "codec", *SCORED, "lambda_sweep", "targets"},
    "foleylib/networks/vggish.py": SCORED,
    "foleylib/evaluation/folders.py": set(),
    "foleylib/networks/published/audioldm.py": {"published", *SCORED},
    "foleylib/corpora/synth/foley.py": {"corpora", "sensitivity"},
    "foleylib/train.py": TRAINED,
    "foleylib/stages/clap.py": {"clap"},
    "foleylib/stages/finetune.py": TUNED,
    "foleylib/sampling/sampler.py": {*SAMPLED, "evaluate"},
    "foleylib/sampling/selection.py": {"thresholds", "selection", "evaluate", "targets", *PAPERS},
    "foleylib/diffusion/condition.py": {
        *LDMS,
        *SAMPLED,
        "finetune",
        "evaluate",
        "published",
        "retrieval_index",
        "retrieval",
        "rates",
    },
    "foleylib/diffusion/loss.py": {*LDMS, *TUNED, *RATES, "retrieval"},
    "foleylib/diffusion/latent_clap_loss.py": {*TUNED, "latent_clap"},
    "foleylib/papers/re_audioldm_pages.py": {"re_audioldm", "paper_re_audioldm"},
    "foleylib/networks/retrieval.py": {"published", "retrieval", "rates", *LDMS, *TUNED, *SAMPLED, "evaluate"},
    "foleylib/stages/retrieval_index.py": {"retrieval_index"},
    "foleylib/report/plots.py": set(),
    "foleylib/report/tables.py": set(),
    "foleylib/params/systems.py": set(),
    "foleylib/papers/published.csv": {"evaluate", *(PAPERS - {"paper_combined"})},
    "foleylib/papers/published_protocols.csv": {"evaluate"},
}
STALE_SETTINGS = {
    ("    ldm: {corpus: foley, init: ldm}", "    ldm: {corpus: foley, init: ldm, condition: audio}"): {"finetune@ldm"},
    ("colour: '#029e73'", "colour: '#029e74'"): {
        "evaluate",
        "listening",
        *(PAPERS - {"paper_transfer", "paper_re_audioldm", "paper_src_gaudio", "paper_combined"}),
    },
    ("train: 8, val: 4, test: 6", "train: 8, val: 4, test: 7"): {"corpora@foley", "features@foley", "sensitivity"},
    ("bootstrap: 20", "bootstrap: 21"): {"evaluate", "latent_clap"},
}


@pytest.fixture(scope="module")
def repo(smoke):
    """The workspace as DVC sees it, with the stages of its dvc.yaml."""
    from dvc.repo import Repo

    with Repo(str(smoke)) as repo:
        yield repo


def stale(repo) -> set[str]:
    """Stages that DVC would run because a module, a notebook or a setting changed."""
    own, known = ("foleylib", "notebooks", "params.yaml"), {}

    def changed(dep) -> bool:
        key = dep.def_path, str(dep.hash_info)  # most stages share their layers, as they were when these ran
        if key not in known:
            known[key] = bool(dep.status())
        return known[key]

    deps = {stage.name: [dep for dep in stage.deps if dep.def_path.startswith(own)] for stage in repo.index.stages}
    return {name for name, of_stage in deps.items() if any(map(changed, of_stage))}


def expanded(names: set[str], repo) -> set[str]:
    """Names of stages with every instance of those that stand for several."""
    return {s.name for s in repo.index.stages if s.name in names or s.name.split("@")[0] in names}


@pytest.fixture
def edited(smoke):
    """Changes a file of the workspace for the length of a test."""
    before = {}

    def change(path, text):
        file = smoke / path
        before[file] = file.read_text()
        file.write_text(text(before[file]))

    yield change
    for file, text in before.items():
        file.write_text(text)


def test_nothing_reruns_without_a_reason(repo):
    assert repo.status() == {} and stale(repo) == set()


@pytest.mark.parametrize("path", STALE)
def test_an_edit_reruns_what_it_concerns(repo, edited, path):
    edited(path, lambda text: text + "\n# an edit\n")
    assert stale(repo) == expanded(STALE[path], repo)


@pytest.mark.parametrize("change", STALE_SETTINGS, ids=lambda change: change[1].strip().split(":")[0])
def test_a_setting_reruns_what_it_concerns(smoke, edited, change):
    from dvc.repo import Repo

    old, new = (text.strip() for text in change)
    assert (smoke / "params.yaml").read_text().count(old) == 1
    edited("params.yaml", lambda text: text.replace(old, new))
    with Repo(str(smoke)) as repo:  # the settings are part of the graph: read it again
        assert stale(repo) == expanded(STALE_SETTINGS[change], repo)


def test_the_plan_of_an_ablation_has_its_score_and_no_other_training(smoke, edited):
    """What `./run dvc repro --dry` tells after an edit of one system: all on the way from it to its score, and that alone."""
    plan = [sys.executable, "warm_kernel.py", "before", "dvc", "repro", "--dry", "evaluate"]
    assert "Running stage" not in run(smoke, *plan)
    old = "tuning: {corpus: foley, init: ldm, tuning: true"
    assert (smoke / "params.yaml").read_text().count(old) == 1
    edited("params.yaml", lambda text: text.replace(old, f"{old}, prompts: label"))
    planned = set(re.findall(r"Running stage '(\S+)'", run(smoke, *plan)))
    assert planned == {"finetune@tuning", "sample@tuning", "thresholds", "selection@tuning_filter", "evaluate"}


def test_the_graph_is_small_and_every_stage_wrote_its_report(smoke, repo):
    commands = [stage.cmd for stage in repo.index.stages]
    reports = {re.search(r"reports/(\S+)\.ipynb", command).group(1) for command in commands}
    assert len(reports) == len(commands) <= 46
    assert reports <= {path.stem for path in (smoke / "reports").glob("*.ipynb")}


OWN = {  # what belongs to one page alone
    "paper_latent_clap": {"lambda_sweep"},
    "paper_text_foley": {"targets"},
    "paper_transfer": {"transfer", "sensitivity"},
    "paper_re_audioldm": {"re_audioldm"},
    "paper_src_gaudio": {"src_gaudio"},
    "paper_combined": {"combined"},
}


@pytest.mark.parametrize("page", OWN)
def test_a_page_needs_nothing_that_belongs_to_another(repo, page):
    (stage,) = (stage for stage in repo.index.stages if stage.name == page)
    needed, left = set(), [stage]
    while left:
        needed |= (new := {before for stage in left for before in repo.index.graph.successors(stage)} - needed)
        left = new
    needed = {stage.name.split("@")[0] for stage in needed}
    assert needed >= OWN[page] and not needed & (set().union(*OWN.values()) - OWN[page])


def test_summary_holds_every_run_and_metric(smoke):
    summary, cfg = pd.read_csv(smoke / "results" / "summary.csv"), settings.load(smoke / "params.yaml")
    assert list(summary.columns) == COLUMNS
    assert set(summary.run) == {*cfg.rows(), "latent_clap"}
    whole = summary[(summary["class"] == "all") & (summary.run != "latent_clap")]
    for _, rows in whole.groupby("run"):
        scores = {"kad", "coverage", "density", "fad", "fd", "is", "kl", "clap_score", "judge_accuracy"}
        assert scores == set(rows.metric)
    assert {"cosine", "mse"} <= set(summary[summary.run == "latent_clap"].metric)
    assert set(summary[summary.run == "tuning_filter"].seed) == set(cfg.seeds_of("tuning"))
    assert summary.value.notna().all() and (summary.low <= summary.value + 1e-9).all()
    assert not summary.comparable.any()  # synthetic clips are not the papers' clips
    for protocol in summary[summary.run != "latent_clap"].protocol.unique():
        card = json.loads((smoke / protocol).read_text())["card"]
        assert all(len(digest) == 64 for digest in card["clips"].values()) and card["evaluators"]["judge"]["sha256"]


def test_re_audioldm_has_every_model_variant_caption_and_seed(smoke):
    scores, cfg = pd.read_csv(smoke / "results/re_audioldm.csv"), settings.load(smoke / "params.yaml").re_audioldm
    asked = {(name, "own", 0, seed) for name in cfg.models for seed in cfg.seeds}
    asked |= {("real", "own", 0, 0), ("codec", "own", 0, 0)}
    asked |= {(cfg.probed, variant, 0, s) for variant in ("off", "swapped", "full", "published") for s in cfg.seeds}
    asked |= {(name, "own", c, cfg.seeds[0]) for name in (cfg.baseline, cfg.probed) for c in range(cfg.captions)}
    assert set(scores[["model", "variant", "caption", "seed"]].itertuples(index=False, name=None)) == asked
    known = scores.groupby("metric").value.count()
    assert {"kl_pairs", "is", "fad", "fd", "coverage", "clap_score", "event_recall", "nearest_mel"} <= set(known.index)
    assert np.isfinite(scores[~scores.metric.str.startswith("event_")].value).all()
    real = scores[scores.model == "real"].set_index("metric").value
    assert real.kl_pairs == pytest.approx(0, abs=1e-4)  # each is its own partner
    first = pd.read_parquet(smoke / f"data/examples/re_audioldm/{cfg.probed}_swapped/{cfg.seeds[0]}/manifest.parquet")
    assert list(first.prompt) and (smoke / "data/examples/re_audioldm" / f"{cfg.baseline}_own").is_dir()


@pytest.mark.parametrize("name", ["src_gaudio", "combined"])
def test_every_model_is_scored_at_every_rate(smoke, name):
    scores, cfg = pd.read_csv(smoke / f"results/{name}.csv"), settings.load(smoke / "params.yaml")
    section = getattr(cfg, name)
    rates = section.rates if name == "combined" else cfg.corpora["wide"].rates
    models = set(scores.model) - {"real", "codec"}
    assert len(models) == (3 if name == "src_gaudio" else 6) and set(scores.rate) == set(rates)
    rows = scores[scores.model.isin(models) & (scores.metric == "judge_accuracy")]
    assert len(rows) == len(models) * len(rates) * len(section.seeds) and np.isfinite(scores.value).all()
    real = scores[(scores.model == "real") & (scores.metric == "rolloff")].set_index("rate").value
    assert real[rates[-1]] > real[rates[0]]
    assert (smoke / f"data/examples/{name}").is_dir() and (smoke / "models/src_gaudio/low/rate").is_dir()


def test_the_model_opens_in_the_stock_pipeline(smoke):
    from diffusers import AudioLDMPipeline

    for folder in ("models/foundation/ldm", "models/systems/ldm/0", "models/systems/tuning/1"):
        pipeline = AudioLDMPipeline.from_pretrained(smoke / folder)
        pipeline.set_progress_bar_config(disable=True)
        first, again, other = (
            pipeline(
                "a dog bark",
                audio_length_in_s=1.28,
                num_inference_steps=2,
                generator=torch.Generator().manual_seed(seed),
            ).audios
            for seed in (0, 0, 1)
        )
        assert first.shape == (1, 20480) and np.isfinite(first).all()
        assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_a_stage_that_runs_again_gives_the_same_bytes(smoke):
    scores = smoke / "results/evaluate/ldm.json"
    before = scores.read_text()
    run(smoke, "dvc", "repro", "-f", "-s", "evaluate")
    assert scores.read_text() == before


@pytest.fixture
def longer(smoke, tmp_path):
    """The smoke workspace with a fine-tuning long enough to be killed in the middle; put back afterwards."""
    changes = [
        smoke / name for name in ("params.yaml", "dvc.lock", "models/systems/ldm", "reports/08_finetune_ldm.ipynb")
    ]
    for path in changes:
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, tmp_path / path.name)
    changed = yaml.safe_load((smoke / "params.yaml").read_text())
    changed["finetune"] |= {"seeds": [0]}
    changed["finetune"]["train"] |= {"steps": 80, "checkpoint_every": 10}
    (smoke / "params.yaml").write_text(yaml.safe_dump(changed))
    yield smoke
    for path in changes:
        if path.is_dir():
            shutil.rmtree(path)
        shutil.move(tmp_path / path.name, path)


@pytest.mark.slow
def test_a_killed_fine_tuning_ends_as_the_unbroken_one(longer):
    command = ["dvc", "repro", "-f", "-s", "finetune@ldm"]
    here = "from foleylib.stages import finetune; from foleylib.params import settings; finetune.make('ldm', settings.load())"
    run(longer, sys.executable, "-c", here)
    unbroken = weights_sha256(longer / UNET)
    process = subprocess.Popen(
        command,
        cwd=longer,
        env=environment(longer),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (states := list((longer / "scratch").glob("finetune-ldm/*/state.pt"))):
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
    assert not list((longer / "scratch").glob("finetune-ldm/*/state.pt"))
