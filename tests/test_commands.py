"""The commands: sounds from texts, scores of folders, what is there; and what they say of input that cannot be used."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from PIL import Image
from safetensors.torch import save_file

from foleylib import paths
from foleylib.audio.io import write
from foleylib.commands import generate as generating
from foleylib.commands import pictures as drawing
from foleylib.commands import score as scoring
from foleylib.commands.generate import generate, load_model, save
from foleylib.commands.main import main
from foleylib.commands.models import models
from foleylib.commands.score import score
from foleylib.datasets import samples
from foleylib.evaluation.folders import DEFAULTS
from foleylib.networks import clap as claps
from foleylib.networks import pipeline as pipelines
from foleylib.params import settings
from foleylib.runtime import weights_sha256

QUICK = {"steps": 2, "solver": "dpm++"}


pytestmark = pytest.mark.usefixtures("no_models_of_the_graph")


@pytest.fixture(scope="module")
def model(no_models_of_the_graph):
    return load_model()


@pytest.fixture(scope="module")
def pipeline_folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "ldm"
    parts, cfg = model.pipeline, settings.load()
    clap = claps.load(paths.BUNDLED / "clap")
    noise = cfg.foundation.ldm.noise
    pipelines.save(folder, parts.unet, noise, frames=128, clap=clap, vae=parts.vae, vocoder=parts.vocoder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of noise, which is louder in one of them."""
    root = tmp_path_factory.mktemp("sounds")
    for number, name in enumerate(("mine", "real")):
        (root / name).mkdir()
        for clip in range(4):
            noise = np.random.default_rng(10 * number + clip).normal(size=20480) * (0.05 + 0.1 * number)
            soundfile.write(root / name / f"{clip}.wav", np.clip(noise, -1, 1), 16000)
    return root / "mine", root / "real"


def told(capsys, *arguments) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    return status, *capsys.readouterr()


def test_a_clip_hangs_on_its_prompt_number_and_seed_alone(model):
    several = generate(["a dog bark", "rain"], model, number=2, seed=3, **QUICK)
    assert several.waves.shape == (4, 20480) and several.rate == 16000
    assert list(several.rows.prompt) == ["a dog bark"] * 2 + ["rain"] * 2 and list(several.rows.number) == [0, 1] * 2
    alone = generate("rain", model, seed=3, **QUICK)
    assert np.abs(alone.waves[0] - several.waves[2]).max() < 1e-3 < np.abs(alone.waves[0] - several.waves[3]).max()
    assert (generate("rain", model, seed=3, **QUICK).waves == alone.waves).all()
    assert (generate("rain", model, seed=4, **QUICK).waves != alone.waves).any()


def test_length_solver_and_vocoder_are_what_is_asked_for(model):
    assert generate("rain", model, seconds=0.64, **QUICK).waves.shape == (1, 10240)
    other = generate("rain", model, **QUICK | {"solver": "ddim"}).waves
    assert (other != generate("rain", model, **QUICK).waves).any()
    assert (generate("rain", model, vocoder="hifigan", **QUICK).waves != generate("rain", model, **QUICK).waves).any()


def test_a_pipeline_folder_makes_what_its_parts_make(model, pipeline_folder):
    saved = load_model(pipeline_folder)
    assert (saved.rate, saved.seconds) == (model.rate, model.seconds) == (16000, 1.28)
    texts = ["a dog bark", "rain on a window", ""]
    np.testing.assert_allclose(saved.text.embed_text(texts), model.text.embed_text(texts), atol=1e-5)
    ours, theirs = (generate("a dog bark", which, **QUICK).waves for which in (model, str(pipeline_folder)))
    assert np.abs(ours - theirs).max() < 1e-3


def test_generate_writes_a_file_or_a_folder(tmp_path, capsys, monkeypatch, model):
    monkeypatch.setattr(generating, "load_model", lambda *_: model)
    file = tmp_path / "deep" / "bark.wav"
    assert told(capsys, "generate", "a dog bark", "-o", file, "--steps", 1)[:2] == (0, f"{file}\n")
    assert soundfile.info(file).frames == 20480
    before = file.read_bytes()
    status, _, said = told(capsys, "generate", "rain", "-o", file, "--steps", 1)
    assert status == 1 and "is there already" in said and file.read_bytes() == before
    assert told(capsys, "generate", "rain", "-o", file, "--steps", 1, "--overwrite")[0] == 0
    assert file.read_bytes() != before

    lines = tmp_path / "prompts.txt"
    lines.write_text("rain\n\n  A dog, barking! \n")
    folder = tmp_path / "many"
    assert told(capsys, "generate", "--prompts-from", lines, "--number", 2, "-o", folder, "--steps", 1)[0] == 0
    table = pd.read_csv(folder / "clips.csv")
    assert list(table.file) == ["rain_0.wav", "rain_1.wav", "a_dog_barking_0.wav", "a_dog_barking_1.wav"]
    assert list(table.prompt.unique()) == ["rain", "A dog, barking!"]
    assert all((folder / name).is_file() for name in table.file)
    twice = save(generate(["rain", "rain!"], model, **QUICK), tmp_path / "alike")
    assert [path.name for path in twice] == ["0000_rain_0.wav", "0001_rain_0.wav"]


