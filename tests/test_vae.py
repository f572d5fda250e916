"""The variational autoencoder: shapes, storage."""

import torch
from diffusers import AutoencoderKL

from foleylib.networks import vae


def moments(model):
    """Posterior moments of fixed random mels."""
    mels = torch.randn(2, 1, 32, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.encode(mels).latent_dist.parameters


def test_shapes_and_seeds():
    state = torch.random.get_rng_state()
    one, same, other = (moments(vae.build([8, 8, 16], 1, 4, 8, seed=s).eval()) for s in (1, 1, 2))
    assert one.shape == (2, 8, 8, 16)
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_round_trip(tiny_models, tiny_parts):
    loaded = AutoencoderKL.from_pretrained(tiny_models / "vae")
    assert loaded.config.scaling_factor == 0.7 and not loaded.training
    assert torch.equal(moments(loaded), moments(tiny_parts.vae))
