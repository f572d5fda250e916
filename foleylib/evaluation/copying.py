"""Whether a model copies what it retrieved: how near a clip is to its neighbours."""

import numpy as np


def nearest(clips: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """The largest cosine similarity of each clip [shape=(N, D)] to one of its neighbours [shape=(N, K, D)], [shape=(N,)].

    The rows may be embeddings, or log-mels made by `centred`, of which the cosine is the correlation.
    """
    if (
        clips.ndim != 2
        or neighbours.ndim != 3
        or (len(clips), clips.shape[1]) != (len(neighbours), neighbours.shape[2])
    ):
        raise ValueError(f"clips {clips.shape} and neighbours {neighbours.shape}: give (N, D) and (N, K, D)")
    clips, neighbours = _unit(clips), _unit(neighbours)
    return np.einsum("nd,nkd->nk", clips, neighbours).max(axis=1)


def centred(mels: np.ndarray) -> np.ndarray:
    """Log-mels [shape=(N, frames, bands)] as rows [shape=(N, frames * bands)] of mean 0."""
    rows = mels.reshape(len(mels), -1).astype(np.float64)
    return rows - rows.mean(axis=1, keepdims=True)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
