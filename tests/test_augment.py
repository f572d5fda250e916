"""Augmentation of clips: drawn from its generator, within its bounds."""

import pytest
import torch

from foleylib.audio.augment import augment, gain_and_shift, mixup, spec_augment


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed))


def test_augmentation_is_drawn_and_mild():
    clips = 0.1 * noise(64, 8000)
    one, again, other = (augment(clips, generator=seeded(s), rate=16000) for s in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other) and one.shape == clips.shape
    level = 20 * (one.std(dim=1) / clips.std(dim=1)).log10()
    assert -20 < level.min() < -3 and 3 < level.max() < 20
    silent = augment(torch.zeros(200, 8000), generator=seeded(), rate=16000).std(dim=1)
    assert 0.3 < float((silent > 0).float().mean()) < 0.7  # noise for half of the clips
    assert 1e-4 <= silent[silent > 0].min() and silent.max() <= 10**-1.5 * 1.01


def test_gain_and_shift():
    clips = noise(8, 4000)
    moved = gain_and_shift(clips, generator=seeded(), gain_db=6.0)
    gains = moved.abs().amax(dim=1) / clips.abs().amax(dim=1)
    assert gains.min() >= 0.501 and gains.max() <= 1.996 and gains.std() > 0.1
    assert torch.allclose(moved.sort().values, (clips * gains[:, None]).sort().values, atol=1e-6)
    assert not torch.allclose(moved, clips * gains[:, None], atol=0.1)


def test_spec_augment():
    masked = spec_augment(torch.ones(8, 1, 100, 64), generator=seeded(), stripes=1, time=0.1, frequency=0.1)
    columns, rows = masked.sum(dim=3)[:, 0], masked.sum(dim=2)[:, 0]
    assert ((columns == 0).sum(dim=1) <= 10).all() and ((rows == 0).sum(dim=1) <= 6).all()
    assert (columns == 0).any() and (rows == 0).any() and ((masked == 0) | (masked == 1)).all()
    unmasked = spec_augment(torch.ones(8, 1, 100, 64), generator=seeded(), stripes=0)
    assert (unmasked == 1).all()


def test_mixup():
    targets = torch.eye(8)
    features, mixed = mixup(targets, targets, generator=seeded(), alpha=1.0)
    assert torch.equal(features, mixed) and torch.allclose(mixed.sum(dim=1), torch.ones(8)) and (mixed < 1).any()
    assert mixup(targets, 2 * targets, generator=seeded(), alpha=0)[1].equal(2 * targets)
    with pytest.raises(ValueError, match="alpha"):
        mixup(targets, targets, generator=seeded(), alpha=-1)
