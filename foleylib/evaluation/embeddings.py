"""Embeddings of a set of clips by every network that scores them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np


@dataclass
class Embeddings:
    """Arrays by name, row i of each belonging to clip i of class `labels[i]`, "" without one.

    "judge" (N, D) and "logits" (N, C) are the judge's, "clap" (N, D) is CLAP's of the clip, "text" (N, D) of its prompt.
    """

    labels: np.ndarray
    arrays: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_classes(self) -> bool:
        """Whether any clip has a class."""
        return any(self.labels)

    def at(self, rows: np.ndarray) -> Self:
        """The clips of some rows, by number or mask."""
        return Embeddings(self.labels[rows], {name: values[rows] for name, values in self.arrays.items()})

    def only(self, label: str) -> Self:
        """The clips of one class."""
        return self.at(self.labels == label)

    def save(self, path: Path) -> None:
        """Write an .npz file; missing parent folders are made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, labels=self.labels, **self.arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        if not path.is_file():
            raise ValueError(f"{path} is missing; run the evaluate stage first")
        with np.load(path) as file:
            arrays = dict(file)
        return cls(arrays.pop("labels"), arrays)


def embed_clips(
    waves: np.ndarray, labels: Sequence[str], prompts: Sequence[str], *, judge, clap, rate: int, batch_size: int = 64
) -> Embeddings:
    """Embed clips [shape=(N, T)] at `rate` Hz by the judge (an `embedders.Embedder`) and a `clap.Clap`."""
    if judge.rate != rate:
        raise ValueError(f"the judge takes {judge.rate} Hz, the clips are at {rate} Hz: train the judge at their rate")
    judged = judge.embed(waves, batch_size=batch_size)
    audio = clap.embed_audio(waves, rate, batch_size=batch_size).cpu().numpy()
    texts = list(dict.fromkeys(prompts))  # prompts of a class are alike: each text is embedded once
    row = {text: i for i, text in enumerate(texts)}
    text = clap.embed_text(texts).cpu().numpy()[[row[prompt] for prompt in prompts]]
    arrays = {"judge": judged["embedding"], "logits": judged["logits"], "clap": audio, "text": text}
    return Embeddings(np.array(labels), arrays)
