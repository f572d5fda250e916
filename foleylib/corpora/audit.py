"""What is wrong with the clips of a corpus: silence, clipping, missing bandwidth, duplicates."""

from pathlib import Path

import numpy as np
from scipy.signal import get_window

from foleylib.datasets.manifest import iter_waves, load
from foleylib.datasets.resumable import Resumable
from foleylib.runtime import fingerprint, progress

N_FFT = 1024
SHARD = 1000  # clips after which a killed audit goes on
BLOCK = 1024  # clips that are compared with as many others at once
LEVELS = ["rms_db", "peak", "silence_fraction", "clipped_fraction", "effective_bandwidth_hz"]
CELLS = 32  # fingerprint: 32 bands x 32 times
FRAME_SECONDS = 0.02
SILENCE_DB = -60.0  # RMS level, re full scale, below which a frame is silent
NEAR = 0.999  # correlation of fingerprints above which two clips are near-duplicates


def audit(out: str | Path):
    """Measure every clip of a prepared corpus.

    Levels and fingerprints go shard by shard into a folder beside `out`, `.<name of out>.audit`, which is removed at the
    end: a killed audit goes on there.

    Parameters
    ----------
    out : str or Path
        corpus folder

    Returns
    -------
    pandas.DataFrame
        id, split, label, rate (Hz), rms_db and peak (re full scale), silence_fraction (of frames of 20 ms),
        clipped_fraction (samples at full scale in the clip or its source, the larger), effective_bandwidth_hz,
        duplicate_of (id of an earlier clip, one of another split before one of the same, else ""), duplicate_kind
        ("exact", "near" or "")
    """
    import pandas as pd

    out = Path(out)
    manifest = load(out)
    hashes = manifest.sha256.to_list()
    key = fingerprint(manifest.id.to_list(), hashes, manifest.source_clipped.to_list())
    part = Resumable(out.with_name(f".{out.name}.audit"), key)
    _measure(out, manifest, part)
    measured = pd.DataFrame(part.read("levels", np.arange(len(manifest))), columns=LEVELS)
    frame = pd.concat([manifest[["id", "split", "label", "rate"]], measured], axis=1)

    splits, ids = manifest.split.to_numpy(), manifest.id.to_numpy()
    earlier, frame["duplicate_kind"] = duplicates(hashes, _Prints(part, len(manifest)), splits)
    frame.insert(len(frame.columns) - 1, "duplicate_of", [ids[i] if i >= 0 else "" for i in earlier])
    part.forget()
    return frame


def measure(wave: np.ndarray, rate: int, source_clipped: float = 0.0) -> tuple[dict[str, float], np.ndarray]:
    """The levels of a clip [shape=(T,)], by the names in `LEVELS`, and its fingerprint [shape=(1024,), float32]."""
    power = _power(wave)
    own = _levels(wave, rate, source_clipped)
    own["effective_bandwidth_hz"] = effective_bandwidth(power.mean(axis=0), rate)
    return own, _fingerprint(power).astype(np.float32)