def test_score_tells_every_metric_and_writes_the_card(folders, tmp_path, capsys):
    status, said, _ = told(capsys, "score", folders[0], "--against", folders[1], "-o", tmp_path, "--bootstrap", 20)
    assert status == 0 and all(name in said for name in ("KAD", "FAD", "Coverage", "judge", "clap", "4 clips"))
    table, card = pd.read_csv(tmp_path / "scores.csv"), json.loads((tmp_path / "card.json").read_text())
    assert set(table.embedder) == {"judge", "clap"} and card["n"] == 4 == card["reference"]["n"]
    same, _ = score(folders[0], folders[0])
    own = same.set_index(["metric", "embedder"]).value
    assert own["fad", "clap"] < 1e-3 < table.set_index(["metric", "embedder"]).value["fad", "clap"]


def test_scores_that_are_there_are_kept(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "evaluators", lambda device: pytest.fail("scored before the place was looked at"))
    (tmp_path / "card.json").write_text("precious")
    (tmp_path / "other" / "scores.csv").mkdir(parents=True)
    call = ("score", folders[0], "--against", folders[1], "-o")
    assert told(capsys, *call, tmp_path)[2].endswith("card.json is there already; give another name, or --overwrite\n")
    said = told(capsys, *call, tmp_path / "other", "--overwrite")[2]
    assert said.endswith("scores.csv is a folder: give another name, or remove it\n")
    assert (tmp_path / "card.json").read_text() == "precious"


@pytest.mark.parametrize("command", [["generate", "rain"], ["score", "x", "--against", "y"], ["site"], ["pictures"]])
def test_an_empty_place_is_none(command, capsys):
    with pytest.raises(SystemExit):
        main([*command, "-o", ""])
    assert "argument -o/--out: it is empty: say where to write" in capsys.readouterr().err


def test_clips_that_clap_does_not_hear_to_their_end_are_told(folders, tmp_path):
    for n in range(4):
        write(tmp_path / f"{n}.wav", 0.1 * np.random.default_rng(n).standard_normal(3 * 16000).clip(-3, 3), 16000)
    _, card = score(tmp_path, folders[1], options=DEFAULTS._replace(bootstrap=40))
    (told,) = [sentence for sentence in card["remarks"] if "hears" in sentence]
    assert told.startswith("clap hears the first 1.28 s of a clip alone, and 4 of 8 clips are longer, up to 3.00 s:")
    _, card = score(folders[0], folders[1], options=DEFAULTS._replace(bootstrap=40))
    assert not [sentence for sentence in card["remarks"] if "hears" in sentence]


def test_names_with_dots_are_names_of_their_own(tmp_path):
    (tmp_path / "said.csv").write_text("file,caption\ntake.0,rain\ntake.1,wind\ntake.2.wav,a dog\n")
    assert scoring._captions(tmp_path / "said.csv") == {"take.0": "rain", "take.1": "wind", "take.2": "a dog"}


def test_captions_give_the_clap_score(folders, tmp_path):
    captions = tmp_path / "said.csv"
    captions.write_text("file,caption\n" + "".join(f"{n}.wav,white noise\n" for n in range(4)))
    scores, _ = score(*folders, captions=captions)
    assert np.isfinite(scores.set_index(["metric", "embedder"]).value["clap_score", "clap"])


def test_models_tells_what_the_bundle_has(capsys):
    table = models().set_index("folder")
    assert set(table.index) == {f"data/bundled/{part.name}" for part in paths.BUNDLED.iterdir() if part.is_dir()}
    assert table.parameters["data/bundled/ldm"] == pytest.approx(3.29, abs=0.01)
    assert (table.licence == "CC0-1.0").all() and (table["trained on"] == "synthetic").all()
    status, said, _ = told(capsys, "models")
    assert status == 0 and "data/bundled/vocoder_48khz" in said


