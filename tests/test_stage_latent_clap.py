"""The stage latent_clap: training of the encoder, the bundle, agreement with CLAP's embeddings."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from networks import module_sha256

from foleylib import paths
from foleylib.datasets import features
from foleylib.datasets.features import Latents
from foleylib.diffusion.process import schedule
from foleylib.params.base import Train
from foleylib.params.systems import LatentClap as Section
from foleylib.runtime import weights_sha256
from foleylib.stages import bundle, latent_clap
from foleylib.train import Job

TRAIN = Train(steps=60, batch_size=16, lr=3e-3, warmup=5, validate_every=20, ema_decay=0.9)
SECTION = Section(
    source="scratch", corpus="broad", widths=[8, 12], dropout=0.0, normalise=True, scaled=True, train=TRAIN
)


def latents(n, seed=0):
    """Clips whose embedding can be read from their latents: the direction of the mean of each channel and band."""
    rng = np.random.default_rng(seed)
    level = rng.standard_normal((n, 2, 1, 4))
    means = level + 0.1 * rng.standard_normal((n, 2, 8, 4))
    moments = np.concatenate([means, np.full_like(means, -8.0)], axis=1).astype(np.float32)
    return Latents(moments, {"embedding": unit(level.reshape(n, 8)[:, :6]).astype(np.float32)}, 0.5)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def job(scratch):
    return Job(0, scratch, "cpu", "float32")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """An encoder fitted to latents(96), and its history; `val` are other clips."""
    scratch = tmp_path_factory.mktemp("fitted")
    return latent_clap.fit_encoder(SECTION, latents(96), job(scratch), val=latents(24, seed=1))


@pytest.mark.parametrize("plain", [False, True])
def test_fit_learns_and_is_frozen(fitted, tmp_path, plain):
    val = latents(24, seed=1)
    section = SECTION.changed(scaled=False, normalise=False) if plain else SECTION
    model, history = latent_clap.fit_encoder(section, latents(96), job(tmp_path), val=val) if plain else fitted
    assert history.mse.iloc[-10:].mean() < 0.5 * history.mse.iloc[:5].mean()
    points = history[["val_mse", "val_cosine"]].dropna()
    assert list(points.index) == [19, 39, 59] and points.val_cosine.iloc[-1] > 0.8
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert (model.config.scale, model.config.scaled, model.config.normalise) == (0.5, not plain, not plain)
    assert (model.config.channels, model.config.bands, model.config.dim, model.config.widths) == (2, 4, 6, (8, 12))
    agreement = latent_clap.agreement(*latent_clap.embed(model, val))
    assert agreement["cosine"] == pytest.approx(points.val_cosine.iloc[-1], abs=1e-5)


def test_fit_is_repeated_exactly(fitted, tmp_path):
    again, history = latent_clap.fit_encoder(SECTION, latents(96), job(tmp_path))
    assert module_sha256(again) == module_sha256(fitted[0]) and "val_mse" not in history


def write_features(folder, counts):
    """A folder of features as `stages.features.compute` writes it, of two classes in turn."""
    folder.mkdir(parents=True)
    rng, splits = np.random.default_rng(0), [split for split, count in counts.items() for _ in range(count)]
    index = pd.DataFrame({"id": [f"clip{i}" for i in range(len(splits))], "split": splits})
    index["label"] = np.where(np.arange(len(splits)) % 2, "Rain", "DogBark")
    index.assign(target=0, prompt="").to_parquet(folder / "index.parquet", index=False)
    embeddings = unit(rng.standard_normal((len(splits), 6)))
    moments = rng.standard_normal((len(splits), 4, 8, 4))
    for name, array in {"moments": moments, "audio": embeddings, "text": embeddings}.items():
        np.save(folder / f"{name}.npy", array.astype(np.float32))
    (folder / "features.json").write_text(json.dumps({"models": "x"}))
    return folder


def test_training_stage_and_bundle(tiny, tiny_corpus, tiny_paths, tiny_models, tmp_path, monkeypatch):
    for name in ("FEATURES", "LATENT_CLAP", "SCRATCH", "BUNDLED"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    write_features(paths.FEATURES / "foley", {"train": 8, "val": 4, "test": 4})
    out, section = (
        paths.LATENT_CLAP,
        SECTION.changed(corpus="foley", train=Train(steps=2, batch_size=4, lr=1e-3, validate_every=1)),
    )
    cfg = tiny.changed(latent_clap=section)

    history = latent_clap.make(cfg)
    files = ["README.md", "config.json", "history.csv", "model.safetensors", "provenance.json"]
    assert sorted(p.name for p in out.iterdir()) == files
    assert bundle.provenance_of(out)["corpus"]["kind"] == "synthetic"
    assert len(history) == 2 and not list(paths.SCRATCH.glob("*/*"))
    trained = latent_clap.load_encoder()
    assert (trained.config.scale, trained.config.dim, trained.config.bands) == (pytest.approx(0.7), 6, 4)

    monkeypatch.setattr(paths, "FOUNDATION", tmp_path / "none")
    monkeypatch.setattr("subprocess.run", lambda *args, **options: SimpleNamespace(stdout="c0ffee\n"))
    bundle.pack()
    packed = bundle.provenance_of(paths.BUNDLED / "latent_clap")
    assert packed["commit"] == "c0ffee" and list(packed["sha256"]) == ["model.safetensors"]
    bundled = cfg.changed(latent_clap=section.changed(source="bundled"))
    assert len(latent_clap.make(bundled)) == len(history)
    assert module_sha256(latent_clap.load_encoder()) == module_sha256(trained.half().float())
    (paths.BUNDLED / "latent_clap" / "history.csv").unlink()
    bundle.pack()  # what came from the bundle is not packed again
    assert not (paths.BUNDLED / "latent_clap" / "history.csv").exists()

    wider = cfg.changed(latent_clap=section.changed(source="bundled", widths=[8, 16]))
    message = r"latent_clap.widths differs from the bundle's .* or set latent_clap.source to"
    with pytest.raises(ValueError, match=message):
        latent_clap.make(wider)
    monkeypatch.setattr(paths, "BUNDLED", tmp_path / "none")
    with pytest.raises(ValueError, match="is missing: check out data/bundled, or set latent_clap.source to 'scratch'"):
        latent_clap.make(bundled)


def test_clips_of_a_split(tmp_path):
    folder = write_features(tmp_path / "broad", {"train": 3, "test": 9})
    index, data = latent_clap.clips(folder, "test", 0.5)
    assert len(index) == len(data) == 9 and index.id[0] == "clip3" and data.scale == 0.5
    some, fewer = latent_clap.clips(folder, "test", 0.5, limit=3)
    assert list(some.id) == ["clip3", "clip7", "clip11"]
    assert np.array_equal(fewer.conditions["embedding"], data.conditions["embedding"][[0, 4, 8]])
    assert np.array_equal(fewer.moments, data.moments[[0, 4, 8]])
    with pytest.raises(ValueError, match="split='val': broad has no clip there"):
        latent_clap.clips(folder, "val", 0.5)


def test_class_means_are_of_the_training_clips(tmp_path):
    folder = write_features(tmp_path / "broad", {"train": 4, "test": 4})
    audio = np.load(folder / "audio.npy").astype(np.float64)
    rain, dog = audio[1] + audio[3], audio[0] + audio[2]  # labels alternate
    means = latent_clap.class_means(folder, ["Rain", "DogBark", "Rain"])
    np.testing.assert_allclose(means, unit(np.stack([rain, dog, rain])), atol=1e-6)
    with pytest.raises(ValueError, match=r"labels \['Sea'\] have no training clip in broad"):
        latent_clap.class_means(folder, ["Rain", "Sea"])


def test_agreement_of_equal_and_of_unrelated_embeddings():
    x, y = (np.random.default_rng(seed).standard_normal((200, 16)) for seed in (0, 1))
    same = latent_clap.agreement(3 * x, x)
    assert same.pop("mse") == pytest.approx(4 * np.square(x).mean())
    assert same == pytest.approx({"cosine": 1, "neighbour": 1, "neighbours": 1, "own_audio": 1})
    other = latent_clap.agreement(x, y)
    assert abs(other["cosine"]) < 0.1 and max(other["neighbour"], other["own_audio"]) < 0.05
    assert other["neighbours"] == pytest.approx(10 / 199, abs=0.03)  # by chance


def test_agreement_by_hand():
    """Four clips in the plane; the third's E_latent has gone to the other side."""
    angles = np.radians([[0, 20, 100, 110], [0, 20, -15, 110]])
    E_audio, E_latent = (np.stack([np.cos(a), np.sin(a)], 1) for a in angles)
    result = latent_clap.agreement(E_latent, E_audio)
    assert result["neighbour"] == pytest.approx(
        1 / 4
    )  # of 1: 0 in both; of 0: 2, not 1; of 2: 0, not 3; of 3: 1, not 2
    assert result["neighbours"] == 1  # all three others of four
    assert result["own_audio"] == pytest.approx(3 / 4)
    assert result["cosine"] == pytest.approx((3 + np.cos(np.radians(115))) / 4)
    with pytest.raises(ValueError, match="give the same"):
        latent_clap.agreement(E_latent[:2], E_audio[:2])


