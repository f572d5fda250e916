"""What is wrong with the clips of a corpus: silence, clipping, missing bandwidth, duplicates."""

import numpy as np

from foleylib.corpora.manifest import iter_waves, load

N_FFT = 1024
CELLS = 32  # fingerprint: 32 bands x 32 times
FRAME_SECONDS = 0.02


def audit(out, *, silence_db=-60.0, bandwidth_db=-60.0, near=0.999):
    """Measure every clip of a prepared corpus.

    Parameters
    ----------
    out : str or Path
        corpus folder
    silence_db : float
        a frame of 20 ms below this RMS level (in dB re full scale) is silent
    bandwidth_db : float
        level re the peak of the long-term spectrum, see `effective_bandwidth`
    near : float in (0, 1]
        correlation of spectral fingerprints above which two clips are near-duplicates

    Returns
    -------
    pandas.DataFrame
        id, split, label, rate (Hz), rms_db and peak (re full scale), silence_fraction, clipped_fraction (samples at
        full scale in the clip or its source, the larger), effective_bandwidth_hz, duplicate_of (id of an earlier clip,
        one of another split before one of the same, else ""), duplicate_kind ("exact", "near" or "")
    """
    import pandas

    manifest = load(out)
    frame = manifest[["id", "split", "label", "rate"]].copy()
    rows, prints = [], np.zeros((len(manifest), CELLS * CELLS), dtype=np.float32)
    waves = (wave for batch in iter_waves(out, manifest) for wave in batch)
    for i, (wave, rate, source_clipped) in enumerate(zip(waves, manifest.rate, manifest.source_clipped)):
        power = _power(wave)
        prints[i] = _fingerprint(power)
        levels = _levels(wave, rate, silence_db)
        levels["clipped_fraction"] = max(levels["clipped_fraction"], source_clipped)
        bandwidth = effective_bandwidth(power.mean(axis=0), rate, bandwidth_db)
        rows.append({**levels, "effective_bandwidth_hz": bandwidth})
    frame = pandas.concat([frame, pandas.DataFrame(rows)], axis=1)
    splits = manifest.split.to_numpy()
    exact = _exact_duplicates(manifest.sha256, splits)
    similar = _near_duplicates(prints, splits, np.flatnonzero(exact < 0), near)
    first = np.where(exact >= 0, exact, similar)
    ids = manifest.id.to_numpy()
    frame["duplicate_of"] = [ids[i] if i >= 0 else "" for i in first]
    frame["duplicate_kind"] = np.where(exact >= 0, "exact", np.where(similar >= 0, "near", ""))
    return frame


