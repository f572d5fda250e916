"""Embeddings of a set of clips by every network that scores them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from foleylib.audio.io import resample

OWN = ("judge", "logits", "clap", "text", "id")  # names that no further evaluator may have


@dataclass(frozen=True)
class Evaluated:
    """What one evaluator makes of a set of N clips.

    `windows` are embeddings (N, D) or (N, W, D), or a list of (W, D) where clips differ in length; `logits` (N, C) are
    those of a classifier, `text` (N, D) the embeddings of the clips' captions.
    """

    windows: np.ndarray | Sequence[np.ndarray]
    logits: np.ndarray | None = None
    text: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.windows)

    @cached_property
    def points(self) -> np.ndarray:
        """One embedding a clip (N, D), the mean of its windows."""
        return np.stack([np.reshape(clip, (-1, np.shape(clip)[-1])).mean(axis=0) for clip in self.windows])

    def at(self, rows: np.ndarray) -> Self:
        """The clips of some rows, by number."""
        return Evaluated(
            [self.windows[row] for row in rows],
            None if self.logits is None else self.logits[rows],
            None if self.text is None else self.text[rows],
        )

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Its arrays by their names among `Embeddings`; all clips have one length."""
        found = {name: np.stack(self.windows), f"{name}.logits": self.logits, f"{name}.text": self.text}
        return {key: values for key, values in found.items() if values is not None}


@dataclass
class Embeddings:
    """Arrays by name, row i of each belonging to clip i of class `labels[i]`, "" without one.

    "judge" (N, D) and "logits" (N, C) are the judge's, "clap" (N, D) is CLAP's of the clip, "text" (N, D) of its prompt.
    "id" (N,) is what clips are paired by. Every further evaluator has its NAME (N, D) or (N, W, D), a classifier "NAME.logits"
    too and a CLAP "NAME.text".
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

    @property
    def further(self) -> list[str]:
        """The evaluators beyond the judge and CLAP."""
        return [name for name in self.arrays if name not in OWN and "." not in name]

    def by(self, evaluator: str) -> Evaluated:
        """What one evaluator makes of the clips."""
        logits = "logits" if evaluator == "judge" else f"{evaluator}.logits"
        text = "text" if evaluator == "clap" else f"{evaluator}.text"
        return Evaluated(self[evaluator], self.arrays.get(logits), self.arrays.get(text))

    def sizes(self, reference: Self) -> dict[str, tuple[int, int, int]]:
        """Of each evaluator the dimensions, and the embeddings of the smallest class here and in the reference, windows
        counted singly."""
        found = {}
        for name in ("judge", "clap", *self.further):
            rows = [
                [side.only(label)[name] for label in dict.fromkeys(self.labels)] for side in (self, reference)
            ]  # of both sides, a class each
            few = [min(int(np.prod(part.shape[:-1])) for part in side) for side in rows]
            found[name] = (self[name].shape[-1], *few)
        return found

    def partners(self, generated: Self) -> np.ndarray | None:
        """The row of the clip here that has the id and class of each generated clip; None unless each has one."""
        if "id" not in self.arrays or "id" not in generated.arrays:
            return None
        rows = partners_of(self["id"].tolist(), generated["id"].tolist())
        return rows if rows is not None and (self.labels[rows] == generated.labels).all() else None

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


def partners_of(reference: Sequence[str], generated: Sequence[str]) -> np.ndarray | None:
    """Row of the reference with the id of each generated clip (M,); None where an id is missing there or comes twice."""
    row = {name: i for i, name in enumerate(reference)}
    if len(row) < len(reference) or len(set(generated)) < len(generated) or not set(generated) <= set(row):
        return None
    return np.array([row[name] for name in generated])


def embed_clips(
    waves: np.ndarray,
    labels: Sequence[str],
    prompts: Sequence[str],
    *,
    judge,
    clap,
    rate: int,
    resampled: bool = False,
    batch_size: int = 64,
) -> Embeddings:
    """Embed clips [shape=(N, T)] at `rate` Hz by the judge (an `embedders.Embedder`) and a `clap.Clap`, which resamples.

    Clips at another rate than the judge's are refused, unless they may be `resampled` for it.
    """
    if judge.rate != rate and not resampled:
        raise ValueError(f"the judge takes {judge.rate} Hz, the clips are at {rate} Hz: train the judge at their rate")
    heard = waves if judge.rate == rate else np.stack([resample(wave, rate, judge.rate) for wave in waves])
    judged = judge.embed(heard, batch_size=batch_size)
    audio = clap.embed_audio(waves, rate, batch_size=batch_size).cpu().numpy()
    texts = list(dict.fromkeys(prompts))  # prompts of a class are alike: each text is embedded once
    row = {text: i for i, text in enumerate(texts)}
    text = clap.embed_text(texts).cpu().numpy()[[row[prompt] for prompt in prompts]]
    arrays = {"judge": judged["embedding"], "logits": judged["logits"], "clap": audio, "text": text}
    return Embeddings(np.array(labels), arrays)


def embed_with(
    evaluators: Mapping,
    waves: Sequence[np.ndarray],
    rates: Sequence[int],
    *,
    texts: Sequence[str] | None = None,
    batch_size: int = 16,
) -> dict[str, Evaluated]:
    """What each evaluator (an `embedders.Embedder`) makes of clips [shape=(T,)] at their rates, in Hz.

    Clips are resampled once for each rate that an evaluator asks for. `texts` are captions for those that read text.
    """
    found = {}
    for rate in dict.fromkeys(evaluator.rate for evaluator in evaluators.values()):
        resampled = [resample(wave, own, rate) for wave, own in zip(waves, rates)]
        for name, evaluator in evaluators.items():
            if evaluator.rate == rate:
                found[name] = _embed(evaluator, resampled, texts, batch_size)
    return {name: found[name] for name in evaluators}


def _embed(evaluator, waves: list[np.ndarray], texts: Sequence[str] | None, batch_size: int) -> Evaluated:
    """Embed clips at the evaluator's rate, those of one length together."""
    lengths, rows = np.array([len(wave) for wave in waves]), [{} for _ in waves]
    for length in np.unique(lengths):
        alike = np.flatnonzero(lengths == length)
        outputs = evaluator.embed(np.stack([waves[row] for row in alike]), batch_size=batch_size)
        for i, row in enumerate(alike):
            rows[row] = {name: values[i] for name, values in outputs.items()}
    logits = np.stack([row["logits"] for row in rows]) if "logits" in rows[0] else None
    text = evaluator.embed_text(texts) if texts is not None and evaluator.reads else None
    return Evaluated([row["embedding"] for row in rows], logits, text)


def described(evaluators: Mapping) -> dict[str, dict[str, str]]:
    """What a card says of evaluators: network, convention and the hash of the weights, by name."""
    return {
        name: {"network": evaluator.network or evaluator.name, "convention": evaluator.name, "sha256": evaluator.sha256}
        for name, evaluator in evaluators.items()
    }
