"""AudioCaps and AudioSet, and what WavCaps shares with them: published lists, whose sounds lie where each one's downloader put them."""

import pytest
from made_corpora import AUDIOCAPS, audiocaps, audioset, corpus, noise, table, wavcaps

from foleylib.corpora.listing import list_clips
from foleylib.corpora.prepare import prepare
from foleylib.corpora.sources import LICENCES, READERS
from foleylib.datasets.manifest import CorpusError, captions
from foleylib.params.corpora import Corpus

MAKERS = {"audiocaps": audiocaps, "audioset": audioset, "wavcaps": wavcaps}
TRAIN = {"train": 1.0}


def test_audiocaps_splits_and_five_captions_in_the_order_of_their_rows(tmp_path):
    settings = corpus("audiocaps", audiocaps(tmp_path / "in"), split_fractions=None, folds=None)
    manifest = prepare("audiocaps", settings, tmp_path / "out")
    assert manifest.groupby("split").id.agg(list).to_dict() == {
        "train": ["4SilByYDLs_0", "r1nicOVtvkQ_130"],
        "val": ["vfY_TJq7n_U_30"],
        "test": ["Yab_-cdefgh_0", "q-second_id_10"],
    }
    said = captions(tmp_path / "out", manifest[manifest.split == "test"])
    assert said == [[f"{video} {i}" for i in range(5)] for video in ("Yab_-cdefgh", "q-second_id")]
    assert manifest[manifest.split != "train"].prompt.tolist() == ["said 0", "Yab_-cdefgh 0", "q-second_id 0"]
    assert set(manifest.label) == {""} and "-4SilByYDLs" in set(manifest.source_group)
    assert manifest.licence[0].startswith("captions: academic purposes only (AudioCaps); audio: rights")
    assert not (tmp_path / "out/left_out.csv").exists()


@pytest.mark.parametrize(
    "named, folder",
    [
        ("{video}.wav", "audio"),
        ("{video}.flac", ""),
        ("Y{video}.wav", "{split}"),
        ("{video}_{start}.wav", "wavs/{split}"),
        ("{video}_{start}.000.wav", "audio"),
        ("Y{video}_{ms}.mp3", "audio"),
    ],
)
def test_usual_names_of_an_excerpt(tmp_path, named, folder):
    clips = list_clips(corpus("audiocaps", audiocaps(tmp_path, named, folder), split_fractions=None))
    assert [clip["id"] for clip in clips][2:] == ["vfY_TJq7n_U_30", "Yab_-cdefgh_0", "q-second_id_10"]
    where = folder.format(split="val") + "/" * bool(folder)
    assert clips[2]["source_path"] == where + named.format(video="vfY_TJq7n_U", start=30, ms=30000)


def test_the_published_folder_and_repeated_captions(tmp_path):
    """The repository keeps its tables in dataset/; its val.csv gives some clips one caption twice, and counts five."""
    audiocaps(tmp_path)
    (tmp_path / "dataset").mkdir()
    for split in AUDIOCAPS:
        (tmp_path / f"{split}.csv").rename(tmp_path / f"dataset/{split}.csv")
    rows = [(i, "vfY_TJq7n_U", 30, said) for i, said in enumerate("aabca")]
    table(tmp_path / "dataset/val.csv", ["audiocap_id", "youtube_id", "start_time", "caption"], rows)
    (clip,) = list_clips(corpus("audiocaps", tmp_path, lists=["val"]))
    assert clip["captions"] == list("aabca") and clip["split"] == "val"


