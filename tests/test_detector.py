"""The detector: storage and seeds, frames and their targets, a training, its source, its controls."""

import json

import numpy as np
import pytest
import torch

from foleylib.networks import detector
from foleylib.params.base import Train
from foleylib.stages import bundle
from foleylib.stages import detector as stage
from foleylib.train import Job

LABELS = ["high", "low", "noise"]
SIZES = {"rate": 16000, "widths": [4, 8, 8]}
SAMPLES = 20480  # 16 frames of 80 ms


def sound(label, onset, offset):
    return {"label": label, "onset": onset, "offset": offset}


def made_scenes(count, seed=0):
    """Scenes of two sounds in turn, each a different one of a high tone, a low tone and noise."""
    rng, time = np.random.default_rng(seed), np.arange(SAMPLES // 2) / 16000
    waves, sounds = [], []
    for _ in range(count):
        chosen = rng.permutation(LABELS)[:2]
        tones = {
            "high": np.sin(2 * np.pi * rng.uniform(2500, 4000) * time),
            "low": np.sin(2 * np.pi * rng.uniform(200, 400) * time),
            "noise": rng.normal(size=time.size),
        }
        waves.append(0.2 * np.concatenate([tones[label] for label in chosen]))
        sounds.append([sound(label, 0.64 * i, 0.64 * (i + 1)) for i, label in enumerate(chosen.tolist())])
    return stage.Scenes(torch.tensor(np.array(waves), dtype=torch.float32), sounds)


# The network


def test_round_trip(tmp_path, capsys):
    model, waves = detector.build(LABELS, seed=1, **SIZES), made_scenes(4).waves
    model.features(waves)  # moves the statistics of bn0
    model.thresholds.copy_(torch.tensor([0.25, 0.5, 0.75]))
    model.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    loaded = detector.load(tmp_path)
    assert capsys.readouterr().out == ""
    assert loaded.model.labels == tuple(LABELS) and (loaded.name, loaded.dim, loaded.rate) == ("detector", 8, 16000)
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.model.state_dict().items())
    assert loaded.model.state_dict().keys() == state.keys() and loaded.model.thresholds.tolist() == [0.25, 0.5, 0.75]
    with torch.inference_mode():
        expected = model.eval()(waves)["logits"].sigmoid().numpy()
    frames = detector.probabilities(loaded, waves.numpy())
    assert frames.shape == (4, 16, 3)
    np.testing.assert_allclose(frames, expected, atol=1e-6)
    np.testing.assert_allclose(detector.probabilities(loaded, waves.numpy(), batch_size=1), frames, atol=1e-5)


def test_faults_are_named(tmp_path):
    with pytest.raises(ValueError, match="run the detector stage first"):
        detector.load(tmp_path / "absent")
    with pytest.raises(ValueError, match="each once"):
        detector.build(["a", "a"], seed=0, **SIZES)
    with pytest.raises(ValueError, match=r"widths=\[4\]: give at least 2"):
        detector.build(LABELS, seed=0, rate=16000, widths=[4])
    model = detector.build(LABELS, seed=0, **SIZES)
    with pytest.raises(ValueError, match=r"\(2, 1000\); give \(B, T\) with T >= 1280"):
        model(torch.zeros(2, 1000))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"widths": [4, 8, 9]}))
    with pytest.raises(ValueError, match="(?s)size mismatch for .*run the detector stage again"):
        detector.load(tmp_path)


@pytest.mark.parametrize("rate", [16000, 24000, 32000, 48000])
def test_frames_are_80_ms_at_every_rate(rate):
    model = detector.build(LABELS, rate=rate, widths=[4, 4], seed=0)
    assert model.stride == 0.08 * rate and model.mel.fmax == 8000
    assert model.eval()(torch.zeros(1, round(1.28 * rate)))["logits"].shape == (1, 16, 3)


def test_drawn_from_its_seed():
    before = torch.random.get_rng_state()
    one, same, other = (detector.build(LABELS, seed=s, **SIZES).hidden.weight for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


# Its training


def test_targets_of_frames_that_a_sound_touches():
    sounds = [sound("low", 0.0, 0.16), sound("noise", 0.15, 0.17), sound("high", 0.3, 9.0)]
    targets = stage.frame_targets(sounds, LABELS, frames=5, length=0.08)
    assert targets.T.tolist() == [[0, 0, 0, 1, 1], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0]]