def _levels(wave, rate, silence_db):
    size = round(FRAME_SECONDS * rate)
    frames = np.square(wave[: len(wave) // size * size or None].astype(np.float64)).reshape(-1, min(size, len(wave)))
    rms = np.sqrt(np.mean(np.square(wave, dtype=np.float64)))
    return {
        "rms_db": float(20 * np.log10(max(rms, 1e-6))),
        "peak": float(np.abs(wave).max()),
        "silence_fraction": float(np.mean(np.sqrt(frames.mean(axis=1)) < 10 ** (silence_db / 20))),
        "clipped_fraction": float(np.mean(np.abs(wave) >= 0.9999)),
    }


def _power(wave):
    """Power spectra [shape=(frames, bins)] under a Blackman-Harris window (side lobes at -92 dB), in units where white
    noise of variance v has power v in every bin."""
    from scipy.signal import get_window

    window = get_window("blackmanharris", N_FFT)
    wave = np.pad(wave, (0, max(0, N_FFT - len(wave)))).astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(wave, N_FFT)[:: N_FFT // 2]  # (frames, N_FFT)
    return np.abs(np.fft.rfft(frames * window, axis=1)) ** 2 / np.square(window).sum()


def effective_bandwidth(spectrum, rate, level_db=-60.0):
    """Highest frequency (in Hz) with power above `level_db` re the peak of a long-term power spectrum.

    Bins less than 10 dB above the noise of 16-bit quantisation do not count, so a quiet clip has no false bandwidth.

    Parameters
    ----------
    spectrum : np.ndarray [shape=(bins,)]
        from 0 to rate / 2, scaled so that white noise of variance v has power v
    rate : int > 0
    level_db : float

    Returns
    -------
    float
        0 for silence
    """
    quantisation = 10 * (1 / 32768) ** 2 / 12
    above = np.flatnonzero(spectrum > max(quantisation, spectrum.max() * 10 ** (level_db / 10)))
    return float(above[-1] * rate / 2 / (len(spectrum) - 1)) if len(above) else 0.0


def _fingerprint(power):
    """Log power in 32 bands x 32 times, floored 60 dB below its largest, without mean, of unit length."""
    times = np.linspace(0, len(power), CELLS, endpoint=False).astype(int)
    bands = np.geomspace(2, power.shape[1] - 1, CELLS, endpoint=False).astype(int)
    cells = np.add.reduceat(np.add.reduceat(power, times, axis=0), bands, axis=1)  # (32, 32)
    log = np.log(np.maximum(cells, max(cells.max() * 1e-6, 1e-20))).ravel()
    log -= log.mean()
    norm = np.linalg.norm(log)
    return log / norm if norm > 1e-6 else log * 0


def _exact_duplicates(hashes, splits):
    """For each clip an earlier one of the same hash, of another split where there is one; -1 without."""
    first, seen = np.full(len(hashes), -1), {}
    for i, sha256 in enumerate(hashes):
        earlier = seen.setdefault(sha256, {})  # first clip per split
        others = [j for split, j in earlier.items() if split != splits[i]]
        first[i] = min(others or earlier.values(), default=-1)
        earlier.setdefault(splits[i], i)
    return first


def _near_duplicates(prints, splits, kept, near):
    """As `_exact_duplicates`, by correlation of fingerprints above `near`, among the clips `kept`.

    Unit vectors of correlation c lie sqrt(2 - 2c) apart, and so do at most their projections on any direction: along
    the direction of most spread, only clips within that distance are compared. Exact, about N^2 / 10 products.
    """
    x, n = prints[kept], len(prints)
    reach = np.sqrt(2 - 2 * near) + 1e-5  # room for float32
    along = x @ np.linalg.eigh(np.cov(x[:2000].T))[1][:, -1].astype(np.float32) if len(x) > 1 else np.zeros(len(x))
    order = np.argsort(along, kind="stable")
    best = np.full(n, 2 * n)  # earlier clip, plus n where it is of the same split
    for start in range(0, len(x), 1024):
        block = order[start : start + 1024]
        window = order[start : np.searchsorted(along[order], along[block[-1]] + reach, side="right")]
        a, b = np.nonzero(x[block] @ x[window].T > near)
        pair = np.sort(kept[np.stack([block[a], window[b]])], axis=0)
        early, late = pair[:, pair[0] < pair[1]]
        np.minimum.at(best, late, early + n * (splits[early] == splits[late]))
    return np.where(best < 2 * n, best % n, -1)


def audit_problems(audit, *, quiet_db=-60.0, silent=0.9, clipped=1e-3, bandwidth=0.5, examples=5):
    """Count the problems that an audit shows.

    Parameters
    ----------
    audit : pandas.DataFrame
        from `audit`
    quiet_db : float
        clips of lower RMS level (in dB re full scale) are reported
    silent : float
        clips with a larger fraction of silent frames are reported
    clipped : float
        clips with a larger fraction of samples at full scale are reported
    bandwidth : float
        clips with less effective bandwidth, as a share of rate / 2, are reported
    examples : int >= 0
        ids to show per problem

    Returns
    -------
    pandas.DataFrame
        problem, count, examples (list of ids); one row per problem, also where the count is 0
    """
    import pandas

    other = audit.split != audit.duplicate_of.map(audit.set_index("id").split)
    kinds = {f"{kind} duplicate": audit.duplicate_kind == kind for kind in ("exact", "near")}
    found = {
        "quiet": audit.rms_db < quiet_db,
        "mostly silent": audit.silence_fraction > silent,
        "clipped": audit.clipped_fraction > clipped,
        "narrow band": audit.effective_bandwidth_hz < bandwidth * audit.rate / 2,
        **{f"{name} in the same split": is_kind & ~other for name, is_kind in kinds.items()},
        **{f"{name} in another split": is_kind & other for name, is_kind in kinds.items()},
    }
    rows = [(name, int(mask.sum()), list(audit.id[mask][:examples])) for name, mask in found.items()]
    return pandas.DataFrame(rows, columns=["problem", "count", "examples"])
