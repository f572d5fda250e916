"""`foleylib corpus check`: what it finds in a folder, and that it says what the corpora stage would say."""

import os
import shutil

import numpy as np
import pytest
import soundfile
import yaml
from made_corpora import noise, table

from foleylib.commands.corpus import check
from foleylib.commands.main import main
from foleylib.params.corpora import Corpus


@pytest.fixture
def folder(tmp_path):
    """Two classes of five sounds, at two rates."""
    for label, rate in (("DogBark", 16000), ("rain", 44100)):
        for i in range(5):
            noise(tmp_path / "sounds" / label / f"{label}{i}.wav", rate=rate, channels=1 + i % 2)
    return tmp_path / "sounds"


def files(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.parent.rglob("*"))}


def test_sounds_of_each_class_are_counted_and_nothing_is_written(folder, capsys):
    before = files(folder)
    assert main(["corpus", "check", str(folder)]) == 0
    assert files(folder) == before
    said = capsys.readouterr().out
    assert said.startswith("10 sounds, 7.0 s, in 2 classes") and "no silence, clipping" in said
    found = check(folder)
    assert found.stops == [] and found.problems["count"].sum() == 0
    assert found.classes.loc["DogBark"].to_dict() == {
        "sounds": 5, "share": 0.5, "seconds": pytest.approx(3.5), "shortest": pytest.approx(0.7), "rates": "16000", "channels": "1, 2"
    }  # fmt: skip
    assert found.splits == {"train": 2, "val": 4, "test": 4}
    assert said.endswith(yaml.safe_dump({"corpora": {"foley": found.settings}}, sort_keys=False))
    assert Corpus(**found.settings).root == str(folder)


def test_one_class_alone_is_told(folder, capsys):
    shutil.rmtree(folder / "rain")
    assert main(["corpus", "check", str(folder)]) == 0
    assert "Note: there is one class alone, and a judge of classes" in capsys.readouterr().out


def test_silence_clipping_and_duplicates_are_found(folder):
    rain = folder / "rain"
    soundfile.write(rain / "silent.wav", np.zeros(44100), 44100)
    soundfile.write(rain / "clipped.wav", np.sign(np.random.default_rng(0).normal(size=44100)), 44100)
    wave, rate = soundfile.read(rain / "rain0.wav")
    soundfile.write(rain / "zero_again.wav", wave, rate)
    soundfile.write(rain / "zero_quieter.wav", wave / 2, rate)
    soundfile.write(rain / "narrow.wav", np.sin(np.arange(44100) * 0.05) * 0.5, 44100)
    found = check(folder).problems.set_index("problem")
    for problem, examples in {
        "quiet": ["rain/silent.wav"],
        "mostly silent": ["rain/silent.wav"],
        "clipped": ["rain/clipped.wav"],
        "exact duplicate": ["rain/zero_again.wav"],
        "near duplicate": ["rain/zero_quieter.wav"],
    }.items():
        assert found.examples[problem] == examples
    assert "rain/narrow.wav" in found.examples["narrow band"]


@pytest.mark.parametrize(
    "spoil, said",
    [
        pytest.param(lambda d: (d / "rain/x.wav").write_text("no sound"), "x.wav: cannot be read as audio", id="text"),
        pytest.param(lambda d: (d / "rain/x.wav").write_bytes(b""), "x.wav: cannot be read as audio", id="empty"),
        pytest.param(
            lambda d: (d / "rain/rain1.wav").write_bytes((d / "rain/rain1.wav").read_bytes()[:9000]),
            "rain1.wav: is cut short",
            id="cut",
        ),
        pytest.param(
            lambda d: [os.remove(d / f"rain/rain{i}.wav") for i in (1, 2)],
            "too few recordings to split: rain 3; give at least 5 of each class",
            id="few",
        ),
    ],
)
def test_what_the_stage_would_stop_at_is_told_with_status_1(folder, capsys, spoil, said):
    spoil(folder)
    assert main(["corpus", "check", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert "in 2 classes" in out and "would stop here" in err and said in err and "Traceback" not in err


@pytest.mark.parametrize(
    "path, said",
    [
        pytest.param("nowhere", "expected <class>/*.wav (or flac, ogg, mp3), or metadata.csv", id="absent"),
        pytest.param("empty", "found: an empty folder", id="empty"),
        pytest.param("flat", "found: a.wav", id="no class folders"),
        pytest.param("broken", "none of its 1 sounds can be used", id="all broken"),
        pytest.param("list.csv", "has no column path", id="csv"),
    ],
)
def test_what_is_no_folder_of_sounds_is_refused(tmp_path, capsys, path, said):
    (tmp_path / "empty").mkdir()
    noise(tmp_path / "flat/a.wav")
    (tmp_path / "broken/rain").mkdir(parents=True)
    (tmp_path / "broken/rain/a.wav").write_text("no sound")
    table(tmp_path / "list.csv", ["file"], [["a.wav"]])
    assert main(["corpus", "check", str(tmp_path / path)]) == 1
    assert said in capsys.readouterr().err


def test_a_table_without_classes(tmp_path):
    for i in range(5):
        noise(tmp_path / f"{i}.wav")
    table(tmp_path / "list.csv", ["path", "caption"], [[f"{i}.wav", f"noise {i}"] for i in range(5)])
    found = check(tmp_path / "list.csv")
    assert list(found.classes.index) == ["(no classes)"] and found.stops == []