def test_a_system_has_the_corpus_and_the_licences_of_its_settings(tmp_path, monkeypatch):
    for name in ("ldm", "gone"):
        folder = tmp_path / "models" / "systems" / name / "0"
        folder.mkdir(parents=True)
        (folder / "model_index.json").write_text("{}")
        save_file({"weight": torch.zeros(1000, 500)}, folder / "model.safetensors")
    (tmp_path / "models" / "published").mkdir()
    (tmp_path / "models" / "published" / "published.json").write_text("{}")
    for name, place in (("ROOT", ""), ("MODELS", "models"), ("BUNDLED", "none"), ("CLIPS", "none")):
        monkeypatch.setattr(paths, name, tmp_path / place)
    table = models().set_index("folder")
    assert list(table.index) == ["models/systems/gone/0", "models/systems/ldm/0"] and (table.parameters == 0.5).all()
    assert table["trained on"].tolist() == ["a system that params.yaml has no more", "synthetic"]
    assert (table.licence == "unknown").all()  # neither the clips nor the foundation are here


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("provenance.json", b"[]", "cannot be read (AttributeError"),
        ("provenance.json", b"{", "cannot be read (JSONDecodeError"),
        ("provenance.json", b"\xff", "cannot be read (UnicodeDecodeError"),
        ("model.safetensors", b"junk" * 9, "cannot be read (SafetensorError"),
    ],
)
def test_a_damaged_folder_hides_no_other(tmp_path, monkeypatch, file, content, said):
    for name in ("good", "ill"):
        (tmp_path / "bundled" / name).mkdir(parents=True)
        save_file({"weight": torch.zeros(1000, 500)}, tmp_path / "bundled" / name / "model.safetensors")
        (tmp_path / "bundled" / name / "provenance.json").write_text("{}")
    (tmp_path / "bundled" / "ill" / file).write_bytes(content)
    for name, place in (("ROOT", ""), ("MODELS", "models"), ("BUNDLED", "bundled")):
        monkeypatch.setattr(paths, name, tmp_path / place)
    table = models().set_index("folder")
    assert table.parameters["bundled/good"] == 0.5
    assert table.licence["bundled/ill"].startswith(said) and table.licence["bundled/ill"].endswith("; make it again")


