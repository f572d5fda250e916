"""Re-AudioLDM before its experiments: tokens of a corpus, what the index tells, the pre-trained U-Net and its bundle."""

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from networks import module_sha256

from conftest import inside
from foleylib import paths
from foleylib.corpora.prepare import prepare
from foleylib.datasets import manifest as manifests
from foleylib.datasets import retrieval as stored
from foleylib.datasets import tokens as stores
from foleylib.networks import retrieval as networks
from foleylib.networks import unet as unets
from foleylib.runtime import write_json
from foleylib.stages import bundle, features, neighbours, retrieval, retrieval_index, tokens

SCENES = {"train": 10, "val": 4, "test": 5}
COUNT = sum(SCENES.values())


@pytest.fixture(scope="module")
def cfg(tiny, tiny_models, tmp_path_factory):
    """Settings of a project that has a few scenes, with their features and neighbours, in a folder of its own."""
    root = tmp_path_factory.mktemp("retrieval")
    shutil.copytree(tiny_models, root / "models" / "foundation")
    scenes = {"clips_per_class": None, "scenes": SCENES, "events": (1, 2), "classes": ["Rain", "DogBark", "Bell"]}
    scenes |= {"captions": {"test": 2}, "held_out": ["Bell"], "seconds": 1.28}
    search = tiny.retrieval.search.changed(top=5, duplicate=1.0)  # an untrained CLAP finds all alike
    changes = {
        "corpora": tiny.corpora | {"scenes": tiny.corpora["scenes"].changed(**scenes)},
        "retrieval": tiny.retrieval.changed(search=search.model_dump()),
    }
    cfg = tiny.model_copy(update=changes)
    with pytest.MonkeyPatch.context() as patch:
        inside(root, patch)
        prepare("scenes", cfg.corpora["scenes"], paths.CLIPS / "scenes")
        features.make("scenes", cfg)
        retrieval_index.make("scenes", cfg)
        tokens.make("scenes", cfg)
        yield cfg


@pytest.fixture(scope="module")
def history(cfg):
    return retrieval.make(cfg)


