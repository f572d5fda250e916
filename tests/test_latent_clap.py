"""The Latent CLAP encoder: sizes, its options, what it refuses, storage."""

import dataclasses
from pathlib import Path

import pytest
import torch
from networks import TINY, frozen, module_sha256, noise
from safetensors.torch import load_file, save_file

from foleylib.networks import latent_clap

BUNDLED = Path(__file__).resolve().parents[1] / "data" / "bundled" / "latent_clap"


def variant(**changes):
    """The encoder of `frozen` with another option."""
    model = latent_clap.LatentClap(dataclasses.replace(TINY, **changes)).eval()
    model.load_state_dict(frozen().state_dict())
    return model


def test_shapes_of_the_published_encoder():
    model = latent_clap.build(latent_clap.LatentClapConfig(), seed=0).eval()
    assert model(noise(1, 8, 256, 16)).shape == (1, 512)
    shorter = model(noise(2, 8, 32, 16))
    torch.testing.assert_close(shorter.norm(dim=1), torch.ones(2))


def test_norm_of_the_embedding_is_a_choice():
    z, free = noise(3, 2, 8, 4), variant(normalise=False)
    torch.testing.assert_close(torch.nn.functional.normalize(free(z), dim=1), frozen()(z))
    assert not torch.allclose(free(z).norm(dim=1), torch.ones(3), atol=0.05)


def test_unscaled_encoder_divides_by_the_scale():
    z, raw = noise(3, 2, 8, 4), variant(scaled=False)
    torch.testing.assert_close(raw(z), frozen()(z / TINY.scale))
    assert not torch.allclose(raw(z), frozen()(z))


def test_pooling_over_time_and_front_norm():
    """A constant latent has no time in it: max + mean over any number of frames is the same inside."""
    model = frozen(latent_clap.LatentClapConfig(channels=2, bands=2, widths=(4,), dim=3))
    with torch.no_grad():
        model.blocks[0].conv1.weight[..., [0, 2], :] = 0  # no neighbours in time, so that borders are no different
        model.blocks[0].conv2.weight[..., [0, 2], :] = 0
    z = noise(2, 2, 1, 2)
    constant = model(z.expand(-1, -1, 4, -1))
    torch.testing.assert_close(constant, model(z.expand(-1, -1, 32, -1)))
    moved = z.expand(-1, -1, 4, -1) * torch.tensor([1.0, 7.0])  # one band louder, and bn0 told so
    model.bn0.running_mean *= torch.tensor([1.0, 7.0])
    model.bn0.running_var = (model.bn0.running_var + model.bn0.eps) * torch.tensor([1.0, 49.0]) - model.bn0.eps
    torch.testing.assert_close(model(moved), constant, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 3, 8, 4), (1, 2, 8, 5), (1, 2, 3, 4), (2, 8, 4)])
def test_encoder_refuses_other_latents(shape):
    with pytest.raises(ValueError, match=r"give latents \(B, 2, T >= 4, 4\)"):
        frozen()(torch.zeros(shape))


def test_config_refuses():
    with pytest.raises(ValueError, match="bands=4: 3 widths pool 8 bands"):
        latent_clap.LatentClapConfig(bands=4, widths=(4, 4, 4))


def test_dropout_is_for_training_alone():
    model, z = frozen(), noise(4, 2, 8, 4)
    assert torch.equal(model(z), model(z))
    model.train()
    assert not torch.allclose(model(z), model(z))


def test_build_is_drawn_from_its_seed():
    before = torch.random.get_rng_state()
    assert module_sha256(frozen(seed=1)) == module_sha256(frozen(seed=1)) != module_sha256(frozen(seed=2))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_round_trip(tmp_path, capsys):
    model = frozen()
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)  # over what is there
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    loaded = latent_clap.load(tmp_path)
    assert capsys.readouterr().out == ""
    assert loaded.config == TINY and not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert module_sha256(loaded) == module_sha256(model)


def test_load_refuses_what_is_not_whole(tmp_path):
    frozen().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, "stray": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="stray"):
        latent_clap.load(tmp_path)
    weights.pop("fc1.bias")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="fc1.bias"):
        latent_clap.load(tmp_path)
    (tmp_path / "config.json").unlink()
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match="run the latent_clap stage first"):
            latent_clap.load(folder)


def test_load_takes_half_precision(tmp_path):
    frozen().half().save_pretrained(tmp_path)
    loaded = latent_clap.load(tmp_path)
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    torch.testing.assert_close(loaded(noise(3, 2, 8, 4)), frozen()(noise(3, 2, 8, 4)), atol=5e-3, rtol=0)


def test_bundled_encoder_loads():
    model = latent_clap.load(BUNDLED)
    assert model.config.widths == (16, 32, 64, 128) and model.config.scale == pytest.approx(0.93034, abs=1e-5)
    stored = load_file(BUNDLED / "model.safetensors")
    assert all(torch.equal(value, stored[name].to(value.dtype)) for name, value in model.state_dict().items())
