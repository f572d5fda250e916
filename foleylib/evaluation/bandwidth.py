"""How high the sound of clips reaches: what metrics that hear 16 kHz alone cannot see."""

import numpy as np


def spectral_rolloff(waves: np.ndarray, rate: int, *, share: float = 0.99) -> np.ndarray:
    """The frequency in Hz below which lies `share` of the energy of each clip [shape=(N,)]; 0 of silence.

    `waves` are [shape=(N, T)] at `rate` Hz. librosa's measure of the same name, of the long-term power spectrum.
    """
    _check_rate(rate)
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: give a share of the energy in (0, 1], such as 0.99")
    power = np.stack([_power(wave) for wave in waves]).cumsum(axis=1)  # (N, bins)
    reached = (power >= share * power[:, -1:]).argmax(axis=1)
    return np.where(power[:, -1] > 0, reached * rate / 2 / (power.shape[1] - 1), 0.0)


def level_above(waves: np.ndarray, rate: int, cutoff: float) -> np.ndarray:
    """Energy above `cutoff` Hz of each clip in dB of all its energy [shape=(N,)]; -120 where there is none.

    `waves` are [shape=(N, T)] at `rate` Hz. They carry nothing above half of it, so a higher cutoff gives -120: clips
    at several rates are compared at one cutoff.
    """
    _check_rate(rate)
    if not 0 <= cutoff < np.inf:
        raise ValueError(f"cutoff={cutoff}: give a frequency of 0 Hz or more")
    power = np.stack([_power(wave) for wave in waves])  # (N, bins)
    high = power[:, np.linspace(0, rate / 2, power.shape[1]) > cutoff].sum(axis=1)
    return 10 * np.log10(np.maximum(high / np.maximum(power.sum(axis=1), 1e-30), 1e-12))


def _check_rate(rate: float) -> None:
    if not 0 < rate < np.inf:
        raise ValueError(f"rate={rate}: give the samples a second, such as 16000")


def _check_wave(wave: np.ndarray) -> None:
    if np.ndim(wave) != 1 or len(wave) < 2 or np.iscomplexobj(wave) or not np.isfinite(wave).all():
        raise ValueError(
            f"a clip has shape {np.shape(wave)}, or is complex or is not finite; give (N, T) clips of real sound"
        )


def _finite(power: np.ndarray) -> np.ndarray:
    if not np.isfinite(power.sum()):
        raise ValueError("a clip is too loud for an energy that is a number; give samples in [-1, 1]")
    return power


def _power(wave: np.ndarray, n_fft: int = 2048) -> np.ndarray:
    """Power spectrum [shape=(bins,)], the mean over frames under a Hann window."""
    from scipy.signal import welch

    _check_wave(wave)
    size = min(n_fft, len(wave))
    return _finite(welch(wave.astype(np.float64), window="hann", nperseg=size, detrend=False, scaling="spectrum")[1])


def envelope_similarity(a: np.ndarray, b: np.ndarray, rate_a: int, rate_b: int, *, step: float = 0.01) -> np.ndarray:
    """Correlation of the level over time of each clip of `a` with that of its partner in `b` [shape=(N,)].

    Both are [shape=(N, T)] of the same duration, at their own rates; levels are of steps of `step` seconds, in dB, floored
    60 dB below the loudest. A clip that is equally loud throughout correlates with nothing: 0.
    """
    x, y = (_levels(waves, rate, step) for waves, rate in ((a, rate_a), (b, rate_b)))
    if x.shape != y.shape or x.shape[1] < 2:
        raise ValueError(
            f"a and b have {x.shape} and {y.shape} clips and steps ({step} s); give as many of one duration, 2 at least"
        )
    return (_centred(x) * _centred(y)).sum(axis=1)


def _levels(waves: np.ndarray, rate: int, step: float) -> np.ndarray:
    _check_rate(rate)
    for wave in waves:
        _check_wave(wave)
    if not 1 <= rate * step < np.inf:
        raise ValueError(f"step={step}: give seconds that hold a sample or more at {rate} Hz, such as 0.01")
    size = round(rate * step)
    frames = waves[:, : waves.shape[1] // size * size].reshape(len(waves), -1, size).astype(np.float64)
    level = 10 * np.log10(np.maximum(_finite(np.square(frames).mean(axis=2)), 1e-12))  # (N, steps)
    return np.maximum(level, level.max(axis=1, keepdims=True) - 60)


def _centred(values: np.ndarray) -> np.ndarray:
    values = values - values.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.where(norms > 1e-6, values / np.maximum(norms, 1e-6), 0.0)
