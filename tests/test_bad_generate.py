"""`foleylib generate` with what it cannot use: one sentence each, before any work, and nothing that was there has changed."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foleylib.commands import generate as generating
from foleylib.commands import outputs
from foleylib.commands.generate import Sounds, generate, load_model, save
from foleylib.commands.main import main
from foleylib.commands.prompts import read_prompts
from foleylib.evaluation.texts import TextCut, cut
from foleylib.sampling import sampler

QUICK = {"steps": 1, "solver": "dpm++"}
FILES = {
    "empty.txt": b"\n \n\t\n",
    "nothing.txt": b"",
    "utf16.txt": "rain\n".encode("utf-16"),
    "latin.txt": "bö\n".encode("latin-1"),
    "nul.txt": b"rain\0\n",
    "twice.txt": b"rain\nwind\nrain\n",
    "two.txt": b"rain\nwind\n",
    "there.wav": b"RIFF",
    "full/clips.csv": b"file,prompt\n",
    "made/rain_0.wav": b"RIFF",
    "folder.wav/x.txt": b"x",
}


pytestmark = pytest.mark.usefixtures("no_models_of_the_graph")


@pytest.fixture(scope="module")
def model(no_models_of_the_graph):
    return load_model()


@pytest.fixture
def here(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(content)
    os.mkfifo("pipe.txt")
    Path("dangling").symlink_to("nowhere")
    load = generating.load_model
    monkeypatch.setattr(generating, "load_model", lambda folder=None, *rest: load(folder) if folder else model)
    return tmp_path


def contents(root):
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))}


ROWS = [
    ([], "no text is given", "no-text"),
    (["--prompts-from", "empty.txt"], "no text is given", "file-of-empty-lines"),
    (["--prompts-from", "nothing.txt"], "no text is given", "file-of-nothing"),
    (["--prompts-from", "none.txt"], "none.txt: there is no such file of prompts", "no-file"),
    (["--prompts-from", "made"], "made: is no file", "a-folder-for-a-file"),
    (["--prompts-from", "pipe.txt"], "pipe.txt: is no file", "a-pipe-for-a-file"),
    (["--prompts-from", "dangling"], "dangling: there is no such file", "a-link-to-nothing"),
    (["--prompts-from", "utf16.txt"], "utf16.txt: byte 0 is no UTF-8; save the file in that encoding", "utf-16"),
    (["--prompts-from", "latin.txt"], "latin.txt: byte 1 is no UTF-8", "latin-1"),
    (["--prompts-from", "nul.txt"], "nul.txt: character 4 is NUL", "nul"),
    (["--prompts-from", "twice.txt"], "'rain': a prompt that is given twice", "a-line-twice"),
    (["rain", "--prompts-from", "two.txt"], "'rain': a prompt that is given twice", "a-line-and-the-same-text"),
    (["rain", "rain"], "'rain': a prompt that is given twice", "a-text-twice"),
    (["rain", " "], "a prompt is empty", "one-of-several-empty"),
    (["rain\udcff"], r"the prompt 'rain\udcff' has signs that are no text", "bytes-that-are-no-text"),
    (["rain\0"], "has signs that are no text", "nul-in-a-text"),
    (["rain", "--number", "0"], "number is 0: ask for one clip at least", "none"),
    (["rain", "--number", "10001"], "number is 10001, of 1 prompts: ask for 10000 clips at once", "too-many"),
    (["--prompts-from", "two.txt", "--number", "5001"], "number is 5001, of 2 prompts", "too-many-in-all"),
    (["rain", "--seed", str(2**63)], f"seed is {2**63}: give 0 or more, below 2 to the power of 63", "seed-too-large"),
    (["rain", "--seed", "-7"], "seed is -7: give 0 or more", "seed-below-0"),
    (["rain", "--steps", "1001"], "steps 1001: the model's noise has 1000; give no more", "one-step-too-many"),
    (["rain", "--steps", "-1"], "steps", "steps-below-0"),
    (["rain", "--guidance", "nan"], "guidance", "guidance-nan"),
    (["rain", "--guidance=-inf"], "guidance", "guidance-inf"),
    (
        ["rain", "--guidance", "1e38", "--steps", "1"],
        "sounds that are not finite: lower guidance",
        "guidance-too-large",
    ),
    (["rain", "--seconds", "1e9"], "seconds is 1e+09: give a multiple of 0.32 s", "too-long"),
    (["rain", "--seconds", "640"], "of 600 s at most", "longer-than-memory"),
    (["rain", "--seconds", "1e-9"], "seconds is 1e-09: give a multiple of 0.32 s", "no-length"),
    (["rain", "-o", "x" * 240 + ".wav"], "xxx...: a name of 244 bytes; give one of 200 at most", "long-name"),
    (["rain", "--seconds", "0.5"], "seconds is 0.5: give a multiple of 0.32 s", "between-two-lengths"),
    (["rain", "--model", "there.wav"], "there.wav", "a-file-for-a-model"),
    (["rain", "--model", "made"], "made holds no pipeline", "a-folder-without-a-model"),
    (["rain", "-o", "there.wav"], "there.wav is there already; give another name", "file-is-there"),
    (["rain", "-o", "there.wav/more"], "there.wav is no folder", "below-a-file"),
    (["rain", "-o", "there.wav/more.wav"], "there.wav is no folder", "file-below-a-file"),
    (["rain", "-o", "twice.txt"], "clips are written as WAV files", "another-kind-of-file"),
    (["rain", "-o", "folder.wav"], "folder.wav is a folder", "a-folder-with-the-name-of-a-file"),
    (["rain", "-o", "folder.wav", "--overwrite"], "folder.wav is a folder", "never-over-a-folder"),
    (["rain", "-o", "dangling"], "dangling is no folder", "a-link-to-nothing-for-a-folder"),
    (["rain", "-o", "made"], "made/rain_0.wav is there already", "clip-is-there"),
    (["rain", "-o", "full"], "full/clips.csv is there already", "table-is-there"),
    (["rain", "--number", "2", "-o", "new.wav"], "is one file, and there are 2 clips", "two-clips-one-file"),
]


@pytest.mark.parametrize(("arguments", "sentence"), [pytest.param(*row[:2], id=row[2]) for row in ROWS])
def test_what_cannot_be_made_is_one_sentence(arguments, sentence, here, capsys):
    before = contents(here)
    status = main(["generate", *arguments, *([] if "-o" in arguments else ["-o", "new"])])
    out, said = capsys.readouterr()
    assert status == 1 and said.count("foleylib: ") == 1 and sentence in said and "Traceback" not in said
    assert not out and contents(here) == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param({"prompts": []}, "a prompt is empty", id="no-prompts"),
        pytest.param({"prompts": ["rain", None]}, "a prompt is no text", id="none"),
        pytest.param({"prompts": 3}, "a prompt is no text", id="a-number"),
        pytest.param({"prompts": "rain", "number": 1.5}, "number is 1.5", id="half-a-clip"),
        pytest.param({"prompts": "rain", "number": True}, "number is True", id="true-clips"),
        pytest.param({"prompts": "rain", "seed": 0.5}, "seed is 0.5", id="half-a-seed"),
        pytest.param({"prompts": "rain", "seed": True}, "seed is True", id="true-seed"),
        pytest.param({"prompts": "rain", "seed": None}, "seed is None", id="no-seed"),
        pytest.param({"prompts": "rain", "solver": "euler"}, "solver", id="unknown-solver"),
        pytest.param({"prompts": "rain", "spacing": "none"}, "spacing", id="unknown-spacing"),
        pytest.param({"prompts": "rain", "eta": 2.0}, "eta", id="eta"),
        pytest.param({"prompts": "rain", "vocoder": "world"}, "vocoder", id="unknown-vocoder"),
        pytest.param({"prompts": "rain", "batch_size": 0}, "batch_size", id="no-batch"),
        pytest.param({"prompts": "rain", "temperature": 1}, "temperature", id="unknown-option"),
    ],
)
def test_the_function_refuses_as_the_command_does(arguments, sentence, model):
    with pytest.raises(ValueError, match=sentence):
        generate(model=model, **{**QUICK, **arguments})


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(here, monkeypatch, capsys):
    monkeypatch.setattr(outputs.os, "access", lambda *_: False)  # as root may write anywhere
    assert main(["generate", "rain", "-o", "made/deep/new.wav"]) == 1
    assert "made: nothing may be written there; give another folder" in capsys.readouterr().err


def test_the_end_of_a_long_prompt_is_not_cut_in_silence(here, model, capsys):
    long = "rain on a tin roof, " * 500
    assert len(long) == 10_000 and cut(model.text.tokenizer, ["rain"]) == []
    with pytest.warns(TextCut, match="1 of 2 texts are longer than the 77 tokens that are read, and lose their end"):
        sounds = generate([long, "rain"], model, **QUICK)
    assert len(sounds.waves) == 2 and "first 'rain on a tin roof, rain on a tin roof, ...' with" in sounds.remarks[0]
    assert main(["generate", long, "-o", "long", "--steps", "1"]) == 0
    out, said = capsys.readouterr()
    assert "\nNote: 1 of 1 texts are longer than the 77 tokens" in said and len(Path(out.strip()).name) < 80
    assert generate("rain", model, **QUICK).remarks == ()


def test_prompts_are_the_lines_of_a_file_in_utf8(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffrain\r\n\r\n  ein Hündchen, 犬 \n".encode())
    assert read_prompts(file) == ["rain", "ein Hündchen, 犬"]


@pytest.mark.parametrize(
    "prompts",
    [
        ["rain", "rain!", "0000 rain"],
        ["a/b", "a b", "../a b", "C:\\a"],
        ["///", "...", "-"],
        ["犬" * 200, "犬" * 201],
        ["\U0001d51e" * 100, "x" * 500],
    ],
    ids=["numbered-names", "slashes", "signs-alone", "long-in-bytes", "longer-in-bytes"],
)
def test_every_clip_has_a_file_of_its_own_in_the_folder(prompts, tmp_path):
    rows = pd.DataFrame({"prompt": prompts, "number": 0, "seed": 0})
    files = save(Sounds(np.zeros((len(prompts), 16)), 16000, rows), tmp_path / "out")
    assert len(set(files)) == len(prompts) and {file.parent for file in files} == {tmp_path / "out"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [*(file.name for file in files), "clips.csv"]
    )
    assert pd.read_csv(tmp_path / "out" / "clips.csv").prompt.tolist() == prompts


def test_sounds_of_a_model_that_are_not_finite_are_not_written(here, model, monkeypatch, capsys):
    monkeypatch.setattr(generating, "sample", lambda *args, **options: sampler.sample(*args, **options) * np.nan)
    before = contents(here)
    assert main(["generate", "rain", "-o", "new.wav", "--steps", "1"]) == 1
    assert "sounds that are not finite" in capsys.readouterr().err and contents(here) == before
