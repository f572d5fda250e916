"""What a training step reads of a corpus: posterior moments of the latents and CLAP embeddings, memory-mapped."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

ARRAYS = ("moments", "audio", "text")


def load(folder: Path, split: str | None = None) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """The cached features of a corpus, or of one of its splits.

    Returns
    -------
    index [id, split, label, target, prompt], and arrays by name: "moments" [shape=(N, 2C, T, F)], "audio" and "text"
    [shape=(N, D), unit norm]; consecutive rows stay memory-mapped.
    """
    if read_key(folder) is None:
        raise ValueError(f"{folder} holds no features; run the features stage of this corpus first")
    index = pd.read_parquet(folder / "index.parquet")
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    if split is not None:
        rows = np.flatnonzero(index.split == split)
        index = index.iloc[rows].reset_index(drop=True)
        arrays = {name: _rows(array, rows) for name, array in arrays.items()}
    return index, arrays


def read_key(folder: Path) -> dict | None:
    """What the features of a folder were made from (corpus, models, front end); None where it holds none."""
    file = folder / "features.json"
    return json.loads(file.read_text()) if file.is_file() else None


def _rows(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Consecutive rows stay memory-mapped; scattered ones are read."""
    whole = len(rows) and rows[-1] - rows[0] + 1 == len(rows)
    return array[rows[0] : rows[-1] + 1] if whole else array[rows]


class Latents:
    """Cached training data of a corpus: posterior moments and the condition of each clip, read by clip index.

    Parameters
    ----------
    moments : [shape=(N, 2C, T, F)], memory-mapped or in memory.
    embeddings : the CLAP embedding that conditions each clip [shape=(N, D)], of unit norm.
    scale : latent scale of the VAE.
    audio : E_audio of each clip [shape=(N, D)], where a loss compares with it.
    """

    def __init__(self, moments: np.ndarray, embeddings: np.ndarray, scale: float, audio: np.ndarray | None = None):
        if len(moments) != len(embeddings):
            raise ValueError(f"{len(moments)} latents but {len(embeddings)} embeddings: make the features anew")
        self.moments, self.embeddings, self.scale, self.audio = moments, embeddings, scale, audio

    def __len__(self) -> int:
        return len(self.moments)

    def __getitem__(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """A batch: "moments", "audio", and the conditions by the names of `diffusion.condition.Condition`."""
        arrays = {"moments": self.moments, "embedding": self.embeddings, "audio": self.audio}
        return {
            name: torch.from_numpy(np.ascontiguousarray(array[indices])).float()
            for name, array in arrays.items()
            if array is not None
        }


def training_splits(
    folder: Path, condition: str, scale: float, texts: dict[str, np.ndarray] | None = None
) -> dict[str, Latents]:
    """The training and, where there are any, validation clips of a features folder.

    `condition` is "audio" or "text", the clip's own embedding; "text" with `texts` (label -> [shape=(D,)]) takes the
    embedding of the clip's class there, for prompts other than the corpus'.
    """
    splits = {}
    for split in ("train", "val"):
        index, arrays = load(folder, split)
        if len(index):
            own = texts is not None and condition == "text"
            embeddings = np.stack([texts[label] for label in index.label]) if own else arrays[condition]
            splits[split] = Latents(arrays["moments"], embeddings, scale, arrays["audio"])
    return splits


@torch.no_grad()
def encode_moments(vae, mels: torch.Tensor) -> torch.Tensor:
    """Mean and log-variance of the VAE's posterior [shape=(B, 2C, T / r, F / r)] of log-mels [shape=(B, 1, T, F)]."""
    return vae.encode(mels).latent_dist.parameters


def sample_latents(moments: torch.Tensor, scale: float, generator: torch.Generator | None) -> torch.Tensor:
    """Latents drawn from their posteriors, brought to unit variance: scale * (mean + std * noise)."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    return scale * DiagonalGaussianDistribution(moments).sample(generator)
