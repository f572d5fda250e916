"""How high clips reach, and whether two rise and fall together."""

import numpy as np
import pytest

from foleylib.evaluation import bandwidth


def tone(frequency, rate, seconds=0.5):
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate).astype(np.float32)


@pytest.mark.parametrize("rate", [16000, 48000])
def test_rolloff_of_a_tone_of_noise_and_of_silence(rate):
    noise = np.random.default_rng(0).normal(size=rate // 2).astype(np.float32)
    found = bandwidth.spectral_rolloff(np.stack([tone(1000, rate), noise, 0 * noise]), rate)
    assert found[0] == pytest.approx(1000, abs=2 * rate / 2048) and found[2] == 0
    assert found[1] == pytest.approx(0.99 * rate / 2, rel=0.01)


def test_a_clip_that_was_at_16_kHz_has_nothing_above_8():
    from foleylib.audio.io import resample

    noise = np.random.default_rng(0).normal(size=48000).astype(np.float32)
    narrow = resample(resample(noise, 48000, 16000), 16000, 48000)
    waves = np.stack([noise, narrow])
    assert bandwidth.spectral_rolloff(waves, 48000)[1] < 8100
    above = bandwidth.level_above(waves, 48000, 12000)
    assert above[0] == pytest.approx(10 * np.log10(0.5), abs=0.1) and above[1] < -60
    assert bandwidth.level_above(0 * waves, 48000, 12000).tolist() == [-120, -120]


def test_level_above_of_two_tones():
    wave = tone(2000, 48000) + 0.1 * tone(15000, 48000)
    assert bandwidth.level_above(wave[None], 48000, 12000)[0] == pytest.approx(10 * np.log10(0.01 / 1.01), abs=0.05)


def test_no_level_is_above_what_a_rate_carries():
    assert bandwidth.level_above(tone(1000, 16000)[None], 16000, 12000).tolist() == [-120]


def test_envelopes_at_two_rates():
    seconds = np.arange(0, 1, 1 / 48000)
    early, late = (tone(440, 48000, 1.0) * (np.abs(seconds - at) < 0.1) for at in (0.3, 0.7))
    low = early[::3]
    similar = bandwidth.envelope_similarity(np.stack([early, late, early]), np.stack([low, low, 0 * low]), 48000, 16000)
    assert similar[0] > 0.999 and similar[1] < 0 and similar[2] == 0
