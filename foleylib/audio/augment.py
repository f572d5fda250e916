"""Augmentation of clips for training; every draw comes from a generator on the CPU."""

import numpy as np
import torch


def augment(waves: torch.Tensor, *, generator: torch.Generator, rate: int) -> torch.Tensor:
    """Waves [shape=(B, T)] with another gain, at another time and through another microphone, drawn per clip."""
    return through_microphone(gain_and_shift(waves, generator=generator), generator=generator, rate=rate)


def through_microphone(waves: torch.Tensor, *, generator: torch.Generator, rate: int) -> torch.Tensor:
    """Waves [shape=(B, T)] as another microphone might give them, drawn per clip.

    A response that wanders by some decibels over frequency; for a third of the clips a low-pass from 3 kHz up; for half
    of them white or pink noise, -80 to -30 dB below full scale.
    """
    batch, samples = waves.shape
    spectrum, f = torch.fft.rfft(waves), torch.fft.rfftfreq(samples, 1 / rate)

    bands = torch.randn(batch, 1, 8, generator=generator) * 3  # dB, from the lowest octave to half the rate
    position = (f.clamp(min=rate / 256) / (rate / 256)).log2()  # octaves
    low = position.long().clamp(max=6)
    curve = bands[:, 0, low] + (bands[:, 0, low + 1] - bands[:, 0, low]) * (position - low)
    cutoff = 3000 * (rate / 2 / 3000) ** torch.rand(batch, 1, generator=generator)
    cutoff = torch.where(torch.rand(batch, 1, generator=generator) < 1 / 3, cutoff, torch.inf)
    response = 10 ** (curve / 20) / (1 + (f / cutoff) ** 8)
    waves = torch.fft.irfft(spectrum * response.to(spectrum.device), samples)

    noise = torch.fft.rfft(torch.randn(batch, samples, generator=generator))
    pink = torch.rand(batch, 1, generator=generator) < 0.5
    noise = torch.fft.irfft(torch.where(pink, noise * (30 / f.clamp(min=30)).sqrt(), noise), samples)
    level = 10 ** (-(30 + 50 * torch.rand(batch, 1, generator=generator)) / 20)
    level = torch.where(torch.rand(batch, 1, generator=generator) < 0.5, level, 0.0)
    return waves + (level * noise / noise.std(dim=1, keepdim=True)).to(waves)


def gain_and_shift(waves: torch.Tensor, *, generator: torch.Generator, gain_db: float = 6.0) -> torch.Tensor:
    """Waves [shape=(B, T)] with a gain of up to +-gain_db dB and a circular shift in time, each drawn per clip."""
    batch, samples = waves.shape
    gains = 10 ** ((-gain_db + 2 * gain_db * torch.rand((batch, 1), generator=generator)) / 20)
    shifts = torch.randint(samples, (batch, 1), generator=generator)
    index = (torch.arange(samples) + shifts) % samples
    return waves.gather(1, index.to(waves.device)) * gains.to(waves)


def spec_augment(
    features: torch.Tensor,
    *,
    generator: torch.Generator,
    stripes: int = 2,
    time: float = 0.1,
    frequency: float = 0.125,
) -> torch.Tensor:
    """SpecAugment of Park et al. (2019) without warping: zero stripes in time and in frequency, drawn per clip.

    Parameters
    ----------
    features : of zero mean, as after bn0 [shape=(B, 1, T, F)].
    generator : on the CPU.
    stripes : on each axis.
    time, frequency : widest stripe as a part of its axis; PANNs: 64 of 1001 frames and 8 of 64 bands.
    """
    batch, _, length, n_mels = features.shape
    keep = torch.ones(batch, 1, length, n_mels, dtype=torch.bool)
    for axis, size, part in ((2, length, time), (3, n_mels, frequency)):
        shape = [batch, 1, 1, 1]
        position = torch.arange(size).view([-1 if i == axis else 1 for i in range(4)])
        for _ in range(stripes):
            width = torch.randint(int(part * size) + 1, shape, generator=generator)
            start = (torch.rand(shape, generator=generator) * (size - width)).long()
            keep &= (position < start) | (position >= start + width)
    return features * keep.to(features)


def mixup(features: torch.Tensor, targets: torch.Tensor, *, generator: torch.Generator, alpha: float):
    """Mixup of Zhang et al. (2018): each clip is mixed with another, weights from Beta(alpha, alpha).

    Parameters
    ----------
    features : [shape=(B, ...)]; targets : probabilities [shape=(B, C)].
    generator : on the CPU.
    alpha : 0 leaves both as they are; PANNs: 1.
    """
    if alpha == 0:
        return features, targets
    if alpha < 0:
        raise ValueError(f"alpha={alpha}: give 0 (no mixup) or more")
    seed = int(torch.randint(2**31, (), generator=generator))  # torch draws no beta from a generator
    weight = torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, len(features))).to(features)
    other = torch.randperm(len(features), generator=generator).to(features.device)

    def mix(x: torch.Tensor) -> torch.Tensor:
        w = weight.view(-1, *[1] * (x.ndim - 1))
        return w * x + (1 - w) * x[other]

    return mix(features), mix(targets)
