"""The stage evaluate: scores of runs with their cards, paired differences, similarities, one table of all."""

import json

import numpy as np
import pandas as pd
import pytest

from foleylib import paths
from foleylib.datasets import features, manifest
from foleylib.datasets.samples import load
from foleylib.evaluation import scores
from foleylib.evaluation.distribution import kad
from foleylib.evaluation.embeddings import Embeddings
from foleylib.evaluation.metrics import HEADLINES
from foleylib.networks import unet as unets
from foleylib.papers import pages
from foleylib.runtime import weights_sha256
from foleylib.stages import controls, evaluate, latent_clap, selection
from foleylib.stages.embedders import Embedders, Validation
from foleylib.stages.reference import embeddings_by_class, reference

RUNS = ["real", "reconstruction", "ldm", "tuning", "tuning_filter"]
METRICS = {"kad", "coverage", "density", "fad", "fd", "clap_score", "judge_accuracy", "is", "kl"}


@pytest.fixture(scope="module")
def cfg(tiny):
    """Settings with the rows that the project has clips of, and one that takes every candidate."""
    written = tiny.model_dump()
    changes = {
        section: {k: v for k, v in written[section].items() if k in RUNS} for section in ("controls", "runs", "filters")
    }
    return tiny.changed(
        latent_clap=tiny.latent_clap.changed(corpus="foley"),
        selection=tiny.selection.changed(thresholds={"DogBark": -1.0, "Rain": -1.0}),
        listening=tiny.listening.changed(runs=["ldm", "tuning"]),
        **changes,
    )


@pytest.fixture(scope="module")
def embedders(project, cfg):
    return Embedders(cfg)


@pytest.fixture(scope="module")
def summary(project, cfg):
    controls.make(cfg)
    selection.make("tuning_filter", cfg)
    latent_clap.evaluate(cfg)
    return evaluate.make(cfg)


def embeddings_of(run, seed):
    return Embeddings.load(paths.EMBEDDINGS / run / f"{seed}.npz")


def test_reference_is_the_test_split(project, cfg):
    clips, waves = reference(cfg)
    assert set(clips.split) == {"test"} and waves.shape == (8, 10240)
    clips, waves = reference(cfg, "val")
    assert set(clips.split) == {"val"} and waves.shape == (4, 10240)
    with pytest.raises(ValueError, match="clips/foley: no clips of the split none; give the corpus some"):
        reference(cfg, "none")


def test_reference_by_class_is_embedded_by_clap(project, cfg, embedders):
    index, arrays = features.load(paths.FEATURES / "foley", "val")
    by_class = embeddings_by_class(embedders.clap, cfg, "val")
    assert list(by_class) == ["DogBark", "Rain"]
    for label, E in by_class.items():
        np.testing.assert_allclose(E, arrays["audio"][index.label == label], atol=1e-5)


def test_scores_of_a_run(summary, project, embedders, cfg):
    content = evaluate.scores_of("reconstruction")
    card, rows = content["card"], content["scores"]
    assert {row["class"] for row in rows} == {"all", "DogBark", "Rain", "average"}
    assert {row["metric"] for row in rows} == METRICS
    assert all(np.isfinite(row[k]) for row in rows for k in ("value", "low", "high"))
    assert content["headline"]["fad"] == next(r["value"] for r in rows if (r["class"], r["metric"]) == ("all", "fad"))
    assert (
        card["n"] == {"0": 6}
        and card["rate"] == 16000
        and card["sampling"] == {"source": "test", "vocoder": "griffin_lim"}
    )
    vocoder = weights_sha256(project / "models/foundation/ldm/vocoder/model.safetensors")
    assert set(card["models_sha256"]["0"]) == {"vae"}
    vocoded = cfg.changed(sampling=cfg.sampling.changed(vocoder="hifigan"))
    assert evaluate._model_hashes("reconstruction", vocoded)[0] == card["models_sha256"]["0"] | {"vocoder": vocoder}
    clap = weights_sha256(project / "models/foundation/clap/model.safetensors")
    weights = {name: facts["sha256"] for name, facts in card["evaluators"].items()}
    assert weights == {"judge": embedders.judge.sha256, "clap": clap}
    clips = manifest.load(paths.CLIPS / "foley")
    assert card["reference_sha256"] == manifest.digest(clips[clips.split == "test"])


