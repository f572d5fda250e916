"""Folders of networks: a weight that is missing, unknown, of another shape or not finite is never made up."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from foleylib.networks import clap, judge, latent_clap, unet, vae, vocoder

LOADERS = {
    "clap": (clap.load, "audio_model.audio_encoder.layers.0.blocks.0.attention.self.query.weight"),
    "vae": (vae.load, "decoder.conv_in.weight"),
    "vocoder": (vocoder.load, "conv_pre.weight"),
    "ldm": (unet.load, "conv_in.weight"),
}


@pytest.fixture(params=LOADERS)
def damaged(request, tiny_models, tmp_path):
    """A loader of a copy of a part of the foundation, and a function that changes its weights first."""
    load, key = LOADERS[request.param]
    folder = shutil.copytree(tiny_models / request.param, tmp_path / request.param)
    (file,) = (folder / "unet" if request.param == "ldm" else folder).glob("*.safetensors")
    state = load_file(file)
    assert key in state

    def change(change_state):
        change_state(state, key)
        save_file(state, file, metadata={"format": "pt"})
        return load(folder)

    return change, file, lambda: load(folder)


def remove(state, key):
    del state[key]


def add(state, key):
    state["unknown.weight"] = torch.zeros(3)


def reshape(state, key):
    state[key] = torch.zeros(2, 2)


def spoil(state, key):
    state[key].view(-1)[0] = torch.nan


@pytest.mark.parametrize("how", [remove, add, reshape, spoil])
def test_damaged_weights_are_refused_by_name(damaged, how):
    change, _, _ = damaged
    name = "unknown.weight" if how is add else "weight"
    with pytest.raises(ValueError, match=f"(?s){name}"):
        change(how)


def test_a_file_cut_short_is_refused(damaged):
    _, file, load = damaged
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged or incomplete"):
        load()


def test_our_own_networks_refuse_what_is_not_finite(tmp_path):
    model = judge.build(("a", "b"), rate=16000, widths=(4,), embedding_dim=2, seed=0)
    with torch.no_grad():
        model.fc1.weight[0] = torch.inf
    model.save_pretrained(tmp_path / "judge")
    with pytest.raises(ValueError, match="'fc1.weight' holds NaN or Inf"):
        judge.load(tmp_path / "judge")
    encoder = latent_clap.build(latent_clap.LatentClapConfig(channels=2, bands=4, widths=(4,), dim=3), seed=0)
    encoder.save_pretrained(tmp_path / "encoder")
    file = tmp_path / "encoder" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match="run the latent_clap stage again"):
        latent_clap.load(tmp_path / "encoder")


def test_the_stage_that_makes_a_folder_is_named(tmp_path):
    for load, stage in [(clap.load, "clap"), (vae.load, "vae"), (vocoder.load, "vocoder"), (unet.load, "pretrain")]:
        with pytest.raises(ValueError, match=f"run the {stage}"):
            load(tmp_path / "absent")
