"""The tuning layer: what it starts as, and that folding it into the U-Net changes nothing."""

import pytest
import torch

from foleylib import conditioning, pipeline, sampling, train


@pytest.fixture
def tuned(tiny):
    """A U-Net with a tuning layer that training has moved."""
    layer = conditioning.TuningLayer(48, noise=0.1, seed=0)
    with torch.no_grad():
        layer.weight.add_(0.1 * torch.randn(48, 48, generator=torch.Generator().manual_seed(1)))
    return conditioning.TunedUnet(pipeline.new_unet(tiny, 3), layer).eval()


def test_starts_as_identity_and_noise():
    layer = conditioning.TuningLayer(512, noise=0.01, seed=0)
    assert torch.equal(layer.weight, torch.eye(512)) and float(layer.bias.detach().std()) == pytest.approx(
        0.01, rel=0.1
    )
    same, other = (conditioning.TuningLayer(512, noise=0.01, seed=seed) for seed in (0, 1))
    assert torch.equal(layer.bias, same.bias) and not torch.equal(layer.bias, other.bias)
    assert sum(p.numel() for p in layer.parameters()) == 512 * 512 + 512


def test_layer_is_trained_with_the_unet(tuned):
    z, n, E = torch.randn(2, 8, 16, 16), torch.tensor([3, 500]), torch.randn(2, 48)
    tuned(z, n, None, class_labels=E).sample.square().mean().backward()
    assert tuned.tuning.weight.grad.abs().sum() > 0 and tuned.tuning.bias.grad.abs().sum() > 0
    assert len(list(tuned.parameters())) == len(list(tuned.unet.parameters())) + 2


def test_folded_layer_gives_the_same_noise(tuned):
    z, n, E = torch.randn(2, 8, 16, 16), torch.tensor([3, 500]), torch.randn(2, 48)
    with torch.no_grad():
        before = tuned(z, n, None, class_labels=E).sample
        untuned = tuned.unet(z, n, None, class_labels=E).sample
        after = conditioning.fold(tuned)(z, n, None, class_labels=E).sample
    assert torch.allclose(before, after, atol=1e-5) and not torch.allclose(before, untuned, atol=1e-2)


def test_folded_model_sounds_the_same_in_the_stock_pipeline(tuned, tiny, tiny_parts, tmp_path):
    from diffusers import AudioLDMPipeline

    parts = {name: getattr(tiny_parts, name) for name in ("clap", "vae", "vocoder")}
    noise = {"num_train_timesteps": 1000, "beta_start": 0.0015, "beta_end": 0.0195}
    system = sampling.System(tuned, parts["vae"], parts["vocoder"], noise)
    E = parts["clap"].embed_text(["a dog bark"])
    latents = sampling.sample(system, E, pipeline.unconditional(parts["clap"]), (8, 16, 16), seeds=[5], solver="ddim",
                              steps=4, eta=0.0, guidance=2.0, show=False)  # fmt: skip
    ours = sampling.decode(system, latents, hop=160).numpy()
    pipeline.save_pipeline(tmp_path, conditioning.fold(tuned), tiny, **parts)
    stock = AudioLDMPipeline.from_pretrained(tmp_path)
    stock.set_progress_bar_config(disable=True)
    start = torch.randn(8, 16, 16, generator=train.step_generator("cpu", 5))[None]
    theirs = stock(
        "a dog bark", audio_length_in_s=0.64, num_inference_steps=4, guidance_scale=2.0, latents=start
    ).audios
    assert abs(ours - theirs[:, : ours.shape[1]].clip(-1, 1)).max() < 1e-4


def test_saved_layer_is_the_same(tuned, tmp_path):
    conditioning.save(tuned.tuning, tmp_path)
    again = conditioning.load(tmp_path)
    assert torch.equal(again.weight, tuned.tuning.weight) and torch.equal(again.bias, tuned.tuning.bias)
    assert conditioning.load(tmp_path / "none") is None
