"""What a training step reads of a corpus: posterior moments of the latents and conditions, memory-mapped."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

# Arrays of a features folder that are no condition; each other one is a field of `Condition`.
NOT_CONDITIONS = ("moments", "audio", "text", "captions", "caption_count")


def load(folder: Path, split: str | None = None) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """The cached features of a corpus, or of one of its splits.

    Returns
    -------
    index [id, split, label, target, prompt], and arrays by name: "moments" [shape=(N, 2C, T, F)], "audio" and "text"
    [shape=(N, D), unit norm], and what else the stage has written; consecutive rows stay memory-mapped. Where a clip has
    several captions, "captions" [shape=(N, K, D)] has all of them, of which the first "caption_count" [shape=(N,)] of a
    row count.
    """
    if read_key(folder) is None:
        raise ValueError(f"{folder} holds no features; run the features stage of this corpus first")
    index = pd.read_parquet(folder / "index.parquet")
    arrays = {file.stem: np.load(file, mmap_mode="r") for file in sorted(folder.glob("*.npy"))}
    if split is not None:
        rows = np.flatnonzero(index.split == split)
        index = index.iloc[rows].reset_index(drop=True)
        arrays = {name: _rows(array, rows) for name, array in arrays.items()}
    return index, arrays


def load_once(folder: Path) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """What `load` reads with each clip once, where the features have it at several rates: at the first."""
    index, arrays = load(folder)
    rows = np.flatnonzero(~index.id.duplicated())
    return index.iloc[rows].reset_index(drop=True), {name: _rows(array, rows) for name, array in arrays.items()}


def read_key(folder: Path) -> dict | None:
    """What the features of a folder were made from (clips, texts, models, front end); None where it holds none."""
    file = folder / "features.json"
    return json.loads(file.read_text()) if file.is_file() else None


def _rows(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Consecutive rows stay memory-mapped; scattered ones are read."""
    whole = len(rows) and rows[-1] - rows[0] + 1 == len(rows)
    return array[rows[0] : rows[-1] + 1] if whole else array[rows]


class Latents:
    """Cached training data of a corpus: posterior moments and the conditions of each clip, read by clip index.

    Parameters
    ----------
    moments : [shape=(N, 2C, T, F)], memory-mapped or in memory.
    conditions : arrays of N rows by the names of `diffusion.condition.Condition`: "embedding" [shape=(N, D)], ...
    scale : latent scale of the VAE.
    audio : E_audio of each clip [shape=(N, D)], where a loss compares with it.
    captions : further arrays "captions" [shape=(N, K, D)] and "caption_count" [shape=(N,)], for `with_drawn_caption`.
    """

    def __init__(
        self,
        moments: np.ndarray,
        conditions: dict[str, np.ndarray],
        scale: float,
        audio: np.ndarray | None = None,
        captions: dict[str, np.ndarray] | None = None,
    ):
        for name, rows in conditions.items():
            if len(rows) != len(moments):
                raise ValueError(f"{len(moments)} latents but {len(rows)} rows of '{name}': make the features anew")
        self.moments, self.conditions, self.scale, self.audio = moments, conditions, scale, audio
        self.captions = captions or {}

    def __len__(self) -> int:
        return len(self.moments)

    def __getitem__(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """A batch: "moments", "audio" and captions where there are any, and the conditions by name; floats in single
        precision."""
        arrays = {"moments": self.moments, **self.conditions, **self.captions}
        arrays |= {} if self.audio is None else {"audio": self.audio}
        return read_rows(arrays, indices)


def read_rows(arrays: dict[str, np.ndarray], indices: np.ndarray) -> dict[str, torch.Tensor]:
    """The rows of arrays as tensors, floats in single precision."""
    rows = {name: torch.from_numpy(np.ascontiguousarray(array[indices])) for name, array in arrays.items()}
    return {name: value.float() if value.is_floating_point() else value for name, value in rows.items()}


def training_splits(
    folder: Path, condition: str, scale: float, texts: dict[str, np.ndarray] | None = None
) -> dict[str, Latents]:
    """The training and, where there are any, validation clips of a features folder.

    `condition` is "audio" or "text", the clip's own embedding; "text" with `texts` (label -> [shape=(D,)]) takes the
    embedding of the clip's class there, for prompts other than the corpus'. A training clip of several captions that no
    class text stands for has all of them in its batches, a validation clip the first. Further arrays of the folder
    (tokens, say) are conditions under their own names.
    """
    splits = {}
    for split in ("train", "val"):
        index, arrays = load(folder, split)
        if len(index):
            texts = texts if texts and condition == "text" else {}
            by_class = index.label.isin(list(texts)).to_numpy()
            embeddings = arrays[condition]
            if by_class.any():
                embeddings = np.stack([texts.get(label, own) for label, own in zip(index.label, embeddings)])
            more = {name: array for name, array in arrays.items() if name not in NOT_CONDITIONS}
            captions = {}
            if split == "train" and condition == "text" and "captions" in arrays:
                counts = np.where(by_class, 0, arrays["caption_count"])
                captions = {"captions": arrays["captions"], "caption_count": counts}
            conditions = {"embedding": embeddings, **more}
            splits[split] = Latents(arrays["moments"], conditions, scale, arrays["audio"], captions)
    return splits


def with_drawn_caption(batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A batch of `Latents` with one of each clip's captions as its "embedding", drawn evenly.

    A clip whose "caption_count" is 0 keeps its embedding; a batch without captions is returned as it is, and nothing is
    drawn.
    """
    if "captions" not in batch:
        return batch
    captions, counts = batch["captions"], batch["caption_count"]
    chosen = (torch.rand(len(counts), generator=generator, device=counts.device) * counts).long()
    drawn = captions[torch.arange(len(counts), device=counts.device), chosen]
    return batch | {"embedding": torch.where(counts[:, None] > 0, drawn, batch["embedding"])}


@torch.no_grad()
def encode_moments(vae, mels: torch.Tensor) -> torch.Tensor:
    """Mean and log-variance of the VAE's posterior [shape=(B, 2C, T / r, F / r)] of log-mels [shape=(B, 1, T, F)]."""
    return vae.encode(mels).latent_dist.parameters


def sample_latents(moments: torch.Tensor, scale: float, generator: torch.Generator | None) -> torch.Tensor:
    """Latents drawn from their posteriors, brought to unit variance: scale * (mean + std * noise)."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    return scale * DiagonalGaussianDistribution(moments).sample(generator)
