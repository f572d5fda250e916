"""Reading, writing and shaping of mono clips: float32 waves [shape=(T,)] in [-1, 1]."""

import io
import os
import stat
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

SLACK = 2304  # samples that a whole file may lack: two frames of MP3, whose headers are not always exact
CUT_SHORT = "is cut short, its header promises more sound than it holds; fetch it again"
RATES = (2_000, 768_000)  # Hz; a header outside says nothing true, and would make a resampled clip of gigabytes
LONGEST_PAGE = 27 + 255 + 255 * 255  # bytes of a page of an Ogg file
STREAMED = 0x7FFF0000  # size of a WAV file's data from which on it stands for "not known"


class AudioError(ValueError):
    """Audio that cannot be used; the message names the file, what is wrong and the remedy."""


def read(path: str | Path, rate: int | None = None) -> tuple[np.ndarray, int]:
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
    """
    path = Path(path)
    claimed, _ = header(path)
    with _readable(path):
        channels, from_rate = soundfile.read(path, dtype="float32", always_2d=True)  # (T, channels)
    if len(channels) == 0:
        raise AudioError(f"{path}: holds no samples; fetch it again or remove it")
    if len(channels) < claimed - SLACK or _bytes_missing(path):
        raise AudioError(f"{path}: {CUT_SHORT}")
    if not np.isfinite(channels).all():
        raise AudioError(f"{path}: holds NaN or Inf samples; repair or remove it")
    wave = np.ascontiguousarray(channels.mean(axis=1), dtype=np.float32)
    if rate is None:
        return wave, from_rate
    return resample(wave, from_rate, rate), rate


def header(path: str | Path, *, whole: bool = False) -> tuple[int, int]:
    """Samples that the header of a sound file promises, and its rate (in Hz); nothing is decoded.

    `whole` also refuses a WAV file that is shorter than it says.
    """
    path = Path(path)
    _check_regular(path)
    with _readable(path):
        info = soundfile.info(path)
    if not RATES[0] <= info.samplerate <= RATES[1]:
        raise AudioError(
            f"{path}: its header gives a rate of {info.samplerate} Hz, outside {RATES[0]} to {RATES[1]}; repair or remove it"
        )
    if whole and info.frames and _bytes_missing(path):
        raise AudioError(f"{path}: {CUT_SHORT}")
    return info.frames, info.samplerate


def _check_regular(path: Path) -> None:
    """Refuse what is no regular file before it is opened: to open a pipe would wait for its writer."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise AudioError(f"{path}: a link to what is not there; correct or remove it") from None
        raise AudioError(f"{path}: no such file; check the path or fetch the corpus again") from None
    except (OSError, ValueError) as error:  # a name too long, links in a circle, a folder that must not be looked into
        raise AudioError(f"{path}: cannot be opened ({error}); correct the path or remove it") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise AudioError(f"{path}: {kind}, no sound file; remove it or give it another name")


@contextmanager
def _readable(path: Path):
    try:
        yield
    except MemoryError:
        raise AudioError(
            f"{path}: its header promises more sound than memory holds; fetch it again or remove it"
        ) from None
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError(f"{path}: cannot be read as audio ({error}); fetch it again or remove it") from error