def test_cards_say_how_clips_came_about(summary, cfg):
    card = evaluate.scores_of("tuning")["card"]
    how = cfg.sampling.model_dump()
    assert how.pop("eta") == 1.0 and card["sampling"] == how  # eta is of ddim
    assert set(card["models_sha256"]) == {"0", "1"}
    assert all(set(parts) == {"unet", "vae"} for parts in card["models_sha256"].values())
    assert card["models_sha256"]["0"]["unet"] != card["models_sha256"]["1"]["unet"]
    selected = evaluate.scores_of("tuning_filter")["card"]
    assert selected["sampling"]["selection"].items() >= {"of": "tuning", "target": "tuned", "cap": 2}.items()
    assert selected["models_sha256"] == card["models_sha256"]
    assert selected["clips"] == card["clips"]  # no threshold: the same clips
    assert evaluate.scores_of("real")["card"]["models_sha256"] == {"0": {}}


def test_cards_say_what_misleads(summary, cfg):
    tuned, real = (evaluate.scores_of(run)["card"]["remarks"] for run in ("tuning", "real"))
    few = [remark for remark in tuned if "the smallest set that is scored has 3 generated and 4 reference" in remark]
    assert [remark.split(":")[0] for remark in few] == ["judge", "clap"] and "Fréchet distances (FAD, FD)" in few[0]
    assert any(remark.startswith("2 trainings alone: there is no interval over trainings") for remark in tuned)
    assert not [remark for remark in real if "training" in remark]  # nothing was trained
    assert any(
        remark.endswith("are too few for intervals of level 0.95, whose bounds need 40: take them as rough.")
        for remark in real
    )


def test_embeddings_are_kept(summary, embedders):
    clips, waves = load(paths.SAMPLES / "ldm", 1)
    kept, again = embeddings_of("ldm", 1), embedders.embed(clips, waves)
    assert kept.labels.tolist() == clips.label.tolist()
    for name in ("judge", "logits", "clap", "text"):
        np.testing.assert_array_equal(kept[name], again[name])


def test_summary_holds_every_run_and_metric(summary, cfg):
    assert list(summary.columns) == scores.COLUMNS and set(summary.run) == {*RUNS, "latent_clap"}
    whole = summary[(summary["class"] == "all") & (summary.run != "latent_clap")]
    assert all(set(rows.metric) == METRICS for _, rows in whole.groupby("run"))
    assert set(summary.paper[summary.run == "ldm"]) == {"text-driven-foley", "latent-clap-loss"}
    assert summary.published[summary.run == "ldm"].notna().any()
    files = {f"results/evaluate/{run}.json" for run in RUNS} | {"results/latent_clap.json"}
    assert set(summary.protocol) == files and all((paths.ROOT / file).is_file() for file in files)
    written = pd.read_csv(paths.RESULTS / "summary.csv", dtype={"table": str}, keep_default_na=False, na_values=[""])
    assert len(written) == len(summary)
    np.testing.assert_allclose(written.value, summary.value, rtol=1e-5)


def test_headlines_are_written(summary, cfg):
    table = pd.read_csv(paths.RESULTS / "headline.csv").set_index("run")
    assert list(table.index) == RUNS and list(table.columns) == list(HEADLINES)
    told = json.loads((paths.RESULTS / "headline.json").read_text())
    assert list(told) == [cfg.evaluate.baseline, "tuning", "tuning_filter"]
    assert told["ldm"] == pytest.approx(table.loc["ldm"].to_dict(), abs=1e-3) and list(told["tuning"]) == ["kad"]
    kept = [evaluate.scores_of(run)["headline"]["kad_average"] for run in RUNS]
    np.testing.assert_allclose(table.kad, kept, rtol=1e-4)


