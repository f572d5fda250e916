"""The variational autoencoder: shapes, training, storage, latent scale."""

import pytest
import torch

from foleylib import mel, params, pipeline, vae


def tones(n, samples=5120):
    time = torch.arange(samples) / 16000
    return torch.stack([0.3 * torch.sin(2 * torch.pi * 300 * (i + 1) * time) for i in range(n)])


def test_shapes_and_seeds():
    one, same, other = (vae.build([8, 8, 16], 1, 4, 8, seed=s).eval() for s in (1, 1, 2))
    mels = torch.randn(2, 1, 32, 64, generator=torch.Generator().manual_seed(0))
    moments = vae.moments(one, mels)
    assert moments.shape == (2, 8, 8, 16) and not moments.requires_grad
    assert torch.equal(moments, vae.moments(same, mels)) and not torch.equal(moments, vae.moments(other, mels))


def test_size_is_the_published_one():
    with torch.device("meta"):
        model = vae.build(**vae.PUBLISHED, seed=0)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(55.38e6, abs=5e3)


def test_terms_in_closed_form():
    model = vae.build([8, 8], 1, 2, 8, seed=0).eval()
    mels = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    terms = vae.terms(model, mels, torch.Generator().manual_seed(1))
    mean, log_variance = model.encode(mels).latent_dist.parameters.chunk(2, 1)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(1))
    made = model.decode(mean + (log_variance / 2).exp() * noise).sample
    assert torch.allclose(terms["l1"], (made - mels).abs().mean(), rtol=1e-4)
    assert torch.allclose(terms["l2"], (made - mels).pow(2).mean(), rtol=1e-4)
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)
    assert torch.allclose(terms["kl"], divergence.mean(), rtol=1e-4)


def test_overfits_a_batch(tiny, tmp_path):
    changes = {"steps": 25, "batch_size": 4, "warmup": 5, "lr": 4e-3, "validate_every": 25, "checkpoint_every": 1000}
    sizes = tiny.foundation.vae.model_dump() | {"channels": [8, 16], "train": tiny.foundation.vae.train.model_dump() | changes}  # fmt: skip
    settings, front = params.parse(_with_vae(tiny, sizes)).foundation.vae, mel.front_end(tiny.audio)
    held = front(tones(4))
    model, history = vae.fit(settings, tones(4), front, held_out=held, seed=0, scratch=tmp_path, device="cpu")
    assert {"l1", "l2", "kl", "val_l1"} <= set(history.columns)
    assert history.l1.iloc[-1] < 0.7 * history.l1.iloc[0]
    assert history.val_l1.dropna().iloc[-1] == pytest.approx(
        vae.reconstruction_error(model, held, batch=3)["l1"], rel=1e-4
    )


def _with_vae(settings, section):
    plain = settings.model_dump(mode="json")
    plain["foundation"]["vae"] = section
    return plain


def test_round_trip(tiny_models, tiny_parts, tiny_paths):
    found = pipeline.load_parts("vae")["vae"]
    mels = torch.randn(2, 1, 32, 64, generator=torch.Generator().manual_seed(0))
    assert found.config.scaling_factor == 0.7 and not found.training
    assert torch.equal(vae.moments(found, mels), vae.moments(tiny_parts.vae, mels))


def test_sample_and_scale():
    generator = torch.Generator().manual_seed(0)
    mean = 3 + 2 * torch.randn(50, 4, 8, 8, generator=generator)
    moments = torch.cat([mean, torch.full_like(mean, 2 * torch.tensor(1.5).log())], 1)
    scale = vae.measure_scale(moments, torch.Generator().manual_seed(1))
    assert scale == pytest.approx(1 / 2.5, rel=0.02)  # variances add: 2^2 + 1.5^2
    assert float(vae.sample(moments, scale, torch.Generator().manual_seed(1)).std()) == pytest.approx(1, abs=1e-5)
    one, two = (vae.sample(moments, 1.0, torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(one, two)
