"""Features of a corpus: what is stored, when it is computed anew."""

import numpy as np
import pytest
import torch

from foleylib import corpora, features, mel, vae


@pytest.fixture(scope="module")
def computed(tiny, tiny_corpus, tiny_parts, tmp_path_factory):
    out = tmp_path_factory.mktemp("features") / "foley"
    compute(tiny_corpus, out, tiny, tiny_parts, batch_size=8)
    return out


def compute(corpus, out, settings, parts, *, models="m", batch_size):
    features.compute(corpus, out, autoencoder=parts.vae, clap=parts.clap, log_mel=mel.front_end(settings.audio),
                     models=models, batch_size=batch_size, device="cpu")  # fmt: skip


def test_rows_are_those_of_the_manifest(computed, tiny_corpus, tiny_parts, tiny):
    manifest = corpora.load(tiny_corpus)
    index, arrays = features.load(computed)
    assert index.id.tolist() == manifest.id.tolist() and list(index) == ["id", "split", "label", "target", "prompt"]
    assert arrays["moments"].shape == (20, 16, 16, 16) and arrays["moments"].dtype == np.float32
    assert arrays["audio"].shape == arrays["text"].shape == (20, tiny_parts.clap.dim)
    assert np.allclose(np.linalg.norm(arrays["audio"], axis=1), 1, atol=1e-5)
    assert np.allclose(np.linalg.norm(arrays["text"], axis=1), 1, atol=1e-5)
    wave = torch.from_numpy(corpora.read_waves(tiny_corpus, manifest.iloc[[13]]))
    assert np.allclose(
        arrays["moments"][13], vae.moments(tiny_parts.vae, mel.front_end(tiny.audio)(wave))[0], atol=1e-4
    )
    assert np.allclose(arrays["audio"][13], tiny_parts.clap.embed_audio(wave)[0], atol=1e-4)
    assert np.allclose(arrays["text"][13], tiny_parts.clap.embed_text([manifest.prompt[13]])[0], atol=1e-4)
    assert sorted(p.name for p in computed.parent.iterdir()) == ["foley"]


def test_splits(computed, tiny_corpus):
    manifest = corpora.load(tiny_corpus)
    _, whole = features.load(computed)
    sizes = {}
    for split in ("train", "val", "test"):
        index, arrays = features.load(computed, split)
        rows = np.flatnonzero(manifest.split == split)
        sizes[split] = len(index)
        assert index.id.tolist() == manifest.id.iloc[rows].tolist()
        assert all(np.array_equal(arrays[name], whole[name][rows]) for name in features.ARRAYS)
    assert sizes == {"train": 8, "val": 4, "test": 8}
    assert len(features.load(computed, "nothing")[1]["audio"]) == 0


def test_same_models_and_corpus_are_not_computed_again(tiny, tiny_corpus, tiny_parts, computed):
    stamps = {p.name: p.stat().st_mtime_ns for p in computed.iterdir()}
    features.compute(
        tiny_corpus, computed, autoencoder=None, clap=None, log_mel=mel.front_end(tiny.audio), models="m", batch_size=8
    )
    assert {p.name: p.stat().st_mtime_ns for p in computed.iterdir()} == stamps


def test_other_models_are_computed_and_batches_do_not_matter(tiny, tiny_corpus, tiny_parts, computed, tmp_path):
    out = tmp_path / "foley"
    compute(tiny_corpus, out, tiny, tiny_parts, models="old", batch_size=20)
    before = (out / "features.json").read_text()
    compute(tiny_corpus, out, tiny, tiny_parts, batch_size=3)
    assert (out / "features.json").read_text() == (computed / "features.json").read_text() != before
    for name in features.ARRAYS:
        assert np.allclose(features.load(out)[1][name], features.load(computed)[1][name], atol=1e-4)


def test_missing_features_are_named(tmp_path):
    with pytest.raises(ValueError, match="absent holds no features; run"):
        features.load(tmp_path / "absent")