def test_terms_are_drawn_from_the_generator():
    model, clips = detector.build(LABELS, seed=0, **SIZES).train(), made_scenes(3)
    targets = torch.zeros(3, 16, 3)
    terms = [
        stage.detector_terms(model, clips.waves, targets, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    ]
    first, again, other = (term["cross_entropy"] for term in terms)
    assert first == again != other


def test_nothing_is_to_be_heard_in_noise():
    model, clips = detector.build(LABELS, seed=0, **SIZES).train(), made_scenes(3)
    everything, nothing = torch.ones(3, 16, 3), torch.zeros(3, 16, 3)
    asked = [
        stage.detector_terms(model, clips.waves, targets, generator=torch.Generator().manual_seed(1), noise_share=share)
        for targets, share in ((everything, 1.0), (nothing, 1.0), (everything, 0.0))
    ]
    of_noise, expected, of_clips = (terms["cross_entropy"] for terms in asked)
    assert of_noise == expected != of_clips


def test_noise_lies_between_white_and_brown():
    noise = stage.coloured_noise(200, SAMPLES, generator=torch.Generator().manual_seed(0))
    again = stage.coloured_noise(200, SAMPLES, generator=torch.Generator().manual_seed(0))
    level = 20 * noise.std(dim=1).log10()
    assert torch.equal(noise, again) and -50.1 < level.min() < -45 and -11 < level.max() < -5.9
    power = torch.fft.rfft(noise).abs().square()
    fall = 10 * (power[:, 400:600].mean(dim=1) / power[:, 4000:6000].mean(dim=1)).log10()  # dB a decade
    assert -1 < fall.min() < 2 and 18 < fall.max() < 21


def test_it_learns_what_sounds_when(tiny, tmp_path):
    steps = Train(steps=90, batch_size=12, lr=1e-2, warmup=5, schedule="cosine", validate_every=30, ema_decay=0.9)
    section = tiny.detector.changed(widths=[8, 8, 8], noise_share=0.0, train=steps.model_dump())
    clips, other = made_scenes(24), made_scenes(12, seed=1)
    model, history = stage.fit_detector(
        section, clips, Job(0, tmp_path / "job", "cpu"), labels=LABELS, rate=16000, held_out=other
    )
    assert history.cross_entropy.iloc[-5:].mean() < 0.5 * history.cross_entropy.iloc[:5].mean()
    assert history.val_average_precision.iloc[-1] > 0.9 and not model.training
    assert len(set(model.thresholds.tolist())) == 1 and 0 < model.thresholds[0] < 1
    model.save_pretrained(tmp_path / "detector")
    loaded = detector.load(tmp_path / "detector")
    events = stage.events.indices(other.labels, LABELS)
    thresholds = loaded.model.thresholds.numpy()
    scores = stage.events.score(detector.probabilities(loaded, other.waves.numpy()), thresholds, events)
    assert scores[["recall", "precision", "order"]].mean().min() > 0.9
    swapped = torch.stack([stage.swapped(wave, 2) for wave in other.waves])
    scores = stage.events.score(detector.probabilities(loaded, swapped.numpy()), thresholds, events)
    assert scores.recall.mean() > 0.9 and scores.order.mean() < 0.1


def test_parts_in_the_opposite_order():
    assert stage.swapped(torch.arange(7), 3).tolist() == [5, 6, 3, 4, 0, 1, 2]
    assert stage.swapped(torch.arange(7), 1).tolist() == list(range(7))


# The stage


@pytest.fixture
def scenes_corpus(tiny, tiny_paths, tmp_path, monkeypatch):
    """Settings of a detector for a corpus of scenes, which lies, as all that is made here, in a folder of its own."""
    from foleylib.corpora.prepare import prepare

    for name in ("CLIPS", "DETECTOR", "SCRATCH", "BUNDLED"):
        monkeypatch.setattr(tiny_paths, name, tmp_path / name.lower())
    corpus = tiny.corpora["scenes"].changed(
        clips_per_class=None, classes=["DogBark", "Rain", "Bell"], seconds=1.28, held_out=["Bell"], events=(1, 2)
    )
    prepare("scenes", corpus, tiny_paths.CLIPS / "scenes")
    train = tiny.detector.train.changed(steps=4, batch_size=4, validate_every=4).model_dump()
    section = tiny.detector.changed(corpus="scenes", source="scratch", train=train)
    return tiny.model_copy(update={"detector": section, "corpora": tiny.corpora | {"scenes": corpus}})


def test_trained_packed_and_taken_from_the_bundle(scenes_corpus, tiny_paths, tiny_models, monkeypatch):
    cfg = scenes_corpus
    history = stage.make(cfg)
    assert len(history) == 4 and {"cross_entropy", "val_average_precision"} <= set(history)
    assert not list(tiny_paths.SCRATCH.glob("detector/*"))
    provenance = bundle.provenance_of(tiny_paths.DETECTOR)
    assert provenance["settings"] == cfg.detector.model_dump(mode="json") and provenance["corpus"]["seed"] == 4
    trained = detector.load(tiny_paths.DETECTOR).model
    assert trained.labels == ("Bell", "DogBark", "Rain")

    scores, recall = stage.controls(cfg)
    means = scores.groupby("clips", sort=False).mean()
    assert means.index.to_list() == recall.columns.to_list() and len(scores) == 6 * cfg.corpora["scenes"].scenes["test"]
    assert set(recall.index) == set(trained.labels) and means.events.nunique() == 1

    monkeypatch.setattr(bundle.subprocess, "run", lambda *a, **k: type("Done", (), {"stdout": "abc\n"}))
    bundle.pack()
    assert bundle.provenance_of(tiny_paths.BUNDLED / "detector")["commit"] == "abc"
    bundled = cfg.model_copy(update={"detector": cfg.detector.changed(source="bundled", train=tiny_train())})
    assert len(stage.make(bundled)) == len(history)
    again = detector.load(tiny_paths.DETECTOR).model
    assert torch.equal(again.thresholds, trained.thresholds)
    for name, value in again.state_dict().items():
        assert torch.allclose(value, trained.state_dict()[name], rtol=1e-3, atol=1e-6), name
    wider = bundled.model_copy(update={"detector": bundled.detector.changed(widths=[8, 8, 8, 8])})
    with pytest.raises(ValueError, match="detector.widths differs .*set detector.source to 'scratch'"):
        stage.make(wider)


def tiny_train():
    return Train(steps=9, batch_size=1, lr=1.0).model_dump()


def test_a_corpus_without_scenes_is_refused(tiny, tiny_corpus, tiny_paths):
    cfg = tiny.model_copy(update={"detector": tiny.detector.changed(corpus="foley")})
    with pytest.raises(ValueError, match="'foley' has no train scenes.*synthetic corpus with 'scenes'"):
        stage.make(cfg)
