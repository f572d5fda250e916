"""The stored neighbours of a corpus' clips, and the protocol that says which clip may be whose neighbour.

A clip has neighbours of its own split and of those before it (train, val, test), so that no clip that is trained on ever
has one that is tested on. Of the three protocols,

"train"      has training clips alone,
"full"       all that,
"published"  all that, and for clips beside the training ones also themselves and their kin, as Re-AudioLDM's index of the
             full AudioCaps has them: a leak, whose row shows what it is worth.

Kin are a clip itself, those of its source group, those of the same bytes, and near-duplicates.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from foleylib.datasets.manifest import digest
from foleylib.runtime import fingerprint

SPLITS = ("train", "val", "test")
PROTOCOLS = ("train", "full", "published")
SHOWN = 5  # offenders that an error names


def sources(split: str, protocol: str) -> tuple[str, ...]:
    """The splits of which a clip of a split may have neighbours."""
    return SPLITS[:1] if protocol == "train" else SPLITS[: SPLITS.index(split) + 1]


def spares_kin(split: str, protocol: str) -> bool:
    """Whether a clip of a split must not have its kin among its neighbours."""
    return split == "train" or protocol != "published"


class Kin:
    """Which clips of a corpus are kin: `manifest` is `datasets.manifest.load(corpus)`, `pairs` the rows (i, j) of
    near-duplicates [shape=(P, 2)]."""

    def __init__(self, manifest, pairs: np.ndarray):
        self.n = len(manifest)
        self.groups = np.unique(manifest.source_group.to_numpy(dtype=str), return_inverse=True)[1]
        self.contents = np.unique(manifest.sha256.to_numpy(dtype=str), return_inverse=True)[1]
        both = np.concatenate([pairs, pairs[:, ::-1]]).astype(np.int64)
        self.pairs = np.unique(both[:, 0] * self.n + both[:, 1])

    @cached_property
    def most(self) -> int:
        """No clip has more kin than this."""
        duplicates = np.bincount(self.pairs // self.n, minlength=self.n)
        alike = np.bincount(self.groups)[self.groups] + np.bincount(self.contents)[self.contents]
        return int((duplicates + alike).max())

    def reasons(self, items: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Why each of `rows` is kin of the clip of `items` beside it [both of one shape], as a mask for each reason."""
        return {
            "itself": items == rows,
            "of its source group": self.groups[items] == self.groups[rows],
            "of the same bytes": self.contents[items] == self.contents[rows],
            "a near-duplicate": np.isin(items * self.n + rows, self.pairs),
        }

    def all(self) -> tuple[np.ndarray, np.ndarray]:
        """Every clip with every one of its kin, itself among them: items and rows [both (P,)]."""
        pairs = [self.pairs]
        for labels in (self.groups, self.contents):
            order, sizes = np.argsort(labels, kind="stable"), np.bincount(labels)
            alike = np.split(order, np.cumsum(sizes)[:-1])  # the clips of each label
            pairs += [(own[:, None] * self.n + own).ravel() for own in alike]
        return np.divmod(np.unique(np.concatenate(pairs)), self.n)

    def counts(self, items: np.ndarray, rows: np.ndarray) -> dict[str, int]:
        """How many of these pairs are kin [both of one shape], each under the first reason that holds."""
        counted, counts = np.zeros(items.shape, dtype=bool), {}
        for reason, mask in self.reasons(items, rows).items():
            counts[reason] = int((mask & ~counted).sum())
            counted |= mask
        return counts


def read_key(folder: Path) -> dict | None:
    """What the neighbours of a folder were made from (clips, texts, models, settings); None where it holds none."""
    file = folder / "retrieval.json"
    return json.loads(file.read_text()) if file.is_file() else None


@dataclass(frozen=True)
class Found:
    """Neighbours of B clips, by falling score; where a clip has fewer than k, `mask` is False and the row -1."""

    rows: np.ndarray  # (B, K), of the manifest and of the features
    ids: np.ndarray  # (B, K), "" where there is none
    scores: np.ndarray  # (B, K), CLAP similarity, 0 where there is none
    mask: np.ndarray  # (B, K)