@pytest.mark.parametrize("command", ["", "generate", "score", "models"])
def test_help_reads(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*([command] if command else []), "--help"])
    assert end.value.code == 0 and "usage: foleylib" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-o", "x.wav"], "no text is given: name what is to be heard"),
        (["", "-o", "x.wav"], "a prompt is empty"),
        (["  ", "-o", "x.wav"], "a prompt is empty"),
        (["rain", "-o", "x.mp3"], "clips are written as WAV files; give a name that ends in .wav, or a folder"),
        (["rain", "wind", "-o", "x.wav"], "is one file, and there are 2 clips: give a folder"),
        (["rain", "-o", "x.wav", "--number", "0"], "number is 0: ask for one clip at least"),
        (["rain", "-o", "x.wav", "--number", "-3"], "number is -3"),
        (["rain", "-o", "x.wav", "--steps", "0"], "steps"),
        (["rain", "-o", "x.wav", "--steps", "5000"], "steps 5000: the model's noise has 1000; give no more"),
        (["rain", "-o", "x.wav", "--guidance", "nan"], "guidance"),
        (["rain", "-o", "x.wav", "--guidance", "inf"], "guidance"),
        (["rain", "-o", "x.wav", "--guidance", "-1"], "guidance"),
        (["rain", "-o", "x.wav", "--seconds", "1"], "seconds is 1: give a multiple of 0.32 s"),
        (["rain", "-o", "x.wav", "--seconds", "0"], "seconds is 0"),
        (["rain", "-o", "x.wav", "--seconds", "-0.32"], "seconds is -0.32"),
        (["rain", "-o", "x.wav", "--seconds", "nan"], "seconds is nan"),
        (["rain", "-o", "x.wav", "--seconds", "inf"], "seconds is inf"),
        (["rain", "-o", "x.wav", "--seed", "-1"], "seed is -1: give 0 or more"),
        (["rain", "-o", "x.wav", "--model", "nowhere"], "nowhere holds no pipeline (model_index.json is missing)"),
        (["rain", "-o", "x.wav", "--prompts-from", "none.txt"], "none.txt: there is no such file of prompts"),
        (["rain", "-o", "x.wav", "--prompts-from", "bytes.txt"], "bytes.txt: byte 0 is no UTF-8"),
        (["--prompts-from", "empty.txt", "-o", "x.wav"], "no text is given"),
    ],
)
def test_what_generate_cannot_do_is_one_sentence(arguments, sentence, tmp_path, capsys, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "empty.txt").write_text("\n")
    before = sorted(tmp_path.iterdir())
    load = generating.load_model
    monkeypatch.setattr(generating, "load_model", lambda folder=None, *rest: load(folder) if folder else model)
    status, _, said = told(capsys, "generate", *arguments)
    assert status == 1 and sentence in said and said.startswith("foleylib: ")
    assert "Traceback" not in said and sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere", "--against", "real"], "nowhere: no such folder"),
        (["mine", "--against", "nowhere"], "nowhere: no such folder"),
        (["mine", "--against", "empty"], "empty: no sounds"),
        (["mine", "--against", "broken"], "1 clips cannot be scored, so nothing is"),
        (["silent", "--against", "real"], "is silent from end to end"),
        (["mine", "--against", "real", "--captions", "none.csv"], "none.csv: cannot be read as a CSV"),
        (["mine", "--against", "real", "--captions", "odd.csv"], "odd.csv: has no column caption"),
        (["mine", "--against", "real", "--captions", "twice.csv"], "twice.csv: 0 stands there twice"),
        (["mine", "--against", "real", "--captions", "short.csv"], "captions has none for 3 clips"),
        (["mine", "--against", "real", "--bootstrap", "0"], "--bootstrap must be 1 or more"),
        (["mine", "--against", "real", "--seed", "-1"], "--seed 0 or more"),
        (["mine", "--against", "real", "--seed", "4294967296"], "--seed 0 or more and below 2 to the power of 32"),
        (["mine", "--against", "silent", "--paired"], "is silent from end to end"),
    ],
)
def test_what_score_cannot_do_is_one_sentence(arguments, sentence, folders, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, folder in zip(("mine", "real"), folders):
        (tmp_path / name).symlink_to(folder)
    for name in ("empty", "broken", "silent"):
        (tmp_path / name).mkdir()
    (tmp_path / "broken" / "x.wav").write_bytes(b"RIFF")
    soundfile.write(tmp_path / "silent" / "x.wav", np.zeros(16000), 16000)
    (tmp_path / "odd.csv").write_text("file,text\n0,x\n")
    (tmp_path / "twice.csv").write_text("file,caption\n0.wav,x\n0.wav,y\n")
    (tmp_path / "short.csv").write_text("file,caption\n0.wav,x\n")
    status, out, said = told(capsys, "score", *arguments, "-o", "scores")
    assert status == 1 and sentence in said and "Traceback" not in said and not out
    assert not (tmp_path / "scores").exists()


# The pictures of README.md.


@pytest.fixture
def sampled(tmp_path, monkeypatch):
    """Clips of the two runs that are shown; the scores are the committed ones."""
    noise = np.random.default_rng(0).normal(size=(6, 20480)).astype(np.float32) * 0.1
    labels = ["DogBark", "Footstep", "GunShot", "Keyboard", "Rain", "Rain"]
    rows = [{"id": f"{i}", "label": label, "target": 0, "prompt": label, "seed": 0} for i, label in enumerate(labels)]
    for run in drawing.HEARD:
        samples.write(tmp_path / run / "0", pd.DataFrame(rows), noise, 16000)
    monkeypatch.setattr(paths, "SAMPLES", tmp_path)
    monkeypatch.setattr(paths, "CONTROLS", tmp_path)
    return tmp_path


def test_pictures_are_made_from_the_last_results(sampled):
    assert main(["pictures", "-o", str(sampled / "out")]) == 0
    for name in ("spectrograms", "results"):
        with Image.open(sampled / "out" / f"{name}.png") as picture:
            assert picture.text[drawing.MADE_FROM] == weights_sha256(paths.RESULTS / "summary.csv")
            assert min(picture.size) > 200 and np.asarray(picture).std() > 1


def test_pictures_are_the_same_bytes_again(sampled):
    first, second = (drawing.pictures(sampled / out) for out in ("one", "two"))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_pictures_without_results_say_which_stage_makes_them(sampled, monkeypatch, capsys):
    monkeypatch.setattr(paths, "RESULTS", sampled / "none")
    assert main(["pictures", "-o", str(sampled / "out")]) == 1
    assert "summary.csv: no such file; run ./run dvc repro evaluate first" in capsys.readouterr().err
    assert not (sampled / "out").exists()
