"""The log-mel front ends: golden values, librosa, gradients, precision."""

import math
from dataclasses import replace

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foleylib.audio.mel import FRONT_ENDS, DecibelMel, LogMel, MelConfig, front_end

CASES = ["16k64", "22k80", "24k64", "32k64", "48k64", "48k256"]


def golden_config(settings, padding):
    return MelConfig(
        rate=settings["sampling_rate"],
        n_fft=settings["n_fft"],
        hop=settings["hop_length"],
        n_mels=settings["n_mels"],
        fmin=settings["fmin"],
        fmax=settings["fmax"],
        padding=padding,
    )


@pytest.mark.parametrize("padding, array", [("dataset", "train"), ("center", "center")])
@pytest.mark.parametrize("name", CASES)
def test_golden(golden, name, padding, array):
    case = golden(f"01_mel_{name}")
    waves = torch.from_numpy(next(iter(case.inputs.values())).astype(np.float32) / 32768)
    config = golden_config(case.manifest["config"], padding)
    out = LogMel(config)(waves)[:, 0].transpose(1, 2).numpy()
    expected, bounds = case.outputs[array], case.manifest["outputs"][array]
    assert out.shape == expected.shape
    difference = np.abs(out - expected)
    assert difference.max() <= bounds["tolerance_max_abs"]
    assert difference.mean() <= bounds["tolerance_mean_abs"]
    assert difference[expected > -6.9].max() <= bounds["tolerance_max_abs_loud"]


@pytest.mark.parametrize("name", [c for c in CASES if c != "48k256"])
def test_front_ends_are_the_golden_ones(golden, name):
    config = golden_config(golden(f"01_mel_{name}").manifest["config"], "dataset")
    assert FRONT_ENDS[config.rate] == config


@pytest.mark.parametrize("padding", ["dataset", "center"])
@pytest.mark.parametrize("rate", FRONT_ENDS)
def test_against_librosa(rate, padding):
    front = FRONT_ENDS[rate]
    config = replace(front, padding=padding)
    wave = 0.1 * np.random.default_rng(rate).standard_normal(rate // 4)
    pad = front.n_fft // 2 if padding == "center" else (front.n_fft - front.hop) // 2
    mel = librosa.feature.melspectrogram(
        y=np.pad(wave, pad, mode="reflect"),
        sr=rate,
        n_fft=front.n_fft,
        hop_length=front.hop,
        center=False,
        power=1.0,
        n_mels=front.n_mels,
        fmin=front.fmin,
        fmax=front.fmax,
    )
    out = LogMel(config).double()(torch.from_numpy(wave)[None])
    np.testing.assert_allclose(out[0, 0].T.numpy(), np.log(np.maximum(mel, 1e-5)), atol=1e-5)


def test_decibels_against_librosa():
    config = MelConfig(16000, 512, 160, 64, 50, 8000, "center")
    wave = 0.1 * np.random.default_rng(0).standard_normal(4000)
    wave[2000:] = 0
    options = {"sr": 16000, "n_fft": 512, "hop_length": 160, "n_mels": 64, "fmin": 50, "fmax": 8000}
    power = librosa.feature.melspectrogram(y=wave, pad_mode="reflect", **options)
    out = DecibelMel(config).double()(torch.from_numpy(wave)[None])
    np.testing.assert_allclose(out[0, 0].T.numpy(), librosa.power_to_db(power, top_db=None), atol=1e-4)
    assert out.min() == -100


@pytest.mark.parametrize("padding", ["dataset", "center"])
def test_front_end_of_the_features_has_whole_hops(padding):
    waves = 0.1 * torch.randn(1, 3300, generator=torch.Generator().manual_seed(0))
    front, plain = front_end(16000, padding), LogMel(MelConfig(16000, 1024, 160, 64, 0, 8000, padding))
    assert front.config == plain.config
    assert torch.equal(front(waves), plain(waves)[:, :, :20])


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(list(FRONT_ENDS)), st.sampled_from(["dataset", "center"]), st.integers(1025, 9000))
def test_frames(rate, padding, samples):
    front = FRONT_ENDS[rate]
    config = replace(front, padding=padding)
    frames = config.frames(samples)
    assert frames == samples // front.hop + (padding == "center")
    assert LogMel(config)(torch.zeros(1, samples)).shape == (1, 1, frames, front.n_mels)


def test_silence_is_the_floor_and_has_finite_gradient():
    waves = torch.zeros(1, 3200, requires_grad=True)
    out = LogMel(FRONT_ENDS[16000])(waves)
    assert torch.allclose(out, torch.full_like(out, math.log(1e-5)))
    out.sum().backward()
    assert torch.isfinite(waves.grad).all()


def test_gradient_beside_silence_is_finite_and_not_zero():
    waves = torch.zeros(1, 6400)
    waves[0, 3200:] = 0.1 * torch.randn(3200, generator=torch.Generator().manual_seed(0))
    waves.requires_grad_()
    LogMel(FRONT_ENDS[16000])(waves).sum().backward()
    assert torch.isfinite(waves.grad).all() and waves.grad.abs().sum() > 0


def test_gradient_matches_finite_differences():
    config = MelConfig(rate=1000, n_fft=64, hop=16, n_mels=4, fmin=0, fmax=500)
    waves = torch.randn(1, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(LogMel(config).double(), (waves,))


def test_level_adds_its_logarithm():
    mel, waves = LogMel(FRONT_ENDS[16000]), torch.randn(2, 3200, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(mel(waves * math.e), mel(waves) + 1, atol=1e-3)


@pytest.mark.parametrize("kind", [LogMel, DecibelMel])
def test_no_weights_and_no_autocast(kind):
    mel = kind(FRONT_ENDS[16000])
    assert not mel.state_dict() and not list(mel.parameters())
    waves = torch.randn(1, 3200, generator=torch.Generator().manual_seed(3))
    plain = mel(waves)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mel(waves), plain) and mel(waves).dtype == torch.float32


@pytest.mark.parametrize("padding", ["dataset", "center"])
def test_short_waves_are_refused(padding):
    with pytest.raises(ValueError, match="T >"):
        LogMel(MelConfig(16000, 1024, 160, 64, 0, 8000, padding))(torch.zeros(1, 400))
    with pytest.raises(ValueError, match="shape"):
        LogMel(FRONT_ENDS[16000])(torch.zeros(3200))


@pytest.mark.parametrize(
    ("changes", "message"), [({"padding": "valid"}, "padding"), ({"fmax": 9000}, "fmax"), ({"hop": 161}, "hop")]
)
def test_config_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(FRONT_ENDS[16000], **changes)
