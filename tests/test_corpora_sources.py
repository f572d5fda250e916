"""Layouts, splits, ids and prompts of corpora."""

from collections import Counter

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from made_corpora import RATE, corpus, dcase, esc50, noise, table

from foleylib.corpora.listing import list_clips, spoken
from foleylib.corpora.prepare import prepare
from foleylib.corpora.sources import DCASE_PROMPTS
from foleylib.corpora.splits import by_class, by_hash
from foleylib.corpora.synth.render import FOLEY
from foleylib.datasets.manifest import COLUMNS, CorpusError, captions, digest, read_waves

FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


def test_esc50_layout(tmp_path):
    manifest = prepare("esc", corpus("esc50", esc50(tmp_path / "esc")), tmp_path / "out")
    assert list(manifest.columns) == list(COLUMNS)
    assert list(manifest.id) == ["1-10-A-0", "2-11-A-1", "3-12-A-2", "3-13-A-3"]
    assert list(manifest.split) == ["train", "train", "test", "test"]
    assert list(manifest.target) == [0, 1, 0, 1] and list(manifest.source_group) == ["10", "11", "12", "13"]
    assert list(manifest.licence) == ["CC BY 3.0", "CC BY-NC 3.0"] * 2
    row = manifest.iloc[0]
    assert (row.rate, row.seconds, row.source_rate, row.source_path) == (RATE, 0.64, 22050, "audio/1-10-A-0.wav")
    assert row.source_seconds == pytest.approx(0.7) and (row.caption, row.prompt) == ("dog", "dog")
    assert row.operations == "resampled 22050->16000 (soxr HQ); cropped at 0.00 s; DC removed"
    info = soundfile.info(tmp_path / "out" / row.path)
    assert (info.frames, info.samplerate, info.channels, info.subtype) == (10240, RATE, 1, "PCM_16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["esc", "out"]


def test_esc50_refuses_a_source_in_two_folds(tmp_path):
    root = esc50(tmp_path / "esc", [(1, 10, "dog"), (2, 10, "dog"), (3, 12, "dog")])
    with pytest.raises(CorpusError, match=r"more than one fold: 10 \[1, 2\];"):
        prepare("esc", corpus("esc50", root), tmp_path / "out")


@pytest.mark.parametrize(
    "folds, message",
    [
        ({"train": [1], "test": [1]}, "each fold to one split"),
        ({"train": [1], "test": [9]}, r"no clips in folds \[9\]"),
        ({"train": []}, "each fold to one split"),
    ],
)
def test_folds_are_checked(tmp_path, folds, message):
    with pytest.raises(CorpusError, match=message):
        list_clips(corpus("esc50", esc50(tmp_path), folds=folds))


def test_folds_that_are_not_named_stay_out(tmp_path):
    clips = list_clips(corpus("esc50", esc50(tmp_path), folds={"train": [1], "test": [3]}))
    assert {clip["source_group"] for clip in clips} == {"10", "12", "13"}


def test_urbansound8k_layout(tmp_path):
    rows = [
        ("100-3-0-0.wav", 100, 1, "dog_bark"),
        ("100-3-0-1.wav", 100, 1, "dog_bark"),
        ("7-2-0-0.wav", 7, 3, "siren"),
    ]
    columns = ["slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class"]
    table(tmp_path / "us/metadata/UrbanSound8K.csv", columns, [[n, i, 0, 1, 1, f, 3, c] for n, i, f, c in rows])
    for name, _, fold, _ in rows:
        noise(tmp_path / f"us/audio/fold{fold}" / name, channels=2)
    settings = corpus("urbansound8k", tmp_path / "us", folds={"train": [1], "test": [3]}, seconds=0.96, fit="pad")
    manifest = prepare("us", settings, tmp_path / "out")
    assert list(manifest.split) == ["train", "train", "test"] and list(manifest.source_group) == ["100", "100", "7"]
    assert manifest.prompt[0] == "dog bark" and manifest.source_path[2] == "audio/fold3/7-2-0-0.wav"
    assert manifest.operations[0].startswith("mean of 2 channels; resampled")
    assert manifest.operations[0].endswith("DC removed; padded with zeros 0.70->0.96 s")
    assert not read_waves(tmp_path / "out", manifest)[:, 11200:].any()


FOLDERS = {
    "DogBark": "dog_bark",
    "Footstep": "footstep",
    "GunShot": "gunshot",
    "Keyboard": "keyboard",
    "MovingMotorVehicle": "moving_motor_vehicle",
    "Rain": "rain",
    "Sneeze_Cough": "sneeze_cough",
}


def test_dcase_layout_and_prompts(tmp_path):
    manifest = prepare("dcase", corpus("dcase2023t7", dcase(tmp_path / "in")), tmp_path / "out")
    assert len(manifest) == 21 and manifest.id.is_unique and "DogBark-000" in set(manifest.id)
    assert dict(zip(manifest.label, manifest.prompt)) == DCASE_PROMPTS
    assert dict(zip(manifest.label, manifest.target)) == {label: i for i, label in enumerate(FOLEY)}
    assert manifest.operations[0] == "cropped at 0.00 s; DC removed"


def test_the_challenges_evaluation_set_is_the_test_split(tmp_path):
    dcase(tmp_path / "in/dev")
    evaluation = dcase(tmp_path / "in/eval", 2)
    for label in DCASE_PROMPTS:  # as the challenge's evaluator has them
        (evaluation / label).rename(evaluation / f"{FOLDERS[label]}")
    settings = corpus("dcase2023t7", tmp_path / "in", split_fractions={"train": 0.6, "val": 0.4, "test": 0.0})
    manifest = prepare("dcase", settings, tmp_path / "out")
    test = manifest[manifest.split == "test"]
    assert len(manifest) == 35 and manifest.id.is_unique and len(test) == 14
    assert set(test.label) == set(DCASE_PROMPTS) and dict(zip(test.label, test.prompt)) == DCASE_PROMPTS
    assert "eval/dog_bark/000.wav" in set(test.source_path) and "eval-DogBark-000" in set(test.id)
    assert all(path.startswith("dev/") for path in manifest.source_path[manifest.split != "test"])
    alone = list_clips(corpus("dcase2023t7", tmp_path / "in/dev", split_fractions=settings.split_fractions))
    assert {clip["id"]: clip["split"] for clip in alone} == dict(
        zip(*[manifest[manifest.split != "test"][c] for c in ("id", "split")])
    )
    with pytest.raises(CorpusError, match="test is what the corpus itself gives to some clips; give it no share"):
        list_clips(corpus("dcase2023t7", tmp_path / "in", split_fractions={"train": 0.8, "test": 0.2}))
    (evaluation / "rain/000.wav").unlink()
    (evaluation / "rain/001.wav").unlink()
    with pytest.raises(CorpusError, match="eval/ has no sound of Rain"):
        list_clips(settings)


def test_dcase_refuses_a_missing_class(tmp_path):
    root = dcase(tmp_path / "in", 1)
    (root / "Rain/000.wav").unlink()
    with pytest.raises(CorpusError, match=r"\['Rain'\]"):
        list_clips(corpus("dcase2023t7", root))


def test_classes_choose_and_order(tmp_path):
    root = dcase(tmp_path / "in")
    clips = list_clips(corpus("dcase2023t7", root, classes=["Rain", "DogBark"]))
    assert {clip["label"]: clip["target"] for clip in clips} == {"Rain": 0, "DogBark": 1}
    assert len(list_clips(corpus("dcase2023t7", root, classes="foley"))) == 21
    with pytest.raises(CorpusError, match="Whale"):
        list_clips(corpus("dcase2023t7", root, classes=["Whale"]))


def test_prompts_override_template_overrides_default(tmp_path):
    settings = corpus(
        "dcase2023t7", dcase(tmp_path), prompt_template="This is a sound of {label}.", prompts={"Rain": "wet"}
    )
    prompts = {clip["label"]: clip["prompt"] for clip in list_clips(settings)}
    assert prompts["Rain"] == "wet" and prompts["MovingMotorVehicle"] == "This is a sound of moving motor vehicle."


def test_prompts_are_checked(tmp_path):
    with pytest.raises(CorpusError, match=r"prompts name \['X'\], but the classes are"):
        list_clips(corpus("dcase2023t7", dcase(tmp_path), prompts={"X": "x"}))


def test_a_relative_root_starts_at_the_working_directory(tmp_path, monkeypatch):
    dcase(tmp_path / "data/raw")
    monkeypatch.chdir(tmp_path)
    manifest = prepare("dcase", corpus("dcase2023t7", "data/raw"), tmp_path / "out")
    assert len(manifest) == 21 and manifest.source_path[0] == f"{manifest.label[0]}/{manifest.id[0][-3:]}.wav"


@pytest.mark.parametrize(
    "label, words",
    [("DogBark", "dog bark"), ("Sneeze_Cough", "sneeze cough"), ("sea_waves", "sea waves"), ("TVNoise", "tv noise")],
)
def test_spoken(label, words):
    assert spoken(label) == words


def test_folder_of_classes(tmp_path):
    for name in ("cat/a.wav", "cat/b.flac", "cow/c.ogg", "cow/.hidden.wav", "cow/notes.txt", "cow/a.wav"):
        path = tmp_path / "in" / name
        noise(path) if path.suffix != ".txt" else path.write_text("none")
    manifest = prepare("f", corpus("folder", tmp_path / "in", seed=3), tmp_path / "out")
    assert sorted(manifest.id) == ["cat-a", "cat-b", "cow-a", "cow-c"]
    assert manifest.groupby("source_group").split.nunique().max() == 1  # both a.wav together


def test_folder_with_captions_splits_and_groups(tmp_path):
    rows = [("x/one.wav", "a dog barks twice", "train", "r1"), ("x/two.wav", "rain on a roof", "test", "r2")]
    table(tmp_path / "in/metadata.csv", ["path", "caption", "split", "group"], rows)
    for path, *_ in rows:
        noise(tmp_path / "in" / path)
    manifest = prepare("f", corpus("folder", tmp_path / "in", split_fractions=None), tmp_path / "out")
    assert list(manifest.caption) == list(manifest.prompt) == [caption for _, caption, *_ in rows]
    assert list(manifest.split) == ["train", "test"] and list(manifest.source_group) == ["r1", "r2"]
    assert list(manifest.label) == ["", ""] and list(manifest.target) == [-1, -1]
    again = prepare("f", corpus("folder", tmp_path / "in/metadata.csv", split_fractions=None), tmp_path / "out")
    assert digest(again) == digest(manifest)


@pytest.mark.parametrize("wide", [False, True])
def test_several_captions_of_a_clip(tmp_path, wide):
    """A row for each caption, or a column for each: the same corpus."""
    said = {"b.wav": ["rain on a roof", "it pours"], "a.wav": ["a dog barks"], "c.wav": ["it pours", "water", "a tap"]}
    rows = [(path, caption) for path, own in said.items() for caption in own]
    columns = ["path", "caption"]
    if wide:
        columns, rows = (
            ["path", *(f"caption_{n}" for n in (1, 2, 3))],
            [(p, *own, "", "")[:4] for p, own in said.items()],
        )
    table(tmp_path / "in/metadata.csv", columns, rows)
    for path in said:
        noise(tmp_path / "in" / path)
    manifest = prepare("f", corpus("folder", tmp_path / "in", split_fractions={"train": 1.0}), tmp_path / "out")
    assert manifest.id.tolist() == ["a", "b", "c"] and set(manifest.label) == {""} and set(manifest.target) == {-1}
    assert captions(tmp_path / "out", manifest) == [said[f"{id}.wav"] for id in "abc"]
    assert list(manifest.caption) == list(manifest.prompt) == [said[f"{id}.wav"][0] for id in "abc"]
    assert captions(tmp_path / "out", manifest[1:2]) == [said["b.wav"]]
    with pytest.raises(CorpusError, match="no classes"):
        list_clips(corpus("folder", tmp_path / "in", prompt_template="a {label}"))


def test_labelled_clips_may_have_several_captions(tmp_path):
    rows = [("a.wav", "Dog", "a dog barks"), ("a.wav", "Dog", "woof"), ("b.wav", "Cat", "")]
    table(tmp_path / "metadata.csv", ["path", "label", "caption"], rows)
    settings = corpus("folder", tmp_path, split_fractions={"train": 1.0}, prompt_template="a {label}")
    cat, dog = list_clips(settings)
    assert (dog["captions"], dog["prompt"], dog["target"]) == (["a dog barks", "woof"], "a dog", 1)
    assert (cat["captions"], cat["prompt"], cat["target"]) == (["a cat"], "a cat", 0)


@pytest.mark.parametrize(
    "columns, rows, message",
    [
        (
            ["path", "label", "split", "group"],
            [("a.wav", "x", "train", "r"), ("b.wav", "x", "test", "r")],
            "more than one split",
        ),
        (["path", "label", "split"], [("a.wav", "x", "training")], r"holds \['training'\]"),
        (["path", "label"], [("a.wav", ""), ("", "x")], "rows 2, 3"),
        (["path", "label"], [("a.wav", "x"), ("a.wav", "x")], "more than once: a.wav;"),
        (["path", "caption"], [("a.wav", "x"), ("a.wav", "y"), ("a.wav", "x")], "more than once: a.wav 'x';"),
        (["path", "caption_1", "caption_2"], [("a.wav", "x", "x")], "more than once: a.wav 'x';"),
        (["path", "label", "caption"], [("a.wav", "l", "x"), ("a.wav", "l", "")], "and without one: a.wav;"),
        (
            ["path", "caption", "split"],
            [("a.wav", "x", "train"), ("a.wav", "y", "test")],
            r"rows 3 \(a.wav: split\) say of a clip what a row before does not",
        ),
        (["file", "label"], [("a.wav", "x")], "no column path"),
        (["path", "length"], [("a.wav", "1")], "caption or label"),
    ],
)
def test_folder_metadata_is_checked(tmp_path, columns, rows, message):
    table(tmp_path / "metadata.csv", columns, rows)
    shares = None if "split" in columns else {"train": 1.0}
    with pytest.raises(CorpusError, match=message):
        list_clips(corpus("folder", tmp_path, split_fractions=shares))


def test_ids_stay_apart_where_names_collide(tmp_path):
    for name in ("cat/a.wav", "cat/a.flac", "cat/A.ogg", "cat/b.wav"):
        noise(tmp_path / name)
    ids = [clip["id"] for clip in list_clips(corpus("folder", tmp_path, split_fractions={"train": 1.0}))]
    assert len({id.lower() for id in ids}) == 4 and "cat-b" in ids and "cat-a" not in ids


@pytest.mark.parametrize("kind, expected", [("esc50", "meta/esc50.csv"), ("urbansound8k", "UrbanSound8K.csv")])
@pytest.mark.parametrize("there", [True, False])
def test_wrong_layout_says_what_was_expected_and_found(tmp_path, kind, expected, there):
    root = tmp_path / ("here" if there else "nowhere")
    (tmp_path / "here/sounds").mkdir(parents=True)
    with pytest.raises(CorpusError, match=f"{expected}.*found: {'sounds/' if there else 'no such folder'}"):
        prepare("x", corpus(kind, root), tmp_path / "out")


@pytest.mark.parametrize("kind", ["dcase2023t7", "folder"])
def test_a_folder_without_sounds_is_refused(tmp_path, kind):
    with pytest.raises(CorpusError, match="expected .*found: an empty folder"):
        list_clips(corpus(kind, tmp_path))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"split_fractions": {"train": 0.5}}, "sum to 1"),
        ({"kind": "synthetic", "root": None, "clips_per_class": {"train": 0}}, "above 0 for one"),
        ({"split_fractions": {"train": 1.0 - 1e-9, "test": 1e-9}}, r"splits \['test'\] got no clip"),
    ],
)
def test_settings_are_checked(tmp_path, changes, message):
    noise(tmp_path / "in/cat/a.wav")
    with pytest.raises(CorpusError, match=message):
        prepare("x", corpus(**({"kind": "folder", "root": tmp_path / "in"} | changes)), tmp_path / "out")


