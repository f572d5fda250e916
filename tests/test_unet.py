"""The U-Net's heads and sizes, and the tuning layer: what it starts as, and that folding it in changes nothing."""

import pytest
import torch
from networks import module_sha256

from foleylib.diffusion.condition import Condition
from foleylib.networks import pipeline as pipelines
from foleylib.networks import unet as unets
from foleylib.runtime import parameters, step_generator
from foleylib.sampling.sampler import SamplerOptions, sample
from foleylib.stages.ldm import new_unet, save_with_parts


def small(seed=0):
    return unets.build([8, 16], 4, layers=1, groups=8, dim=6, latent_channels=2, seed=seed)


@pytest.mark.parametrize("name", unets.PUBLISHED)
def test_published_heads(name):
    with torch.device("meta"):
        unet = unets.build(**unets.PUBLISHED[name])
    head_channels, channels = unets.PUBLISHED[name]["head_channels"], unets.PUBLISHED[name]["channels"]
    assert heads_by_width(unet) == {c: c // head_channels for c in channels[1:]}


def heads_by_width(unet):
    """Width -> heads of every attention; a width with two counts fails."""
    heads = {}
    for module in unet.modules():
        if hasattr(module, "to_q"):
            assert heads.setdefault(module.to_q.in_features, module.heads) == module.heads
    return heads


def test_attention_is_only_to_itself():
    unet = small()
    assert heads_by_width(unet) == {16: 4}
    widths = [(m.to_q.in_features, m.to_k.in_features) for m in unet.modules() if hasattr(m, "to_q")]
    assert widths and all(q == k for q, k in widths)
    assert not any(hasattr(m, "to_q") for m in unet.down_blocks[0].modules())


def test_condition_reaches_the_output():
    unet, z = small().eval(), torch.randn(1, 2, 8, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = (unet(z, 5, None, class_labels=c).sample for c in (torch.ones(1, 6), -torch.ones(1, 6)))
    assert one.shape == z.shape and not torch.allclose(one, other, atol=1e-3)


def test_build_is_drawn_from_its_seed():
    before = torch.random.get_rng_state()
    assert module_sha256(small(1)) == module_sha256(small(1)) != module_sha256(small(2))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_sizes_are_those_of_the_settings(tiny, tiny_parts):
    section, other = tiny.foundation.ldm, next(iter(tiny.foundation.sizes))
    assert tiny_parts.unet.config.block_out_channels == section.channels
    assert tiny_parts.unet.config.projection_class_embeddings_input_dim == tiny.foundation.clap.dim
    assert new_unet(tiny, other, 0).config.block_out_channels == tiny.foundation.sizes[other].channels


# The tuning layer


@pytest.fixture
def tuned(tiny):
    """A U-Net with a tuning layer that training has moved."""
    layer = unets.TuningLayer(48, noise=0.1, seed=0)
    with torch.no_grad():
        layer.weight.add_(0.1 * torch.randn(48, 48, generator=torch.Generator().manual_seed(1)))
    return unets.TunedUnet(new_unet(tiny, "ldm", 3), layer).eval()


@pytest.fixture
def inputs():
    draws = torch.Generator().manual_seed(4)
    return torch.randn(2, 8, 16, 16, generator=draws), torch.tensor([3, 500]), torch.randn(2, 48, generator=draws)


def test_layer_starts_as_identity_and_noise():
    layer = unets.TuningLayer(512, noise=0.01, seed=0)
    assert torch.equal(layer.weight, torch.eye(512))
    assert float(layer.bias.detach().std()) == pytest.approx(0.01, rel=0.1)
    same, other = (unets.TuningLayer(512, noise=0.01, seed=seed) for seed in (0, 1))
    assert torch.equal(layer.bias, same.bias) and not torch.equal(layer.bias, other.bias)
    assert parameters(layer) == 512 * 512 + 512


def test_layer_is_trained_with_the_unet(tuned, inputs):
    z, n, E = inputs
    tuned(z, n, None, class_labels=E).sample.square().mean().backward()
    assert tuned.tuning.weight.grad.abs().sum() > 0 and tuned.tuning.bias.grad.abs().sum() > 0
    assert len(list(tuned.parameters())) == len(list(tuned.unet.parameters())) + 2
    assert tuned.device == torch.device("cpu")


def test_folded_layer_gives_the_same_noise(tuned, inputs):
    z, n, E = inputs
    with torch.no_grad():
        before = tuned(z, n, None, class_labels=E).sample
        untuned = tuned.unet(z, n, None, class_labels=E).sample
        after = unets.fold(tuned)(z, n, None, class_labels=E).sample
    assert torch.allclose(before, after, atol=1e-5) and not torch.allclose(before, untuned, atol=1e-2)


def test_folded_model_sounds_the_same_in_the_stock_pipeline(tuned, tiny, tiny_parts, tmp_path):
    from diffusers import AudioLDMPipeline

    parts = {name: getattr(tiny_parts, name) for name in ("clap", "vae", "vocoder")}
    noise = {"num_train_timesteps": 1000, "beta_start": 0.0015, "beta_end": 0.0195}
    system = pipelines.Pipeline(tuned, parts["vae"], parts["vocoder"], noise)
    condition = Condition(parts["clap"].embed_text(["a dog bark"]))
    options, nothing = SamplerOptions(steps=4, eta=0.0, guidance=2.0), unets.unconditional(parts["clap"])
    latents = sample(system, condition, nothing, (8, 16, 16), seeds=[5], options=options, show=False)
    ours = pipelines.decode(system, latents, hop=160).numpy()
    save_with_parts(tmp_path, unets.fold(tuned), tiny, parts)
    stock = AudioLDMPipeline.from_pretrained(tmp_path)
    stock.set_progress_bar_config(disable=True)
    start = torch.randn(8, 16, 16, generator=step_generator("cpu", 5))[None]
    options = {"audio_length_in_s": 0.64, "num_inference_steps": 4, "guidance_scale": 2.0}
    theirs = stock("a dog bark", latents=start, **options).audios
    assert abs(ours).max() > 1e-4
    assert abs(ours - theirs[:, : ours.shape[1]].clip(-1, 1)).max() < 1e-4


def test_saved_layer_is_the_same(tuned, tmp_path):
    unets.save_tuning(tuned.tuning, tmp_path)
    again = unets.load_tuning(tmp_path)
    assert torch.equal(again.weight, tuned.tuning.weight) and torch.equal(again.bias, tuned.tuning.bias)
    assert not any(p.requires_grad for p in again.parameters())
    assert unets.load_tuning(tmp_path / "none") is None