def _bytes_missing(path: Path) -> int:
    """Bytes that the header of a WAV, AIFF or AU file, or the last page of an Ogg file, promises beyond the end of the file,
    at least; libsndfile reads such a file as a short one.

    0 for other formats, and for a streamed file, whose writer did not know the length.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        begin = file.read(24).ljust(24)
        kind = begin[:4]
        if kind == b"OggS":
            return _ogg_bytes_missing(file, size)
        if kind in (b"RIFF", b"RF64") and begin[8:12] == b"WAVE":
            end = _end_of_wav(file)
        elif kind == b"riff":  # W64
            (end,) = struct.unpack("<Q", begin[16:24])
        elif kind == b"FORM":  # AIFF
            end = 8 + struct.unpack(">I", begin[4:8])[0]
        elif kind == b".snd":  # AU
            start, length = struct.unpack(">II", begin[4:12])
            end = start + length if length < STREAMED else 0
        else:
            end = 0
    return max(0, end - size)


def _end_of_wav(file: BinaryIO) -> int:
    """Where the samples of a WAV file end by its header; those beyond 4 GiB have their size in a chunk of its own (RF64)."""
    file.seek(12)
    long = 0
    while len(header := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", header)
        if name == b"ds64":
            long = struct.unpack("<QQ", file.read(16).ljust(16, b"\0"))[1]
            file.seek(size - 16, os.SEEK_CUR)
        elif name == b"data":
            size = long if size == 0xFFFFFFFF else size * (size < STREAMED)
            return file.tell() + size if size else 0
        else:
            file.seek(size + size % 2, os.SEEK_CUR)
    return 0


def _ogg_bytes_missing(file: BinaryIO, size: int) -> int:
    """Of a page: bit 4 of byte 5 is set in the last one alone, byte 26 counts the segments whose lengths follow (RFC 3533)."""
    file.seek(max(0, size - LONGEST_PAGE))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) <= 26:
        return 27 - len(page)
    whole = 27 + page[26] + sum(page[27 : 27 + page[26]])
    return max(whole - len(page), 0 if page[5] & 4 else 1)


def write(path: str | Path, wave, rate: int) -> None:
    """Write a mono clip as a 16-bit PCM WAV file, atomically; missing parent folders are made.

    Parameters
    ----------
    path : str or Path
        file to create or replace
    wave : array_like [shape=(T,)]
        samples in [-1, 1], scaled by 32768 and rounded; +1 becomes 32767
    rate : int > 0
        sampling rate (in Hz)
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
    partial, content = path.with_name(f".{path.name}.{os.getpid()}.partial"), io.BytesIO()
    soundfile.write(content, samples, rate, subtype="PCM_16", format="WAV")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content.getbuffer())  # not by libsndfile, which does not say that the disk is full
        os.replace(partial, path)
    except OSError as error:
        raise AudioError(f"{path}: cannot be written ({error.strerror}); make room or give another place") from error
    finally:
        partial.unlink(missing_ok=True)


def resample(wave, from_rate: int, to_rate: int) -> np.ndarray:
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
    """
    if from_rate <= 0 or to_rate <= 0:
        raise ValueError(f"from_rate={from_rate}, to_rate={to_rate}: rates must be positive, in Hz")
    wave = np.asarray(wave, dtype=np.float32)
    if from_rate == to_rate:
        return wave
    length = round(len(wave) * to_rate / from_rate)
    out = soxr.resample(wave, from_rate, to_rate, quality="HQ")[:length]
    return np.pad(out, (0, length - len(out)))


def at_rate(waves, rate: int | None, wanted: int):
    """Waves [torch.Tensor, shape=(B, T)] at `rate` Hz brought to the `wanted` rate of a network by `resample`; None says
    that they have it."""
    if rate in (None, wanted):
        return waves
    import torch

    return torch.from_numpy(np.stack([resample(w, rate, wanted) for w in waves.cpu().numpy()]))


def fit_length(wave: np.ndarray, length: int, *, mode: str = "repeat") -> np.ndarray:
    """Cut or extend a clip to `length` samples.

    Parameters
    ----------
    wave : np.ndarray [shape=(T,)]
        at least one sample
    length : int >= 0
        samples to return
    mode : {"repeat", "pad"}
        past its end the clip starts again, or is followed by zeros

    Returns
    -------
    np.ndarray [shape=(length,)]
    """
    if len(wave) == 0:
        raise ValueError("wave holds no samples; it cannot be extended")
    if mode == "repeat":
        return np.resize(wave, length)
    if mode == "pad":
        return np.pad(wave[:length], (0, max(0, length - len(wave))))
    raise ValueError(f"mode={mode!r}: give 'repeat' or 'pad'")


def remove_dc(wave: np.ndarray) -> np.ndarray:
    """Subtract the mean of a clip [shape=(T,)] (float64 mean, float32 result)."""
    return (wave - np.mean(wave, dtype=np.float64)).astype(np.float32)


def peak_normalise(wave: np.ndarray, peak: float = 0.5) -> np.ndarray:
    """Scale a clip [shape=(T,)] to an absolute peak of `peak` (float32); silence stays as it is.

    AudioLDM normalises its training clips to 0.5.
    """
    largest = np.abs(wave).max(initial=0)
    if largest == 0:
        return np.asarray(wave, dtype=np.float32)
    return (wave * (peak / np.float64(largest))).astype(np.float32)
