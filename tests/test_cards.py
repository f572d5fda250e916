"""Model cards: what stands in them is true, their lines load the model, and stock transformers reads the CLAP folder."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml

from foleylib import paths
from foleylib.networks import clap
from foleylib.runtime import weights_sha256
from foleylib.stages import cards

BUNDLED = sorted(folder.name for folder in paths.BUNDLED.iterdir() if folder.is_dir())


def read(folder):
    """Front matter, the rest, and the blocks of Python of a card."""
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    blocks = [part.split("\n```")[0] for part in body.split("```python\n")[1:]]
    return yaml.safe_load(front), body, blocks


@pytest.mark.parametrize("part", BUNDLED)
def test_a_bundled_part_has_its_card_up_to_date(part, tmp_path, monkeypatch):
    kept = (paths.BUNDLED / part / "README.md").read_bytes()
    shutil.copytree(paths.BUNDLED / part, tmp_path / "data" / "bundled" / part)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert cards.write(tmp_path / "data" / "bundled" / part).read_bytes() == kept


@pytest.mark.parametrize("part", BUNDLED)
def test_a_bundled_card_says_what_stands_beside_it(part):
    folder = paths.BUNDLED / part
    front, body, _ = read(folder)
    told = json.loads((folder / "provenance.json").read_text())
    assert list(front) == ["library_name", "license", "tags", "pipeline_tag", "datasets"] and all(front.values())
    assert "; ".join(cards.of_weights(told)) in body and told["commit"] in body
    for name, value in told["held_out"].items():
        assert f"| {name} | {value:g} |" in body
    assert cards.dtypes(folder) == ["float16"] and "stored as float16; foleylib loads them as float32" in body
    for name, sha256 in told["sha256"].items():  # the card has left the weights as they were
        assert weights_sha256(folder / name) == sha256


@pytest.mark.parametrize("part", BUNDLED)
def test_the_lines_of_a_bundled_card_load_it(part, monkeypatch):
    monkeypatch.chdir(paths.ROOT)
    blocks = read(paths.BUNDLED / part)[2]
    assert blocks
    for block in blocks:
        exec(compile(block, part, "exec"), {})  # noqa: S102


def test_a_saved_pipeline_has_a_card_whose_lines_make_a_sound(tiny_models, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_models / "ldm", tmp_path / "models" / "ldm")
    before = weights_sha256(folder)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    text = cards.write(
        folder, {"corpus": {"kind": "synthetic", "classes": "foley"}, "seed": 3, "seconds": 7}
    ).read_text()
    assert (
        cards.write(folder, {"corpus": {"kind": "synthetic", "classes": "foley"}, "seed": 3, "seconds": 9}).read_text()
        == text
    )
    front, body, blocks = read(folder)
    assert front["library_name"] == "diffusers" and front["pipeline_tag"] == "text-to-audio"
    assert front["license"] == "cc0-1.0" and "with seed 3" in body and "stored as float32;" in body
    assert weights_sha256(folder) == before
    made = {}
    exec(compile(blocks[0], "card", "exec"), made)  # noqa: S102
    assert np.isfinite(made["wave"]).all()


@pytest.mark.parametrize(
    ("told", "licence"),
    [
        ({"from": "cvssp/audioldm", "licence": None}, "cc-by-nc-sa-4.0"),
        ({"from": "elsewhere", "licence": "Apache-2.0"}, "apache-2.0"),
        ({"licences": {"CC0-1.0": 3, "CC BY-NC 3.0": 4}}, "other"),
        ({"source": "published checkpoint"}, "other"),
    ],
)
def test_the_licence_is_that_of_the_origin(told, licence, tiny_models, tmp_path):
    folder = shutil.copytree(tiny_models / "vae", tmp_path / "vae")
    cards.write(folder, told)
    front, body, _ = read(folder)
    assert front["license"] == licence and "; ".join(cards.of_weights(told)) in body


def test_a_folder_of_no_kind_has_no_card(tmp_path):
    with pytest.raises(ValueError, match="no model there"):
        cards.write(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="no kind that has a card"):
        cards.write(tmp_path)


# CLAP in stock transformers


@pytest.fixture(params=["bundled", "saved", "saved again"])
def clap_folder(request, tmp_path):
    """The bundled CLAP, and the same saved after it was used."""
    if request.param == "bundled":
        return paths.BUNDLED / "clap"
    folder = paths.BUNDLED / "clap"
    for number in range(1 if request.param == "saved" else 2):
        model = clap.load(folder)
        model.embed_text(["a dog bark", "rain on a tin roof"])
        folder = tmp_path / str(number)
        model.save(folder)
    return folder


@pytest.mark.parametrize("samples", [3_000, 16_000])
def test_the_stock_processor_reads_a_whole_clip(clap_folder, samples):
    from transformers import AutoProcessor, ClapModel

    processor = AutoProcessor.from_pretrained(clap_folder)
    ours, stock = clap.load(clap_folder), ClapModel.from_pretrained(clap_folder).float().eval()
    wave = 0.1 * np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    read = processor(audio=wave, sampling_rate=16_000, audio_kwargs={"max_length": 20_480}, return_tensors="pt")
    assert read["input_features"].shape == (1, 1, 61, 64)
    with torch.no_grad():
        embedded = torch.nn.functional.normalize(stock.get_audio_features(**read).pooler_output, dim=-1)
    assert torch.allclose(embedded, ours.embed_audio(wave[None]), atol=1e-3)


def test_the_stock_tokenizer_reads_what_ours_does(clap_folder):
    from transformers import AutoProcessor

    processor, ours = AutoProcessor.from_pretrained(clap_folder), clap.load(clap_folder)
    texts = ["a dog bark", "rain on a tin roof, " * 40]
    options = {"padding": True, "truncation": True, "return_tensors": "pt"}
    read, own = processor(text=texts, **options), ours.tokenizer(texts, **options)
    assert torch.equal(read["input_ids"], own["input_ids"]) and read["input_ids"].shape == (2, 77)
    assert processor.tokenizer.model_max_length == 77 and "max_length" not in processor.tokenizer.init_kwargs
