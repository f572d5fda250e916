"""Sampling: seeds, batches, guidance, solvers, decoding."""

import numpy as np
import pytest
import torch

from foleylib import mel, sampling, train

SHAPE = (8, 16, 16)


@pytest.fixture(scope="module")
def system(tiny_models):
    return sampling.load(tiny_models / "ldm")


@pytest.fixture(scope="module")
def conditions(tiny_parts):
    return tiny_parts.clap.embed_text(["a dog barks", "rain", "wind"]), tiny_parts.clap.embed_text([""])[0]


def draw(system, conditions, rows=slice(None), **changes):
    options = {"steps": 4, "show": False, "batch_size": 3} | changes
    seeds = [11, 12, 13][rows]
    return sampling.sample(system, conditions[0][rows], conditions[1], SHAPE, seeds=seeds, **options)


def watch(system, monkeypatch):
    """The rows that each pass of the U-Net gets."""
    rows, forward = [], system.unet.forward
    monkeypatch.setattr(system.unet, "forward", lambda z, *a, **k: rows.append(len(z)) or forward(z, *a, **k))
    return rows


@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
def test_a_clip_does_not_depend_on_its_batch(system, conditions, solver):
    together = draw(system, conditions, solver=solver)
    assert together.shape == (3, *SHAPE) and torch.isfinite(together).all()
    assert (together - draw(system, conditions, solver=solver, batch_size=1)).abs().max() < 1e-4
    assert (together[1:2] - draw(system, conditions, slice(1, 2), solver=solver)).abs().max() < 1e-4
    assert not torch.allclose(together[0], together[1], atol=0.1)


def test_guidance_one_needs_no_unconditional_pass(system, conditions, monkeypatch):
    rows = watch(system, monkeypatch)
    plain = draw(system, (conditions[0], torch.full_like(conditions[1], torch.nan)), guidance=1.0)
    assert rows == [3] * 4 and torch.isfinite(plain).all()
    almost = draw(system, conditions, guidance=1.0 + 1e-6)
    assert rows[4:] == [6] * 4 and (plain - almost).abs().max() < 1e-3
    assert (plain - draw(system, conditions, guidance=4.0)).abs().max() > 1e-3


def test_guidance_zero_ignores_the_condition(system, conditions):
    other = (conditions[0].flip(0), conditions[1])
    assert torch.allclose(draw(system, conditions, guidance=0.0), draw(system, other, guidance=0.0), atol=1e-5)


def test_seeds_decide(system, conditions):
    assert torch.equal(draw(system, conditions, eta=0.0), draw(system, conditions, eta=0.0))
    assert torch.equal(draw(system, conditions, eta=1.0), draw(system, conditions, eta=1.0))
    assert not torch.allclose(draw(system, conditions, eta=0.0), draw(system, conditions, eta=1.0), atol=1e-2)
    with pytest.raises(ValueError, match="3 conditions but 2 seeds"):
        sampling.sample(system, *conditions, SHAPE, seeds=[1, 2], show=False)


def test_eta_zero_draws_noise_once(system, conditions, monkeypatch):
    draws, noise = [], sampling._noise
    monkeypatch.setattr(sampling, "_noise", lambda *a: draws.append(1) or noise(*a))
    draw(system, conditions, eta=0.0)
    assert len(draws) == 1
    draw(system, conditions, eta=0.5)
    assert len(draws) == 1 + 1 + 4


def test_ddim_is_that_of_the_pipeline(system, conditions, tiny_models):
    from diffusers import AudioLDMPipeline

    pipeline = AudioLDMPipeline.from_pretrained(tiny_models / "ldm")
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.stack([torch.randn(SHAPE, generator=train.step_generator("cpu", s)) for s in (11, 12, 13)])
    waves = pipeline(prompt_embeds=conditions[0], negative_prompt_embeds=conditions[1].expand(3, -1), latents=noise,
                     num_inference_steps=6, guidance_scale=2.5, eta=0.0, audio_length_in_s=0.64).audios  # fmt: skip
    ours = sampling.decode(system, draw(system, conditions, steps=6, guidance=2.5, eta=0.0), hop=160)
    assert ours.shape == waves.shape == (3, 10240)
    assert np.abs(ours.numpy() - waves.clip(-1, 1)).max() < 1e-4 and waves.std() > 1e-4


def test_solvers(system):
    ddim = sampling.scheduler(system.noise, "ddim")
    ddim.set_timesteps(200)
    assert ddim.timesteps[[0, 1, -1]].tolist() == [996, 991, 1]
    assert ddim.config.set_alpha_to_one is False and ddim.config.clip_sample is False
    assert sampling.scheduler(system.noise, "dpm++").config.solver_order == 2
    with pytest.raises(ValueError, match="'euler', not one of ddim, dpm"):
        sampling.scheduler(system.noise, "euler")


def test_clip_seeds():
    few = sampling.clip_seeds(0, [("a", 0), ("a", 1), ("b", 0)])
    other = sampling.clip_seeds(0, [("b", 0), ("c", 0), ("a", 1), ("a", 0)])
    assert few == [other[3], other[2], other[0]] and len(set(other)) == 4
    assert not set(few) & set(sampling.clip_seeds(1, [("a", 0), ("a", 1), ("b", 0)]))
    assert all(0 <= seed < 2**63 for seed in other)


def test_decoded_waves_are_in_range(system):
    latents = 30 * torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    waves = sampling.decode(system, latents, hop=160, batch_size=2)
    assert waves.shape == (3, 10240) and waves.abs().max() <= 1
    assert torch.allclose(waves[:1], sampling.decode(system, latents[:1], hop=160), atol=1e-5)


def test_loud_vocoder_is_clipped(system, monkeypatch):
    monkeypatch.setattr(system, "vocoder", lambda mels: torch.linspace(-3, 3, 10272).expand(len(mels), -1))
    waves = sampling.vocode(system, torch.zeros(2, 1, 64, 64), hop=160)
    assert waves.shape == (2, 10240) and waves.min() == -1 and waves.max() == 1


def test_latents_are_unscaled_before_decoding(system):
    assert system.scale == 0.7
    latents = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = system.vae.decode(latents / 0.7).sample
    assert torch.equal(sampling.mels_of(system, latents), expected) and expected.shape == (1, 1, 64, 64)


def test_reconstruction(system, tiny):
    waves = 0.1 * torch.randn(3, 10240, generator=torch.Generator().manual_seed(0))
    front = mel.front_end(tiny.audio)
    made = sampling.reconstruct(system, waves, front, batch_size=2)
    with torch.no_grad():
        mean = system.vae.encode(front(waves)).latent_dist.mean
    assert made.shape == waves.shape
    assert torch.allclose(made, sampling.decode(system, mean * system.scale, hop=160), atol=1e-5)


def test_folder_without_pipeline_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no pipeline.*run the stage"):
        sampling.load(tmp_path)