class Neighbours:
    """The stored neighbours of each clip of a corpus under a protocol, memory-mapped, and checked when they are read.

    Parameters
    ----------
    folder : data/retrieval/CORPUS, written by the stage retrieval_index
    manifest : `datasets.manifest.load` of the corpus. Its splits, source groups and bytes are what is held against the
        stored neighbours, whatever they were made from.
    protocol : one of `PROTOCOLS`
    """

    def __init__(self, folder: Path, manifest, protocol: str):
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol '{protocol}' is none of {', '.join(PROTOCOLS)}")
        key = read_key(folder)
        if key is None:
            raise ValueError(f"{folder} holds no neighbours; run the retrieval_index stage of this corpus first")
        self.folder, self.protocol = folder, protocol
        self.rows = np.load(folder / f"rows_{protocol}.npy", mmap_mode="r")  # (N, captions, top)
        self.scores = np.load(folder / f"scores_{protocol}.npy", mmap_mode="r")
        if (
            key["corpus"] != digest(manifest)
            or key["order"] != fingerprint(list(manifest.id))
            or len(self.rows) != len(manifest)
        ):
            raise ValueError(f"{folder} was made from other clips; run the retrieval_index stage of this corpus again")
        self.ids, self.splits = manifest.id.to_numpy(dtype=str), manifest.split.to_numpy(dtype=str)
        self.number = {id: row for row, id in enumerate(self.ids)}
        self.kin = Kin(manifest, np.load(folder / "duplicates.npy"))

    def __call__(self, ids, k: int, *, caption: int | np.ndarray = 0) -> Found:
        """The k nearest neighbours of clips [`ids`, of length B], for that of their captions (of each clip one number, or
        one for all; where clips are found by their sound, every caption has the same).

        Raises
        ------
        ValueError
            where a stored neighbour is against the protocol; it names the clips and their neighbours
        """
        if unknown := sorted(set(ids) - self.number.keys()):
            raise ValueError(f"{self.folder} has no clips {unknown[:SHOWN]}: give ids of the manifest")
        items = np.array([self.number[id] for id in ids], dtype=np.int64)
        captions, top = self.rows.shape[1:]
        caption = np.broadcast_to(caption, items.shape) if captions > 1 else np.zeros_like(items)
        if not 1 <= k <= top:
            raise ValueError(f"k={k}: {self.folder} has the {top} nearest; give 1 to {top}, or raise retrieval.top")
        if (caption < 0).any() or (caption >= captions).any():
            raise ValueError(
                f"caption={caption.tolist()[:SHOWN]}: {self.folder} has {captions} captions a clip, from 0"
            )
        rows = self.rows[items, caption, :k].astype(np.int64)
        mask = rows != -1
        self._check(np.broadcast_to(items[:, None], rows.shape)[mask], rows[mask])
        found = np.where(mask, self.ids[rows], "")
        return Found(rows, found, np.where(mask, self.scores[items, caption, :k], 0).astype(np.float32), mask)

    def _check(self, items: np.ndarray, rows: np.ndarray) -> None:
        """Refuse pairs of a clip and its neighbour [both (P,)] that the protocol does not allow."""
        if (outside := (rows < 0) | (rows >= len(self.ids))).any():
            named = ", ".join(self.ids[items[outside]][:SHOWN])
            raise ValueError(f"{self.folder}: damaged, neighbours of {named} are no clips; run retrieval_index again")
        reasons = {f"of split {split}": self._barred(split)[items] & (self.splits[rows] == split) for split in SPLITS}
        kept_apart = np.isin(self.splits, [split for split in SPLITS if spares_kin(split, self.protocol)])[items]
        reasons |= {reason: kept_apart & mask for reason, mask in self.kin.reasons(items, rows).items()}
        told = [
            f"{self.ids[items[p]]} ({self.splits[items[p]]}) has {self.ids[rows[p]]}, {reason}"
            for reason, mask in reasons.items()
            for p in np.flatnonzero(mask)
        ]
        if told:
            raise ValueError(
                f"{self.folder}: {len(told)} neighbours break the protocol '{self.protocol}', which bars them: "
                f"{'; '.join(told[:SHOWN])}. Run the retrieval_index stage of this corpus again"
            )

    def _barred(self, source: str) -> np.ndarray:
        """Whether each clip must not have neighbours of a split [shape=(N,)]."""
        return np.isin(self.splits, [split for split in SPLITS if source not in sources(split, self.protocol)])
