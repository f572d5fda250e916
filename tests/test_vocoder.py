"""The HiFi-GAN generator and its discriminators: published sizes and outputs, weight norm, storage."""

import copy
import math

import numpy as np
import pytest
import torch
from golden_cases import check, original_state, vocoder_config
from safetensors.torch import load_file, save_file

from foleylib.audio.mel import FRONT_ENDS, front_end
from foleylib.networks import discriminators, vocoder
from foleylib.networks.published.weights import vocoder_from_original

TINY = {"channels": 32, "resblock_kernels": (3,), "dilations": (1, 3)}


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def tiny_generator(rate=16000, **options):
    return vocoder.generator(vocoder.generator_config(rate, **TINY), **options).eval()


@pytest.mark.parametrize("name", ["audioldm_16k64_small", "jik876_22k80_small", "audioldm_16k64_full"])
def test_golden(golden, draw_weights, name):
    case = golden(f"05_hifigan_{name}")
    model = vocoder_from_original({"generator": original_state(case, draw_weights)}, vocoder_config(case))
    mel = torch.from_numpy(next(iter(case.inputs.values())).astype(np.float32))
    with torch.no_grad():
        check(case, wave=model(mel.transpose(1, 2))[:, None])


def test_golden_configs_are_the_published_ones(golden):
    full, small = (golden(f"05_hifigan_{name}") for name in ("audioldm_16k64_full", "jik876_22k80_small"))
    ours = vocoder.generator_config(**vocoder.PUBLISHED["audioldm_16k"]).to_dict()
    assert vocoder.generator_config(**vocoder_config(full)).to_dict() == ours
    ours = vocoder.generator_config(22050, channels=64).to_dict()
    assert vocoder.generator_config(**vocoder_config(small)).to_dict() == ours


def test_original_state_with_a_fault_is_refused(golden, draw_weights):
    case = golden("05_hifigan_audioldm_16k64_small")
    state = original_state(case, draw_weights)
    with pytest.raises(ValueError, match="does not fit its config"):
        vocoder_from_original(state, {"rate": 16000, **TINY})
    with pytest.raises(ValueError, match="Unexpected.*upsampler.9.bias"):
        vocoder_from_original({**state, "ups.9.bias": torch.zeros(1)}, vocoder_config(case))
    del state["conv_post.bias"]
    with pytest.raises(ValueError, match="Missing.*conv_post.bias"):
        vocoder_from_original(state, vocoder_config(case))


@pytest.mark.parametrize("rate", FRONT_ENDS)
def test_trimmed_output_has_one_hop_per_frame(rate):
    front = FRONT_ENDS[rate]
    assert math.prod(vocoder.UPSAMPLING[rate][0]) == front.hop
    with torch.no_grad():
        wave = tiny_generator(rate)(noise(1, 7, front.n_mels))
    assert wave.shape[1] - 7 * front.hop == {16000: 32, 48000: 16}.get(rate, 0)
    assert torch.equal(vocoder.trim(wave, 7, front.hop), wave[:, : 7 * front.hop])
    with pytest.raises(ValueError, match="hop"):
        vocoder.trim(wave, 6, front.hop)


@pytest.mark.parametrize(
    ("rate", "changes", "message"),
    [
        (16000, {"channels": 48}, "multiple of 32"),
        (44100, {}, "no defaults"),
        (16000, {"upsample_kernels": (16, 16)}, "one kernel"),
    ],
)
def test_config_refuses(rate, changes, message):
    with pytest.raises(ValueError, match=message):
        vocoder.generator_config(rate, **changes)


@torch.no_grad()
def test_weight_norm_changes_neither_output_nor_the_saved_weights(tmp_path):
    model, mel = tiny_generator(seed=1), noise(1, 9, 64)
    names, before = list(model.state_dict()), model(mel)
    model.apply_weight_norm()
    normed = list(model.state_dict())
    assert any("original0" in key for key in normed)
    torch.testing.assert_close(model(mel), before, atol=1e-6, rtol=0)
    vocoder.save(model, tmp_path)
    assert list(model.state_dict()) == normed
    loaded = vocoder.load(tmp_path)
    assert sorted(loaded.state_dict()) == sorted(names) and not loaded.training
    assert (tmp_path / "model.safetensors").is_file() and not loaded.config.normalize_before
    torch.testing.assert_close(loaded(mel), before, atol=1e-6, rtol=0)
    twin = copy.deepcopy(model)  # as an average of the weights is
    assert torch.equal(vocoder.remove_weight_norm(twin)(mel), loaded(mel))
    assert torch.equal(twin(mel), model(mel))


def test_load_refuses_missing_weights(tmp_path):
    vocoder.save(tiny_generator(), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["conv_post.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="conv_post.weight"):
        vocoder.load(tmp_path)


def test_seeds_decide_and_global_state_stays():
    before = torch.get_rng_state()
    one, same, other = (tiny_generator(seed=seed).conv_post.weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    narrow = {"width": 1 / 64, "periods": (2, 3), "scales": 2}
    one, same, other = (discriminators.Discriminators(seed=seed, **narrow).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)
    assert torch.equal(torch.get_rng_state(), before)


def test_discriminators_look_where_they_should():
    model = discriminators.Discriminators(width=1 / 64).eval()
    outputs = model(noise(2, 1001))
    assert len(outputs) == 8 and [len(features) for _, features in outputs] == [6] * 5 + [8] * 3
    assert all(score.shape[0] == 2 and score.ndim == 2 for score, _ in outputs)
    waves = noise(1, 600).requires_grad_()
    model.mpd.parts[1].layers[0](waves.reshape(1, 1, -1, 3))[..., 0].sum().backward()
    assert waves.grad[0, 1::3].abs().sum() == 0 and waves.grad[0, ::3].abs().sum() > 0
    with pytest.raises(ValueError, match="width > 0"):
        discriminators.Discriminators(width=0)


# Griffin-Lim


@pytest.mark.parametrize("padding", ["dataset", "center"])
@pytest.mark.parametrize("rate", [16000, 24000])
def test_griffin_lim_puts_sounds_where_they_were(padding, rate):
    log_mel, t = front_end(rate, padding), torch.arange(rate) / rate
    bursts = torch.stack([torch.sin(2 * np.pi * 900 * t) * torch.exp(-(((t - at) / 0.02) ** 2)) for at in (0.2, 0.7)])
    mels = log_mel(0.5 * bursts)[:, 0]
    waves = vocoder.GriffinLim(log_mel.config)(mels)
    assert waves.shape == (2, mels.shape[1] * log_mel.config.hop) and torch.equal(
        waves, vocoder.GriffinLim(log_mel.config)(mels)
    )
    centres = (waves.square() * t).sum(1) / waves.square().sum(1)
    assert centres.tolist() == pytest.approx([0.2, 0.7], abs=0.003)
    assert (log_mel(waves)[:, 0] - mels).abs().mean() < 1.0
    spectrum = torch.fft.rfft(waves[0])
    assert abs(int(spectrum.abs().argmax()) - 900) < 30


def test_griffin_lim_is_called_as_a_generator_is():
    log_mel = front_end(16000, "dataset")
    mels = log_mel(0.1 * noise(2, 8000))[:, 0]
    ours, generated = vocoder.GriffinLim(log_mel.config)(mels), tiny_generator()(mels)
    assert torch.equal(vocoder.trim(ours, 50, 160), ours) and vocoder.trim(generated, 50, 160).shape == ours.shape
    assert (log_mel(ours)[:, 0] - mels).abs().mean() < 0.5
