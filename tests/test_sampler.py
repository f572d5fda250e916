"""Sampling: seeds, batches, guidance, solvers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from foleylib.diffusion.condition import Condition
from foleylib.networks import pipeline as pipelines
from foleylib.networks import unet as unets
from foleylib.runtime import step_generator
from foleylib.sampling import sampler
from foleylib.sampling.sampler import SamplerOptions

SHAPE = (8, 16, 16)
OPTIONS = SamplerOptions(steps=4, batch_size=3)


@pytest.fixture(scope="module")
def pipeline(tiny_models):
    return pipelines.load(tiny_models / "ldm")


@pytest.fixture(scope="module")
def condition(tiny_parts):
    return Condition(tiny_parts.clap.embed_text(["a dog barks", "rain", "wind"]))


@pytest.fixture(scope="module")
def draw(pipeline, condition, tiny_parts):
    """Draws the latents of three clips, or of some of them, with other options or conditions."""
    conditions, nothing = condition, unets.unconditional(tiny_parts.clap)

    def draw(rows=slice(None), condition=conditions, unconditional=nothing, **changes):
        options, seeds = replace(OPTIONS, **changes), [11, 12, 13][rows]
        return sampler.sample(
            pipeline,
            condition[rows],
            unconditional,
            SHAPE,
            seeds=seeds,
            options=options,
            show=False,
        )

    return draw


def count_rows(pipeline, monkeypatch):
    """The rows that each pass of the U-Net gets."""
    rows, forward = [], pipeline.unet.forward
    monkeypatch.setattr(pipeline.unet, "forward", lambda z, *a, **k: rows.append(len(z)) or forward(z, *a, **k))
    return rows


@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
def test_a_clip_does_not_depend_on_its_batch(draw, solver):
    together = draw(solver=solver)
    assert together.shape == (3, *SHAPE) and torch.isfinite(together).all()
    assert (together - draw(solver=solver, batch_size=1)).abs().max() < 1e-4
    assert (together[1:2] - draw(slice(1, 2), solver=solver)).abs().max() < 1e-4
    assert not torch.allclose(together[0], together[1], atol=0.1)


def test_guidance_one_needs_no_unconditional_pass(pipeline, draw, monkeypatch):
    rows = count_rows(pipeline, monkeypatch)
    plain = draw(unconditional=Condition(torch.full((1, 48), torch.nan)), guidance=1.0)
    assert rows == [3] * 4 and torch.isfinite(plain).all()
    almost = draw(guidance=1.0 + 1e-6)
    assert rows[4:] == [6] * 4 and (plain - almost).abs().max() < 1e-3
    assert (plain - draw(guidance=4.0)).abs().max() > 1e-3


def test_guidance_zero_ignores_the_condition(draw, condition):
    other = condition[torch.tensor([2, 1, 0])]
    assert torch.allclose(draw(guidance=0.0), draw(condition=other, guidance=0.0), atol=1e-5)
    assert not torch.allclose(draw(guidance=2.0), draw(condition=other, guidance=2.0), atol=1e-3)


def test_seeds_decide(pipeline, draw, condition):
    assert torch.equal(draw(eta=0.0), draw(eta=0.0))
    assert torch.equal(draw(eta=1.0), draw(eta=1.0))
    assert not torch.allclose(draw(eta=0.0), draw(eta=1.0), atol=1e-2)
    with pytest.raises(ValueError, match="3 conditions but 2 seeds"):
        sampler.sample(pipeline, condition, condition[:1], SHAPE, seeds=[1, 2], options=OPTIONS)


def test_eta_zero_draws_noise_once(draw, monkeypatch):
    draws, noise = [], sampler._noise
    monkeypatch.setattr(sampler, "_noise", lambda *a: draws.append(1) or noise(*a))
    draw(eta=0.0)
    assert len(draws) == 1
    draw(eta=0.5)
    assert len(draws) == 1 + 1 + 4
    draw(solver="dpm++")
    assert len(draws) == 1 + 1 + 4 + 1


def test_ddim_is_that_of_the_pipeline(pipeline, draw, condition, tiny_models, tiny_parts):
    from diffusers import AudioLDMPipeline

    stock = AudioLDMPipeline.from_pretrained(tiny_models / "ldm")
    stock.set_progress_bar_config(disable=True)
    waves = stock(
        prompt_embeds=condition.embedding,
        negative_prompt_embeds=unets.unconditional(tiny_parts.clap).embedding.expand(3, -1),
        latents=torch.stack([torch.randn(SHAPE, generator=step_generator("cpu", s)) for s in (11, 12, 13)]),
        num_inference_steps=6,
        guidance_scale=2.5,
        eta=0.0,
        audio_length_in_s=0.64,
    ).audios
    ours = pipelines.decode(pipeline, draw(steps=6, guidance=2.5, eta=0.0), hop=160)
    assert ours.shape == waves.shape == (3, 10240)
    assert np.abs(ours.numpy() - waves.clip(-1, 1)).max() < 1e-4 and waves.std() > 1e-4


def test_options_are_those_of_the_settings(tiny):
    section = tiny.sampling.changed(solver="dpm++", steps=7, eta=0.25, guidance=3.5, batch_size=9, spacing="log_snr")
    assert SamplerOptions.of(section) == SamplerOptions("dpm++", 7, 0.25, 3.5, 9, "log_snr")
