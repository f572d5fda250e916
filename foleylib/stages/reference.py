"""The real clips that every run is compared with."""

import numpy as np
import pandas as pd

from foleylib import paths
from foleylib.datasets import manifest as manifests
from foleylib.networks import clap as claps
from foleylib.params.settings import Params


def reference(cfg: Params, split: str | None = None) -> tuple[pd.DataFrame, np.ndarray]:
    """Real clips of `evaluate.split`, or of another split: manifest, waves [shape=(N, T)]."""
    folder = paths.CLIPS / cfg.sampling.corpus
    manifest = manifests.load(folder)
    split = split or cfg.evaluate.split
    manifest = manifest[manifest.split == split].reset_index(drop=True)
    if not len(manifest):
        raise ValueError(
            f"{folder}: no clips of the split {split}; give the corpus some, or name another in evaluate.split"
        )
    return manifest, manifests.read_waves(folder, manifest)


def embeddings_by_class(clap: claps.Clap, cfg: Params, split: str | None = None) -> dict[str, np.ndarray]:
    """CLAP embeddings of `reference` by class, label -> [shape=(N, D)]."""
    manifest, waves = reference(cfg, split)
    E = clap.embed_audio(waves, cfg.corpus_of("sampling").rate).cpu().numpy()
    return {label: E[rows] for label, rows in manifest.groupby("label", sort=False).indices.items()}


def evenly(manifest: pd.DataFrame, count: int, setting: str) -> np.ndarray:
    """Rows of `count` clips, the first of each class in turn; `setting` is where the number comes from, for the error."""
    if count > len(manifest):
        raise ValueError(f"{setting} is {count}, but there are {len(manifest)} clips: lower it, or prepare more")
    turn = manifest.groupby("label", sort=False).cumcount().to_numpy()
    return np.sort(np.argsort(turn, kind="stable")[:count])
