"""Scores of what cannot be scored, or would mislead: each is refused in one sentence, or said on the card."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from networks import Levels
from test_folders import BOTH, OPTIONS, by_class, clip, folder

from foleylib.commands import score as scoring
from foleylib.commands.main import main
from foleylib.evaluation.folders import Options, score_folder
from foleylib.evaluation.texts import cut, tell_of_cut
from foleylib.networks.embedders import Embedder

NOISE = np.linspace(-1, 1, 3200)
NET = {"net": BOTH["net"]}


def contents(root):
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))}


class Broken(Levels):
    """Its embedding of a loud clip is not a number; of a quiet one it is 0."""

    def forward(self, waves):
        outputs = super().forward(waves)
        loud = waves.abs().mean(dim=1, keepdim=True) > 0.2
        return {name: torch.where(loud, torch.full_like(values, np.nan), values) for name, values in outputs.items()}

    def embed_text(self, texts):
        return torch.zeros(len(texts), 4)


DEAF = {"deaf": Embedder("cnn14", 4, 16000, "f" * 64, Levels())}
BROKEN = {"broken": Embedder("cnn14", 4, 16000, "f" * 64, Broken())}


# ---- folders


def one_more_class(root):
    by_class(root / "mine", 0, ("DogBark", "Rain"))
    by_class(root / "real", 10, ("Rain",))


def alone_in_its_class(root, side):
    for name, seed in (("mine", 0), ("real", 10)):
        by_class(root / name, seed)
    for path in sorted((root / side / "Rain").iterdir())[1:]:
        path.unlink()


def one_class_twice(root):
    by_class(root / "mine", 0, ("DogBark", "dog_bark"))
    by_class(root / "real", 10, ("DogBark",))


def class_without_a_name(root):
    by_class(root / "mine", 0, ("--", "Rain"))
    by_class(root / "real", 10, ("Rain",))


def other_scripts(root):
    by_class(root / "mine", 0, ("犬", "雨"))
    by_class(root / "real", 10, ("犬",))


def equal_reference(root):
    folder(root / "mine", 0)
    for i in range(6):
        clip(root / "real" / f"{i}.wav", 5)


def equal_class(root):
    by_class(root / "mine", 0)
    by_class(root / "real", 10)
    for path in (root / "real" / "Rain").iterdir():
        clip(path, 5)


def with_loud(root):
    folder(root / "mine", 0)
    clip(root / "mine" / "loud.wav", 3, level=0.5)
    folder(root / "real", 1)


def statistics_of_classes_and_bare_clips(root):
    folder(root / "mine", 0)
    (root / "real" / "rain").mkdir(parents=True)
    (root / "real" / "rain" / "gt_embedding.pkl").write_bytes(b"no pickle")


FOLDERS = [
    ("class-missing-in-the-reference", one_more_class, {}, "the reference has no class DogBark; it has rain"),
    ("class-in-another-script", other_scripts, {}, "the reference has no class 雨; it has 犬"),
    ("one-generated-clip-of-a-class", lambda r: alone_in_its_class(r, "mine"), {}, "class Rain has a single generated"),
    ("one-real-clip-of-a-class", lambda r: alone_in_its_class(r, "real"), {}, "class Rain has a single reference clip"),
    ("one-class-twice", one_class_twice, {}, "mine: DogBark and dog_bark are one class by their names"),
    ("class-without-letters", class_without_a_name, {}, "mine/--: a class needs a name with letters or digits"),
    ("one-clip", lambda r: (folder(r / "mine", 0, n=1), folder(r / "real", 1)), {}, "mine: holds a single clip"),
    ("one-real-clip", lambda r: (folder(r / "mine", 0), folder(r / "real", 1, n=1)), {}, "real: holds a single clip"),
    ("no-clips", lambda r: (folder(r / "mine", 0), (r / "real").mkdir()), {}, "real: no sounds"),
    ("equal-real-clips", equal_reference, {}, "all clips, by windows: bandwidth=0.0: at least half of the reference"),
    ("equal-real-clips-of-a-class", equal_class, {}, "class Rain, by windows: bandwidth=0.0: at least half"),
    ("not-finite", with_loud, {"evaluators": BROKEN}, "mine/loud.wav: its embedding by broken is not finite"),
    (
        "broken-statistics",
        statistics_of_classes_and_bare_clips,
        {},
        "real/rain/gt_embedding.pkl: not the challenge's statistics",
    ),
]
SAME = [
    ("no-evaluators", {"evaluators": {}}, "evaluators is empty"),
    ("paired-by-other-names", {"paired": True, "ours": "other"}, "paired: .*real has not one clip of the same name"),
    (
        "captions-unread",
        {"evaluators": DEAF, "captions": {}},
        "but none of deaf reads texts: add one",
    ),
    ("no-captions", {"captions": {}}, "captions has none for 30 clips of .*: 00, 01, .*, 19 and 10 more"),
    (
        "empty-caption",
        {"captions": {f"{i:02d}": " " * (i == 3) or "" if i == 3 else "x" for i in range(30)}},
        "empty text .* 03",
    ),
    ("captions-of-length-0", {"evaluators": BROKEN, "captions": {f"{i:02d}": "x" for i in range(30)}}, "length 0"),
    ("no-draws", {"options": Options(bootstrap=0)}, "options.bootstrap is 0: give a whole number of 1 or more"),
    ("half-a-draw", {"options": Options(bootstrap=1.5)}, "options.bootstrap is 1.5"),
    ("no-splits", {"options": Options(splits=0)}, "options.splits is 0"),
    ("seed-below-0", {"options": Options(seed=-1)}, "options.seed is -1"),
    ("true-seed", {"options": Options(seed=True)}, "options.seed is True"),
    ("level-0", {"options": Options(level=0.0)}, "options.level is 0.0"),
    ("level-95", {"options": Options(level=95)}, "options.level is 95: give a share between 0 and 1"),
    ("level-nan", {"options": Options(level=np.nan)}, "options.level is nan"),
]


def refused_untouched(root, message, *, evaluators=BOTH, ours="mine", options=OPTIONS, **more):
    before = contents(root)
    with pytest.raises(ValueError, match=message):
        score_folder(root / ours, root / "real", evaluators, options=options, **more)
    assert contents(root) == before


@pytest.mark.parametrize(("make", "more", "message"), [pytest.param(*row[1:], id=row[0]) for row in FOLDERS])
def test_folders_that_no_score_is_of(make, more, message, tmp_path):
    make(tmp_path)
    refused_untouched(tmp_path, message, **more)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    root = tmp_path_factory.mktemp("three")
    folder(root / "mine", 0, n=30), folder(root / "other", 2, names="x{:02d}.wav"), folder(root / "real", 1)
    return root


@pytest.mark.parametrize(("more", "message"), [pytest.param(*row[1:], id=row[0]) for row in SAME])
def test_calls_that_no_score_is_of(more, message, three):
    refused_untouched(three, message, **more)


# ---- what the command is told


CAPTIONS = [
    ("latin-1", "file,caption\n0,Gebr\u00fcll\n".encode("latin-1"), "said.csv: byte 19 is no UTF-8"),
    ("utf-16", "file,caption\n".encode("utf-16"), "said.csv: byte 0 is no UTF-8"),
    ("nul", b"file,caption\n0\0,x\n", "said.csv: cannot be read as a CSV .character 14 is NUL"),
    ("empty", b"", "said.csv: cannot be read as a CSV .it is empty"),
    ("no-caption", b"file,text\n0,x\n", "said.csv: has no column caption but file, text"),
    ("semicolons", b"file;caption\n0;x\n", "said.csv: has no column file, caption"),
    ("column-twice", b"file,caption,file\n0,x,1\n", "said.csv: has the column file twice"),
    ("comma-without-quotes", b"file,caption\n0,rain, wind\n", "other than the 2 fields of the header, in line 2"),
    ("every-row-too-long", b"file,caption\n0,rain,wind\n1,a,b\n", "in line 2, 3; give a CSV of file and caption"),
    ("short-rows", b"file,caption\n" + b"0\n" * 30, "in line 2, 3, .*, 21 and 10 more"),
    ("open-quotes", b'file,caption\n0,"rain\n', "said.csv: cannot be read as a CSV .line 2"),
    ("long-field", b"file,caption\n0," + b"x" * 10_001 + b"\n", "fields have more than 10000 characters, in line 2"),
    ("no-file", b"file,caption\n,rain\n", "said.csv: a row has no file"),
    ("twice", b"file,caption\n0.wav,x\n0.flac,y\n", "said.csv: 0 stands there twice"),
    ("none-of-them", b"file,caption\n0,rain\n", "captions has none for 30 clips"),
]


@pytest.mark.parametrize(("content", "message"), [pytest.param(*row[1:], id=row[0]) for row in CAPTIONS])
def test_captions_that_are_none(content, message, three, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "evaluators", lambda device: BOTH)
    (tmp_path / "said.csv").write_bytes(content)
    before = contents(tmp_path)
    told = ["--captions", str(tmp_path / "said.csv"), "-o", str(tmp_path / "out")]
    assert main(["score", str(three / "mine"), "--against", str(three / "real"), *told]) == 1
    out, said = capsys.readouterr()
    assert re.search(message, said) and said.count("\n") == 1 and not out and contents(tmp_path) == before


@pytest.mark.parametrize("place", ["file", "file/deep"])
def test_scores_are_not_computed_for_a_place_that_takes_none(place, three, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "evaluators", lambda device: pytest.fail("scored before the place was looked at"))
    (tmp_path / "file").write_text("x")
    assert main(["score", str(three / "mine"), "--against", str(three / "real"), "-o", str(tmp_path / place)]) == 1
    assert "file is no folder: give another place to write to" in capsys.readouterr().err


def test_the_command_tells_the_remarks(three, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "evaluators", lambda device: NET)
    assert main(["score", str(three / "mine"), "--against", str(three / "mine"), "--bootstrap", "5"]) == 0
    said = capsys.readouterr().out
    assert "Note: 30 of 30 generated clips are clips of the reference, sample for sample." in said
    assert "Note: 5 draws are too few for intervals of level 0.95, whose bounds need 40" in said


# ---- what is scored, and said on the card


def equal_clips(root):
    folder(root / "mine", 0), folder(root / "real", 1)
    (root / "mine" / "again.wav").write_bytes((root / "mine" / "00.wav").read_bytes())


def equal_real_clips(root):
    folder(root / "mine", 0), folder(root / "real", 1)
    (root / "real" / "again.wav").write_bytes((root / "real" / "00.wav").read_bytes())


def a_shared_clip(root):
    folder(root / "mine", 0), folder(root / "real", 1)
    wave, rate = soundfile.read(root / "real" / "03.wav", dtype="float32")
    soundfile.write(root / "mine" / "shared.flac", wave, rate, subtype="PCM_16")


def with_wave(root, wave):
    folder(root / "mine", 0), folder(root / "real", 1)
    soundfile.write(root / "mine" / "other.wav", wave, 16000, subtype="FLOAT")


def left_out(root):
    folder(root / "mine", 0), folder(root / "real", 1)
    for name in ("song.m4a", "clips.csv"):
        (root / "mine" / name).write_bytes(b"x")
    (root / "mine" / "older" / "deep").mkdir(parents=True)


def empty_class(root):
    by_class(root / "mine", 0), by_class(root / "real", 10)
    (root / "mine" / "Keyboard").mkdir()


def few_of_a_class(root):
    by_class(root / "mine", 0), by_class(root / "real", 10)
    for path in (root / "real" / "Rain").glob("0[2-9].wav"):
        path.unlink()


FEW = (
    "net: the smallest set that is scored has {} embeddings of 4 dimensions. With so few, Fréchet distances (FAD, FD) lie too "
    "high: compare them at equal numbers of clips alone."
)
CARDS = [
    ("equal", equal_clips, "2 of 11 generated clips are equal to another one, sample for sample."),
    ("equal-real", equal_real_clips, "2 of 11 reference clips are equal to another one, sample for sample."),
    ("shared", a_shared_clip, "1 of 11 generated clips are clips of the reference, sample for sample."),
    (
        "beyond-full-scale",
        lambda r: with_wave(r, NOISE * 100),
        "1 of 11 generated clips go beyond full scale, up to 100.",
    ),
    ("left-out", left_out, "mine also holds what is not scored: older/, older/deep/, song.m4a."),
    ("empty-class", empty_class, "mine also holds what is not scored: Keyboard/."),
    (
        "class-of-the-reference-alone",
        lambda r: (by_class(r / "mine", 0, ("Rain",)), by_class(r / "real", 10, ("Rain", "Saw"))),
        "Classes without generated clips, which are not scored: Saw.",
    ),
    (
        "classes-of-mine-alone",
        lambda r: (by_class(r / "mine", 0), folder(r / "real", 1)),
        "The reference clips have no classes: they are scored as one set.",
    ),
    (
        "classes-of-the-reference-alone",
        lambda r: (folder(r / "mine", 0), by_class(r / "real", 10)),
        "The generated clips have no classes: they are scored as one set.",
    ),
    (
        "other-rate",
        lambda r: (folder(r / "mine", 0, rate=16000), folder(r / "real", 1, rate=8000)),
        "The generated clips have 16000 Hz, the reference 8000 Hz: scores also hear what only the higher rate can hold.",
    ),
    (
        "other-length",
        lambda r: (folder(r / "mine", 0, seconds=0.2), folder(r / "real", 1, seconds=lambda i: 0.2 + 0.1 * (i % 2))),
        "The generated clips last 0.20 s, those of the reference 0.20 to 0.30 s: scores also hear that.",
    ),
    (
        "few",
        lambda r: (folder(r / "mine", 0, n=4), folder(r / "real", 1)),
        FEW.format("4 generated"),
    ),
    (
        "few-of-a-class",
        few_of_a_class,
        FEW.format("2 reference"),
    ),
    (
        "draws",
        lambda r: (folder(r / "mine", 0), folder(r / "real", 1)),
        "10 draws are too few for intervals of level 0.95, whose bounds need 40: take them as rough.",
    ),
]


@pytest.mark.parametrize(("make", "remark"), [pytest.param(*row[1:], id=row[0]) for row in CARDS])
def test_what_misleads_is_on_the_card(make, remark, tmp_path):
    make(tmp_path)
    table, card = score_folder(tmp_path / "mine", tmp_path / "real", NET, options=OPTIONS)
    assert remark in card["remarks"] and np.isfinite(table.value).all()


def test_a_card_of_plain_sets_has_no_remarks(tmp_path):
    folder(tmp_path / "mine", 0), folder(tmp_path / "real", 1)
    told = score_folder(tmp_path / "mine", tmp_path / "real", NET, options=Options(bootstrap=40))[1]
    assert told["remarks"] == []
    captions = {f"{i:02d}": "x" for i in range(10)} | {"gone": "y"}
    told = score_folder(tmp_path / "mine", tmp_path / "real", NET, captions=captions, options=Options(bootstrap=40))[1]
    assert told["remarks"] == ["Captions of no clip: gone."]


class Words:
    """A tokenizer of words, of which four are read."""

    model_max_length = 4

    def __call__(self, texts, *, truncation, padding, verbose):
        assert not (truncation or padding or verbose)
        return {"input_ids": [text.split() for text in texts]}


class ReadingWords(Broken):
    def __init__(self):
        super().__init__()
        self.clap = SimpleNamespace(tokenizer=Words(), window=10 * 16000, rate=16000)

    def embed_text(self, texts):
        return torch.ones(len(texts), 4)


def test_captions_that_are_cut_are_on_the_card(three, capsys):
    words = {"words": Embedder("clap", 4, 16000, "f" * 64, ReadingWords())}
    captions = {f"{i:02d}": "rain on a tin roof" if i % 2 else "rain" for i in range(30)}
    card = score_folder(three / "mine", three / "real", words, captions=captions, options=OPTIONS)[1]
    told = "1 of 2 texts are longer than the 4 tokens that are read, and lose their end, first 'rain on a tin roof' with 5."
    assert f"words: {told}" in card["remarks"]
    assert cut(Words(), ["rain on a roof"]) == cut(Words(), []) == cut(Words(), ["rain on a tin roof"], most=5) == []
    tell_of_cut("corpus x, text tokens", Words(), ["rain on a"], 2)
    assert "Note: corpus x, text tokens: 1 of 1 texts are longer than the 2 tokens" in capsys.readouterr().out
