"""How high the sound of clips reaches: what metrics that hear 16 kHz alone cannot see."""

import numpy as np


def spectral_rolloff(waves: np.ndarray, rate: int, *, share: float = 0.99) -> np.ndarray:
    """The frequency in Hz below which lies `share` of the energy of each clip [shape=(N,)]; 0 of silence.

    `waves` are [shape=(N, T)] at `rate` Hz. librosa's measure of the same name, of the long-term power spectrum.
    """
    power = np.stack([_power(wave) for wave in waves]).cumsum(axis=1)  # (N, bins)
    reached = (power >= share * power[:, -1:]).argmax(axis=1)
    return np.where(power[:, -1] > 0, reached * rate / 2 / (power.shape[1] - 1), 0.0)


def level_above(waves: np.ndarray, rate: int, cutoff: float) -> np.ndarray:
    """Energy above `cutoff` Hz of each clip in dB of all its energy [shape=(N,)]; -120 where there is none.

    `waves` are [shape=(N, T)] at `rate` Hz.
    """
    power = np.stack([_power(wave) for wave in waves])  # (N, bins)
    high = power[:, np.linspace(0, rate / 2, power.shape[1]) > cutoff].sum(axis=1)
    return 10 * np.log10(np.maximum(high / np.maximum(power.sum(axis=1), 1e-30), 1e-12))


def _power(wave: np.ndarray, n_fft: int = 2048) -> np.ndarray:
    """Power spectrum [shape=(bins,)], the mean over frames under a Hann window."""
    from scipy.signal import welch

    if np.ndim(wave) != 1 or not len(wave) or not np.isfinite(wave).all():
        raise ValueError(f"a clip has shape {np.shape(wave)} or is not finite; give (N, T) clips of real sound")
    size = min(n_fft, len(wave))
    return welch(wave.astype(np.float64), window="hann", nperseg=size, detrend=False, scaling="spectrum")[1]


def envelope_similarity(a: np.ndarray, b: np.ndarray, rate_a: int, rate_b: int, *, step: float = 0.01) -> np.ndarray:
    """Correlation of the level over time of each clip of `a` with that of its partner in `b` [shape=(N,)].

    Both are [shape=(N, T)] of the same duration, at their own rates; levels are of steps of `step` seconds, in dB, floored
    60 dB below the loudest. A clip that is equally loud throughout correlates with nothing: 0.
    """
    x, y = (_centred(_levels(waves, round(rate * step))) for waves, rate in ((a, rate_a), (b, rate_b)))
    return (x * y).sum(axis=1)


def _levels(waves: np.ndarray, size: int) -> np.ndarray:
    frames = waves[:, : waves.shape[1] // size * size].reshape(len(waves), -1, size).astype(np.float64)
    level = 10 * np.log10(np.maximum(np.square(frames).mean(axis=2), 1e-12))  # (N, steps)
    return np.maximum(level, level.max(axis=1, keepdims=True) - 60)


def _centred(values: np.ndarray) -> np.ndarray:
    values = values - values.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.where(norms > 1e-6, values / np.maximum(norms, 1e-6), 0.0)
