"""Multi-resolution STFT distance: closed forms, what it sees beside a mel, gradients at silence. Griffin-Lim: librosa's."""

import librosa
import numpy as np
import pytest
import torch

from foleylib.audio.stft import StftDistance, griffin_lim


def noise(*shape, seed=0):
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_a_gain_in_closed_form(gain):
    waves = noise(2, 8000)
    expected = abs(gain - 1) + abs(np.log(gain))
    assert StftDistance()(gain * waves, waves).tolist() == pytest.approx([expected] * 2, rel=1e-4)
    assert StftDistance()(waves, waves).tolist() == [0, 0]


def test_clips_are_compared_each_with_its_own():
    waves = noise(3, 4000)
    distance = StftDistance()(waves[[0, 1, 2]], waves[[0, 2, 2]])
    assert distance[0] == distance[2] == 0 and distance[1] > 0.5


def test_it_sees_harmonics_that_mel_bands_merge():
    t = torch.arange(16000) / 16000
    tones = [sum(torch.sin(2 * np.pi * f * t) for f in np.arange(4000, 4800, step))[None] for step in (80, 50)]
    alike = [sum(torch.sin(2 * np.pi * f * t + p) for p, f in enumerate(np.arange(4000, 4800, 80)))[None]]
    distance = StftDistance()
    assert distance(tones[1], tones[0]) > 1.3 * distance(*alike, tones[0])


def test_gradient_is_finite_at_silence():
    waves = torch.zeros(1, 4000, requires_grad=True)
    StftDistance()(waves, noise(1, 4000)).sum().backward()
    assert torch.isfinite(waves.grad).all()
    assert torch.isfinite(StftDistance()(noise(1, 4000), torch.zeros(1, 4000))).all()


def test_griffin_lim_is_librosas_for_each_clip_of_a_batch():
    waves = torch.cat([noise(1, 4000), noise(1, 4000).cumsum(1) / 30])
    magnitudes = torch.stft(waves, 512, 128, window=torch.hann_window(512), return_complex=True).abs()
    ours = griffin_lim(magnitudes, hop=128, iterations=8, seed=3)
    options = {"n_iter": 8, "hop_length": 128, "n_fft": 512}
    theirs = [librosa.griffinlim(S, random_state=np.random.default_rng(3), **options) for S in magnitudes.numpy()]
    assert ours.shape == (2, 128 * (magnitudes.shape[2] - 1))
    np.testing.assert_allclose(ours, np.stack(theirs), atol=2e-4 * float(ours.abs().max()))
