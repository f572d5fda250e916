"""The pipeline folder that diffusers reads, the frozen parts, and what decodes latents, on untrained models."""

import shutil

import numpy as np
import pytest
import torch
from networks import module_sha256

from foleylib.audio.mel import front_end
from foleylib.networks import pipeline as pipelines
from foleylib.networks import unet as unets
from foleylib.stages.ldm import alphas_bar, save_with_parts

SHAPE = (8, 16, 16)


@pytest.fixture(scope="module")
def stock(tiny_models):
    """The folder as diffusers reads it."""
    from diffusers import AudioLDMPipeline

    stock = AudioLDMPipeline.from_pretrained(tiny_models / "ldm")
    stock.set_progress_bar_config(disable=True)
    return stock


@pytest.fixture(scope="module")
def pipeline(tiny_models):
    return pipelines.load(tiny_models / "ldm")


# The folder


def test_pipeline_is_loaded_and_generates(stock, tiny_parts):
    assert module_sha256(stock.unet) == module_sha256(tiny_parts.unet) and stock.vae.config.scaling_factor == 0.7
    options = {"num_inference_steps": 2, "guidance_scale": 2.0, "audio_length_in_s": 0.64}
    waves = stock(["a dog barks", "rain"], generator=torch.Generator().manual_seed(0), **options).audios
    assert waves.shape == (2, 10240) and np.isfinite(waves).all() and waves.std() > 1e-4
    assert np.abs(waves[0] - waves[1]).max() > 1e-4


def test_text_encoder_is_claps(stock, tiny_parts):
    texts = ["a dog barks", "", "the sound of rain"]
    tokens = stock.tokenizer(texts, padding="max_length", max_length=40, return_tensors="pt")
    with torch.no_grad():
        embedded = stock.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask).text_embeds
    embedded = torch.nn.functional.normalize(embedded, dim=-1)
    assert torch.allclose(embedded, tiny_parts.clap.embed_text(texts), atol=1e-5)
    nothing = unets.unconditional(tiny_parts.clap)
    assert nothing.given().keys() == {"embedding"} and len(nothing) == 1
    assert torch.allclose(embedded[1:2], nothing.embedding, atol=1e-5)


def test_sampler_of_the_folder_is_audioldms(stock):
    config = stock.scheduler.config
    assert (config.num_train_timesteps, config.beta_start, config.beta_end) == (1000, 0.0015, 0.0195)
    assert config.beta_schedule == "scaled_linear" and config.steps_offset == 1 and not config.set_alpha_to_one


def test_schedule_of_training_is_that_of_the_folder(stock, tiny):
    assert torch.allclose(alphas_bar(tiny), stock.scheduler.alphas_cumprod, rtol=1e-4, atol=1e-6)


def test_parts_of_the_folder(pipeline, tiny_parts):
    for name in ("unet", "vae", "vocoder"):
        part = getattr(pipeline, name)
        assert module_sha256(part) == module_sha256(getattr(tiny_parts, name)) and not part.training
    assert pipeline.noise == {"num_train_timesteps": 1000, "beta_start": 0.0015, "beta_end": 0.0195}
    assert pipeline.scale == 0.7
    assert pipeline.to("cpu") is pipeline


def test_unet_is_that_of_the_folder(tiny_models, tiny_parts):
    unet = unets.load(tiny_models / "ldm")
    assert module_sha256(unet) == module_sha256(tiny_parts.unet) and not unet.training


def test_same_models_make_the_same_folder(tiny_models, tiny, tmp_path):
    shutil.copytree(tiny_models, tmp_path / "elsewhere")
    folders = []
    for number, source in enumerate([tiny_models, tmp_path / "elsewhere"]):
        folders.append(tmp_path / f"{number}")
        save_with_parts(folders[-1], unets.load(source / "ldm"), tiny, pipelines.load_parts(source))
    files = sorted(p.relative_to(folders[0]) for p in folders[0].rglob("*") if p.is_file())
    assert {name.parts[0] for name in files} >= {"model_index.json", "unet", "vae", "vocoder", "text_encoder"}
    one, other = ({name: (folder / name).read_bytes() for name in files} for folder in folders)
    assert [str(name) for name in files if one[name] != other[name]] == []


