"""Model cards: beside every model, true of its weights, the same on every run; their lines load it."""

import re
import shutil

import pytest
import torch
import yaml
from transformers import AutoProcessor, ClapModel

from foleylib import paths
from foleylib.datasets.manifest import SYNTHETIC
from foleylib.networks import clap as claps
from foleylib.runtime import weights_sha256
from foleylib.stages import cards

BUNDLED = sorted(path for path in (paths.ROOT / "data" / "bundled").iterdir() if path.is_dir())
NAMES = [path.name for path in BUNDLED]


def parts_of(text):
    """Front matter and lines of Python of a card."""
    return yaml.safe_load(text.split("---\n")[1]), re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]


@pytest.mark.parametrize("folder", BUNDLED, ids=NAMES)
def test_the_bundled_cards_are_up_to_date(folder):
    told = cards.card(folder, cards.provenance_of(folder), folder.relative_to(paths.ROOT).as_posix())
    assert (folder / "README.md").read_text() == told, f"run cards.write on data/bundled/{folder.name}"


@pytest.mark.parametrize("folder", BUNDLED, ids=NAMES)
def test_the_lines_of_a_card_load_the_model_in_float32(folder, monkeypatch):
    front, lines = parts_of((folder / "README.md").read_text())
    assert front["license"] == "mit" and front["datasets"] == ["synthetic"] and front["library_name"] in lines
    monkeypatch.chdir(paths.ROOT)
    names = {}
    exec(compile(lines, folder.name, "exec"), names)  # noqa: S102, these are our own lines
    models = [m for m in names.values() if isinstance(m, torch.nn.Module) or hasattr(m, "model")]
    assert models, lines
    for model in models:
        weights = list(getattr(model, "model", model).parameters())
        assert weights and all(value.dtype == torch.float32 for value in weights)


def test_a_card_tells_of_the_weights_that_are_there(tmp_path):
    folder = shutil.copytree(BUNDLED[NAMES.index("judge")], tmp_path / "judge")
    told = cards.provenance_of(folder)
    cards.write(folder, told)
    text = (folder / "README.md").read_text()
    accuracy = told["held_out"]["val_accuracy"]
    assert f"| accuracy | {accuracy:g} |" in text and told["sha256"]["model.safetensors"] in text
    assert "stored in float16" in text and "seconds" not in text and "device" not in text
    assert weights_sha256(folder) == weights_sha256(BUNDLED[NAMES.index("judge")])  # the card is none of the weights


@pytest.mark.parametrize(
    "told, license, said",
    [
        ({"licences": {SYNTHETIC: 3}, "corpus": {"kind": "synthetic", "rate": 16000, "seconds": 1.28}}, "mit", "MIT"),
        ({"licences": {"CC BY-NC 3.0": 3}, "corpus": {"kind": "esc50", "rate": 16000, "seconds": 1.28}}, "other", "CC BY-NC"),
        ({"from": "cvssp/audioldm-s-full-v2", "licence": "", "revision": "abc"}, "other", "CC BY-NC-SA 4.0"),
        ({"source": "published checkpoint"}, "other", "unknown"),
    ],
)  # fmt: skip
def test_the_licence_is_that_of_what_it_learned_from(tmp_path, told, license, said):
    folder = shutil.copytree(BUNDLED[NAMES.index("vae")], tmp_path / "vae")
    cards.write(folder, told)
    front, _ = parts_of((folder / "README.md").read_text())
    assert front["license"] == license and (license == "mit" or said in front["license_name"])
    assert said in (folder / "README.md").read_text().split("## Licence")[1]


# CLAP as transformers reads it.


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A CLAP that was read, called on texts of two lengths, and saved again."""
    folder = tmp_path_factory.mktemp("clap")
    clap = claps.load(BUNDLED[NAMES.index("clap")])
    clap.embed_text(["rain", "a dog barks twice, far away"])
    clap.save(folder)
    return folder, clap


@pytest.mark.parametrize("length", [20480, 9000])
@pytest.mark.parametrize("where", ["bundled", "saved again"])
def test_stock_transformers_embeds_as_we_do(saved, where, length):
    folder, clap = saved
    folder = folder if where == "saved again" else BUNDLED[NAMES.index("clap")]
    model, processor = (
        ClapModel.from_pretrained(folder, dtype=torch.float32).eval(),
        AutoProcessor.from_pretrained(folder),
    )
    processor.feature_extractor.nb_max_samples = int(processor.feature_extractor.nb_max_samples)  # as the card says
    wave = 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(0))
    heard = processor(audio=wave.numpy(), sampling_rate=clap.rate, return_tensors="pt")
    said = processor(text=["rain", "a dog barks twice"], padding=True, return_tensors="pt")
    with torch.no_grad():
        audio = torch.nn.functional.normalize(model.get_audio_features(**heard).pooler_output)
        text = torch.nn.functional.normalize(model.get_text_features(**said).pooler_output)
    torch.testing.assert_close(audio, clap.embed_audio(wave[None]), atol=1e-5, rtol=0)
    torch.testing.assert_close(text, clap.embed_text(["rain", "a dog barks twice"]), atol=1e-5, rtol=0)


def test_a_saved_tokenizer_keeps_nothing_of_its_calls(saved):
    folder, _ = saved
    told = yaml.safe_load((folder / "tokenizer_config.json").read_text())
    assert not set(told) & set(claps.LAST_CALL) and told["model_max_length"] == 77
    assert '"truncation": null' in (folder / "tokenizer.json").read_text()
