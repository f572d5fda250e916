"""Whether a model copies what it retrieved: how near a clip is to its neighbours."""

import numpy as np


def nearest(clips: np.ndarray, neighbours: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The largest cosine similarity of each clip [shape=(N, D)] to one of its neighbours [shape=(N, K, D)], [shape=(N,)].

    The rows may be embeddings, or log-mels made by `centred`, of which the cosine is the correlation. `mask` says which
    neighbours there are [shape=(N, K), bool]; NaN of a clip that has none. A row of zeros, such as the `centred`
    log-mel of silence, has no direction and is near to nothing: 0.
    """
    shapes = np.shape(clips), np.shape(neighbours), np.shape(mask)
    if (
        [len(shape) for shape in shapes] != [2, 3, 2]
        or shapes[1] != (*shapes[2], shapes[0][1])
        or len(clips) != len(mask)
    ):
        raise ValueError(
            f"clips {shapes[0]}, neighbours {shapes[1]} and mask {shapes[2]}: give (N, D), (N, K, D) and (N, K)"
        )
    units = _unit(clips, np.ones(len(clips), dtype=bool)), _unit(neighbours, np.asarray(mask, dtype=bool))
    similar = np.where(mask, np.einsum("nd,nkd->nk", *units), -np.inf).max(axis=1)
    return np.where(mask.any(axis=1), similar, np.nan)


def strangers(rows: np.ndarray) -> np.ndarray:
    """For each clip another clip, with as few of its neighbours `rows` [shape=(N, K), -1 for none] as there are [shape=(N,)].

    Of equally good ones it is the first from half the clips on.
    """
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} clips: give at least 2, of which each gets the neighbours of another")
    sets = [set(own[own >= 0].tolist()) for own in rows]
    steps = np.roll(np.arange(1, len(rows)), -(len(rows) // 2 - 1))  # half the clips on, and so on around
    others = [(clip + steps) % len(rows) for clip in range(len(rows))]
    return np.array([min(near, key=lambda i: len(own & sets[i])) for own, near in zip(sets, others)])


def centred(mels: np.ndarray) -> np.ndarray:
    """Log-mels [shape=(N, frames, bands)] as rows [shape=(N, frames * bands)] of mean 0."""
    rows = mels.reshape(len(mels), -1).astype(np.float64)
    return rows - rows.mean(axis=1, keepdims=True)


def _unit(rows: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Rows of length 1; those that are `there` must have a length that is a number."""
    rows = rows.astype(np.float32) if rows.dtype == np.float16 else rows  # squares of half precision soon overflow
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    if not np.isfinite(lengths[there]).all():
        raise ValueError("clips or neighbours are not finite, or too large for a length; look at their sounds")
    return rows / np.maximum(lengths, 1e-12)