def test_folder_without_pipeline_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no pipeline.*run the stage"):
        pipelines.load(tmp_path)


def test_prompts_of_a_folder(tmp_path):
    assert pipelines.prompts_of(tmp_path) is None
    (tmp_path / "prompts.json").write_text('{"Rain": "rain on a roof"}')
    assert pipelines.prompts_of(tmp_path) == {"Rain": "rain on a roof"}


def test_frozen_parts(tiny_models):
    parts = pipelines.load_parts(tiny_models)
    assert list(parts) == ["clap", "vae", "vocoder"] and not any(part.training for part in parts.values())
    assert list(pipelines.load_parts(tiny_models, "vae")) == ["vae"]


def test_absent_parts_are_named(tmp_path):
    with pytest.raises(ValueError, match="models/foundation has no clap, vae; run the stage"):
        pipelines.load_parts(tmp_path / "models" / "foundation", "clap", "vae")


# Solvers


def test_solvers(pipeline):
    ddim = pipelines.scheduler(pipeline.noise, "ddim")
    ddim.set_timesteps(200)
    assert ddim.timesteps[[0, 1, -1]].tolist() == [996, 991, 1]
    assert ddim.config.set_alpha_to_one is False and ddim.config.clip_sample is False
    assert pipelines.scheduler(pipeline.noise, "dpm++").config.solver_order == 2
    for spacing, ends in (("leading", (901, 91)), ("log_snr", (900, 5))):
        solver = pipelines.scheduler(pipeline.noise, "dpm++")
        pipelines.set_steps(solver, 10, spacing)
        steps = solver.timesteps.tolist()
        assert len(set(steps)) == 10 and (steps[0], steps[-1]) == ends, spacing
    pipelines.set_steps(ddim, 10, "log_snr")  # DDIM keeps its stride
    assert ddim.timesteps[[0, -1]].tolist() == [901, 1]
    with pytest.raises(ValueError, match="'euler', not one of ddim, dpm"):
        pipelines.scheduler(pipeline.noise, "euler")


# Decoding


def test_shape_of_a_latent(pipeline, tiny):
    corpus = tiny.corpus_of("sampling")
    log_mel = front_end(corpus.rate, corpus.padding)
    shape = pipelines.latent_shape(pipeline.vae, log_mel, corpus.samples)
    with torch.no_grad():
        latents = pipeline.vae.encode(log_mel(torch.zeros(1, corpus.samples))).latent_dist.mean
    assert shape == latents.shape[1:] == SHAPE and pipelines.vae_ratio(pipeline.vae) == 4


def test_decoded_waves_are_in_range(pipeline):
    latents = 30 * torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    waves = pipelines.decode(pipeline, latents, hop=160, batch_size=2)
    assert waves.shape == (3, 10240) and waves.abs().max() <= 1 and waves.std() > 1e-4
    assert torch.allclose(waves[:1], pipelines.decode(pipeline, latents[:1], hop=160), atol=1e-5)
    assert not torch.allclose(waves[0], waves[1], atol=1e-4)


def test_loud_vocoder_is_clipped(pipeline, monkeypatch):
    monkeypatch.setattr(pipeline, "vocoder", lambda mels: torch.linspace(-3, 3, 10272).expand(len(mels), -1))
    waves = pipelines.vocode(pipeline, torch.zeros(2, 1, 64, 64), hop=160)
    assert waves.shape == (2, 10240) and waves.min() == -1 and waves.max() == 1


def test_latents_are_unscaled_before_decoding(pipeline):
    latents = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = pipeline.vae.decode(latents / 0.7).sample
    assert torch.equal(pipelines.decode_mels(pipeline, latents), expected) and expected.shape == (1, 1, 64, 64)


def test_reconstruction(pipeline):
    waves = 0.1 * torch.randn(3, 10240, generator=torch.Generator().manual_seed(0))
    log_mel = front_end(16000, "dataset")
    result = pipelines.reconstruct(pipeline, waves, log_mel, batch_size=2)
    with torch.no_grad():
        mean = pipeline.vae.encode(log_mel(waves)).latent_dist.mean
    assert result.shape == waves.shape and result.std() > 1e-4
    assert torch.allclose(result, pipelines.decode(pipeline, mean * pipeline.scale, hop=160), atol=1e-5)