def test_embedding_falls_from_agreement_with_noise(fitted):
    model, data, abar = fitted[0], latents(120), schedule()
    table = latent_clap.by_noise(model, data, abar, levels=4, limit=100)
    assert list(table.columns) == ["n", "mse", "cosine", "neighbour", "neighbours", "own_audio"]
    assert table.n.tolist() == [0, 333, 666, 999]
    assert table.cosine.iloc[0] > 0.8 and abs(table.cosine.iloc[-1]) < 0.4
    assert table.cosine.is_monotonic_decreasing and table.mse.is_monotonic_increasing
    assert table.equals(latent_clap.by_noise(model, data, abar, levels=4, limit=100))


def test_scores():
    rng, labels = np.random.default_rng(0), ["a", "b"] * 20
    E_audio = rng.standard_normal((40, 6))
    E_latent = E_audio + 0.3 * rng.standard_normal((40, 6))
    rows = latent_clap.scores(E_latent, E_audio, labels, seed=3, bootstrap=50)
    by_name = {(row["class"], row["metric"]): row for row in rows}
    assert set(by_name) == {(c, m) for c in ("all", "a", "b") for m in ("cosine", "mse")}
    whole = latent_clap.agreement(E_latent, E_audio)
    for metric in ("cosine", "mse"):
        row = by_name["all", metric]
        assert row["value"] == pytest.approx(whole[metric]) and row["low"] < row["value"] < row["high"]
        parts = [by_name[c, metric]["value"] for c in "ab"]
        assert np.mean(parts) == pytest.approx(whole[metric]) and parts[0] != parts[1]
        assert (row["n"], by_name["a", metric]["n"], row["seed"]) == (40, 20, 3)
    few = latent_clap.scores(E_latent[:3], E_audio[:3], ["a", "a", "b"], bootstrap=5)
    assert {row["class"] for row in few} == {"all", "a"}  # one clip has no interval