@pytest.fixture
def trained(history, cfg, tmp_path, monkeypatch):
    """The folder of the pre-trained U-Net, which a test may change, beside an empty bundle."""
    monkeypatch.setattr(paths, "RE_AUDIOLDM", shutil.copytree(paths.RE_AUDIOLDM, tmp_path / "re_audioldm"))
    for name in ("BUNDLED", "LATENT_CLAP", "JUDGE", "DETECTOR"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    monkeypatch.setattr("subprocess.run", lambda *args, **options: SimpleNamespace(stdout="c0ffee\n"))
    return paths.RE_AUDIOLDM


def with_pretrained(cfg, **values):
    section = cfg.re_audioldm.pretrained.changed(**values).model_dump()
    return cfg.model_copy(update={"re_audioldm": cfg.re_audioldm.changed(pretrained=section)})


def edited(cfg, monkeypatch, tmp_path, edit):
    """The stored neighbours with `edit(rows)` [rows of "train", (N, captions, top)] in a folder of their own."""
    monkeypatch.setattr(paths, "RETRIEVAL", shutil.copytree(paths.RETRIEVAL, tmp_path / "edited"))
    file = paths.RETRIEVAL / "scenes" / "rows_train.npy"
    rows = np.load(file)
    edit(rows)
    np.save(file, rows)


# Tokens of a corpus


def test_each_clip_has_the_tokens_of_its_sound_and_of_its_first_caption(cfg, tiny_parts):
    manifest = manifests.load(paths.CLIPS / "scenes")
    audio, text = (np.load(paths.TOKENS / "scenes" / kind / "tokens.npy") for kind in ("audio", "text"))
    assert len(audio) == len(text) == COUNT and text.shape[1] == cfg.retrieval.tokens.length
    made, mask = tokens.tokens.of_text(cfg.retrieval.tokens, tiny_parts.clap)([manifest.caption[3]])
    np.testing.assert_allclose(text[3], (made * mask[..., None])[0].numpy(), atol=2e-3)
    wave = manifests.Waves(paths.CLIPS / "scenes", manifest)[[7]]
    made, _ = tokens.tokens.of_audio(cfg.retrieval.tokens, tiny_parts.clap)(wave, 16000)
    np.testing.assert_allclose(audio[7], made[0].numpy(), atol=5e-3)
    assert neighbours.channels("scenes", cfg.re_audioldm.pretrained.retrieval) == {
        "audio": audio.shape[-1],
        "text": text.shape[-1],
    }
    audio_alone = cfg.re_audioldm.pretrained.retrieval.changed(text=False)
    assert neighbours.channels("scenes", audio_alone) == {"audio": audio.shape[-1], "text": None}


def test_tokens_are_made_again_only_where_something_changed(cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "TOKENS", shutil.copytree(paths.TOKENS, tmp_path / "tokens"))
    calls, write = [], stores.write
    monkeypatch.setattr(stores, "write", lambda *arguments: calls.append(arguments[0].name) or write(*arguments))
    tokens.make("scenes", cfg)
    assert calls == []
    other = cfg.retrieval.tokens.changed(text=None, pool=(1, 1))
    changed = cfg.model_copy(update={"retrieval": cfg.retrieval.changed(tokens=other.model_dump())})
    tokens.make("scenes", changed)
    assert calls == ["audio"] and not (paths.TOKENS / "scenes" / "text").exists()
    with pytest.raises(ValueError, match="has no text tokens"):
        neighbours.of_split("scenes", "test", cfg.re_audioldm.pretrained.retrieval, changed)


# What the index tells


def test_similarity_falls_with_the_rank(cfg):
    table = retrieval_index.by_rank("scenes")
    assert list(table.columns) == ["protocol", "rank", "similarity"]
    for protocol, own in table.groupby("protocol"):
        assert own["rank"].tolist() == [1, 2, 3, 4, 5] and (own.similarity.diff().dropna() <= 1e-6).all()
    manifest = manifests.load(paths.CLIPS / "scenes")
    ids = manifest.id[manifest.split == "test"]
    expected = stored.Neighbours(paths.RETRIEVAL / "scenes", manifest, "full")(ids, 1).scores.mean()
    first = table[table["rank"] == 1].set_index("protocol").similarity
    assert first["full"] == pytest.approx(expected) and first["train"] <= first["full"] <= first["published"]


def test_ranks_are_of_the_neighbours_that_there_are(cfg, tmp_path, monkeypatch):
    def edit(rows):
        rows[:, :, 3:] = -1
        rows[-1, :, 1:] = -1

    before = retrieval_index.by_rank("scenes")
    edited(cfg, monkeypatch, tmp_path, edit)
    own = retrieval_index.by_rank("scenes").query("protocol == 'train'")
    assert own["rank"].tolist() == [1, 2, 3] and own.similarity.iloc[0] == before.similarity.iloc[0]
    scores = np.load(paths.RETRIEVAL / "scenes" / "scores_train.npy")[-5:-1, 0, 1]
    assert own.similarity.iloc[1] == pytest.approx(scores.mean())


def test_sounds_that_are_found(cfg, tmp_path, monkeypatch):
    manifest = manifests.load(paths.CLIPS / "scenes")
    told = [[sound["label"] for sound in manifests.sounds(events)] for events in manifest.events]
    test = [row for row in range(COUNT) if manifest.split[row] == "test"]
    rain, dog = (next(r for r in range(10) if told[r] == [label]) for label in ("Rain", "DogBark"))

    def edit(rows):  # first Rain alone, then DogBark alone, then no more
        rows[:] = [rain, dog, -1, -1, -1]

    edited(cfg, monkeypatch, tmp_path, edit)
    table = retrieval_index.sounds_found("scenes")
    assert list(table.columns) == [1, 3]  # five neighbours are stored
    seen = [label for row in test for label in set(told[row]) if label != "Bell"]
    expected = np.mean([label == "Rain" for label in seen])
    assert table.loc[("seen", "train")].tolist() == [pytest.approx(expected), 1]
    assert table.loc[("held out", "train")].tolist() == [0, 0] and "Bell" in {label for r in test for label in told[r]}
    assert table.loc[("seen", "train")].tolist() == table.loc[("seen", "train, of another scene")].tolist()
    assert table.loc[("held out", "published"), 3] > 0 and (table.loc["seen"] >= 0).all(axis=None)


def test_a_corpus_without_scenes_has_no_sounds_to_find(cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CLIPS", shutil.copytree(paths.CLIPS, tmp_path / "clips"))
    manifests.load(paths.CLIPS / "scenes").assign(events="[]").to_parquet(paths.CLIPS / "scenes" / "manifest.parquet")
    assert retrieval_index.sounds_found("scenes").empty


def test_kin_is_counted_by_its_first_reason():
    labels = {"source_group": ["a", "a", "b", "c", "d"], "sha256": ["1", "1", "1", "2", "3"]}
    kin = stored.Kin(pd.DataFrame(labels), np.array([[0, 1], [2, 3]]))
    items, rows = kin.all()
    pairs = set(zip(items.tolist(), rows.tolist()))
    expected = {(i, j) for i in range(5) for j in range(5) if any(m.any() for m in _reasons(kin, i, j))}
    assert pairs == expected and len(items) == len(pairs)
    assert kin.counts(items, rows) == {
        "itself": 5,
        "of its source group": 2,
        "of the same bytes": 4,
        "a near-duplicate": 2,
    }


def _reasons(kin, i, j):
    return kin.reasons(np.array([i]), np.array([j])).values()


def test_leaks_are_those_of_the_published_index(cfg):
    table = retrieval_index.leaks("scenes")
    assert list(table.index) == [(s, p) for s in stored.SPLITS for p in stored.PROTOCOLS]
    found = table.xs("found", axis=1, level=1)
    barred = found.loc[[(s, p) for s, p in table.index if s == "train" or p != "published"]]
    assert (barred == 0).all(axis=None)
    assert found.loc[("test", "published"), "itself"] > 0
    there = table[("itself", "in the index")]
    for protocol in stored.PROTOCOLS:
        assert there["train", protocol] == SCENES["train"]
        assert there["test", protocol] == (0 if protocol == "train" else SCENES["test"])
    assert (found <= table.xs("in the index", axis=1, level=1)).all(axis=None)


def test_a_leak_is_counted(cfg, tmp_path, monkeypatch):
    def edit(rows):
        rows[4, :, 2] = 4
        rows[5, :, 1] = 5

    edited(cfg, monkeypatch, tmp_path, edit)
    table = retrieval_index.leaks("scenes")
    assert table.loc[("train", "train"), ("itself", "found")] == 2


# The pre-trained U-Net


def test_the_unet_is_trained_and_says_so(history, cfg):
    section, unet = cfg.re_audioldm.pretrained, networks.load(paths.RE_AUDIOLDM)
    assert len(history) == section.train.steps and history.val_ddpm.notna().any()
    assert unet.unet.config.block_out_channels == section.channels
    assert unet.retrieval.config.width == section.retrieval.width and unet.retrieval.config.blocks == ()
    provenance = bundle.provenance_of(paths.RE_AUDIOLDM)
    assert provenance["settings"] == section.model_dump(mode="json") and provenance["corpus"]["seed"] == 4
    assert not list(paths.SCRATCH.glob("re_audioldm-pretrained/*"))


def test_errors_by_noise_and_what_is_told(history, cfg, tmp_path, monkeypatch):
    def edit(rows):  # an untrained CLAP finds the same neighbours for all
        rows[-5:] = np.arange(5)[:, None, None] + np.arange(5)

    edited(cfg, monkeypatch, tmp_path, edit)
    table = retrieval.errors_by_noise(cfg)
    names = ["own neighbours", "those of another clip", "text alone", "nothing"]
    assert list(table.columns) == ["n", *names] and table.n.iloc[[0, -1]].tolist() == [0, 999]
    assert np.isfinite(table).all(axis=None)
    assert all((table[a] != table[b]).any() for i, a in enumerate(names) for b in names[:i])


def test_without_neighbours_the_errors_are_those_of_the_text(history, cfg, tmp_path, monkeypatch):
    def edit(rows):
        rows[:] = -1

    before = retrieval.errors_by_noise(cfg)
    edited(cfg, monkeypatch, tmp_path, edit)
    table = retrieval.errors_by_noise(cfg)
    for name in ("own neighbours", "those of another clip", "text alone"):
        np.testing.assert_allclose(table[name], before["text alone"], rtol=1e-6)
    np.testing.assert_allclose(table["nothing"], before["nothing"], rtol=1e-6)


def test_added_to_the_foundations_ldm_it_goes_on_from_there(trained, cfg):
    """A published AudioLDM, say: it starts as it was, and reads neighbours beside."""
    reads = cfg.re_audioldm.pretrained.retrieval.changed(attention="added")
    train = cfg.re_audioldm.pretrained.train.changed(steps=1, lr=1e-9, warmup=0)
    retrieval.make(with_pretrained(cfg, retrieval=reads.model_dump(), train=train.model_dump()))
    model, base = networks.load(trained), unets.load(paths.FOUNDATION / "ldm")
    assert len(model.retrieval.added) == len(model.retrieval.config.blocks) > 0
    for (name, own), first in zip(model.unet.state_dict().items(), base.state_dict().values(), strict=True):
        torch.testing.assert_close(own, first, atol=1e-6, rtol=1e-6, msg=name)


def test_the_unet_goes_through_the_bundle(trained, history, cfg, capsys):
    unet = networks.load(trained)
    bundle.pack()
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if line.startswith("re_audioldm: packed, ")]
    packed = paths.BUNDLED / "re_audioldm"
    assert sorted(p.name for p in packed.iterdir()) == [
        "README.md",
        "history.csv",
        "provenance.json",
        "retrieval",
        "unet",
    ]
    weights = ["retrieval/model.safetensors", "unet/diffusion_pytorch_model.safetensors"]
    assert sorted(bundle.provenance_of(packed)["sha256"]) == weights

    # What does not change sizes may be other than it was in training.
    section = cfg.re_audioldm.pretrained
    others = {"retrieval_dropout": 0.1, "snr_gamma": None, "retrieval": section.retrieval.changed(k=5).model_dump()}
    bundled = with_pretrained(cfg, source="bundled", **others)
    assert len(retrieval.make(bundled)) == len(history)
    assert module_sha256(networks.load(trained)) == module_sha256(unet.half().float())
    bundle.pack()
    assert "re_audioldm: came from the bundle, left alone" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["channels", "width", "rate"])