def test_similarities(summary, cfg, embedders):
    table = pd.read_csv(paths.RESULTS / "similarity.csv")
    rows = [["ldm", "text", 0], ["ldm", "text", 1]]
    rows += [["tuning", kind, seed] for seed in (0, 1) for kind in ("text", "tuned")]
    assert list(table.columns) == ["run", "target", "seed", "value"]
    assert table[["run", "target", "seed"]].values.tolist() == rows
    value = table.set_index(["run", "target", "seed"]).value
    for run, seed in (("ldm", 1), ("tuning", 0)):
        clips = embeddings_of(run, seed)  # the corpus' prompts are those of the models
        assert value[run, "text", seed] == pytest.approx(
            np.mean(np.sum(clips["clap"] * clips["text"], axis=1)), rel=1e-4
        )
    clips, tuning = embeddings_of("tuning", 0), unets.load_tuning(paths.SYSTEMS / "tuning" / "0")
    tuned = tuning(embedders.clap.embed_text(list(embedders.texts[clips.labels])))
    tuned = (tuned / tuned.norm(dim=1, keepdim=True)).numpy()
    assert value["tuning", "tuned", 0] == pytest.approx(np.mean(np.sum(clips["clap"] * tuned, axis=1)), rel=1e-4)
    pd.testing.assert_frame_equal(table, evaluate.similarities(cfg, embedders), rtol=1e-5)


def test_kad_of_each_class_on_validation_clips(summary, cfg, embedders):
    table = pd.read_csv(paths.RESULTS / "validation.csv")
    assert list(table.columns) == ["run", "class", "seed", "kad"]
    seeds = [("ldm", 0), ("ldm", 1), ("tuning", 0), ("tuning", 1), ("tuning_filter", 0), ("tuning_filter", 1)]
    rows = [(run, label, seed) for run, seed in seeds for label in ("DogBark", "Rain")]
    assert list(table[["run", "class", "seed"]].itertuples(index=False, name=None)) == rows
    real, clips = embedders.embed(*reference(cfg, "val")), embeddings_of("tuning", 1)
    expected = kad(real.only("Rain")["judge"], clips.only("Rain")["judge"])
    assert table.set_index(["run", "class", "seed"]).kad["tuning", "Rain", 1] == pytest.approx(expected, rel=1e-4)


def test_validation_scores_the_first_clips_of_a_model(project, cfg):
    validation, folder = Validation(cfg), paths.SYSTEMS / "ldm" / "1"
    unet, prompts = unets.load(folder), json.loads((folder / "prompts.json").read_text())
    clips, waves = validation.draw(unet, prompts, seed=1, clips_per_class=2)
    run, stored = load(paths.SAMPLES / "ldm", 1)
    assert clips.id.tolist() == run.id[[0, 1, 3, 4]].tolist() and clips.seed.tolist() == run.seed[[0, 1, 3, 4]].tolist()
    assert np.abs(waves - stored[[0, 1, 3, 4]]).max() <= 2 / 32768
    result = validation.scores(unet, prompts, seed=1, clips_per_class=2)
    assert result == validation.score(clips, waves) and set(result) == {
        "kad",
        "coverage",
        "fd",
        "fad",
        "judge_accuracy",
        "clap_score",
    }
    fewer = cfg.sampling.changed(steps=1)
    assert not np.array_equal(validation.draw(unet, prompts, seed=1, clips_per_class=2, options=fewer)[1], waves)
    assert np.array_equal(validation.draw(unet, prompts, seed=1, clips_per_class=2)[1], waves)


def test_what_is_missing_is_named(project, cfg, embedders, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    monkeypatch.setattr(paths, "EMBEDDINGS", tmp_path)
    monkeypatch.setattr(paths, "SAMPLES", tmp_path)
    with pytest.raises(ValueError, match="ldm.json is missing; run the evaluate stage first"):
        evaluate.scores_of("ldm")
    with pytest.raises(ValueError, match="ldm/0.npz is missing; run the evaluate stage first"):
        evaluate.similarities(cfg, embedders)
    with pytest.raises(ValueError, match="run the sample stage of 'ldm' first"):
        evaluate.evaluate(["ldm"], cfg, embedders)
    with pytest.raises(ValueError, match="report.csv is missing; run the selection stage of 'ldm_filter' first"):
        pages.report_of("ldm_filter")
