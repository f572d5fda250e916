"""One clip of a corpus: from a recording or a sound model to a 16-bit WAV file and its row of the manifest."""

import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import soundfile

from foleylib.audio.io import AudioError, fit_length, header, peak_normalise, read, remove_dc, resample, write
from foleylib.corpora.synth.captions import caption, scene_captions
from foleylib.corpora.synth.render import render, render_scene
from foleylib.params.corpora import Corpus

FULL_SCALE = 0.9999
LOUD_STEP_SECONDS = 0.01


def make_clips(records: list[dict], settings: Corpus, root: Path | None, out: Path) -> list[dict]:
    """Write a batch of clips, each to the `path` of its record in `out`; returns their manifest rows.

    A clip that cannot be used comes back with a sentence as its "problem", so that the caller can name all at once.
    """
    return [_make_clip(record, settings, root, out) for record in records]


def look_at(records: list[dict], settings: Corpus, root: Path) -> list[dict]:
    """What the headers of the sources of a batch of clips say, before anything is decoded.

    Returns for each its "stamp", size and time of change, and the "problem" of a file that is missing, unreadable, empty,
    cut short (where its size tells) or too short; None without one.
    """
    return [{"stamp": _stamp(root / own["source_path"]), "problem": _problem(own, settings, root)} for own in records]


def _stamp(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError:  # said by `_problem`
        return []
    return [status.st_size, status.st_mtime_ns]


def _problem(record: dict, settings: Corpus, root: Path) -> str | None:
    path = root / record["source_path"]
    try:
        frames, rate = header(path, whole=True)
        if _too_short(frames / rate, settings):  # a header may say nothing of the length
            _recorded(path, settings)
    except AudioError as error:
        return str(error)
    return None


def _too_short(seconds: float, settings: Corpus) -> bool:
    return seconds < settings.min_seconds or round(seconds * settings.rate) == 0


def _make_clip(record: dict, settings: Corpus, root: Path | None, out: Path) -> dict:
    try:
        wave, row = _rendered(record, settings) if root is None else _recorded(root / record["source_path"], settings)
    except AudioError as error:
        return {**record, "problem": str(error)}
    path = record["path"]
    write(out / path, wave, settings.rate)
    samples, _ = soundfile.read(out / path, dtype="int16")
    sha256 = hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest()
    row = {**record, **row, "rate": settings.rate, "seconds": settings.samples / settings.rate}
    return row | {"caption": row["captions"][0], "sha256": sha256}


def _rendered(record: dict, settings: Corpus) -> tuple[np.ndarray, dict]:
    label, index, rate, seconds = record["label"], record["index"], settings.rate, settings.samples / settings.rate
    how = {"seed": settings.seed, "index": index, "rate": rate, "seconds": seconds, "ambience": settings.ambience}
    if "scene" in record:
        wave, parts = render_scene(**record["scene"], **how)
        rng = np.random.default_rng([settings.seed, index, zlib.crc32(b"scene")])
        said = scene_captions(parts, rng, settings.captions.get(record["split"], 1))
        wave, row = _made(wave, settings)
        return wave, row | {"captions": said, "prompt": said[0], "events": json.dumps(parts), "parameters": "{}"}
    wave, info = render(label, **how)
    rng = np.random.default_rng([settings.seed, index, zlib.crc32(label.encode())])
    wave, row = _made(wave, settings)
    return wave, row | {
        "captions": [caption(label, info, rng)],
        "events": json.dumps(info["events"]),
        "parameters": json.dumps(info["parameters"], sort_keys=True),
    }


def _made(wave: np.ndarray, settings: Corpus) -> tuple[np.ndarray, dict]:
    rate, seconds = settings.rate, settings.samples / settings.rate
    source = {"source_rate": rate, "source_seconds": seconds, "source_clipped": _clipped(wave)}
    wave, operations = to_peak(wave, settings.peak)
    return wave, {"operations": "; ".join([f"rendered at {rate} Hz", *operations]), **source}


def to_peak(wave: np.ndarray, peak: float | None) -> tuple[np.ndarray, list[str]]:
    """A wave scaled to an absolute peak, where one is asked for and it is no silence, and what was done to it."""
    largest = float(np.abs(wave).max())
    if peak is None or largest == 0:
        return wave, []
    return peak_normalise(wave, peak), [f"scaled by {peak / largest:.4f} to a peak of {peak:g}"]


def _recorded(path: Path, settings: Corpus) -> tuple[np.ndarray, dict]:
    source, rate = read(path)
    channels, seconds = soundfile.info(path).channels, len(source) / rate
    if _too_short(seconds, settings):
        remedy = "remove it, or lower min_seconds"
        raise AudioError(f"{path}: {seconds:.3f} s is shorter than min_seconds={settings.min_seconds}; {remedy}")
    wave, operations = shape_wave(source, rate, settings)
    if channels > 1:
        operations.insert(0, f"mean of {channels} channels")
    return wave, {
        "operations": "; ".join(operations),
        "events": "[]",
        "parameters": "{}",
        "source_rate": rate,
        "source_seconds": seconds,
        "source_clipped": _clipped(source),
    }


def _clipped(wave: np.ndarray) -> float:
    return float(np.mean(np.abs(wave) >= FULL_SCALE))


def shape_wave(wave: np.ndarray, from_rate: int, settings: Corpus) -> tuple[np.ndarray, list[str]]:
    """Resample, crop, remove DC, fit to the length, bring the peak to `settings.peak` or keep it below full scale.

    Returns the wave [shape=(settings.samples,), float32], in [-1, 1], and what was done to it, in order.
    """
    rate, length, operations = settings.rate, settings.samples, []
    if from_rate != rate:
        wave = resample(wave, from_rate, rate)
        operations.append(f"resampled {from_rate}->{rate} (soxr HQ)")
    if len(wave) > length:
        offset = loudest_offset(wave, length, rate) if settings.crop == "loudest" else 0
        wave = wave[offset : offset + length]
        operations.append(f"cropped at {offset / rate:.2f} s")
    wave = remove_dc(wave)
    operations.append("DC removed")
    if len(wave) < length:
        filled = "repeated" if settings.fit == "repeat" else "padded with zeros"
        operations.append(f"{filled} {len(wave) / rate:.2f}->{length / rate:.2f} s")
        wave = fit_length(wave, length, mode=settings.fit)
    wave, scaled = to_peak(wave, settings.peak)
    operations += scaled
    peak = float(np.abs(wave).max())
    if peak > 1:
        wave = peak_normalise(wave, FULL_SCALE)
        operations.append(f"scaled by {FULL_SCALE / peak:.4f} against clipping")
    return wave, operations


def loudest_offset(wave: np.ndarray, length: int, rate: int) -> int:
    """Offset of the window of `length` samples with most energy, searched in steps of 10 ms.

    Windows within 1 % of the most energy count as equal, and the middle one is taken: a short event then stands
    inside the window, not at its edge.
    """
    step = max(1, round(LOUD_STEP_SECONDS * rate))
    total = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
    starts = np.arange(0, len(wave) - length + 1, step)
    energy = total[starts + length] - total[starts]
    best = starts[energy >= 0.99 * energy.max()]
    return int(best[len(best) // 2])
