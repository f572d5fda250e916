"""A corpus without classes and with five captions a clip, from its CSV to the scores, through the stages."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from made_corpora import noise, table

from conftest import inside
from foleylib import paths
from foleylib.datasets import features as cached
from foleylib.datasets import manifest as manifests
from foleylib.datasets import samples
from foleylib.evaluation.metrics import kl_divergence
from foleylib.networks import judge as judges
from foleylib.papers import latent_clap as sweeps
from foleylib.papers import text_foley, transfer
from foleylib.papers.transfer_pages import SETTINGS
from foleylib.report import plots, tables
from foleylib.report.listening import page
from foleylib.stages import (
    clap,
    codec,
    controls,
    corpora,
    evaluate,
    features,
    finetune,
    judge,
    latent_clap,
    sample,
    selection,
    thresholds,
)
from foleylib.stages.candidates import targets_of
from foleylib.stages.reference import reference

SPLITS = ["train"] * 5 + ["val"] * 4 + ["test"] * 4
SAID = {
    f"clip{i:02d}": [f"{what} number {i}" for what in ("a hiss", "noise", "wind", "a fan", "steam")] for i in range(13)
}
TEST = list(SAID)[9:]
ROW = {"name": "row", "clips": {"made_from": "models/systems/ldm"}}


@pytest.fixture(scope="module")
def cfg(tiny, tiny_models, tmp_path_factory):
    """Settings of a project that has the captioned corpus alone, in a folder of its own with the tiny models."""
    root = tmp_path_factory.mktemp("captioned")
    rows = [(f"{id}.wav", said, split) for (id, own), split in zip(SAID.items(), SPLITS) for said in own]
    table(root / "raw" / "captions.csv", ["path", "caption", "split"], rows)
    for id in SAID:
        noise(root / "raw" / f"{id}.wav")
    shutil.copytree(tiny_models, root / "models" / "foundation")
    judges.build(["DogBark", "Rain"], rate=16000, widths=(4, 8), embedding_dim=8, seed=0).save_pretrained(
        root / "models" / "judge"
    )
    own = tiny.model_dump()
    corpus = {"kind": "folder", "root": "raw/captions.csv", "jobs": 1}
    said = corpus | {"rate": 16000, "seconds": 0.64, "padding": "dataset"}
    own["corpora"] = {"said": said, "wide": own["corpora"]["wide"]}
    users = ("foundation", "judge", "detector", "latent_clap", "sampling", "lambda_sweep", "targets", "re_audioldm")
    for section in users:
        own[section]["corpus"] = "said"
    own["retrieval"]["corpora"] = ["said", "wide"]
    tuned = {"condition": "text", "init": "ldm", "corpus": "said"}
    own["systems"] = {"ldm": tuned, "tuning": tuned | {"tuning": True}}
    own["finetune"]["seeds"] = [0]
    own["runs"] = {"ldm": ROW, "tuning": ROW | {"clips": {"made_from": "models/systems/tuning"}}}
    own["filters"] = {"ldm_filter": {"name": "filter", "select": {"of": "ldm"}}}
    own["listening"]["runs"] = ["ldm", "tuning"]
    own["controls"] |= {source: {"name": source, "source": source} for source in ("train", "medoid", "noise")}
    own["selection"]["pool"] = 6
    clips = {"val": 4, "test": 4}
    own["transfer"] = {
        "untuned": ["said"],
        "corpora": ["said"],
        "seeds": [0],
        "steps": 1,
        "scratch_lr": 1e-3,
        "every": 1,
        "clips": clips,
    }
    with pytest.MonkeyPatch.context() as patch:
        inside(root, patch)
        yield type(tiny).model_validate(own)


@pytest.fixture(scope="module")
def prepared(cfg):
    corpora.make("said", cfg)
    clap.make(cfg)
    features.make("said", cfg)
    latent_clap.make(cfg)
    return paths.FEATURES / "said"


@pytest.fixture(scope="module")
def sampled(cfg, prepared):
    for name in cfg.systems:
        finetune.make(name, cfg)
        sample.make(name, cfg)
    controls.make(cfg)
    thresholds.make(cfg)
    return selection.make("ldm_filter", cfg)


@pytest.fixture(scope="module")
def summary(cfg, sampled):
    latent_clap.evaluate(cfg)
    return evaluate.make(cfg)


def test_features_have_every_caption(cfg, prepared):
    index, arrays = cached.load(prepared)
    model = sample.load_clap(cfg)
    assert index.prompt.tolist() == [own[0] for own in SAID.values()] and set(index.label) == {""}
    assert arrays["captions"].shape == (13, 5, 48) and arrays["caption_count"].tolist() == [5] * 13
    assert np.allclose(arrays["captions"][7], model.embed_text(SAID["clip07"]).cpu(), atol=1e-5)
    assert np.array_equal(arrays["captions"][:, 0], arrays["text"])
    before = cached.read_key(prepared)
    said = {id: own[::-1] if id == "clip03" else own for id, own in SAID.items()}
    kept = (paths.CLIPS / "said" / "captions.parquet").read_bytes()
    manifests.write_captions(paths.CLIPS / "said", said)
    features.make("said", cfg)
    assert cached.read_key(prepared) != before  # another order of captions is another corpus
    (paths.CLIPS / "said" / "captions.parquet").write_bytes(kept)
    features.make("said", cfg)
    assert cached.read_key(prepared) == before


def test_clap_says_how_well_a_caption_finds_its_clip(prepared):
    history = pd.read_csv(paths.FOUNDATION / "clap" / "history.csv")
    assert np.isfinite(history.val_own_first.iloc[-1]) and history.val_own_chance.iloc[-1] == pytest.approx(1 / 4)
    assert "val_zero_shot" not in history


def test_each_clip_is_conditioned_by_its_own_caption(cfg, sampled, monkeypatch, tmp_path):
    given = {}
    monkeypatch.setattr(finetune, "fit_unet", lambda unet, data, *rest, **more: given.update(train=data, **more))
    tuned = finetune.tune(cfg.systems["ldm"], 0, cfg, finetune.load_parts(paths.FOUNDATION), scratch=tmp_path)
    _, arrays = cached.load(paths.FEATURES / "said")
    assert tuned.prompts == {} == json.loads((paths.SYSTEMS / "ldm" / "0" / "prompts.json").read_text())
    batch = given["train"][np.arange(5)]
    drawn = cached.with_drawn_caption(batch, torch.Generator().manual_seed(0))["embedding"]
    found = [(arrays["captions"][i] == e.numpy()).all(1).nonzero()[0].item() for i, e in enumerate(drawn)]
    assert len(set(found)) > 1
    assert np.array_equal(given["held_out"][np.arange(4)]["embedding"], arrays["text"][5:9])


def test_a_run_has_a_clip_for_each_of_the_first_test_clips(cfg, sampled):
    clips, waves = sample.load_run("ldm")
    assert clips.id.tolist() == TEST[:3] and clips.prompt.tolist() == [SAID[id][0] for id in TEST[:3]]
    assert clips.seed.nunique() == 3 and set(clips.label) == {""} and waves.shape == (3, 10240)
    drawer = sample.Drawer(paths.SYSTEMS / "ldm" / "0", cfg, split="val")
    assert drawer.rows(2, 0).id.tolist() == ["clip05", "clip06"]
    with pytest.raises(ValueError, match="5 clips are asked for .*only 4 there"):
        drawer.rows(5, 0)


def test_selection_has_one_threshold_for_all_and_candidates_for_each_clip(cfg, sampled):
    written = json.loads((paths.RESULTS / "thresholds.json").read_text())
    assert {kind: list(values) for kind, values in written.items()} == {"text": ["all"], "tuned": ["all"]}
    curve = pd.read_csv(paths.RESULTS / "thresholds.csv")
    assert set(curve.label) == {"all"} and curve.groupby("target").size().tolist() == [2, 2]
    assert sampled.label.tolist() == TEST[:3] and (sampled.wanted == 1).all()
    assert (sampled.threshold_first == written["text"]["all"]).all()
    clips = samples.load(paths.SAMPLES / "ldm_filter")[0].set_index("id")
    candidates = pd.read_parquet(paths.SAMPLES / "ldm_filter" / "0" / "candidates.parquet")
    assert len(clips) and set(clips.index) <= set(TEST[:3])
    model, (unselected, waves) = sample.load_clap(cfg), sample.load_run("ldm")
    first = candidates[candidates.number == 0].set_index("label").score
    own = (model.embed_audio(waves, 16000) * model.embed_text(list(unselected.prompt))).sum(1).cpu()
    assert first[unselected.id].to_numpy() == pytest.approx(own.numpy(), abs=1e-5)
    given = cfg.changed(selection=cfg.selection.changed(thresholds={"all": -1.0}))
    assert (selection.make("ldm_filter", given).candidates == 1).all()


def test_scores_are_of_the_whole_set(cfg, summary):
    assert set(summary["class"]) == {"all", "average"} and "judge_accuracy" not in set(summary.metric)
    assert set(summary.run) == {*cfg.rows(), "latent_clap"} and summary.value.notna().all()
    rows = summary[summary.run == "ldm"].set_index(["class", "metric", "embedder"]).value
    both = [key[1:] for key in rows.index if key[0] == "average"]
    assert both and all(rows["average", *key] == rows["all", *key] for key in both)
    model, (clips, waves) = sample.load_clap(cfg), sample.load_run("ldm")
    cosine = (model.embed_audio(waves, 16000) * model.embed_text([SAID[id][0] for id in clips.id])).sum(1)
    assert rows["all", "clap_score", "clap"] == pytest.approx(cosine.mean().item(), abs=1e-5)
    judge = judges.load(paths.JUDGE)
    _, real = reference(cfg)
    both = [judge.embed(x)["logits"] for x in (real[:3], waves)]
    assert rows["all", "kl_pairs", "judge"] == pytest.approx(kl_divergence(*both), abs=1e-5)
    similar = pd.read_csv(paths.RESULTS / "similarity.csv").set_index(["run", "target"]).value
    assert similar["ldm", "text"] == pytest.approx(cosine.mean().item(), abs=1e-5) and ("tuning", "tuned") in similar
    validation = pd.read_csv(paths.RESULTS / "validation.csv")
    assert set(validation["class"]) == {"all"} and validation.kad.notna().all()


def test_tables_of_scores_without_classes(cfg, summary):
    table = tables.headlines(tables.of_table(summary, "", ""), list(cfg.rows()), display=cfg.display())
    assert len(table) == len(cfg.rows()) and "judge" not in " ".join(name for _, name in table.columns).lower()
    kads = summary[summary.embedder == "judge"]
    assert plots.metric_bars(kads, metric="kad", runs=list(cfg.rows()), class_="average", display=cfg.display())


def test_controls_are_so_many_clips_in_all(cfg, sampled):
    ids = {name: sample.load_run(name)[0].id.tolist() for name in cfg.controls}
    assert ids["reconstruction"] == TEST[:3] and ids["train"] == list(SAID)[:3]
    assert ids["noise"] == [f"noise-000{i}" for i in range(3)] and len(ids["medoid"]) == 3


def test_the_codec_is_scored_on_the_whole_set(cfg, prepared, monkeypatch):
    scores = codec.make(cfg)
    assert len(scores) == 9 and not any("accuracy" in name for name in scores)
    assert scores.filter(like="kad").notna().all(axis=None) and scores.mel.iloc[5:].notna().all()
    monkeypatch.setattr(codec, "LIMIT", 2)
    few = codec.make(cfg)
    assert few.mel.iloc[5] != scores.mel.iloc[5]
    manifest = manifests.load(paths.CLIPS / "said")
    monkeypatch.setattr(codec.manifests, "load", lambda folder: manifest[manifest.split != "val"])
    with pytest.raises(ValueError, match="corpus said: no clips in its split val or test; the codec needs both"):
        codec.make(cfg)


def test_the_sweep_of_lambda_is_scored_on_validation_clips(cfg, sampled):
    few = cfg.lambda_sweep.changed(tuning=[False], lambdas=[0, 30], clips_per_class=3)
    table = sweeps.sweep(cfg.changed(lambda_sweep=few))
    assert (
        len(table) == 2 and "judge_accuracy" not in table and np.isfinite(table[["kad", "clap_score"]]).all(axis=None)
    )


def test_the_transfer_benchmark_samples_each_clip_under_its_own_caption(cfg, sampled):
    untuned, tuned = transfer.compare(cfg)
    assert set(tuned.setting) == set(SETTINGS) and tuned.value.notna().all() and untuned.value.notna().all()
    assert {"kl_pairs", "kad", "clap_score"} <= set(tuned.metric) and "judge_accuracy" not in set(tuned.metric)
    manifest, partners = transfer.Scorer("said", cfg).partners["test"]
    model = sample.load_clap(cfg)
    texts = model.embed_text([SAID[id][0] for id in manifest.id]).cpu().numpy()
    assert manifest.id.tolist() == TEST and np.allclose(partners["text"], texts, atol=1e-5)


def test_what_needs_classes_says_so(cfg, sampled):
    with pytest.raises(ValueError, match="judge.corpus: 'said' has no classes"):
        judge.make(cfg)
    with pytest.raises(ValueError, match="prompts: label, but corpus 'said' has no classes"):
        finetune.class_prompts(cfg.systems["ldm"].changed(prompts="label"))
    with pytest.raises(ValueError, match="target 'audio', .*corpus 'said' has no classes"):
        targets_of("audio", paths.SYSTEMS / "ldm" / "0", cfg, sample.load_clap(cfg))
    with pytest.raises(ValueError, match="targets.label .*corpus 'said' has no classes"):
        text_foley.compare_texts(cfg)
    sounds = {run: sample.load_run(run) for run in ("ldm", "tuning")}
    with pytest.raises(ValueError, match="sounds have no classes"):
        page.choose(sounds, clips_per_class=1, seed=0)
