"""Damage to log-mels: what it changes, by how much, and that it leaves the rest."""

import numpy as np
import pytest
import torch

from foleylib.evaluation import corruption

FLOOR = float(np.log(1e-5))


@pytest.fixture
def mels():
    """Log-mels [shape=(4, 1, 50, 8)] between -6 and 0, the first cell at -6 and the last at 0."""
    values = torch.rand((4, 1, 50, 8), generator=torch.Generator().manual_seed(0)) * 6 - 6
    values[:, 0, 0, 0], values[:, 0, -1, -1] = -6, 0
    return values


def test_noise_has_its_share_of_the_range_as_variance(mels):
    noisy = corruption.add_noise(mels, np.random.default_rng(0), share=0.2)
    change = (noisy - mels)[noisy > FLOOR]
    assert float(change.var()) == pytest.approx(0.2 * 6, rel=0.08) and abs(float(change.mean())) < 0.1
    again = corruption.add_noise(mels, np.random.default_rng(0), share=0.2)
    assert torch.equal(noisy, again) and noisy.min() >= FLOOR - 1e-6


def test_masks_silence_their_frames_alone(mels):
    masked = corruption.mask(mels, np.random.default_rng(1), count=2, length=0.1)
    silent = (masked == FLOOR).all(dim=3)[:, 0]  # (clips, frames)
    assert torch.equal(masked[:, 0][~silent], mels[:, 0][~silent])
    assert ((silent.sum(1) >= 5) & (silent.sum(1) <= 10)).all()  # two of five frames, which may overlap
    assert mels.min() >= -6  # the clips themselves are left alone


def test_mixed_sounds_have_the_same_power(mels):
    quiet = mels - 3
    assert torch.allclose(corruption.mix(mels, quiet), corruption.mix(mels, mels), atol=1e-5)
    assert torch.allclose(corruption.mix(mels, mels), mels + np.log(2), atol=1e-5)


def test_parts_change_places_at_the_quietest_frame(mels):
    mels[:, :, 30] = -11
    swapped = corruption.swap_parts(mels)
    assert torch.equal(swapped, torch.cat([mels[:, :, 30:], mels[:, :, :30]], dim=2))
