"""The pipeline folder that diffusers reads, and the frozen parts, on untrained models."""

import numpy as np
import pytest
import torch

from foleylib import features, ldm, pipeline


@pytest.fixture(scope="module")
def loaded(tiny_models):
    from diffusers import AudioLDMPipeline

    made = AudioLDMPipeline.from_pretrained(tiny_models / "ldm")
    made.set_progress_bar_config(disable=True)
    return made


def test_pipeline_is_loaded_and_generates(loaded, tiny_parts):
    assert ldm.digest(loaded.unet) == ldm.digest(tiny_parts.unet) and loaded.vae.config.scaling_factor == 0.7
    options = {"num_inference_steps": 2, "guidance_scale": 2.0, "audio_length_in_s": 0.64}
    waves = loaded(["a dog barks", "rain"], generator=torch.Generator().manual_seed(0), **options).audios
    assert waves.shape == (2, 10240) and np.isfinite(waves).all() and waves.std() > 0


def test_text_encoder_is_claps(loaded, tiny_parts):
    texts = ["a dog barks", "", "the sound of rain"]
    tokens = loaded.tokenizer(texts, padding="max_length", max_length=40, return_tensors="pt")
    with torch.no_grad():
        found = loaded.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask).text_embeds
    found = torch.nn.functional.normalize(found, dim=-1)
    assert torch.allclose(found, tiny_parts.clap.embed_text(texts), atol=1e-5)
    assert torch.allclose(found[1], pipeline.unconditional(tiny_parts.clap), atol=1e-5)


def test_sampler_of_the_folder_is_audioldms(loaded):
    config = loaded.scheduler.config
    assert (config.num_train_timesteps, config.beta_start, config.beta_end) == (1000, 0.0015, 0.0195)
    assert config.beta_schedule == "scaled_linear" and config.steps_offset == 1 and not config.set_alpha_to_one


def test_unet_is_that_of_the_folder(tiny_models, tiny_parts, tiny):
    found = pipeline.load_unet(tiny_models / "ldm")
    assert ldm.digest(found) == ldm.digest(tiny_parts.unet) and not found.training
    assert pipeline.alphas_bar(tiny).shape == (1000,)


def test_parts(tiny_models, tiny_paths):
    parts = pipeline.load_parts()
    assert list(parts) == ["clap", "vae", "vocoder"] and not any(part.training for part in parts.values())
    assert list(pipeline.load_parts("vae")) == ["vae"]


def test_absent_parts_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline.paths, "FOUNDATION", tmp_path)
    with pytest.raises(ValueError, match="models/foundation has no clap, vae; run the stage"):
        pipeline.load_parts("clap", "vae")


def test_features_follow_the_models(tiny, tiny_corpus, tiny_models, tiny_paths):
    out = pipeline.make_features("foley", tiny)
    key = (out / "features.json").read_text()
    index, arrays = features.load(out, "train")
    assert out == tiny_paths.FEATURES / "foley" and len(index) == len(arrays["moments"]) == 8
    config = tiny_models / "vae" / "config.json"
    before = config.read_text()
    config.write_text(before + "\n")
    pipeline.make_features("foley", tiny)
    assert (out / "features.json").read_text() != key
    config.write_text(before)