@given(counts=st.lists(st.integers(5, 40), min_size=1, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_without_shares_every_class_is_in_every_split(counts, seed):
    clips = [
        {"source_group": f"{label}-{i // 2}", "label": str(label)}
        for label, n in enumerate(counts)
        for i in range(2 * n)
    ]
    split = by_class(clips, seed)
    for label, n in enumerate(counts):
        own = {(clip["source_group"], clip["split"]) for clip in split if clip["label"] == str(label)}
        count = Counter(name for _, name in own)
        assert len(own) == n, "a recording is in two splits"
        assert count["test"] == max(2, round(n / 5)) and count["val"] == count["test"] and count["train"] >= 1
    assert by_class(clips[::-1], seed)[::-1] == split


def test_without_shares_a_class_of_few_recordings_is_named(tmp_path):
    for label, count in {"cat": 5, "dog": 3, "eel": 1}.items():
        for i in range(count):
            noise(tmp_path / label / f"{label}{i}.wav")
    with pytest.raises(CorpusError, match="too few recordings to split: dog 3, eel 1; give at least 5 of each class"):
        list_clips(corpus("folder", tmp_path, split_fractions=None))
    kept = list_clips(corpus("folder", tmp_path, split_fractions=None, classes=["cat"]))
    assert Counter(clip["split"] for clip in kept) == {"test": 2, "val": 2, "train": 1}


@given(names=st.sets(st.text("abc123", min_size=1, max_size=6), min_size=4, max_size=60), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_hashed_splits_do_not_move(names, seed):
    clips = [{"source_group": name} for name in sorted(names)]
    split = {c["source_group"]: c["split"] for c in by_hash(clips, FRACTIONS, seed)}
    fewer = by_hash(clips[::2], FRACTIONS, seed)
    assert all(split[clip["source_group"]] == clip["split"] for clip in fewer)


def test_hashed_splits_keep_the_shares():
    clips = by_hash([{"source_group": str(i)} for i in range(5000)], FRACTIONS, 1)
    share = np.mean([clip["split"] == "train" for clip in clips])
    assert abs(share - 0.8) < 4 * np.sqrt(0.16 / 5000)
