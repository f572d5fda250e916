"""Tokens of a corpus, stored once a clip and memory-mapped, and those of each clip's neighbours, read from there."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def write(folder: Path, count: int, batches: Iterable[tuple]) -> None:
    """Write `folder`: tokens.npy [N, S, C], half precision, and mask.npy [N, S], bool, of `count` clips in their order.

    `batches` are tokens and masks as tensors (`networks.tokens`). What does not count is stored as zeros. The folder is
    replaced as a whole, once all is written.
    """
    part, arrays, start = folder.with_name(f".{folder.name}.part"), {}, 0
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for tokens, mask in batches:
        values = {"tokens": (tokens * mask[..., None]).half().cpu().numpy(), "mask": mask.cpu().numpy()}
        if not np.isfinite(values["tokens"]).all():
            raise ValueError(f"tokens of clips {start} to {start + len(tokens) - 1} are not finite in half precision")
        for name, value in values.items():
            if name not in arrays:
                shape = (count, *value.shape[1:])
                arrays[name] = np.lib.format.open_memmap(part / f"{name}.npy", "w+", value.dtype, shape)
            arrays[name][start : start + len(value)] = value
        start += len(tokens)
    if start != count:
        raise ValueError(f"{folder}: tokens of {start} clips, but the corpus has {count}; give those of all, once each")
    for array in arrays.values():
        array.flush()
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)


class Neighbours:
    """One array of a store, read for the neighbours of each of N queries: stands for an array [shape=(N, K * S, ...)].

    Indexed with queries [shape=(B,)] it gives [shape=(B, K * S, ...)], the neighbours' tokens one after the other;
    zeros, in a mask False, where a query has fewer than K. A condition of `datasets.features.Latents`.

    Parameters
    ----------
    values : [shape=(M, S, ...)], memory-mapped.
    rows : neighbours of each query among the M, nearest first [shape=(N, K)]; -1 where there is none.
    """

    def __init__(self, values: np.ndarray, rows: np.ndarray) -> None:
        if rows.size and not -1 <= rows.min() <= rows.max() < len(values):
            raise ValueError(
                f"neighbours {rows.min()} to {rows.max()} of a store of {len(values)} clips: the index is of another corpus"
            )
        self.values, self.rows = values, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, queries) -> np.ndarray:
        rows = self.rows[queries]  # (B, K)
        found = self.values[np.maximum(rows, 0)]  # (B, K, S, ...)
        found[rows < 0] = 0
        return found.reshape(len(rows), rows.shape[1] * self.values.shape[1], *self.values.shape[2:])


def of_neighbours(rows: np.ndarray, *, audio: Path | None = None, text: Path | None = None) -> dict[str, Neighbours]:
    """The conditions "tokens" and "mask", "text_tokens" and "text_mask" of queries with the neighbours `rows`
    [shape=(N, K), -1 for none], from the stores of the retrieved clips' sound and captions."""
    conditions = {}
    for prefix, folder in (("", audio), ("text_", text)):
        if folder is not None:
            if not (folder / "tokens.npy").is_file():
                raise ValueError(f"{folder} holds no tokens; run the stage that makes them first")
            for name in ("tokens", "mask"):
                values = np.load(folder / f"{name}.npy", mmap_mode="r")
                conditions[f"{prefix}{name}"] = Neighbours(values, rows)
    return conditions