def test_evaluated_clips_and_their_file(project, tiny):
    cfg = tiny.changed(latent_clap=tiny.latent_clap.changed(corpus="foley"))
    rows, E_latent, E_audio, index = latent_clap.evaluate(cfg)
    stored, arrays = features.load(paths.FEATURES / "foley", "test")
    assert index.id.tolist() == stored.id.tolist() and np.array_equal(E_audio, arrays["audio"])
    assert rows == latent_clap.scores(E_latent, E_audio, index.label, bootstrap=cfg.evaluate.bootstrap)
    content = json.loads((paths.RESULTS / "latent_clap.json").read_text())
    whole = latent_clap.agreement(E_latent, E_audio)
    assert content["headline"] == pytest.approx({metric: whole[metric] for metric in ("cosine", "mse")}, abs=1e-5)
    keys = {"run": "latent_clap", "corpus": "foley", "split": "test", "n": 8, "seed": 0}
    assert content["card"].items() >= (keys | {"embedder_sha256": weights_sha256(paths.LATENT_CLAP)}).items()
    names = ["class", "metric", "embedder", "value", "low", "high", "n", "seed"]
    assert [list(row) for row in content["scores"]] == [names] * 6  # those of results/evaluate
    assert [row["value"] for row in content["scores"]] == pytest.approx([row["value"] for row in rows], abs=1e-6)
