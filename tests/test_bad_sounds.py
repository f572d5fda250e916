"""Sounds and tables of others that cannot be used: each is refused in a sentence, and nothing is changed."""

import os
import shutil
import struct

import numpy as np
import pytest
import soundfile
from made_corpora import corpus, dcase, esc50, noise

from foleylib.audio.io import AudioError, read
from foleylib.commands.main import main
from foleylib.corpora.listing import list_clips
from foleylib.corpora.prepare import prepare
from foleylib.datasets.manifest import CorpusError
from foleylib.evaluation.clips import find


@pytest.fixture
def folder(tmp_path):
    """Two classes of five sounds."""
    for label in ("DogBark", "rain"):
        for i in range(5):
            noise(tmp_path / "sounds" / label / f"{label}{i}.wav", seconds=0.3)
    return tmp_path / "sounds"


def state(folder):
    return {path: path.lstat().st_mtime_ns for path in sorted(folder.parent.rglob("*"))}


def of_rate(rate):
    def make(path):
        noise(path)
        content = bytearray(path.read_bytes())
        content[24:28] = struct.pack("<I", rate)
        path.write_bytes(content)

    return make


def cut(name, kept):
    def make(path):
        other = noise(path.with_name(name), seconds=6)
        other.write_bytes(other.read_bytes()[: int(kept * other.stat().st_size)])
        return other

    return make


def cut_as(form):
    """A file of another container of libsndfile's, called WAV, without its last third."""

    def make(path):
        soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(96000), 16000, "PCM_16", format=form)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])

    return make


def holds(value):
    def make(path):
        wave = np.zeros(8000, dtype=np.float32)
        wave[100] = value
        soundfile.write(path, wave, 16000, subtype="FLOAT")

    return make


def flac_that_promises(path):
    other = noise(path.with_name("x.flac"))
    content = bytearray(other.read_bytes())
    content[21] |= 0x0F  # the upper bits of the number of samples, which becomes 2^36 and some
    content[22:26] = b"\xff\xff\xff\xff"
    other.write_bytes(content)
    return other


def ogg_without_last_page(path):
    """An Ogg file that ends where a page does, as a download that was broken off by chance."""
    other = noise(path.with_name("x.ogg"), seconds=4.0)
    content = other.read_bytes()
    other.write_bytes(content[: content.rfind(b"OggS")])
    assert len(soundfile.read(other)[0])  # libsndfile has nothing to say of it
    return other