@pytest.mark.parametrize(
    "rows, message",
    [
        (
            [(1, "a", 0, "x"), (1, "a", 0, "y")],
            r"rows 3 \(a at 0 s\) have what a row before, or another list, has; take",
        ),
        ([(1, "r1nicOVtvkQ", 130, "x")], r"val.csv: rows 2 \(r1nicOVtvkQ at 130 s\) have what"),
        ([(1, "a", "soon", "x")], r"rows 2 \('soon'\) have a start_time that is no number of s"),
        ([(1, "a", "nan", "x")], r"rows 2 \('nan'\) have a start_time"),
        ([(1, "a", "-1", "x")], r"rows 2 \('-1'\) have a start_time"),
        ([(1, "a", "1e9", "x")], r"rows 2 \('1e9'\) have a start_time"),
        ([(1, "a", 0, "x", "y")], "val.csv: rows have other than the 4 fields of the header, in line 2;"),
        ([(1, "a", 0, "x" * 20000)], "val.csv: fields have more than 10000 characters, in line 2;"),
        ([(1, "a", 0, "")], r"rows 2 \(caption\) hold nothing"),
        (
            [(i, "", 0, "x") for i in range(30)],
            r"rows 2 \(youtube_id\), .*, 21 \(youtube_id\) and 10 more hold nothing",
        ),
        ([(1, "a", 0)], "val.csv: rows have other than the 4 fields of the header, in line 2;"),
        ([], "no rows"),
    ],
)
def test_tables_of_audiocaps_are_checked(tmp_path, rows, message):
    audiocaps(tmp_path)
    table(tmp_path / "val.csv", ["audiocap_id", "youtube_id", "start_time", "caption"], rows)
    with pytest.raises(CorpusError, match=message):
        list_clips(corpus("audiocaps", tmp_path))


def test_two_excerpts_of_a_video_need_their_starts_in_the_names(tmp_path):
    rows = [(1, "abc", 0, "x"), (2, "abc", 10, "y")]
    table(tmp_path / "train.csv", ["audiocap_id", "youtube_id", "start_time", "caption"], rows)
    noise(tmp_path / "abc.wav")
    noise(tmp_path / "abc_10.wav")
    settings = corpus("audiocaps", tmp_path, lists=["train"], absent="skip")
    assert [clip["source_path"] for clip in list_clips(settings)] == ["abc_10.wav"]


def test_one_clip_in_two_files_is_refused(tmp_path):
    audiocaps(tmp_path)
    noise(tmp_path / "48k/r1nicOVtvkQ_130.wav")
    with pytest.raises(
        CorpusError, match="several files, 48k/r1nicOVtvkQ_130.wav, audio/r1nicOVtvkQ_130.wav; keep one"
    ):
        list_clips(corpus("audiocaps", tmp_path))


def test_audioset_eval_is_test_and_labels_are_the_caption(tmp_path):
    settings = corpus("audioset", audioset(tmp_path / "in"), split_fractions=TRAIN)
    manifest = prepare("audioset", settings, tmp_path / "out")
    assert manifest.groupby("split").source_group.agg(set).to_dict() == {
        "train": {"--PJHxphWEs", "--ZhevVpy1s", "---1_cCGK4M"},
        "test": {"--4gqARaEJE", "--BfvyPmVMo"},
    }
    said = dict(zip(manifest.source_group, manifest.caption))
    assert said["--PJHxphWEs"] == "Speech, Gush" and said["--4gqARaEJE"] == "Domestic animals, pets, Speech"
    assert set(manifest.label) == {""} and manifest.licence[0].startswith("labels: CC BY 4.0 (AudioSet, Google)")


@pytest.mark.parametrize(
    "lists, splits", [(["eval"], ["test", "test"]), (["balanced"], ["train", "train"]), (["unbalanced"], ["train"])]
)
@pytest.mark.parametrize("named", ["{video}_{start}.wav", "Y{video}.flac", "{video}_{ms}_{end_ms}.wav"])
def test_lists_of_audioset(tmp_path, lists, splits, named):
    clips = list_clips(corpus("audioset", audioset(tmp_path, named), split_fractions=TRAIN, lists=lists))
    assert [clip["split"] for clip in clips] == splits


@pytest.mark.parametrize(
    "line, message",
    [
        ('ab, 0.000, 10.000, "/m/none"', r"rows 6 \(/m/none\) have labels that class_labels_indices.csv has not"),
        ('--4gqARaEJE, 0.000, 10.000, "/m/068hy"', r"rows 6 \(--4gqARaEJE\) have what a row before"),
        ("ab, 0.000", r"rows 6 \(ab, 0.000\) are not YTID, start_seconds"),
        ('ab, x, 10.000, "/m/068hy"', r"rows 6 \('x'\) have a start_seconds that is no number"),
        ("ab, 0.000\n" * 30, r"rows 6 \(ab, 0.000\), .* and 10 more are not YTID"),
    ],
)
def test_lists_of_audioset_are_checked(tmp_path, line, message):
    root = audioset(tmp_path)
    with open(root / "eval_segments.csv", "a") as file:
        file.write(line + "\n")
    with pytest.raises(CorpusError, match=message):
        list_clips(corpus("audioset", root, split_fractions=TRAIN))