def test_a_bundle_of_other_sizes_is_refused(trained, cfg, change):
    bundle.pack()
    reads = cfg.re_audioldm.pretrained.retrieval
    values = {
        "channels": {"channels": [16, 16, 32, 48]},
        "width": {"retrieval": reads.changed(width=32).model_dump()},
    }
    bundled = with_pretrained(cfg, source="bundled", **values.get(change, {}))
    if change == "rate":
        scenes = cfg.corpora["scenes"].changed(rate=24000)
        bundled = bundled.model_copy(update={"corpora": cfg.corpora | {"scenes": scenes}})
    sentence = {
        "channels": r"re_audioldm.pretrained.channels differs from the bundle's \(\[16, 16, 32, 32\]\)",
        "rate": "rate of 24000 Hz, the bundled re_audioldm is for 16000 Hz",
    }.get(change, "re_audioldm.pretrained.retrieval differs from the bundle's .*'width': 64")
    with pytest.raises(ValueError, match=sentence + ".*set re_audioldm.pretrained.source to 'scratch'"):
        retrieval.make(bundled)


def test_a_bundle_that_reads_other_tokens_is_refused(trained, cfg, tmp_path, monkeypatch):
    bundle.pack()
    monkeypatch.setattr(paths, "TOKENS", tmp_path / "tokens")
    for kind, channels in (("audio", 7), ("text", 9)):
        made = (torch.zeros(COUNT, 2, channels), torch.ones(COUNT, 2, dtype=torch.bool))
        stores.write(paths.TOKENS / "scenes" / kind, COUNT, [made])
    write_json(paths.TOKENS / "scenes" / "tokens.json", {"settings": {"audio": "clap", "text": "clap"}})
    with pytest.raises(
        ValueError, match="have 7 and 9: put foundation.clap and retrieval.tokens back, or set re_audio"
    ):
        retrieval.make(with_pretrained(cfg, source="bundled"))


def test_a_bundle_that_is_not_there_is_named(trained, cfg):
    with pytest.raises(ValueError, match="is missing: .* or set re_audioldm.pretrained.source to 'scratch'"):
        retrieval.make(with_pretrained(cfg, source="bundled"))
