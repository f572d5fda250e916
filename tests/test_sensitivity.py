"""The stage sensitivity on the tiny project: each damage is what its name says, and is scored by its share."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from foleylib import paths
from foleylib.corpora.prepare import prepare
from foleylib.corpora.synth import render
from foleylib.datasets import manifest as manifests
from foleylib.stages import sensitivity
from foleylib.stages.reference import reference


@pytest.fixture(scope="module")
def cfg(project, tiny):
    """Settings, and a foundation's corpus with other classes than the sampled one."""
    other = tiny.corpora["broad"].changed(classes=["Bell", "Saw"], clips_per_class={"train": 1, "val": 1, "test": 3})
    prepare("broad", other, paths.CLIPS / "broad")
    changes = {"clips": 4, "scored": 3, "shares": [0.0, 0.5, 1.0], "draws": 3, "interferers": 2}
    yield tiny.changed(sensitivity=tiny.sensitivity.changed(**changes))
    shutil.rmtree(paths.CLIPS / "broad")


@pytest.fixture(scope="module")
def frame(cfg):
    return sensitivity.make(cfg)


def test_every_damage_is_scored_at_every_share(frame, cfg):
    damages = {"noise", "masking", "interference", "order", "one clip", "silence", "resampler", "fewer clips"}
    assert set(frame.damage) == damages
    shares = frame.groupby("damage").share.unique().map(list).to_dict()
    assert shares.pop("fewer clips") == [0.0] and all(own == [0.0, 0.5, 1.0] for own in shares.values())
    assert not frame.duplicated(["damage", "share", "draw", "metric", "embedder"]).any() and frame.value.notna().all()
    assert len(pd.read_csv(paths.RESULTS / "sensitivity.csv")) == len(frame)
    assert "judge_accuracy" not in set(frame[frame.damage == "order"].metric)  # scenes are of no class


def test_whole_clips_score_alike_under_every_damage(frame):
    at_first = frame[(frame.share == 0) & ~frame.damage.isin(["order"])]
    spread = at_first.groupby(["draw", "metric", "embedder"]).value.agg(np.ptp)
    assert spread.max() < 1e-9
    assert at_first[at_first.metric == "kl_pairs"].value.abs().max() < 1e-4  # each clip is its own partner


def test_silence_is_the_worst_and_a_repeated_clip_leaves_pairs_alone(frame):
    at_last = frame[frame.share == 1].groupby(["damage", "metric", "embedder"]).value.mean()
    assert at_last["silence", "kad", "clap"] == at_last.xs(("kad", "clap"), level=(1, 2)).max()
    assert at_last["one clip", "fad", "clap"] > at_last["resampler", "fad", "clap"]
    assert at_last["one clip", "judge_accuracy", "judge"] >= at_last["silence", "judge_accuracy", "judge"]


def test_clips_of_a_class_become_its_first(project, cfg):
    manifest, waves = reference(cfg)
    repeated = sensitivity._first_of_class(manifest, torch.from_numpy(waves))
    for label, rows in manifest.groupby("label").indices.items():
        assert np.array_equal(repeated[rows], np.repeat(waves[rows[:1]], len(rows), axis=0)), label


def test_a_detour_changes_little_and_loses_no_sample():
    t = np.arange(16000) / 16000
    wave = torch.from_numpy(np.sin(2 * np.pi * 440 * t).astype(np.float32))[None]
    detour = sensitivity._detour(wave, 16000)
    assert detour.shape == wave.shape and 1e-5 < float((detour - wave)[:, 200:-200].abs().max()) < 0.02


def test_scenes_backwards_have_the_same_sounds():
    how = {"seed": 0, "index": 1, "rate": 16000, "seconds": 1.28}
    wave, parts = render.render_scene(("Rain", "Bell", "Saw"), **how)
    other, reverse = render.render_scene(("Rain", "Bell", "Saw"), backwards=True, **how)
    assert [part["label"] for part in reverse] == [part["label"] for part in parts][::-1]
    assert [part["onset"] for part in reverse] == [part["onset"] for part in parts]
    assert not np.allclose(wave, other) and other.shape == wave.shape
    keys = ("events", "parameters", "label")
    assert [{k: p[k] for k in keys} for p in reverse[::-1]] == [{k: p[k] for k in keys} for p in parts]


def test_clips_that_are_damaged_are_not_their_own_reference(cfg, monkeypatch):
    given = []
    monkeypatch.setattr(
        sensitivity, "_scored", lambda damage, real, whole, *rest: given.append((damage, real, whole)) or []
    )
    sensitivity.make(cfg)
    ids = {damage: (set(real["id"]), set(whole["id"])) for damage, real, whole in given}
    real, whole = ids["noise"]
    assert len(real) == len(whole) == 4 and not real & whole
    order = next((real, whole) for damage, real, whole in given if damage == "order")
    assert not np.allclose(order[0]["clap"], order[1]["clap"])  # other scenes
    with pytest.raises(ValueError, match="sensitivity.clips is 7 of 8 test clips: leave some as the reference"):
        sensitivity.make(cfg.changed(sensitivity=cfg.sensitivity.changed(clips=7)))


def test_some_other_classes_may_be_the_sampled_ones_by_another_name(cfg, project):
    few = cfg.changed(sensitivity=cfg.sensitivity.changed(excluded=["Saw"], interferers=1))
    clips = sensitivity._interferers(3, few, np.random.default_rng(0))
    bells = [wave for wave in manifests.read_waves(paths.CLIPS / "broad", _test_clips("Bell"))]
    assert all(any(np.array_equal(clip, bell) for bell in bells) for clip in clips)
    with pytest.raises(ValueError, match=r"sensitivity.excluded names \['Dog'\], no classes of corpora.broad"):
        wrong = cfg.sensitivity.changed(excluded=["Dog"])
        sensitivity._interferers(3, cfg.changed(sensitivity=wrong), np.random.default_rng(0))


def _test_clips(label):
    manifest = manifests.load(paths.CLIPS / "broad")
    return manifest[(manifest.split == "test") & (manifest.label == label)]


def test_missing_classes_are_told(cfg, project):
    many = cfg.changed(sensitivity=cfg.sensitivity.changed(interferers=3))
    with pytest.raises(ValueError, match="interferers is 3, but corpora.broad has 2 classes in its test split"):
        sensitivity._interferers(4, many, np.random.default_rng(0))
