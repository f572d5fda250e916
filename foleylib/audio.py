"""Reading, writing and shaping of mono clips: float32 waves [shape=(T,)] in [-1, 1]."""

import os
from pathlib import Path

import numpy as np
import soundfile
import soxr


class AudioError(ValueError):
    """Audio that cannot be used; the message names the file, what is wrong and the remedy."""


def read(path, rate=None):
    """Read a sound file as mono, optionally resampled.

    Parameters
    ----------
    path : str or Path
        any format that libsndfile reads
    rate : int > 0, optional
        rate to resample to (in Hz); None keeps the rate of the file

    Returns
    -------
    wave : np.ndarray [shape=(T,), float32]
        mean over channels, nominally in [-1, 1]
    rate : int
        rate of `wave` (in Hz)

    Raises
    ------
    AudioError
        if the file is missing, unreadable, empty, or holds NaN or Inf
    """
    path = Path(path)
    if not path.is_file():
        raise AudioError(f"{path}: no such file; check the path or fetch the corpus again")
    try:
        channels, from_rate = soundfile.read(path, dtype="float32", always_2d=True)  # (T, channels)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError(f"{path}: cannot be read as audio ({error}); fetch it again or remove it") from error
    if len(channels) == 0:
        raise AudioError(f"{path}: holds no samples; fetch it again or remove it")
    if not np.isfinite(channels).all():
        raise AudioError(f"{path}: holds NaN or Inf samples; repair or remove it")
    wave = np.ascontiguousarray(channels.mean(axis=1), dtype=np.float32)
    if rate is None:
        return wave, from_rate
    return resample(wave, from_rate, rate), rate


def write(path, wave, rate):
    """Write a mono clip as a 16-bit PCM WAV file, atomically; missing parent folders are made.

    Parameters
    ----------
    path : str or Path
        file to create or replace
    wave : array_like [shape=(T,)]
        samples in [-1, 1], scaled by 32768 and rounded; +1 becomes 32767
    rate : int > 0
        sampling rate (in Hz)

    Raises
    ------
    AudioError
        if `wave` is not one non-empty channel of finite samples in [-1, 1]
    """
    path, wave = Path(path), np.asarray(wave, dtype=np.float64)
    if wave.ndim != 1 or wave.size == 0:
        raise AudioError(f"{path}: wave has shape {wave.shape}; give one non-empty channel, shape (T,)")
    if not np.isfinite(wave).all():
        raise AudioError(f"{path}: wave holds NaN or Inf samples; nothing was written")
    peak = np.abs(wave).max()
    if peak > 1:
        raise AudioError(f"{path}: peak {peak:.3f} is above 1 and would clip; scale it with peak_normalise")
    samples = np.clip(np.rint(wave * 32768), -32768, 32767).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        soundfile.write(partial, samples, rate, subtype="PCM_16", format="WAV")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def resample(wave, from_rate, to_rate):
    """Resample with soxr HQ.

    Parameters
    ----------
    wave : np.ndarray [shape=(T,)]
    from_rate, to_rate : int > 0
        rates (in Hz)

    Returns
    -------
    np.ndarray [shape=(round(T * to_rate / from_rate),), float32]
        `wave` itself where the rates are equal; overshoot past the peak of `wave` is possible

    Raises
    ------
    ValueError
        if a rate is not positive
    """
    if from_rate <= 0 or to_rate <= 0:
        raise ValueError(f"from_rate={from_rate}, to_rate={to_rate}: rates must be positive, in Hz")
    wave = np.asarray(wave, dtype=np.float32)
    if from_rate == to_rate:
        return wave
    length = round(len(wave) * to_rate / from_rate)
    out = soxr.resample(wave, from_rate, to_rate, quality="HQ")[:length]
    return np.pad(out, (0, length - len(out)))


def fit_length(wave, length, *, mode="repeat", offset=0):
    """Cut or extend a clip to `length` samples, starting at sample `offset`.

    Parameters
    ----------
    wave : np.ndarray [shape=(T,)]
    length : int >= 0
        samples to return
    mode : {"repeat", "pad"}
        past its end the clip starts again, or is followed by zeros
    offset : int in [0, T)
        first sample taken

    Returns
    -------
    np.ndarray [shape=(length,)]

    Raises
    ------
    ValueError
        if the clip is empty, or `mode`, `offset` or `length` is outside its range
    """
    if len(wave) == 0:
        raise ValueError("wave holds no samples; it cannot be extended")
    if not 0 <= offset < len(wave) or length < 0:
        raise ValueError(f"offset={offset}, length={length}: give 0 <= offset < {len(wave)} and length >= 0")
    if mode == "repeat":
        return wave[(offset + np.arange(length)) % len(wave)]
    if mode == "pad":
        taken = wave[offset : offset + length]
        return np.pad(taken, (0, length - len(taken)))
    raise ValueError(f"mode={mode!r}: give 'repeat' or 'pad'")


def remove_dc(wave):
    """Subtract the mean of the clip (float64 mean, float32 result)."""
    return (wave - np.mean(wave, dtype=np.float64)).astype(np.float32)


def peak_normalise(wave, peak=0.5):
    """Scale a clip to an absolute peak of `peak`; silence is returned as it is.

    AudioLDM normalises its training clips to 0.5.
    """
    largest = np.abs(wave).max(initial=0)
    if largest == 0:
        return np.asarray(wave, dtype=np.float32)
    return (wave * (peak / np.float64(largest))).astype(np.float32)
