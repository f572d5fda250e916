"""Corpora: equal clips, refusals, repeatability, real recordings."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from made_corpora import RATE, corpus, esc50, noise

from foleylib.corpora import prepare as preparing
from foleylib.corpora.clips import loudest_offset, shape_wave
from foleylib.corpora.listing import list_clips
from foleylib.corpora.prepare import prepare
from foleylib.corpora.splits import SPLITS
from foleylib.corpora.synth import captions
from foleylib.datasets.manifest import (
    CorpusError,
    Waves,
    classes,
    digest,
    has_classes,
    iter_waves,
    load,
    read_waves,
    sounds,
    unusable,
    write_captions,
)
from foleylib.datasets.manifest import captions as read_captions


@pytest.fixture
def faulty(tmp_path):
    """Settings of a folder of nine files: five cannot be used, of which two look well from their headers."""
    root = tmp_path / "in/cat"
    for i in range(4):
        noise(root / f"fine{i}.wav")
    noise(root / "short.wav", seconds=0.05)
    noise(root / "empty.wav", seconds=0)
    (root / "broken.wav").write_bytes(b"RIFF, then nothing of use")
    for name in ("nan", "other_nan"):
        soundfile.write(root / f"{name}.wav", np.array([0.0, np.nan] * 4000), RATE, subtype="FLOAT")
    return corpus("folder", tmp_path / "in", split_fractions={"train": 1.0})


def test_every_unusable_file_is_named_and_nothing_is_written(tmp_path, faulty):
    with pytest.raises(CorpusError, match="3 unusable files, nothing written") as caught:
        prepare("x", faulty, tmp_path / "out")
    lines = str(caught.value).splitlines()[1:]
    assert [Path(line.split(": ")[0]).name for line in lines] == ["broken.wav", "empty.wav", "short.wav"]
    assert "min_seconds=0.1; remove it" in lines[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]  # nothing was decoded yet
    for line in lines:
        Path(line.split(": ")[0]).unlink()
    with pytest.raises(CorpusError, match="2 unusable files, nothing written") as caught:
        prepare("x", faulty, tmp_path / "out")
    assert [Path(line.split(": ")[0]).name for line in str(caught.value).splitlines()[1:]] == [
        "nan.wav",
        "other_nan.wav",
    ]
    assert not (tmp_path / "out").exists()


def test_unusable_files_are_left_out_and_listed_where_that_is_allowed(tmp_path, faulty):
    with pytest.raises(CorpusError, match="5 unusable files, and unusable=4 allows fewer, nothing written"):
        prepare("x", faulty.model_copy(update={"unusable": 4}), tmp_path / "out")
    manifest = prepare("x", faulty.model_copy(update={"unusable": 5}), tmp_path / "out")
    assert manifest.id.tolist() == [f"cat-fine{i}" for i in range(4)] and manifest.split.eq("train").all()
    listed = unusable(tmp_path / "out")
    assert listed.id.tolist() == [f"cat-{name}" for name in ("broken", "empty", "short", "nan", "other_nan")]
    assert listed.source_path[3] == "cat/nan.wav" and "holds NaN" in listed.reason[3] and "shorter" in listed.reason[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    for i in range(4):
        (tmp_path / f"in/cat/fine{i}.wav").write_bytes(b"")
    with pytest.raises(CorpusError, match="corpus x: no usable file in split train; provide"):
        prepare("x", faulty.model_copy(update={"unusable": 9}), tmp_path / "out")
    assert load(tmp_path / "out").equals(manifest)
    assert unusable(tmp_path / "none").empty


def test_clips_lie_in_shards(tmp_path, monkeypatch):
    settings = corpus("synthetic", classes=["Rain"], clips_per_class={"train": 7, "test": 2})
    whole = prepare("s", settings, tmp_path / "one")
    assert set(whole.path.str.rpartition("/")[0]) == {"audio/00000"}
    monkeypatch.setattr(preparing, "SHARD", 4)
    parted = prepare("s", settings, tmp_path / "out")
    assert parted.path.tolist() == [f"audio/{i // 4:05d}/{id}.wav" for i, id in enumerate(parted.id)]
    assert parted.drop(columns="path").equals(whole.drop(columns="path"))
    assert read_captions(tmp_path / "out", parted) == read_captions(tmp_path / "one", whole)
    assert np.array_equal(read_waves(tmp_path / "out", parted), read_waves(tmp_path / "one", whole))


def test_only_the_shards_whose_files_changed_are_made_again(tmp_path, monkeypatch, faulty):
    monkeypatch.setattr(preparing, "SHARD", 2)
    for name in ("broken", "empty", "short"):
        (tmp_path / f"in/cat/{name}.wav").unlink()
    with pytest.raises(CorpusError, match="2 unusable files"):
        prepare("x", faulty, tmp_path / "out")
    for name in ("nan", "other_nan"):
        noise(tmp_path / f"in/cat/{name}.wav")
    made, make = [], preparing.make_clips
    monkeypatch.setattr(preparing, "make_clips", lambda records, *more: made.extend(records) or make(records, *more))
    manifest = prepare("x", faulty, tmp_path / "out")
    assert [record["id"] for record in made] == ["cat-nan", "cat-other_nan"] and len(manifest) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    prepare("x", faulty, tmp_path / "again")
    assert manifest.equals(load(tmp_path / "again"))


def test_missing_file_is_named(tmp_path):
    root = esc50(tmp_path / "esc")
    (root / "audio/2-11-A-1.wav").unlink()
    with pytest.raises(CorpusError, match="2-11-A-1.wav: no such file"):
        prepare("x", corpus("esc50", root), tmp_path / "out")


def test_a_failed_run_keeps_the_former_corpus(tmp_path):
    before = prepare("x", corpus("esc50", esc50(tmp_path / "esc")), tmp_path / "out")
    (tmp_path / "esc/audio/2-11-A-1.wav").write_bytes(b"")
    with pytest.raises(CorpusError):
        prepare("x", corpus("esc50", tmp_path / "esc"), tmp_path / "out")
    assert load(tmp_path / "out").equals(before)


def test_a_folder_of_other_things_is_not_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("years of work")
    with pytest.raises(CorpusError, match="something else than a corpus"):
        prepare("x", corpus("synthetic", classes=["Rain"]), tmp_path / "out")
    assert (tmp_path / "out/thesis.tex").read_text() == "years of work"


def test_synthetic_rows(tmp_path):
    manifest = prepare("s", corpus("synthetic", classes="foley", prompts={"Rain": "wet"}), tmp_path / "out")
    assert len(manifest) == 28 and set(manifest.source_path) == {"synthetic"} and manifest.source_group.is_unique
    assert manifest.caption.nunique() > 25 and manifest.caption.ne(manifest.prompt).all()
    assert all(p == ("wet" if x == "Rain" else captions.prompt(x)) for x, p in zip(manifest.label, manifest.prompt))
    events = json.loads(manifest.events[manifest.label.eq("GunShot").idxmax()])
    assert all(0 <= event["onset"] < event["offset"] for event in events) and len(events) > 0
    assert manifest.duplicated("sha256").sum() == 0


def test_scenes_are_clips_without_a_class(tmp_path):
    scenes = {"train": 3, "test": 2}
    manifest = prepare(
        "s", corpus("synthetic", classes=["Rain", "DogBark", "Bell"], scenes=scenes, seconds=1.0), tmp_path / "out"
    )
    own, others = manifest[manifest.label == ""], manifest[manifest.label != ""]
    assert own.split.value_counts().to_dict() == scenes and own.target.eq(-1).all() and others.target.ge(0).all()
    assert own.caption.str.contains(", then |, followed by |, after that ").all() and own.caption.equals(own.prompt)
    assert own.sha256.is_unique and own.source_group.is_unique
    assert json.loads(own.events.iloc[0])[0]["label"] in ("Rain", "DogBark", "Bell")


def test_a_miniature_audiocaps(tmp_path):
    how = {"clips_per_class": None, "scenes": {"train": 40, "val": 5, "test": 20}, "events": [1, 3], "zipf": 3.0}
    how |= {"classes": ["Rain", "DogBark", "Bell", "Frog", "Saw"], "held_out": ["Frog"], "captions": {"test": 5}}
    how |= {"seconds": 1.28}
    manifest = prepare("s", corpus("synthetic", **how), tmp_path / "out")
    assert manifest.split.value_counts().to_dict() == how["scenes"] and not has_classes(manifest)
    assert manifest.source_group.is_unique and manifest.prompt.equals(manifest.caption)
    heard = [sounds(events) for events in manifest.events]
    assert {len(parts) for parts in heard} == {1, 2, 3}
    for parts in heard:
        onsets = [part["onset"] for part in parts]
        assert onsets == sorted(onsets) and len({part["label"] for part in parts}) == len(parts)
        assert all(0 <= part["onset"] < part["offset"] <= 1.28 + 1e-3 for part in parts)
    of_split = {s: Counter(p["label"] for h in np.array(heard, object)[manifest.split == s] for p in h) for s in SPLITS}
    assert "Frog" not in of_split["train"] + of_split["val"] and of_split["test"]["Frog"] > 0
    assert of_split["train"]["Rain"] > 2 * of_split["train"]["Saw"]
    said = read_captions(tmp_path / "out", manifest)
    assert [len(set(own)) for own in said] == [5 if split == "test" else 1 for split in manifest.split]


def test_sounds_are_heard_where_the_manifest_says(tmp_path):
    how = {"clips_per_class": None, "scenes": {"train": 12}, "events": [1, 1], "classes": ["DoorKnock", "DogBark"]}
    manifest = prepare("s", corpus("synthetic", **how, ambience=0.0), tmp_path / "out")
    for wave, events in zip(read_waves(tmp_path / "out", manifest), manifest.events):
        (sound,) = sounds(events)
        inside = wave[int(sound["onset"] * RATE) : int(sound["offset"] * RATE) + 1]
        assert np.square(inside).sum() > 0.95 * np.square(wave).sum()


def test_a_clip_that_is_no_scene_has_no_sounds_in_turn():
    assert sounds("[]") == sounds('[{"onset": 0.1, "offset": 0.2}]') == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"held_out": ["Wind"]}, "held_out=.*name classes of the corpus, each once"),
        ({"held_out": ["Bell"]}, "leave at least 3 .the most events"),
        ({"prompt_template": "a {label}"}, "the corpus has no classes"),
        ({"scenes": {"train": 0}}, "above 0 for one"),
        ({"seconds": 0.9}, "seconds=0.9: scenes of up to 3 sounds need 1.0 s"),
    ],
)
def test_scenes_that_cannot_be_drawn_are_refused(changes, sentence):
    how = {"clips_per_class": None, "scenes": {"train": 2}, "classes": ["Rain", "DogBark", "Bell"], "seconds": 1.0}
    with pytest.raises(CorpusError, match=sentence):
        list_clips(corpus("synthetic", **(how | changes)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"clips_per_class": None}, "needs 'clips_per_class' or 'scenes'"),
        ({"zipf": 1.0}, "tell of 'scenes', of which there are none"),
        ({"scenes": {"train": 1}, "events": [3, 1]}, "least number of sounds first"),
        ({"scenes": {"train": 1}, "events": [0, 1]}, "greater than or equal to 1"),
    ],
)
def test_settings_of_scenes_that_do_not_fit_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        corpus("synthetic", **changes)


def test_synthetic_splits_grow_apart(tmp_path):
    small = prepare("s", corpus("synthetic", classes=["Rain", "DogBark"]), tmp_path / "small")
    counts = {"train": 3, "val": 2, "test": 1}
    large = prepare("l", corpus("synthetic", classes=["Rain"], clips_per_class=counts), tmp_path / "large")
    columns = ["split", "caption", "sha256", "events", "parameters"]
    small, large = small[small.label == "Rain"].set_index("id"), large.set_index("id")
    assert len(large) == 6 and large.loc[small.index, columns].equals(small[columns])


@pytest.mark.parametrize("kind", ["synthetic", "folder"])
def test_same_rows_and_bytes_whatever_the_jobs(tmp_path, kind):
    for i in range(20):
        noise(tmp_path / f"in/cat/{i}.wav", seconds=0.3)
    made = {"classes": ["Rain"], "clips_per_class": {"train": 20}}
    changes = made if kind == "synthetic" else {"root": tmp_path / "in"}
    alone = prepare("a", corpus(kind, **changes), tmp_path / "one")
    shared = prepare("b", corpus(kind, **changes, jobs=2), tmp_path / "two")
    assert alone.equals(shared) and len(alone) == 20
    files = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert len(files) == 22 and Path("captions.parquet") in files
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)


def test_waves_and_digest(tmp_path):
    settings, out = corpus("synthetic", classes=["Rain"], clips_per_class={"train": 5}), tmp_path / "out"
    manifest = prepare("s", settings, out)
    waves = read_waves(out, manifest)
    assert waves.shape == (5, 10240) and waves.dtype == np.float32 and np.abs(waves).max() <= 1
    batches = list(iter_waves(out, manifest, 2))
    assert [len(batch) for batch in batches] == [2, 2, 1] and np.array_equal(np.concatenate(batches), waves)
    assert np.array_equal(read_waves(out, manifest[::-1]), waves[::-1]) and len(read_waves(out, manifest[:0])) == 0
    assert np.array_equal(Waves(out, manifest)[[3, 0]].numpy(), waves[[3, 0]])
    assert digest(manifest[::-1]) == digest(manifest) != digest(manifest[1:])


def test_load_refuses_what_is_not_whole(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(CorpusError, match="prepare the corpus first"):
        load(out)
    manifest = prepare("s", corpus("synthetic", classes=["Rain"]), out)
    noise(out / manifest.path[0], rate=8000)
    with pytest.raises(CorpusError, match="8000 Hz, but the manifest says"):
        read_waves(out, manifest)
    (out / manifest.path[0]).unlink()
    with pytest.raises(CorpusError, match="1 files of it are missing"):
        load(out)
    manifest.drop(columns="sha256").to_parquet(out / "manifest.parquet")
    with pytest.raises(CorpusError, match=r"no columns \['sha256'\]"):
        load(out)


def test_captions_are_read_clip_by_clip(tmp_path):
    manifest = prepare("s", corpus("synthetic", classes=["Rain"]), tmp_path)
    assert read_captions(tmp_path, manifest[::-1]) == [[caption] for caption in manifest.caption[::-1]]
    write_captions(tmp_path, {"x": ["one", "two"]})
    with pytest.raises(CorpusError, match="no caption of 4 clips, first .*prepare the corpus again"):
        read_captions(tmp_path, manifest)
    (tmp_path / "captions.parquet").unlink()
    with pytest.raises(CorpusError, match="captions.parquet: no such file; .*prepare the corpus again"):
        read_captions(tmp_path, manifest)


def test_classes_of_a_manifest():
    rows = pd.DataFrame({"label": ["b", "", "a", "b", "c"], "target": [1, -1, 0, 1, 2], "id": list("vwxyz")})
    assert classes(rows).id.tolist() == ["x", "v", "z"] and has_classes(rows)
    assert classes(rows[1:2]).empty and not has_classes(rows[1:2])


def test_loudest_crop_keeps_the_event_inside():
    wave = 0.001 * np.random.default_rng(0).standard_normal(5 * RATE)
    wave[40000:44000] += np.sin(np.arange(4000))
    offset = loudest_offset(wave, 16000, RATE)
    assert 40000 - offset > 4000 and offset + 16000 - 44000 > 4000
    shaped, operations = shape_wave(wave.astype(np.float32), RATE, corpus("folder", "in", crop="loudest"))
    assert np.abs(shaped).max() > 0.9 and operations[0] == "cropped at 2.31 s"


@given(length=st.integers(1, 20000), offset=st.floats(-0.5, 0.5), fit=st.sampled_from(["repeat", "pad"]))
@settings(max_examples=40, deadline=None)
def test_shaped_waves_fit(length, offset, fit):
    wave = np.random.default_rng(length).uniform(-1, 1, length).astype(np.float32) + np.float32(offset)
    shaped, operations = shape_wave(wave, RATE, corpus("folder", "in", fit=fit))
    assert shaped.shape == (10240,) and np.abs(shaped).max() <= 1 and "DC removed" in operations
    if fit == "pad" and length < 10240:
        assert not shaped[length:].any() and abs(shaped.mean()) < 1e-4


def test_overshoot_is_scaled_and_said():
    square = np.sign(np.sin(np.arange(20000) / 7)).astype(np.float32)
    shaped, operations = shape_wave(square, 44100, corpus("folder", "in"))
    assert np.abs(shaped).max() == pytest.approx(0.9999) and operations[-1].endswith("against clipping")


@pytest.mark.parametrize("peak", [0.5, 1.0])
def test_clips_of_one_level(tmp_path, peak):
    noise(tmp_path / "in/cat/a.wav")
    soundfile.write(tmp_path / "in/cat/silent.wav", np.zeros(RATE), RATE)
    recorded = corpus("folder", tmp_path / "in", peak=peak, split_fractions={"train": 1.0})
    recorded = prepare("r", recorded, tmp_path / "r")
    made = prepare("s", corpus("synthetic", classes=["Rain", "DogBark"], peak=peak), tmp_path / "s")
    for folder, manifest in (("r", recorded[:1]), ("s", made)):
        peaks = np.abs(read_waves(tmp_path / folder, manifest)).max(axis=1)
        assert peaks == pytest.approx(np.full(len(manifest), peak), abs=1 / 32768)
        assert manifest.operations.str.contains(f"scaled by .* to a peak of {peak:g}").all()
    assert "peak" not in recorded.operations[1] and not read_waves(tmp_path / "r", recorded[1:]).any()
    with pytest.raises(ValueError, match="less than or equal to 1"):
        corpus("folder", tmp_path / "in", peak=1.5)


def test_real_esc10(shared, tmp_path):
    if not (shared / "data/ESC-10").is_dir():
        pytest.skip(f"no folder {shared / 'data/ESC-10'}: recordings are not at hand")
    folds = {"train": [1, 2, 3], "val": [], "test": [4]}
    settings = corpus("esc50", shared / "data/ESC-10", folds=folds, seconds=3.84, min_seconds=1.0)
    clips = list_clips(settings)
    assert len(clips) == 320 and len({clip["label"] for clip in clips}) == 10
    groups = {split: {c["source_group"] for c in clips if c["split"] == split} for split in ("train", "test")}
    assert len(groups["train"] | groups["test"]) == 247 and not groups["train"] & groups["test"]
    assert {clip["licence"] for clip in clips} == {"CC0", "CC-BY", "CC-Sampling+"}
    manifest = prepare("esc10", settings.model_copy(update={"classes": ["sneezing"]}), tmp_path / "out")
    assert len(manifest) == 32 and set(manifest.source_rate) == {44100} and sum(manifest.split == "test") == 8


def test_real_dcase_mini(shared, tmp_path):
    root = shared / "data/DCASE2023T7-mini"
    if not root.is_dir():
        pytest.skip(f"no folder {root}: recordings are not at hand")
    manifest = prepare("mini", corpus("dcase2023t7", root, seconds=3.84, fit="pad"), tmp_path / "out")
    assert len(manifest) == 77 and (manifest.groupby("label").size() == 11).all()
    assert all(row.startswith("DC removed; padded with zeros") for row in manifest.operations)