def duplicates(hashes, prints, splits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each clip the number of an earlier one that is the same, -1 without, and how they are: "exact", "near" or "".

    `hashes` are of the samples, `prints[rows]` fingerprints [shape=(len(rows), 1024)]. One of another split comes before one
    of the same.
    """
    exact = _exact_duplicates(hashes, splits)
    near = _near_duplicates(prints, splits, np.flatnonzero(exact < 0))
    kinds = np.where(exact >= 0, "exact", np.where(near >= 0, "near", ""))
    return np.where(exact >= 0, exact, near), kinds


def _measure(out: Path, manifest, part: Resumable) -> None:
    """Write the levels [shape=(N, 5)] and the fingerprints [shape=(N, 1024), float32] of the clips, shard by shard."""
    done = part.done("clips")
    with progress(total=len(manifest), initial=done, desc=f"audit {out.name}", unit="clip") as bar:
        for start in range(done, len(manifest), SHARD):
            rows = manifest.iloc[start : start + SHARD]
            levels, prints = [], np.zeros((len(rows), CELLS * CELLS), dtype=np.float32)
            waves = (wave for batch in iter_waves(out, rows) for wave in batch)
            for i, (wave, rate, source_clipped) in enumerate(zip(waves, rows.rate, rows.source_clipped)):
                own, prints[i] = measure(wave, rate, source_clipped)
                levels.append([own[name] for name in LEVELS])
                bar.update()
            part.write("levels", start, np.array(levels, dtype=np.float64), len(manifest))
            part.write("prints", start, prints, len(manifest))
            part.commit(clips=start + len(rows))


class _Prints:
    """Fingerprints on disk, read by the numbers of the clips."""

    def __init__(self, part: Resumable, count: int):
        self.part, self.count = part, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.part.read("prints", rows)


def _levels(wave: np.ndarray, rate: int, source_clipped: float) -> dict[str, float]:
    size = round(FRAME_SECONDS * rate)
    frames = np.square(wave[: len(wave) // size * size or None].astype(np.float64)).reshape(-1, min(size, len(wave)))
    rms = np.sqrt(np.mean(np.square(wave, dtype=np.float64)))
    return {
        "rms_db": float(20 * np.log10(max(rms, 1e-6))),
        "peak": float(np.abs(wave).max()),
        "silence_fraction": float(np.mean(np.sqrt(frames.mean(axis=1)) < 10 ** (SILENCE_DB / 20))),
        "clipped_fraction": max(float(np.mean(np.abs(wave) >= 0.9999)), source_clipped),
    }


def _power(wave: np.ndarray) -> np.ndarray:
    """Power spectra [shape=(frames, bins)] under a Blackman-Harris window (side lobes at -92 dB), in units where white
    noise of variance v has power v in every bin."""
    window = get_window("blackmanharris", N_FFT)
    wave = np.pad(wave, (0, max(0, N_FFT - len(wave)))).astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(wave, N_FFT)[:: N_FFT // 2]  # (frames, N_FFT)
    return np.abs(np.fft.rfft(frames * window, axis=1)) ** 2 / np.square(window).sum()


def effective_bandwidth(spectrum: np.ndarray, rate: int, level_db: float = -60.0) -> float:
    """Highest frequency (in Hz) with power above `level_db` re the peak of a long-term power spectrum.

    Bins less than 10 dB above the noise of 16-bit quantisation do not count, so a quiet clip has no false bandwidth.

    `spectrum` [shape=(bins,)] goes from 0 to rate / 2 and is scaled so that white noise of variance v has power v;
    silence has a bandwidth of 0.
    """
    quantisation = 10 * (1 / 32768) ** 2 / 12
    above = np.flatnonzero(spectrum > max(quantisation, spectrum.max() * 10 ** (level_db / 10)))
    return float(above[-1] * rate / 2 / (len(spectrum) - 1)) if len(above) else 0.0


def _fingerprint(power: np.ndarray) -> np.ndarray:
    """Log power in 32 bands x 32 times, floored 60 dB below its largest, without mean, of unit length."""
    times = np.linspace(0, len(power), CELLS, endpoint=False).astype(int)
    bands = np.geomspace(2, power.shape[1] - 1, CELLS, endpoint=False).astype(int)
    cells = np.add.reduceat(np.add.reduceat(power, times, axis=0), bands, axis=1)  # (32, 32)
    log = np.log(np.maximum(cells, max(cells.max() * 1e-6, 1e-20))).ravel()
    log -= log.mean()
    norm = np.linalg.norm(log)
    return log / norm if norm > 1e-6 else log * 0


def _exact_duplicates(hashes, splits) -> np.ndarray:
    """For each clip an earlier one of the same hash, of another split where there is one; -1 without."""
    first, seen = np.full(len(hashes), -1), {}
    for i, sha256 in enumerate(hashes):
        earlier = seen.setdefault(sha256, {})  # first clip per split
        others = [j for split, j in earlier.items() if split != splits[i]]
        first[i] = min(others or earlier.values(), default=-1)
        earlier.setdefault(splits[i], i)
    return first


def _near_duplicates(prints, splits: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """As `_exact_duplicates`, by correlation of fingerprints above `NEAR`, among the clips `kept`.

    Unit vectors of correlation c lie sqrt(2 - 2c) apart, and so do at most their projections on any direction: along
    the direction of most spread, only clips within that distance are compared. Exact, about N^2 / 10 products, of which
    `BLOCK` x `BLOCK` are held at once. `prints[rows]` are fingerprints [shape=(len(rows), D)], in memory or on disk.
    """
    n = len(prints)
    best = np.full(n, 2 * n)  # earlier clip, plus n where it is of the same split
    if len(kept) > 1:
        reach = np.sqrt(2 - 2 * NEAR) + 1e-5  # room for float32
        direction = np.linalg.eigh(np.cov(prints[kept[:2000]].T))[1][:, -1].astype(np.float32)
        along = np.concatenate([prints[rows] @ direction for rows in _blocks(kept)])
        order = np.argsort(along, kind="stable")
        along, kept = along[order], kept[order]
    for start in range(0, len(kept) if len(kept) > 1 else 0, BLOCK):
        block = kept[start : start + BLOCK]
        x = prints[block]
        end = np.searchsorted(along, along[start + len(block) - 1] + reach, side="right")
        for window in _blocks(kept[start:end]):
            a, b = np.nonzero(x @ prints[window].T > NEAR)
            pair = np.sort(np.stack([block[a], window[b]]), axis=0)
            early, late = pair[:, pair[0] < pair[1]]
            np.minimum.at(best, late, early + n * (splits[early] == splits[late]))
    return np.where(best < 2 * n, best % n, -1)


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]


def audit_problems(audit, unusable=None, *, examples: int = 5):
    """Count the problems that an audit shows.

    Parameters
    ----------
    audit : pandas.DataFrame
        from `audit`
    unusable : pandas.DataFrame, optional
        source files that were left out (`manifest.unusable`); they have a row where there are any
    examples : int >= 0
        ids to show per problem

    Returns
    -------
    pandas.DataFrame
        problem, count, examples (list of ids); one row per problem, also where the count is 0
    """
    import pandas as pd

    elsewhere = audit.split != audit.duplicate_of.map(audit.set_index("id").split)
    problems = {
        "quiet": audit.rms_db < SILENCE_DB,
        "mostly silent": audit.silence_fraction > 0.9,
        "clipped": audit.clipped_fraction > 1e-3,
        "narrow band": audit.effective_bandwidth_hz < audit.rate / 4,  # half of what the rate allows
    }
    for where, mask in (("the same", ~elsewhere), ("another", elsewhere)):
        for kind in ("exact", "near"):
            problems[f"{kind} duplicate in {where} split"] = (audit.duplicate_kind == kind) & mask
    rows = [(name, int(mask.sum()), list(audit.id[mask][:examples])) for name, mask in problems.items()]
    if unusable is not None and len(unusable):
        rows.append(("unusable source, left out", len(unusable), list(unusable.id[:examples])))
    return pd.DataFrame(rows, columns=["problem", "count", "examples"])
