"""The stage sample: from a run of params.yaml to its clips, on untrained models."""

import json
import shutil

import numpy as np
import pytest
import torch

from foleylib import paths
from foleylib.datasets import features, samples
from foleylib.datasets.features import sample_latents
from foleylib.networks.pipeline import latent_shape
from foleylib.sampling.sampler import SamplerOptions
from foleylib.stages import sample

LABELS = ["DogBark", "Rain"]
STEP = 1 / 32768  # of 16 bits


@pytest.fixture(scope="module")
def cfg(tiny):
    """Settings with a run of the foundation's own model."""
    run = {"name": "Foundation", "clips": {"made_from": "models/foundation/ldm"}}
    return tiny.changed(runs=tiny.model_dump()["runs"] | {"foundation": run})


@pytest.fixture(scope="module")
def run(project, cfg):
    """Manifest and waves of the run "foundation"."""
    folder = sample.make("foundation", cfg)
    assert folder == paths.SAMPLES / "foundation" and samples.seeds(folder) == [0]
    return sample.load_run("foundation")


def test_latent_shape(cfg, tiny_parts):
    assert latent_shape(tiny_parts.vae, sample.corpus_front_end(cfg), cfg.corpus_of("sampling").samples) == (8, 16, 16)


def test_classes_and_their_prompts(project, cfg):
    classes = sample.class_rows(cfg)
    assert classes.label.tolist() == LABELS and classes.target.tolist() == [0, 1]
    assert classes.prompt.str.len().min() > 0
    own = sample.class_rows(cfg, {"Rain": "drops", "DogBark": "woof"})
    assert own.prompt.tolist() == ["woof", "drops"] and own.target.tolist() == [0, 1]


def test_clips_of_a_run(run):
    clips, waves = run
    assert waves.shape == (6, 10240) and waves.dtype == np.float32 and np.abs(waves).max() <= 1
    assert clips.id.tolist() == [f"{label}-{i:04d}" for label in LABELS for i in range(3)]
    assert clips.seed.nunique() == 6 and list(clips.columns) == samples.COLUMNS
    assert len(np.unique(waves, axis=0)) == 6


def test_a_clip_of_griffin_lim_is_the_same_alone_and_the_vocoder_makes_another_of_its_latent(run, cfg):
    drawer = sample.Drawer(paths.FOUNDATION / "ldm", cfg)
    rows = drawer.rows(3, cfg.seed)
    assert cfg.sampling.vocoder == "griffin_lim"
    assert np.corrcoef(drawer.draw(rows.iloc[[4]]).numpy()[0], run[1][4])[0, 1] > 0.99
    vocoded = sample.Drawer(paths.FOUNDATION / "ldm", cfg, cfg.sampling.changed(vocoder="hifigan")).draw(rows).numpy()
    assert vocoded.shape == run[1].shape and not np.allclose(vocoded, run[1], atol=0.01)


def test_more_clips_in_other_batches_leave_the_first_as_they_are(run, cfg):
    drawer = sample.Drawer(paths.FOUNDATION / "ldm", cfg, cfg.sampling.changed(batch_size=3))
    rows = drawer.rows(4, cfg.seed)
    waves, (clips, before) = drawer.draw(rows).numpy(), run
    same = rows.id.isin(clips.id).to_numpy()
    assert len(rows) == 8 and rows.seed[same].tolist() == clips.seed.tolist()
    assert np.abs(waves[same] - before).max() <= 10 * STEP  # and rounding, which processors do not share
    assert np.abs(waves[~same] - before[[0, 3]]).max() > 1000 * STEP


def test_every_seed_has_noise_of_its_own(project, tiny):
    (first, waves), (second, others) = (sample.load_run("ldm", seed) for seed in (0, 1))
    assert first.id.equals(second.id) and not set(first.seed) & set(second.seed)
    assert not np.array_equal(waves, others)
    assert sample.load_run("ldm")[0].equals(first)


def test_a_system_is_prompted_as_it_was_trained(project, cfg, tmp_path):
    folder = shutil.copytree(paths.SYSTEMS / "ldm" / "0", tmp_path / "0")
    drawer = sample.Drawer(folder, cfg)
    assert drawer.classes.set_index("label").prompt.to_dict() == json.loads((folder / "prompts.json").read_text())
    usual = drawer.draw(drawer.rows(1, 0))
    (folder / "prompts.json").write_text('{"DogBark": "Rain", "Rain": "a dog, far away"}')
    drawer = sample.Drawer(folder, cfg, clap=drawer.clap)
    rows = drawer.rows(1, 0)
    assert rows.prompt.tolist() == ["Rain", "a dog, far away"] and not torch.equal(drawer.draw(rows), usual)


def test_sampling_of_a_run_is_its_own(project, cfg):
    clips = {"made_from": "models/systems/ldm", "seeds": [1], "sampling": {"steps": 2, "clips_per_class": 1}}
    other = cfg.changed(runs=cfg.model_dump()["runs"] | {"short": {"name": "Short", "clips": clips}})
    folder = sample.make("short", other)
    assert samples.seeds(folder) == [1]
    (few, short), (every, waves) = sample.load_run("short"), sample.load_run("ldm", 1)
    shutil.rmtree(folder)
    assert few.id.tolist() == ["DogBark-0000", "Rain-0000"] and few.seed.tolist() == every.seed[[0, 3]].tolist()
    assert not np.array_equal(short, waves[[0, 3]])


def test_deviation_by_steps(project, cfg):
    cfg = cfg.changed(foundation=cfg.foundation.changed(corpus="foley"))
    deviation = sample.deviation_by_steps("foundation", cfg, steps=(2, 3), limit=4)
    assert deviation.index.tolist() == ["held-out clips", "2 steps", "3 steps"] and deviation.name == "deviation"
    moments = features.load(paths.FEATURES / "foley", "test")[1]["moments"][[0, 2, 4, 7]]
    latents = sample_latents(torch.tensor(moments), 0.7, torch.Generator().manual_seed(cfg.seed))
    assert deviation.iloc[0] == pytest.approx(float(latents.std()))
    assert (deviation > 0).all() and deviation.nunique() == 3
    guided = cfg.changed(sampling=cfg.sampling.changed(guidance=7.0, steps=9))  # the audio condition takes no guidance
    assert sample.deviation_by_steps("foundation", guided, steps=(2, 3), limit=4).equals(deviation)


def test_options_of_the_sampler_are_those_of_the_section(cfg):
    section = cfg.sampling.changed(solver="ddim", steps=7, eta=0.5, guidance=3.0, batch_size=2, spacing="log_snr")
    assert SamplerOptions.of(section) == SamplerOptions("ddim", 7, 0.5, 3.0, 2, "log_snr")


def test_errors_name_the_remedy(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "SAMPLES", tmp_path)
    with pytest.raises(ValueError, match="runs in params.yaml has no 'other'; it has: ldm, "):
        sample.make("other", tiny)
    with pytest.raises(ValueError, match="run the sample stage of 'ldm' first"):
        sample.load_run("ldm")
    (tmp_path / "ldm" / "0").mkdir(parents=True)
    (tmp_path / "ldm" / "0" / "manifest.parquet").touch()
    with pytest.raises(ValueError, match="1 holds no samples; run the sample stage of 'ldm' with that seed first"):
        sample.load_run("ldm", 1)