@pytest.mark.parametrize("kind", MAKERS)
def test_absent_sounds_are_refused_or_counted_and_listed(tmp_path, kind, capsys):
    root = MAKERS[kind](tmp_path / "in")
    gone = sorted(root.rglob("*.flac" if kind == "wavcaps" else "*.wav"))[
        -2
    ]  # neither blacklisted nor alone in a split
    gone.unlink()
    settings = corpus(kind, root, split_fractions=TRAIN)
    with pytest.raises(CorpusError, match=r"1 of \d listed clips cannot be taken, such as .* or set `absent: skip`"):
        prepare(kind, settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    manifest = prepare(kind, settings.changed(absent="skip"), tmp_path / "out")
    assert gone.name not in {path.rsplit("/", 1)[-1] for path in manifest.source_path}
    assert "1 no sound file" in capsys.readouterr().out
    rows = (tmp_path / "out/left_out.csv").read_text().splitlines()
    assert rows[0] == "source_path,split,reason" and sum(row.endswith(",no sound file") for row in rows) == 1


def test_a_split_that_lost_all_its_clips_is_refused(tmp_path):
    root = audiocaps(tmp_path)
    (root / "audio/vfY_TJq7n_U_30.wav").unlink()
    with pytest.raises(CorpusError, match="no clip of val has a sound; .* take the list out of `lists`"):
        list_clips(corpus("audiocaps", root, absent="skip"))
    assert len(list_clips(corpus("audiocaps", root, lists=["train", "test"]))) == 4


@pytest.mark.parametrize("kind", MAKERS)
def test_no_sound_at_all_is_refused(tmp_path, kind):
    root = MAKERS[kind](tmp_path)
    for path in [*root.rglob("*.wav"), *root.rglob("*.flac")]:
        path.unlink()
    with pytest.raises(CorpusError, match="listed clips cannot be taken, .* or correct `root`"):
        list_clips(corpus(kind, root, absent="skip", split_fractions=TRAIN))


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("audiocaps", "train.csv of AudioCaps .* which only YouTube has"),
        ("audioset", "class_labels_indices.csv"),
        ("wavcaps", "the sounds of WavCaps .huggingface.co/datasets/cvssp/WavCaps"),
    ],
)
def test_what_cannot_be_fetched_is_said(tmp_path, kind, expected):
    with pytest.raises(CorpusError, match=f"expected .*{expected}.*found: no such folder"):
        prepare("x", corpus(kind, tmp_path / "none"), tmp_path / "out")


def test_a_list_of_audioset_that_is_not_there(tmp_path):
    (audioset(tmp_path) / "unbalanced_train_segments.csv").unlink()
    with pytest.raises(
        CorpusError, match="expected unbalanced_train_segments.csv .* name the lists you have in `lists`"
    ):
        list_clips(corpus("audioset", tmp_path, split_fractions=TRAIN))


@pytest.mark.parametrize(
    "kind, changes, message",
    [
        (
            "audiocaps",
            {"lists": ["eval"]},
            r"lists \['eval'\]: those of kind 'audiocaps' are \['train', 'val', 'test'\]",
        ),
        ("audioset", {"lists": []}, "those of kind 'audioset'"),
        ("folder", {"lists": ["train"]}, "a corpus of kind 'folder' has none"),
        ("audioset", {"sources": ["FreeSound"]}, "no 'sources' or 'blacklists'"),
        ("folder", {"blacklists": []}, "no 'sources' or 'blacklists'"),
        ("wavcaps", {"sources": []}, "name one, or leave it out"),
        ("folder", {"absent": "skip"}, "every clip of a corpus of kind 'folder' must be there"),
        ("wavcaps", {"split_fractions": None}, "a corpus of kind 'wavcaps' needs 'split_fractions'"),
    ],
)
def test_settings_belong_to_their_kinds(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        corpus(kind, "data/raw", **changes)


def test_every_kind_has_a_licence():
    kinds = set(Corpus.model_fields["kind"].annotation.__args__)
    assert kinds == set(LICENCES) == set(READERS) | {"synthetic"}
    assert [kind for kind, (_, commercial) in LICENCES.items() if commercial] == ["synthetic"]