SOUNDS = [
    pytest.param(lambda p: p.write_bytes(b""), "cannot be read as audio", id="zero bytes"),
    pytest.param(lambda p: p.write_text("dear sir"), "cannot be read as audio", id="text called wav"),
    pytest.param(lambda p: p.write_bytes(b"RIFF\xff\xff\xff\xffWAVE"), "cannot be read as audio", id="header alone"),
    pytest.param(lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" * 9), "cannot be read as audio", id="picture"),
    pytest.param(lambda p: soundfile.write(p, np.zeros(0), 16000), "holds no samples", id="no samples"),
    pytest.param(lambda p: p.mkdir(), "a folder, no sound file", id="folder"),
    pytest.param(os.mkfifo, "a pipe or a device, no sound file", id="pipe"),
    pytest.param(lambda p: p.symlink_to("/dev/zero"), "a pipe or a device, no sound file", id="device"),
    pytest.param(lambda p: p.symlink_to("nowhere.wav"), "a link to what is not there", id="dangling link"),
    pytest.param(lambda p: p.symlink_to(p.name), "cannot be opened .*levels of symbolic links", id="link to itself"),
    pytest.param(of_rate(1), "rate of 1 Hz, outside 2000 to 768000", id="1 Hz"),
    pytest.param(of_rate(1999), "rate of 1999 Hz", id="1999 Hz"),
    pytest.param(of_rate(2_000_000_000), "rate of 2000000000 Hz", id="2 GHz"),
    pytest.param(of_rate(0), "cannot be read as audio|rate of 0 Hz", id="0 Hz"),
    pytest.param(holds(np.nan), "NaN or Inf", id="NaN"),
    pytest.param(holds(np.inf), "NaN or Inf", id="Inf"),
    pytest.param(holds(-np.inf), "NaN or Inf", id="-Inf"),
    pytest.param(cut("x.wav", 0.9), "cut short", id="wav cut"),
    pytest.param(cut_as("RF64"), "cut short", id="rf64 cut"),
    pytest.param(cut_as("W64"), "cut short", id="w64 cut"),
    pytest.param(cut_as("AIFF"), "cut short", id="aiff cut"),
    pytest.param(cut_as("AU"), "cut short", id="au cut"),
    pytest.param(cut("x.flac", 0.5), "cut short|cannot be read", id="flac cut"),
    pytest.param(cut("x.mp3", 0.5), "cut short", id="mp3 cut"),
    pytest.param(cut("x.ogg", 0.5), "cut short|cannot be read", id="ogg cut"),
    pytest.param(ogg_without_last_page, "cut short", id="ogg cut after a page"),
    pytest.param(flac_that_promises, "cut short|more sound than memory|cannot be read", id="flac of 2^36 samples"),
]


@pytest.mark.parametrize("make, said", SOUNDS)
def test_a_sound_that_cannot_be_used_is_named_and_not_dropped(folder, make, said):
    path = make(folder / "rain/x.wav")
    path = path if hasattr(path, "name") else folder / "rain/x.wav"
    before = state(folder)
    with pytest.raises(AudioError, match=f"{path.name}: .*({said})"):
        read(path)
    with pytest.raises(CorpusError, match=f"1 unusable files, nothing written:\n.*{path.name}: .*({said})"):
        prepare("own", corpus("folder", folder, split_fractions=None), folder.parent / "out")
    after = state(folder)
    assert {path: after[path] for path in before if path != folder.parent} == {
        path: time for path, time in before.items() if path != folder.parent
    }
    assert not (folder.parent / "out").exists()


def several(name, count):
    def spoil(root):
        for i in range(count):
            (root / "rain" / f"{i:02d}{name}").write_text("no sound")

    return spoil


def of_one_name(root):
    """Seven sounds of rain, five of them called as those of DogBark are."""
    for i in range(5):
        shutil.copy(root / f"DogBark/DogBark{i}.wav", root / "rain")
    for i in range(3):
        (root / f"rain/rain{i}.wav").unlink()


FOLDERS = [
    pytest.param(lambda d: (d / "empty").mkdir(), "no sounds in empty", id="empty class"),
    pytest.param(lambda d: (d / "wind").symlink_to("gone"), "wind are links to what is not there", id="class gone"),
    pytest.param(lambda d: noise(d / "loose.wav"), "loose.wav outside the folders", id="sound beside the classes"),
    pytest.param(lambda d: noise(d / "rain/more/a.wav"), "rain/more/a.wav deeper than", id="too deep"),
    pytest.param(several(".m4a", 1), "rain/00.m4a are none of .wav", id="other format"),
    pytest.param(several(".wma", 30), "19.wma and 10 more are none of", id="thirty of another format"),
    pytest.param(several(".wav", 30), "19.wav: .*\n.*and 10 more", id="thirty that are no sounds"),
    pytest.param(
        lambda d: shutil.copytree(d / "rain", d / "Rain"), "classes Rain and rain are the same in words", id="two spellings"
    ),
    pytest.param(lambda d: shutil.rmtree(d / "rain") or noise(d / "rain/a.wav"), "rain 1; give at least 5[^;]*$", id="few"),
    pytest.param(lambda d: (d / "Metadata.csv").write_text("path\n"), "Metadata.csv beside .* call it metadata.csv", id="table"),
    pytest.param(of_one_name, "rain 2; give .* several classes count as one recording, rename DogBark0, .*DogBark4", id="one name"),
    pytest.param(lambda d: (d / "rain").rename(d / "---"), "classes '---' have no letter or digit", id="class without a letter"),
    pytest.param(lambda d: (d / "rain").rename(d / "NA"), "classes 'NA' are read back from a table as missing", id="class NA"),
    pytest.param(lambda d: (d / "rain").rename(d / "a\\b"), r"classes 'a\\\\b' begin .* hold a slash, a backslash", id="class with backslash"),
]  # fmt: skip


@pytest.mark.parametrize("spoil, said", FOLDERS)
def test_what_would_be_left_out_of_a_folder_is_told(folder, capsys, spoil, said):
    spoil(folder)
    before = state(folder)
    with pytest.raises(CorpusError, match=f"(?s){said}"):
        prepare("own", corpus("folder", folder, split_fractions=None), folder.parent / "out")
    assert main(["corpus", "check", str(folder)]) == 1
    err = capsys.readouterr().err
    assert "would stop here" in err and "Traceback" not in err and str(folder) in err
    after = state(folder)
    assert all(after[path] == time for path, time in before.items() if path != folder.parent)
    assert not (folder.parent / "out").exists()


def test_folders_of_other_classes_are_not_looked_at(folder):
    (folder / "empty").mkdir()
    clips = list_clips(corpus("folder", folder, split_fractions=None, classes=["rain", "DogBark"]))
    assert len(clips) == 10
    with pytest.raises(CorpusError, match="no sounds in empty"):
        list_clips(corpus("folder", folder, split_fractions=None, classes=["rain", "empty"]))
    for name in ("caf\udce9", "NA", ".trash"):
        shutil.copytree(folder / "rain", folder / name)
    assert list_clips(corpus("folder", folder, split_fractions=None, classes=["rain", "DogBark"])) == clips
    assert len(list_clips(corpus("folder", folder, classes=["rain", "DogBark"]))) == 10


def test_hidden_folders_are_no_classes(folder):
    listed, scored = list_clips(corpus("folder", folder, split_fractions=None)), find(folder)
    shutil.copytree(folder / "rain", folder / ".trash")
    assert list_clips(corpus("folder", folder, split_fractions=None)) == listed and find(folder) == scored


@pytest.mark.parametrize(
    "spoil, said",
    [
        pytest.param(lambda d: (d / "rain").rename(d / "caf\udce9"), r"caf\\udce9/rain0.wav, .*rain4.wav", id="class"),
        pytest.param(lambda d: (d / "rain/rain0.wav").rename(d / "rain/\udcff.wav"), r"rain/\\udcff.wav", id="sound"),
    ],
)
def test_a_name_that_is_no_utf8_is_told(folder, capsys, spoil, said):
    spoil(folder)
    told = f"{folder}: names that are no UTF-8, {said}; rename these files or their folders$"
    with pytest.raises(CorpusError, match=told):
        prepare("own", corpus("folder", folder, split_fractions=None), folder.parent / "out")
    with pytest.raises(AudioError, match=told):
        find(folder)
    assert main(["corpus", "check", str(folder)]) == 1
    assert "names that are no UTF-8" in capsys.readouterr().err


def test_a_name_that_is_no_utf8_is_told_of_published_sets(tmp_path):
    root = dcase(tmp_path)
    (root / "Rain/000.wav").rename(root / "Rain/\udcff.wav")
    with pytest.raises(CorpusError, match=r"no UTF-8, Rain/\\udcff.wav; rename"):
        list_clips(corpus("dcase2023t7", root))


@pytest.mark.parametrize(
    "kind, name, said",
    [
        pytest.param(
            "folder", "x.CSV", r"x.CSV: a file; give the folder .* or a CSV whose name ends in .csv", id="CSV"
        ),
        pytest.param("folder", "rain/rain0.wav", "rain0.wav: a file; give the folder", id="sound"),
        pytest.param("dcase2023t7", "x.CSV", "found: a file. Point `root` at the folder", id="published"),
    ],
)
def test_a_root_that_is_another_file(folder, kind, name, said):
    (folder / "x.CSV").write_text(HEADER + ROWS)
    with pytest.raises(CorpusError, match=said):
        prepare("own", corpus(kind, folder / name), folder.parent / "out")


HEADER = "path,label,split\n"
ROWS = "".join(f"DogBark/DogBark{i}.wav,dog,{split}\nrain/rain{i}.wav,rain,{split}\n"
               for i, split in enumerate(("train", "train", "val", "test", "test")))  # fmt: skip

TABLES = [
    pytest.param((HEADER + ROWS).encode("utf-16"), "byte 0 is no UTF-8", id="utf-16"),
    pytest.param((HEADER + ROWS).replace("dog,", "chien é,").encode("latin-1"), "is no UTF-8", id="latin-1"),
    pytest.param(HEADER + ROWS + "a\0.wav,dog,train\n", "is NUL", id="NUL"),
    pytest.param("", "it is empty", id="empty"),
    pytest.param("\n\n", "it is empty", id="blank"),
    pytest.param(HEADER, "a header and no rows", id="no rows"),
    pytest.param("label,split\ndog,train\n", "no column path", id="no path"),
    pytest.param("path,split\na.wav,train\n", "expected a column caption or label", id="no label"),
    pytest.param("path,path,label\na.wav,b.wav,dog\n", "column path twice", id="column twice"),
    pytest.param(HEADER + ROWS + "DogBark/DogBark0.wav,dog\n", "other than the 3 fields .* line 12", id="short row"),
    pytest.param(HEADER + ROWS + "a.wav,dog,train,x\n", "other than the 3 fields .* line 12", id="long row"),
    pytest.param(HEADER + "a.wav,dog\n" * 25, "line 2, 3.* 21 and 5 more;", id="25 short rows"),
    pytest.param(HEADER + ROWS + f"a.wav,{'x' * 20000},train\n", "more than 10000 characters", id="long field"),
    pytest.param(HEADER + ROWS + f"a.wav,{'x' * 200000},train\n", "field larger than field limit", id="field limit"),
    pytest.param(HEADER + 'a.wav,"dog,train\n' + ROWS, "cannot be read as a CSV", id="open quote"),
    pytest.param(HEADER + ROWS + "/etc/passwd,dog,train\n", "/etc/passwd lead out", id="absolute"),
    pytest.param(HEADER + ROWS + "../a.wav,dog,train\n", r"\.\./a.wav lead out", id="above"),
    pytest.param(HEADER + ROWS + "rain/../../a.wav,dog,train\n", "lead out", id="above, later"),
    pytest.param(HEADER + ROWS + "C:\\a.wav,dog,train\n", "lead out", id="drive"),
    pytest.param(HEADER + "".join(f"../{i}.wav,dog,train\n" for i in range(25)), "and 5 more lead out", id="25 above"),
    pytest.param(HEADER + ROWS + "gone.wav,dog,train\n", "gone.wav: no such file", id="gone"),
    pytest.param(HEADER + ROWS + f"{'x' * 300}.wav,dog,train\n", "cannot be opened", id="name too long"),
    pytest.param(HEADER + ROWS + "rain,dog,train\n", "a folder, no sound file", id="folder"),
    pytest.param(HEADER + ROWS + "DogBark/DogBark0.wav,dog,train\n", "more than once", id="twice"),
    pytest.param(HEADER + ROWS + "DogBark/DogBark0.wav,rain,train\n", r"label\) say of a clip what a row before does not", id="another label"),
    pytest.param(HEADER + ROWS.replace("dog", " ", 1), "neither caption nor label, in rows 2", id="no label in a row"),
    pytest.param("path,label,caption\nDogBark/DogBark0.wav,dog,\nrain/rain0.wav,,it rains\n", "no label in rows 3", id="unlabelled row"),
    pytest.param(HEADER + ROWS.replace("train", "learn", 1), r"split column holds \['learn'\]", id="split unknown"),
    pytest.param(HEADER + ROWS.replace("train", "", 1), r"split column holds \[''\]", id="no split in a row"),
    pytest.param(HEADER + ROWS.replace("rain,test", "rain,train"), "without a clip of a class: test rain", id="class without test"),
    pytest.param(HEADER + ROWS.replace("rain,val", "rain,train"), "without a clip of a class: val rain", id="class without val"),
    *(pytest.param(HEADER + ROWS.replace(",dog,", f",{label},"), "begin with a dot, or hold a slash, a backslash or a control", id=f"label {label!r}")
      for label in ("../../evil", "dog/bark", "dog\\bark", "dog\tbark", "dog\x7f", ".", "..", ".dog")),
    *(pytest.param(HEADER + ROWS.replace(",dog,", f",{label},"), f"classes '{label}' are read back from a table as missing", id=f"label {label}")
      for label in ("NA", "None", "null", "nan")),
    *(pytest.param(HEADER + ROWS.replace(",dog,", f",{label},"), f"classes '{label}' have no letter or digit", id=f"label {label}")
      for label in ("_", "---", "!")),
    pytest.param(HEADER + ROWS.replace(",dog,", f",{'x' * 101},"), "classes 'x{40}' have more than 100 bytes", id="long label"),
    pytest.param(HEADER + ROWS.replace(",dog,", f",{'é' * 51},"), "have more than 100 bytes", id="long label of two bytes a letter"),
    pytest.param(HEADER + "".join(f"a{i}.wav,a/{i},train\n" for i in range(30)), "and 10 more begin with a dot", id="30 labels"),
    pytest.param((HEADER + ROWS).replace("label,split", "label,Split"), "columns that are not read as they are spelt; write 'Split' as split", id="Split"),
    pytest.param((HEADER + ROWS).replace("label,split", "license,label"), "write .license. as licence", id="license"),
    pytest.param("path,Label,CAPTION_1, Group\na.wav,dog,woof,x\n", "write 'Label' as label, 'CAPTION_1' as caption_1, ' Group' as group", id="four columns"),
    pytest.param("path,label,label \na.wav,dog,x\n", "write 'label ' as label", id="column with a blank"),
    pytest.param(HEADER + ROWS.replace("dog", "Rain", 1), "Rain and rain are the same in words", id="two spellings"),
]  # fmt: skip


@pytest.mark.parametrize("text, said", TABLES)
def test_a_table_that_cannot_be_used_is_named(folder, text, said):
    path = folder / "metadata.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = state(folder)
    with pytest.raises(CorpusError, match=said) as raised:
        prepare("own", corpus("folder", folder, split_fractions=None), folder.parent / "out")
    assert len(str(raised.value)) < 8000
    assert all(state(folder)[path] == time for path, time in before.items() if path != folder.parent)
    assert not (folder.parent / "out").exists()


def test_splits_are_given_once(folder):
    (folder / "metadata.csv").write_text(HEADER + ROWS)
    with pytest.raises(
        CorpusError, match="its column `split` and split_fractions={.*} both say .*; remove one of them"
    ):
        list_clips(corpus("folder", folder, split_fractions={"train": 0.5, "test": 0.5}))


def test_other_columns_and_a_label_of_100_bytes_are_taken(folder):
    text = (HEADER + ROWS).replace(",dog,", f",{'é' * 50},").replace("\n", ",x\n").replace("split,x", "split,Labels")
    (folder / "metadata.csv").write_text(text)
    assert len(list_clips(corpus("folder", folder, split_fractions=None))) == 10


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_a_table_of_any_writer_of_utf8_is_read(folder, start):
    (folder / "metadata.csv").write_bytes(start + (HEADER + ROWS).replace("\n", "\r\n").encode())
    assert {clip["label"] for clip in list_clips(corpus("folder", folder, split_fractions=None))} == {"dog", "rain"}


@pytest.mark.parametrize(
    "change, said",
    [
        pytest.param(lambda text: text.replace("\n1-10-A-0.wav,1,", "\n1-10-A-0.wav,one,"), r"rows 2 \('one'\) have a fold that is no whole number", id="fold"),
        pytest.param(lambda text: text.replace("\n1-10-A-0.wav,1,", "\n1-10-A-0.wav,-1,"), r"rows 2 \('-1'\) have a fold", id="fold -1"),
        pytest.param(lambda text: text.replace("\n1-10-A-0.wav", "\n../../1-10-A-0.wav"), "lead out of it", id="outside"),
        pytest.param(lambda text: text.replace("category", "class"), "has no column category", id="column"),
        pytest.param(lambda text: text[:-4], "other than the 7 fields", id="cut"),
    ],
)  # fmt: skip
def test_a_published_table_that_was_changed(tmp_path, change, said):
    path = esc50(tmp_path) / "meta/esc50.csv"
    path.write_text(change(path.read_text()))
    with pytest.raises(CorpusError, match=said):
        list_clips(corpus("esc50", tmp_path))


@pytest.mark.parametrize("format", ["wav", "flac", "mp3", "ogg"])
def test_a_spoilt_file_is_read_or_refused(tmp_path, format):
    """Whatever the bytes, what is read is finite and at a rate of sound; any other error than AudioError fails."""
    path, rng = noise(tmp_path / f"a.{format}"), np.random.default_rng(0)
    whole, refused = path.read_bytes(), 0
    for _ in range(100):
        content = bytearray(whole[: rng.integers(1, len(whole))] if rng.random() < 0.3 else whole)
        for at in rng.integers(0, min(100, len(content)), rng.integers(1, 8)):
            content[at] = rng.choice([0, 255, rng.integers(256)])
        path.write_bytes(content)
        try:
            wave, rate = read(path)
        except AudioError as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
        else:
            assert np.isfinite(wave).all() and 2000 <= rate <= 768_000
    assert refused


@pytest.mark.parametrize("form", ["RF64", "W64", "AIFF", "AU", "WAV", "WAVEX", "CAF", "OGG", "FLAC"])
def test_whole_files_of_other_containers_are_read(tmp_path, form):
    wave = 0.1 * np.random.default_rng(0).standard_normal(9600)
    soundfile.write(tmp_path / "x.wav", wave, 16000, format=form)
    assert len(read(tmp_path / "x.wav")[0]) == 9600


@pytest.mark.parametrize("column, place", [("filename", 0), ("category", 3), ("src_file", 5)])
def test_a_published_table_without_a_value_is_refused(tmp_path, column, place):
    table = esc50(tmp_path / "esc") / "meta/esc50.csv"
    lines = table.read_text().splitlines()
    cells = lines[2].split(",")
    cells[place] = ""
    lines[2] = ",".join(cells)
    table.write_text("\n".join(lines) + "\n")
    with pytest.raises(CorpusError, match=rf"esc50.csv: rows 3 \({column}\) hold nothing; take the published file"):
        list_clips(corpus("esc50", tmp_path / "esc"))
