"""Features of a corpus: what is stored, when it is computed anew, and what a training step reads of it."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from foleylib.audio.mel import front_end
from foleylib.datasets import features as cached
from foleylib.datasets import manifest as manifests
from foleylib.diffusion.condition import Condition
from foleylib.stages import features

LOG_MEL = front_end(16000, "dataset")


@pytest.fixture(scope="module")
def computed(tiny_corpus, tiny_parts, tmp_path_factory):
    out = tmp_path_factory.mktemp("features") / "foley"
    compute(tiny_corpus, out, tiny_parts, batch_size=8)
    return out


def compute(corpus, out, parts, *, models="m", batch_size):
    features.compute(
        corpus,
        out,
        autoencoder=parts.vae,
        clap=parts.clap,
        log_mels=[LOG_MEL],
        rate=16000,
        models=models,
        batch_size=batch_size,
        device="cpu",
    )


def test_rows_are_those_of_the_manifest(computed, tiny_corpus, tiny_parts):
    manifest = manifests.load(tiny_corpus)
    index, arrays = cached.load(computed)
    assert index.id.tolist() == manifest.id.tolist() and list(index) == ["id", "split", "label", "target", "prompt"]
    assert arrays["moments"].shape == (20, 16, 16, 16) and arrays["moments"].dtype == np.float32
    assert arrays["audio"].shape == arrays["text"].shape == (20, tiny_parts.clap.dim)
    assert np.allclose(np.linalg.norm(arrays["audio"], axis=1), 1, atol=1e-5)
    assert np.allclose(np.linalg.norm(arrays["text"], axis=1), 1, atol=1e-5)
    wave = manifests.Waves(tiny_corpus, manifest)[[13]]
    expected = {
        "moments": cached.encode_moments(tiny_parts.vae, LOG_MEL(wave)),
        "audio": tiny_parts.clap.embed_audio(wave),
        "text": tiny_parts.clap.embed_text([manifest.prompt[13]]),
    }
    assert all(np.allclose(arrays[name][13], value[0], atol=1e-4) for name, value in expected.items())
    assert sorted(p.name for p in computed.parent.iterdir()) == ["foley"]


def test_splits(computed, tiny_corpus):
    manifest = manifests.load(tiny_corpus)
    _, whole = cached.load(computed)
    sizes = {}
    for split in ("train", "val", "test"):
        index, arrays = cached.load(computed, split)
        rows = np.flatnonzero(manifest.split == split)
        sizes[split] = len(index)
        assert index.id.tolist() == manifest.id.iloc[rows].tolist()
        assert all(np.array_equal(arrays[name], whole[name][rows]) for name in whole)
    assert sizes == {"train": 8, "val": 4, "test": 8}
    assert len(cached.load(computed, "nothing")[1]["audio"]) == 0


def test_captions_that_clap_does_not_read_to_their_end_are_told(tiny_corpus, tiny_parts, tmp_path, capsys):
    manifest = manifests.load(tiny_corpus)
    said = {text for own in manifests.captions(tiny_corpus, manifest) for text in own} | set(manifest.prompt)
    lengths = [len(tiny_parts.clap.tokenizer(text)["input_ids"]) for text in said]
    long, most = sum(n > 40 for n in lengths), tiny_parts.clap.tokenizer.model_max_length
    assert most == 40 and 0 < long < len(said)
    told = f"corpus foley: {long} of {len(said)} texts are longer than the 40 tokens that are read, and lose their end"
    compute(tiny_corpus, tmp_path / "foley", tiny_parts, batch_size=8)
    assert told in capsys.readouterr().out


def test_same_models_and_corpus_are_not_computed_again(tiny_corpus, computed):
    stamps = {p.name: p.stat().st_mtime_ns for p in computed.iterdir()}
    options = {"log_mels": [LOG_MEL], "rate": 16000, "models": "m", "batch_size": 8}
    features.compute(tiny_corpus, computed, autoencoder=None, clap=None, **options)
    assert {p.name: p.stat().st_mtime_ns for p in computed.iterdir()} == stamps


def test_other_models_are_computed_and_batches_do_not_matter(tiny_corpus, tiny_parts, computed, tmp_path):
    out = tmp_path / "foley"
    compute(tiny_corpus, out, tiny_parts, models="old", batch_size=20)
    before = cached.read_key(out)
    compute(tiny_corpus, out, tiny_parts, batch_size=3)
    assert cached.read_key(out) == cached.read_key(computed) != before
    for name in ("moments", "audio", "text"):
        assert np.allclose(cached.load(out)[1][name], cached.load(computed)[1][name], atol=1e-4)


def test_other_prompts_are_other_features(tiny_corpus, tiny_parts, computed, tmp_path, monkeypatch):
    load = features.manifests.load
    monkeypatch.setattr(features.manifests, "load", lambda folder: load(folder).assign(prompt="something else"))
    out = shutil.copytree(computed, tmp_path / "foley")
    compute(tiny_corpus, out, tiny_parts, batch_size=8)
    assert cached.read_key(out) != cached.read_key(computed)
    text, before = (cached.load(folder)[1]["text"] for folder in (out, computed))
    assert np.array_equal(text, text[:1].repeat(len(text), axis=0)) and not np.allclose(text, before)


def test_features_follow_the_models(tiny, tiny_corpus, tiny_models, tiny_paths):
    out = features.make("foley", tiny)
    key = cached.read_key(out)
    index, arrays = cached.load(out, "train")
    assert out == tiny_paths.FEATURES / "foley" and len(index) == len(arrays["moments"]) == 8
    config = tiny_models / "vae" / "config.json"
    before = config.read_text()
    config.write_text(before + "\n")
    features.make("foley", tiny)
    assert cached.read_key(out) != key
    config.write_text(before)
    features.make("foley", tiny)
    assert cached.read_key(out) == key


def test_missing_features_are_named(tmp_path):
    assert cached.read_key(tmp_path / "absent") is None
    with pytest.raises(ValueError, match="absent holds no features; run"):
        cached.load(tmp_path / "absent")


# What a training step reads


def write(folder, splits, labels, dim=6, seed=0):
    """A features folder with random arrays; returns them."""
    rng = np.random.default_rng(seed)
    n = len(splits)
    arrays = {"moments": rng.standard_normal((n, 4, 8, 4)), "audio": rng.standard_normal((n, dim))}
    arrays["text"] = rng.standard_normal((n, dim))
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    index = pd.DataFrame({"id": range(n), "split": splits, "label": labels, "target": 0, "prompt": labels})
    index.to_parquet(folder / "index.parquet")
    (folder / "features.json").write_text("{}")
    return arrays


def test_consecutive_rows_stay_on_disk(tmp_path):
    arrays = write(tmp_path / "f", ["train", "train", "val", "test", "val"], list("aabba"))
    for split, rows in [("train", [0, 1]), ("val", [2, 4]), ("test", [3])]:
        _, part = cached.load(tmp_path / "f", split)
        assert all(np.array_equal(part[name], arrays[name][rows]) for name in arrays)
        assert isinstance(part["moments"], np.memmap) == (split != "val")


def test_batch_of_cached_clips(tmp_path):
    arrays = write(tmp_path / "f", ["train"] * 3, list("abc"))
    more = {"tokens": np.ones((3, 5, 2)), "mask": np.array([[True] * 5, [False] * 5, [True] * 5])}
    data = cached.Latents(arrays["moments"], {"embedding": arrays["text"], **more}, 1.0, arrays["audio"])
    batch = data[np.array([2, 0])]
    assert len(data) == 3 and batch.pop("mask").tolist() == more["mask"][[2, 0]].tolist()
    assert all(value.dtype == torch.float32 for value in batch.values())
    expected = {"moments": arrays["moments"], "embedding": arrays["text"], "audio": arrays["audio"]}
    expected["tokens"] = more["tokens"]
    assert batch.keys() == expected.keys()
    assert all(np.array_equal(batch[name], array[[2, 0]]) for name, array in expected.items())
    alone = cached.Latents(arrays["moments"], {"embedding": arrays["text"]}, 1.0)
    assert alone[np.array([1])].keys() == {"moments", "embedding"}
    with pytest.raises(ValueError, match="3 latents but 2 rows of 'tokens'"):
        cached.Latents(arrays["moments"], {"tokens": more["tokens"][:2]}, 1.0)


@pytest.mark.parametrize("condition", ["audio", "text"])
def test_splits_of_a_training(tmp_path, condition):
    arrays = write(tmp_path / "f", ["train", "train", "val", "test"], list("abab"))
    splits = cached.training_splits(tmp_path / "f", condition, 0.7)
    assert {name: len(data) for name, data in splits.items()} == {"train": 2, "val": 1}
    assert np.array_equal(splits["train"].conditions["embedding"], arrays[condition][:2])
    assert np.array_equal(splits["val"].audio, arrays["audio"][2:3]) and splits["val"].scale == 0.7


def test_texts_of_a_training(tmp_path):
    arrays, texts = write(tmp_path / "f", ["train"] * 3, list("aba")), {"a": np.full(6, 0.1), "b": np.full(6, 0.2)}
    own = cached.training_splits(tmp_path / "f", "text", 1.0, texts)
    assert own.keys() == {"train"} and np.array_equal(own["train"].conditions["embedding"][:, 0], [0.1, 0.2, 0.1])
    audio = cached.training_splits(tmp_path / "f", "audio", 1.0, texts)["train"]
    assert np.array_equal(audio.conditions["embedding"], arrays["audio"])


def test_a_training_draws_one_of_the_captions_of_a_clip(tmp_path):
    """Clips of three captions, of two, of a class with a text of its own, and one of validation."""
    arrays = write(tmp_path / "f", ["train", "train", "train", "val"], ["", "", "a", ""])
    said = np.arange(1, 13, dtype=np.float32).reshape(4, 3, 1).repeat(6, axis=2)
    np.save(tmp_path / "f" / "captions.npy", said)
    np.save(tmp_path / "f" / "caption_count.npy", np.array([3, 2, 3, 3]))
    splits = cached.training_splits(tmp_path / "f", "text", 1.0, {"a": np.full(6, 0.5)})
    assert np.array_equal(splits["train"].conditions["embedding"][:2], arrays["text"][:2])
    val = splits["val"][np.array([0])]
    assert cached.with_drawn_caption(val, None) is val and np.array_equal(val["embedding"], arrays["text"][3:])

    batch, generator = splits["train"][np.repeat([0, 1, 2], 600)], torch.Generator().manual_seed(0)
    drawn = cached.with_drawn_caption(batch, generator)["embedding"].view(3, 600, 6)
    assert (drawn == drawn[..., :1]).all() and (drawn[2] == 0.5).all()
    for clip, texts in enumerate(([1, 2, 3], [4, 5])):
        found, count = drawn[clip, :, 0].unique(return_counts=True)
        assert found.tolist() == texts and (count / 600).tolist() == pytest.approx(
            [1 / len(texts)] * len(texts), abs=0.07
        )
    again = cached.with_drawn_caption(batch, torch.Generator().manual_seed(0))["embedding"]
    assert torch.equal(again.view(3, 600, 6), drawn)
    audio = cached.training_splits(tmp_path / "f", "audio", 1.0)["train"][np.array([0])]
    assert audio.keys() == {"moments", "audio", "embedding"}


def test_an_array_of_another_name_is_a_condition(tmp_path):
    write(tmp_path / "f", ["train", "train", "val"], list("aab"))
    tokens = np.arange(3 * 5 * 2, dtype=np.float32).reshape(3, 5, 2)
    np.save(tmp_path / "f" / "tokens.npy", tokens)
    condition = Condition.of(cached.training_splits(tmp_path / "f", "text", 1.0)["val"][np.array([0])])
    assert condition.given().keys() == {"embedding", "tokens"} and np.array_equal(condition.tokens, tokens[2:])


def test_latents_are_drawn_from_their_posteriors():
    mean = 3 + 2 * torch.randn(50, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    moments = torch.cat([mean, torch.full_like(mean, 2 * torch.tensor(1.5).log())], 1)
    one, two = (cached.sample_latents(moments, 0.4, torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(one, two)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(one, 0.4 * (mean + 1.5 * noise), atol=1e-5)
