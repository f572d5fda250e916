"""One clip of a corpus: from a recording or a sound model to a 16-bit WAV file and its row of the manifest."""

import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from foleylib import audio
from foleylib.corpora.manifest import CorpusError

FULL_SCALE = 0.9999
LOUD_STEP_SECONDS = 0.01


@dataclass(frozen=True)
class Recipe:
    """What is done to every clip of a corpus; `rate` in Hz, `length` in samples, seconds in s."""

    rate: int
    length: int
    fit: str
    crop: str
    min_seconds: float
    seed: int
    ambience: float


def loudest_offset(wave, length, rate):
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


def shape_wave(wave, from_rate, recipe):
    """Resample, crop, remove DC, fit to the length and keep the peak below full scale.

    Parameters
    ----------
    wave : np.ndarray [shape=(T,), float32]
        mono, at `from_rate` (in Hz)
    from_rate : int > 0
    recipe : Recipe

    Returns
    -------
    wave : np.ndarray [shape=(recipe.length,), float32]
        in [-1, 1]
    operations : list of str
        what was done, in order
    """
    operations = []
    if from_rate != recipe.rate:
        wave = audio.resample(wave, from_rate, recipe.rate)
        operations.append(f"resampled {from_rate}->{recipe.rate} (soxr HQ)")
    if len(wave) > recipe.length:
        offset = loudest_offset(wave, recipe.length, recipe.rate) if recipe.crop == "loudest" else 0
        wave = wave[offset : offset + recipe.length]
        operations.append(f"cropped at {offset / recipe.rate:.2f} s")
    wave = audio.remove_dc(wave)
    operations.append("DC removed")
    if len(wave) < recipe.length:
        done = "repeated" if recipe.fit == "repeat" else "padded with zeros"
        operations.append(f"{done} {len(wave) / recipe.rate:.2f}->{recipe.length / recipe.rate:.2f} s")
        wave = audio.fit_length(wave, recipe.length, mode=recipe.fit)
    return _below_full_scale(wave, operations)


def _below_full_scale(wave, operations):
    peak = float(np.abs(wave).max(initial=0))
    if peak <= 1:
        return wave, operations
    return audio.peak_normalise(wave, FULL_SCALE), [*operations, f"scaled by {FULL_SCALE / peak:.4f} against clipping"]


def make_clips(records, recipe, root, out):
    """Make a batch of clips: `out/audio/<id>.wav` each; returns their manifest rows.

    Clips that cannot be used come back as {"problem": sentence}, so that the caller can name all of them at once.
    """
    make = _rendered if root is None else _recorded
    return [_finish(record, make(record, recipe, root), recipe, Path(out)) for record in records]


def _recorded(record, recipe, root):
    path = Path(root) / record["source_path"]
    try:
        wave, from_rate = audio.read(path)
        channels = soundfile.info(path).channels
    except audio.AudioError as error:
        return {"problem": str(error)}
    seconds = len(wave) / from_rate
    if seconds < recipe.min_seconds or round(seconds * recipe.rate) == 0:
        remedy = "remove it, or lower min_seconds"
        return {"problem": f"{path}: {seconds:.3f} s is shorter than min_seconds={recipe.min_seconds}; {remedy}"}
    clipped = float(np.mean(np.abs(wave) >= FULL_SCALE))
    wave, operations = shape_wave(wave, from_rate, recipe)
    mean = [f"mean of {channels} channels"] * (channels > 1)
    source = {"source_rate": from_rate, "source_seconds": seconds, "source_clipped": clipped}
    return {"wave": wave, "operations": "; ".join(mean + operations), "events": "[]", "parameters": "{}", **source}


def _rendered(record, recipe, _):
    from foleylib import synth

    label, index, seconds = record["label"], record["index"], recipe.length / recipe.rate
    wave, info = synth.render(
        label, seed=recipe.seed, index=index, rate=recipe.rate, seconds=seconds, ambience=recipe.ambience
    )
    if wave.shape != (recipe.length,):
        raise CorpusError(f"{label} {index}: rendered {wave.shape} samples, expected ({recipe.length},)")
    captions = synth.captions(label)
    pick = np.random.default_rng([recipe.seed, index, zlib.crc32(label.encode())]).integers(len(captions))
    return {
        "wave": wave,
        "caption": captions[pick],
        "operations": f"rendered at {recipe.rate} Hz",
        "events": json.dumps(info["events"]),
        "parameters": json.dumps(info["parameters"], sort_keys=True),
        "source_rate": recipe.rate,
        "source_seconds": seconds,
        "source_clipped": float(np.mean(np.abs(wave) >= FULL_SCALE)),
    }


def _finish(record, made, recipe, out):
    if "problem" in made:
        return made
    path = f"audio/{record['id']}.wav"
    audio.write(out / path, made.pop("wave"), recipe.rate)
    samples, _ = soundfile.read(out / path, dtype="int16")
    sha256 = hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest()
    rest = {"path": path, "rate": recipe.rate, "seconds": recipe.length / recipe.rate, "sha256": sha256}
    return {**record, **made, **rest}
