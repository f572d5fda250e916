"""LAION's `.pt` as an evaluator: both ways to read it give the authors' embeddings, and what is missing is said at once."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from golden_cases import empty_state
from networks import noise
from transformers import ClapFeatureExtractor

from foleylib.networks import clap
from foleylib.networks.published import laion
from foleylib.params.runs import Evaluator
from foleylib.paths import ROOT
from foleylib.runtime import weights_sha256
from foleylib.stages import evaluators

pytestmark = pytest.mark.published  # laion_clap alone takes half a minute to start
TEXTS = ["a dog barks twice", "rain on a tin roof", "rain " * 100, ""]
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def save_roberta(cache):
    """A small roberta-base in the layout of the Hub's cache; the folder of its files."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaModel

    folder = cache / "models--roberta-base" / "snapshots" / ("a" * 40)
    folder.mkdir(parents=True)
    (cache / "models--roberta-base" / "refs").mkdir()
    (cache / "models--roberta-base" / "refs" / "main").write_text("a" * 40)
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(TEXTS, 300, min_frequency=1, special_tokens=SPECIALS, show_progress=False)
    bpe.save_model(str(folder))
    sizes = {"num_hidden_layers": 1, "intermediate_size": 64, "max_position_embeddings": 514, "type_vocab_size": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        RobertaModel(RobertaConfig(vocab_size=bpe.get_vocab_size(), layer_norm_eps=1e-5, **sizes)).save_pretrained(
            folder
        )
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Random weights as LAION's files hold them, a tokenizer, and what laion_clap itself says of clips and texts."""
    folder = tmp_path_factory.mktemp("laion")
    roberta = save_roberta(folder / "hub")
    clips = 0.4 * noise(2, 500000).numpy()  # 10.4 s
    clips[1] *= 4 * np.sin(np.arange(500000) / 30)  # above full scale
    np.save(folder / "clips.npy", clips)
    (folder / "texts.json").write_text(json.dumps(TEXTS))
    where = {"HF_HUB_CACHE": str(folder / "hub"), "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    script = [sys.executable, str(ROOT / "tests" / "laion_reference.py"), str(folder)]
    run = subprocess.run(script, check=False, env=os.environ | where, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    read = {name: dict(np.load(folder / f"{name}.npz")) for name in ("authors", "ours")}
    return SimpleNamespace(folder=folder, roberta=roberta, clips=torch.from_numpy(clips), **read)


def test_laion_clap_is_called_as_its_authors_do(made):
    for name in ("with_ids", "without_ids"):
        assert np.abs(made.ours[f"{name}.audio"] - made.authors["audio"]).max() < 1e-6
        assert np.abs(made.ours[f"{name}.text"] - made.authors["text"]).max() < 1e-6
    assert made.ours["path_is_clean"]
    assert all(np.abs(x[0] - x[1]).max() > 1e-3 for x in (made.authors["audio"], made.authors["text"]))


@pytest.mark.parametrize("name", ["with_ids", "without_ids"])
def test_both_ways_are_equal_on_the_same_weights(made, name):
    model = laion.load(made.folder / f"{name}.pt", tokenizer=made.roberta)
    with torch.no_grad():
        found = {"audio": model(made.clips)["embedding"], "short": model(made.clips[:1, :170000])["embedding"]}
    found["text"] = model.embed_text(TEXTS)
    for kind, embedded in found.items():
        difference = np.abs(embedded.numpy() - made.authors[kind]).max()
        print(f"{kind}: largest difference {difference:.1e}")
        assert difference < 1e-6 and embedded.shape[1] == model.dim == 512 and model.rate == 48000


def test_a_folder_with_the_defaults_of_transformers_is_put_right(made, tmp_path):
    """As the Hub has laion/clap-htsat-unfused: a text epsilon of 1e-12, and mel bands from 0 Hz on."""
    whole = laion.load(made.folder / "with_ids.pt", tokenizer=made.roberta).clap
    whole.model.config.text_config.layer_norm_eps = 1e-12
    whole.extractor = ClapFeatureExtractor(
        frequency_min=0, frequency_max=14000, truncation="rand_trunc", padding="repeatpad"
    )
    whole.save(tmp_path)
    as_it_is, model = clap.load(tmp_path), laion.load(tmp_path)
    assert as_it_is.extractor.frequency_min == 0 and as_it_is.model.config.text_config.layer_norm_eps == 1e-12
    assert np.abs(as_it_is.embed_text(TEXTS[:2]).numpy() - made.authors["text"][:2]).max() > 2e-6
    assert np.abs(as_it_is.embed_audio(made.clips).numpy() - made.authors["audio"]).max() > 1e-4
    with torch.no_grad():
        assert np.abs(model(made.clips)["embedding"].numpy() - made.authors["audio"]).max() < 1e-6
    assert np.abs(model.embed_text(TEXTS).numpy() - made.authors["text"]).max() < 1e-6


def test_an_evaluator_of_the_settings_is_a_file_with_its_tokenizer(made, tiny):
    def load(**changes):
        path = made.folder / "with_ids.pt"
        entry = Evaluator(kind="laion_clap", weights=str(path), sha256=weights_sha256(path), **changes)
        evaluate = tiny.evaluate.changed(embedders=["judge", "clap", "mine"])
        return evaluators.load(tiny.model_copy(update={"evaluators": {"mine": entry}, "evaluate": evaluate}))["mine"]

    loaded = load(tokenizer=str(made.roberta))
    assert (loaded.dim, loaded.rate, loaded.reads) == (512, 48000, True)
    assert np.abs(loaded.embed(made.clips.numpy())["embedding"] - made.authors["audio"]).max() < 1e-6
    assert np.abs(loaded.embed_text(TEXTS) - made.authors["text"]).max() < 1e-6
    with pytest.raises(ValueError, match="evaluators.mine in params.yaml: .*with_ids.pt: a file has no tokenizer"):
        load()


# Sizes


def of_audioldm(golden, name):
    """The CLAP within a published AudioLDM file, without its values."""
    prefix = "cond_stage_model.model."
    with torch.device("meta"):
        rows = golden(f"08_ckpt_layout_{name}").rows
        return {key.removeprefix(prefix): torch.empty(shape) for key, shape, _ in rows if key.startswith(prefix)}


@pytest.mark.parametrize(("name", "size"), [("audioldm-s-full", "tiny"), ("audioldm-m-full", "base")])
def test_the_size_is_that_of_the_weights(golden, name, size):
    state = of_audioldm(golden, name)
    assert laion.size_of(state) == size
    config, published = laion.config_of(state, size).to_dict(), laion.weights.clap_config(size).to_dict()
    assert config == published


def test_other_networks_are_refused(golden):
    state = of_audioldm(golden, "audioldm-s-full")
    fused = state | {"audio_branch.patch_embed.mel_conv2d.weight": torch.zeros(1)}
    for weights, said in (
        (fused, "with fusion"),
        ({"conv.weight": torch.zeros(1)}, "no CLAP of LAION's"),
        (empty_state(golden("10_clap_small")), "none of"),
    ):
        with pytest.raises(ValueError, match=said):
            laion.size_of(weights)


# What is missing


@pytest.fixture
def file(golden, tmp_path):
    """A file whose audio encoder is a HTSAT-tiny, as far as it is looked at before the rest is read."""
    kept = ("patch_embed.proj.weight", "word_embeddings.weight", "norm1.weight")
    state = {key: value for key, value in of_audioldm(golden, "audioldm-s-full").items() if key.endswith(kept)}
    state = {key: torch.zeros(value.shape[0] if value.ndim < 2 else (len(value), 1)) for key, value in state.items()}
    torch.save({"state_dict": state}, tmp_path / "630k-best.pt")
    return tmp_path / "630k-best.pt"


def test_without_robertas_files_laion_clap_is_not_imported(file, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(
        ValueError, match="630k-best.pt: laion_clap reads roberta-base .*hub, which lacks config.json"
    ) as e:
        laion.load(file, through="laion_clap")
    assert "\n" not in str(e.value) and "hf download roberta-base" in str(e.value)
    folder = save_roberta(tmp_path / "hub")
    (folder / "merges.txt").unlink()
    with pytest.raises(ValueError, match="which lacks merges.txt;"):
        laion.load(file, through="laion_clap")
    assert "laion_clap" not in sys.modules


def test_a_file_needs_the_tokenizer_of_its_weights(file, tmp_path):
    with pytest.raises(ValueError, match="630k-best.pt: a file has no tokenizer; give 'tokenizer', the folder with"):
        laion.load(file)
    with pytest.raises(ValueError, match=r"none/vocab.json and .*none/merges.txt: no such file; give 'tokenizer'"):
        laion.read_tokenizer(tmp_path / "none", 50265)
    with pytest.raises(ValueError, match="the tokenizer knows [0-9]+ tokens, the weights 50265"):
        laion.read_tokenizer(save_roberta(tmp_path / "hub"), 50265)


def test_a_folder_goes_through_transformers(tiny_models):
    with pytest.raises(ValueError, match="laion_clap reads a .pt file, no folder"):
        laion.load(tiny_models / "clap", through="laion_clap")


def test_sixteen_bits_are_those_of_the_authors():
    waves = torch.tensor([[0.0, 1.5, -2.0, 0.99999, -0.5, 3e-5]])
    expected = np.array([0, 32767, -32767, 32766, -16383, 0]) / 32767
    assert torch.equal(laion.sixteen_bits(waves)[0], torch.tensor(expected, dtype=torch.float32))
