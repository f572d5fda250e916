"""The stage controls: clips that no model made, each row what its name says."""

import shutil

import numpy as np
import pytest

from foleylib import paths
from foleylib.datasets import features, manifest
from foleylib.stages import controls
from foleylib.stages.sample import load_run

LABELS = ["DogBark", "Rain"]
STEP = 1 / 32768  # of 16 bits


@pytest.fixture(scope="module")
def made(project, tiny):
    """Every control of the project's settings, and those that they leave out: name -> (manifest, waves)."""
    rows = {name: {"name": name, "source": name} for name in ("train", "one_clip", "medoid", "noise", "silence")}
    rows |= {"codec": {"name": "codec", "source": "one_clip", "decoded": True}}
    cfg = tiny.changed(controls={name: row for name, row in tiny.model_dump()["controls"].items()} | rows)
    folder = controls.make(cfg)
    assert folder == paths.CONTROLS and {path.name for path in folder.iterdir()} == set(cfg.controls)
    yield {name: load_run(name) for name in cfg.controls}
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def given(made):
    """Waves [shape=(6, T)] of the rows that are made of training clips or of nothing."""
    rows = {name: made[name] for name in ("train", "one_clip", "medoid", "noise", "silence", "codec")}
    for clips, _ in rows.values():
        assert clips.id.is_unique and clips.label.tolist() == [label for label in LABELS for _ in range(3)]
    return {name: waves for name, (_, waves) in rows.items()}


def test_real_and_reconstructed_clips(made):
    corpus = manifest.load(paths.CLIPS / "foley").set_index("id")
    (real, waves), (rebuilt, decoded) = made["real"], made["reconstruction"]
    assert set(corpus.split[real.id]) == {"val"} and set(corpus.split[rebuilt.id]) == {"test"}
    assert (len(real), len(rebuilt)) == (4, 6)  # two validation clips a class, three of four test clips
    stored = manifest.read_waves(paths.CLIPS / "foley", corpus.loc[real.id].reset_index())
    assert np.abs(waves - stored).max() <= STEP
    original = manifest.read_waves(paths.CLIPS / "foley", corpus.loc[rebuilt.id].reset_index())
    assert decoded.shape == original.shape and np.abs(decoded - original).max() > 100 * STEP


def test_training_clips_are_those_of_the_corpus(given, tiny_corpus):
    rows = manifest.load(tiny_corpus)
    rows = rows[rows.split == "train"].groupby("target").head(3)
    assert np.array_equal(given["train"], manifest.read_waves(tiny_corpus, rows))


@pytest.mark.parametrize("name", ["one_clip", "medoid", "codec"])
def test_one_clip_of_each_class_is_repeated(given, name):
    waves = given[name]
    for own in (waves[:3], waves[3:]):
        assert np.allclose(own, own[:1], atol=2 * STEP) and own.std() > 0
    assert not np.array_equal(waves[0], waves[3])


def test_the_medoid_is_most_like_its_class(given, tiny_corpus):
    rows = manifest.load(tiny_corpus)
    rows = rows[(rows.split == "train") & (rows.label == "Rain")].reset_index(drop=True)
    index, arrays = features.load(paths.FEATURES / "foley", "train")
    E = arrays["audio"][index.label == "Rain"]
    best = int(np.argmax((E @ E.T).sum(1)))
    assert np.array_equal(given["medoid"][3], manifest.read_waves(tiny_corpus, rows.iloc[[best]])[0])


def test_noise_and_silence_are_that(given):
    assert given["noise"].std() == pytest.approx(0.1, rel=0.02) and len(np.unique(given["noise"], axis=0)) == 6
    assert not given["silence"].any()
