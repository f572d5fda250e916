"""Published networks under their original names: golden outputs, and that nothing is loaded loosely."""

import numpy as np
import pytest
import torch
from accelerate import init_empty_weights
from golden_cases import (
    check,
    clap_config,
    empty_state,
    original_state,
    relative_index,
    tensor,
    unet_config,
    vae_config,
    vocoder_config,
)
from transformers import BatchEncoding, ClapModel

from foleylib.networks import clap, unet, vae
from foleylib.networks.published import weights as published


def check_unet(case, model):
    x, t, film = (tensor(case.inputs[name]) for name in ("x", "t", "film"))
    with torch.no_grad():
        eps = model(x, t, None, class_labels=film).sample
        eps_zero = model(x, t, None, class_labels=torch.zeros_like(film)).sample
    check(case, eps=eps, eps_zero_film=eps_zero)


@pytest.mark.parametrize("name", ["06_unet_small_hc16", "06_unet_small_hc8"])
def test_golden_unet(golden, draw_weights, name):
    case = golden(name)
    state = original_state(case, draw_weights)
    check_unet(case, published.unet_from_original(state, unet_config(case)))


@pytest.mark.slow
def test_golden_unet_of_audioldm_s_and_its_gradient(golden, draw_weights):
    case = golden("06_unet_s_full")
    assert unet_config(case) == unet.PUBLISHED["audioldm-s-full"]
    model = published.unet_from_original(original_state(case, draw_weights), unet_config(case))
    check_unet(case, model)
    z_n = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    model(z_n, 400, None, class_labels=tensor(case.inputs["film"][:1])).sample.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("name", ["07_vae_small", "07_vae_full"])
def test_golden_vae(golden, draw_weights, name):
    case = golden(name)
    state = original_state(case, draw_weights)
    config = vae_config(case)
    assert name != "07_vae_full" or config == vae.PUBLISHED
    model = published.vae_from_original(state, config)
    with torch.no_grad():
        moments = model.encode(tensor(case.inputs["mel"])).latent_dist.parameters
        decoded = model.decode(tensor(case.inputs["latent"])).sample
    mean, logvar = moments.chunk(2, dim=1)
    check(case, mean=mean, logvar=logvar.clamp(-30, 20), decoded=decoded)


class StoredTokens:
    """Stands for a tokenizer, with the token ids of the golden case."""

    model_max_length = 77

    def __init__(self, inputs):
        self.inputs = {name: tensor(inputs[name]) for name in ("input_ids", "attention_mask")}

    def __call__(self, texts, **options):
        return BatchEncoding(self.inputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["10_clap_small", "10_clap_tiny"])
def test_golden_clap(golden, draw_weights, name):
    case = golden(name)
    state = original_state(case, draw_weights)
    size = "tiny" if name == "10_clap_tiny" else clap_config(case)
    file = {"state_dict": {f"module.{key}": value for key, value in state.items()}}
    file["state_dict"]["module.text_branch.embeddings.position_ids"] = torch.arange(514)[None]
    model = published.clap_from_laion(file, size)
    whole = clap.Clap(model, StoredTokens(case.inputs), published.clap_extractor()).eval()
    waves = tensor(case.inputs["wave"].astype(np.float32) / 32768)
    log_mel = whole.front_end(whole.fit_window(waves))[:, :, ::16]
    check(case, logmel=log_mel, audio_embedding=whole.embed_audio(waves), text_embedding=whole.embed_text([""] * 3))


def test_golden_clap_config_is_the_published_one(golden):
    ours, theirs = published.clap_config("tiny").to_dict(), clap_config(golden("10_clap_tiny")).to_dict()
    assert ours == theirs


def test_window_offsets_of_transformers_are_those_of_the_original(golden):
    with init_empty_weights(include_buffers=False):
        buffers = dict(ClapModel(clap_config(golden("10_clap_small"))).named_buffers())
    indices = [value for key, value in buffers.items() if key.endswith("relative_position_index")]
    assert len(indices) == 8 and all(torch.equal(index, relative_index(8)) for index in indices)


def test_clap_with_another_epsilon_or_size_is_refused(golden):
    case = golden("10_clap_small")
    state = empty_state(case)
    with pytest.raises(ValueError, match="layer_norm_eps"):
        published.clap_from_laion(state, clap_config(case, layer_norm_eps=1e-12))
    with pytest.raises(ValueError, match="size mismatch for .*word_embeddings"):
        published.clap_from_laion(state, clap_config(case, vocab_size=999))
    with pytest.raises(ValueError, match="tiny, base"):
        published.clap_from_laion(state, "huge")


CONVERTERS = {
    "06_unet_small_hc8": (published.unet_from_original, unet_config, "middle_block.1.proj_in.bias", "proj_in.bias"),
    "07_vae_small": (published.vae_from_original, vae_config, "encoder.mid.attn_1.q.weight", "to_q.weight"),
    "05_hifigan_jik876_22k80_small": (
        published.vocoder_from_original,
        vocoder_config,
        "ups.0.bias",
        "upsampler.0.bias",
    ),
    "10_clap_small": (published.clap_from_laion, clap_config, "text_projection.2.bias", "text_projection.linear2.bias"),
}


@pytest.mark.parametrize("name", CONVERTERS)
def test_every_missing_or_unknown_key_is_named(golden, name):
    case = golden(name)
    state = empty_state(case)
    convert, config, key, named = CONVERTERS[name]
    with pytest.raises(ValueError, match='Unexpected key.*"stray.weight"'):
        convert(state | {"stray.weight": torch.zeros(1)}, config(case))
    with pytest.raises(ValueError, match=f'Missing key.*"[^ ]*{named}"'):
        convert({k: v for k, v in state.items() if k != key}, config(case))


def test_converted_weights_are_copies_in_float32(golden, draw_weights):
    case = golden("07_vae_small")
    state = original_state(case, draw_weights)
    before = state["encoder.conv_in.weight"].clone()
    model = published.vae_from_original({key: value.double() for key, value in state.items()}, vae_config(case))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    model = published.vae_from_original(state, vae_config(case))
    torch.nn.init.zeros_(model.encoder.conv_in.weight)
    assert torch.equal(state["encoder.conv_in.weight"], before)
