"""What is computed once per corpus: posterior moments of the latents and CLAP embeddings, in memory-mapped arrays."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from foleylib import corpora, train, vae
from foleylib.progress import progress

ARRAYS = ("moments", "audio", "text")


def compute(corpus: Path, out: Path, *, autoencoder, clap, log_mel, models: str, batch_size: int, device: str = "auto"):
    """Write `out`: moments.npy [N, 2C, T, F], audio.npy and text.npy [N, D] of unit norm, index.parquet, features.json.

    Parameters
    ----------
    corpus : a folder written by `corpora.prepare`.
    models : SHA-256 of the weights behind the features; with the corpus' digest it makes the key in features.json.
    """
    manifest = corpora.load(corpus)
    key = {"corpus": corpora.digest(manifest), "models": models, "mel": asdict(log_mel.config)}
    if _key(out) == key:
        return
    place = train.pick_device(device)
    autoencoder, clap, log_mel = autoencoder.to(place).eval(), clap.to(place).eval(), log_mel.to(place)
    rate = log_mel.config.rate
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    texts = list(dict.fromkeys(manifest.prompt))
    embedded = dict(zip(texts, clap.embed_text(texts).cpu().numpy()))
    np.save(part / "text.npy", np.stack([embedded[t] for t in manifest.prompt]))
    arrays, start = {}, 0
    batches = corpora.iter_waves(corpus, manifest, batch_size)
    for waves in progress(batches, desc=f"features {corpus.name}", total=-(-len(manifest) // batch_size)):
        waves = torch.from_numpy(waves).to(place)
        values = {"moments": vae.moments(autoencoder, log_mel(waves)), "audio": clap.embed_audio(waves, rate)}
        for name, value in values.items():
            if name not in arrays:
                shape = (len(manifest), *value.shape[1:])
                arrays[name] = np.lib.format.open_memmap(part / f"{name}.npy", "w+", np.float32, shape)
            arrays[name][start : start + len(value)] = value.cpu().numpy()
        start += len(waves)
    for array in arrays.values():
        array.flush()
    manifest[["id", "split", "label", "target", "prompt"]].to_parquet(part / "index.parquet", index=False)
    (part / "features.json").write_text(json.dumps(key, indent=1) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    os.replace(part, out)


def _key(out: Path) -> dict | None:
    file = out / "features.json"
    return json.loads(file.read_text()) if file.is_file() else None


def load(out: Path, split: str | None = None) -> tuple:
    """The features of a split as (index DataFrame, {"moments", "audio", "text"}: arrays, rows memory-mapped)."""
    import pandas as pd

    if _key(out) is None:
        raise ValueError(f"{out} holds no features; run the features stage of this corpus first")
    index = pd.read_parquet(out / "index.parquet")
    arrays = {name: np.load(out / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    if split is not None:
        rows = np.flatnonzero(index.split == split)
        index = index.iloc[rows].reset_index(drop=True)
        arrays = {name: _rows(array, rows) for name, array in arrays.items()}
    return index, arrays


def _rows(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Consecutive rows stay memory-mapped; scattered ones are read."""
    whole = len(rows) and rows[-1] - rows[0] + 1 == len(rows)
    return array[rows[0] : rows[-1] + 1] if whole else array[rows]
