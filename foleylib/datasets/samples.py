"""The clips of a run on disk: a folder for each training seed, with audio/*.wav and manifest.parquet."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from foleylib.audio import io

COLUMNS = ["id", "path", "label", "target", "prompt", "seed"]


def write(folder: Path, manifest: pd.DataFrame, waves: np.ndarray, rate: int) -> Path:
    """Write clips [shape=(N, T), at `rate` Hz] and their manifest; columns beyond `COLUMNS` are kept."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "audio").mkdir(parents=True)
    manifest = manifest.assign(path=[f"audio/{i}.wav" for i in manifest.id])
    for path, wave in zip(manifest.path, waves):
        io.write(folder / path, wave, rate)
    manifest = manifest[COLUMNS + [c for c in manifest if c not in COLUMNS]]
    manifest.to_parquet(folder / "manifest.parquet", index=False)
    return folder


def seeds(folder: Path) -> list[int]:
    """The training seeds of which the folder of a run holds clips."""
    seeds = sorted(int(p.parent.name) for p in folder.glob("*/manifest.parquet"))
    if not seeds:
        raise ValueError(f"{folder} holds no samples; run the sample stage of '{folder.name}' first")
    return seeds


def load(folder: Path, seed: int | None = None) -> tuple[pd.DataFrame, np.ndarray]:
    """The clips of a run and training seed (the first by default).

    Returns
    -------
    manifest [id, path, label, target, prompt, seed, ...] and waves [shape=(N, T), float32, in [-1, 1]].
    """
    part = folder / str(seeds(folder)[0] if seed is None else seed)
    if not (part / "manifest.parquet").is_file():
        raise ValueError(f"{part} holds no samples; run the sample stage of '{folder.name}' with that seed first")
    manifest = pd.read_parquet(part / "manifest.parquet")
    return manifest, np.stack([io.read(part / path)[0] for path in manifest.path])
