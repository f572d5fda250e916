"""The prepared corpus on disk: `manifest.parquet` beside `audio/<id>.wav`, all of one rate and length."""

import hashlib
import os
from pathlib import Path

import numpy as np

COLUMNS = (
    "id",
    "path",
    "split",
    "label",
    "target",
    "caption",
    "prompt",
    "source_group",
    "licence",
    "rate",
    "seconds",
    "source_rate",
    "source_seconds",
    "source_clipped",
    "source_path",
    "operations",
    "sha256",
    "events",
    "parameters",
)


class CorpusError(ValueError):
    """A corpus that cannot be used; the message names each offender, what is wrong and the remedy."""


def load(out):
    """Read the manifest of a prepared corpus.

    Parameters
    ----------
    out : str or Path
        folder written by `corpora.prepare`

    Returns
    -------
    pandas.DataFrame
        one row per clip, columns `COLUMNS`; `path` is relative to `out`, `seconds` in s, `rate` in Hz,
        `source_clipped` the fraction of source samples at full scale, `events` and `parameters` JSON

    Raises
    ------
    CorpusError
        if the manifest is absent, lacks columns, repeats an id, or names files that do not exist
    """
    import pandas

    path = Path(out) / "manifest.parquet"
    if not path.is_file():
        raise CorpusError(f"{path}: no such file; prepare the corpus first (stage `corpora`)")
    manifest = pandas.read_parquet(path)
    absent = [column for column in COLUMNS if column not in manifest]
    if absent:
        raise CorpusError(f"{path}: no columns {absent}; it was written by another version, prepare the corpus again")
    repeated = sorted(manifest.id[manifest.id.duplicated()].unique())
    if repeated:
        raise CorpusError(f"{path}: ids {repeated[:5]} occur more than once; prepare the corpus again")
    lost = sorted(set(manifest.path) - _files(Path(out)))
    if lost:
        raise CorpusError(f"{path}: {len(lost)} files of it are missing, first {lost[:5]}; prepare the corpus again")
    return manifest


def _files(out):
    return {f"audio/{name}" for name in os.listdir(out / "audio")} if (out / "audio").is_dir() else set()


def iter_waves(out, manifest, batch=64):
    """Yield the clips of a manifest in its order, a batch at a time.

    Parameters
    ----------
    out : str or Path
        corpus folder
    manifest : pandas.DataFrame
        all or some of the rows of `load(out)`
    batch : int > 0

    Yields
    ------
    np.ndarray [shape=(B, T), float32]
        in [-1, 1]; the last batch may be smaller

    Raises
    ------
    CorpusError
        if a clip differs from the manifest in rate or length
    """
    if batch < 1:
        raise ValueError(f"batch={batch}: give a positive number of clips")
    rows = list(zip(manifest.path, manifest.rate, manifest.seconds))
    for start in range(0, len(rows), batch):
        yield np.stack([_read_clip(Path(out) / path, rate, seconds) for path, rate, seconds in rows[start:][:batch]])


def _read_clip(path, rate, seconds):
    import soundfile

    wave, found = soundfile.read(path, dtype="float32")
    length = round(rate * seconds)
    if found != rate or wave.shape != (length,):
        raise CorpusError(
            f"{path}: {wave.shape} samples at {found} Hz, but the manifest says ({length},) at {rate} Hz; "
            "prepare the corpus again"
        )
    return wave


def read_waves(out, manifest):
    """Read the clips of a manifest, in its order, into one array [shape=(N, T), float32], in [-1, 1].

    A corpus too large for memory is read with `iter_waves`. Errors are those of `iter_waves`.
    """
    if len(manifest) == 0:
        return np.zeros((0, 0), dtype=np.float32)
    waves = np.empty((len(manifest), round(manifest.rate.iloc[0] * manifest.seconds.iloc[0])), dtype=np.float32)
    for i, clip in enumerate(iter_waves(out, manifest, 1)):
        waves[i] = clip[0]  # (T,)
    return waves


class Waves:
    """The clips of a manifest by row number, read when asked for: `waves[rows]` is a tensor [shape=(B, T)], float32.

    Parameters
    ----------
    out : str or Path
        corpus folder
    manifest : pandas.DataFrame
        all or some of the rows of `load(out)`
    """

    def __init__(self, out, manifest):
        self.clips = [(Path(out) / row.path, row.rate, row.seconds) for row in manifest.itertuples()]

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, rows):
        import torch

        return torch.from_numpy(np.stack([_read_clip(*self.clips[row]) for row in rows]))


def digest(manifest):
    """SHA-256 over the ids and audio hashes of a manifest (or of some of its rows), whatever their order."""
    lines = sorted(f"{id} {sha256}\n" for id, sha256 in zip(manifest.id, manifest.sha256))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
