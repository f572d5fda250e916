"""Stage retrieval_index: the nearest clips of each clip of a corpus by CLAP score, under every protocol."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from foleylib import paths
from foleylib.datasets import features, retrieval, search
from foleylib.datasets import manifest as manifests
from foleylib.params.retrieval import Search
from foleylib.params.settings import Params
from foleylib.runtime import fingerprint, progress, write_json

CHUNK = 4096  # queries between two steps of the progress bar
SAMPLE = 200  # queries on which the recall of an approximate index is measured
FIRST = (1, 3, 10)  # neighbours in which the sounds of a scene are looked for


def make(corpus: str, cfg: Params) -> Path:
    """Write data/retrieval/`corpus` from the CLAP embeddings in data/features/`corpus`."""
    cfg.entry("corpora", corpus)
    out = paths.RETRIEVAL / corpus
    compute(paths.CLIPS / corpus, paths.FEATURES / corpus, out, cfg.retrieval.search)
    return out


def compute(corpus: Path, cached: Path, out: Path, settings: Search) -> None:
    """Write the neighbours that `datasets.retrieval.Neighbours` reads.

    rows_P.npy and scores_P.npy [N, captions, top] of each protocol P hold the neighbours, -1 where there are no more of
    them; duplicates.npy [P, 2] the near-duplicates; retrieval.json the key, and the recall of an approximate index.
    Nothing is done where `out` has that key.
    """
    manifest = manifests.load(corpus)
    index, arrays = features.load_once(cached)
    if list(index.id) != list(manifest.id):
        raise ValueError(f"{cached} was made from other clips than {corpus}; run the features stage again")
    unknown = sorted(set(manifest.split) - set(retrieval.SPLITS))
    if unknown:
        raise ValueError(f"{corpus} has splits {unknown}; retrieval knows {', '.join(retrieval.SPLITS)}")
    key = {
        "corpus": manifests.digest(manifest),
        "order": fingerprint(list(manifest.id)),
        "features": features.read_key(cached),
    }
    key |= {"relations": fingerprint(manifest[["id", "split", "source_group"]].to_dict("list"))}
    key |= {"settings": settings.model_dump(mode="json")}
    done = retrieval.read_key(out)
    if done is not None and {name: done.get(name) for name in key} == key:
        return
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)

    queries, given, vectors = embeddings(arrays, settings.score)
    duplicates = search.similar_pairs(np.array(arrays["audio"], dtype=np.float32), settings.duplicate)
    np.save(part / "duplicates.npy", duplicates)
    finder = Finder(vectors, retrieval.Kin(manifest, duplicates), settings)
    splits, recalls = manifest.split.to_numpy(dtype=str), {}
    for protocol in retrieval.PROTOCOLS:
        shape = (*queries.shape[:2], settings.top)
        rows = np.lib.format.open_memmap(part / f"rows_{protocol}.npy", "w+", np.int32, shape)
        scores = np.lib.format.open_memmap(part / f"scores_{protocol}.npy", "w+", np.float32, shape)
        rows[:], scores[:] = -1, 0
        for split in retrieval.SPLITS:
            items, numbers = np.nonzero(given & (splits == split)[:, None])
            among = np.flatnonzero(np.isin(splits, retrieval.sources(split, protocol)))
            if len(items) and len(among):
                apart = retrieval.spares_kin(split, protocol)
                found, recall = finder(queries[items, numbers], items, among, apart, f"{split}, {protocol}")
                scores[items, numbers], rows[items, numbers] = found
                recalls[f"{split}, {protocol}"] = recall
        rows.flush(), scores.flush()
    write_json(part / "retrieval.json", key | {"recall": recalls})
    shutil.rmtree(out, ignore_errors=True)
    os.replace(part, out)


def embeddings(arrays: dict[str, np.ndarray], score: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is compared, of the arrays of a features folder: queries [shape=(N, captions, D)], which of them there are
    [shape=(N, captions)], and the vectors of the index [shape=(N, D)].

    A clip has a query for each of its captions, and stands in the index with its sound or its first caption.
    """
    query, database = score.split("_to_")
    vectors = np.array(arrays[database], dtype=np.float32)
    if query == "text" and "captions" in arrays:
        captions = np.array(arrays["captions"], dtype=np.float32)
        return captions, np.arange(captions.shape[1]) < arrays["caption_count"][:, None], vectors
    queries = np.array(arrays[query], dtype=np.float32)[:, None]
    return queries, np.ones(queries.shape[:2], dtype=bool), vectors


class Finder:
    """Searches among some of a corpus' `vectors` [shape=(N, D)], without the kin of the clip that asks."""

    def __init__(self, vectors: np.ndarray, kin: retrieval.Kin, settings: Search):
        self.vectors, self.kin, self.settings = vectors, kin, settings
        self.done = {}  # what several protocols ask for is searched once

    def __call__(self, queries: np.ndarray, items: np.ndarray, among: np.ndarray, apart: bool, name: str):
        """(scores, rows) [both (Q, top)] of queries [shape=(Q, D)] of the clips `items`, and the recall (1 if exact)."""
        asked = (items.tobytes(), among.tobytes(), apart)
        if asked not in self.done:
            self.done[asked] = self._search(queries, items, among, apart, name)
        return self.done[asked]

    def _search(self, queries: np.ndarray, items: np.ndarray, among: np.ndarray, apart: bool, name: str):
        vectors, top = self.vectors[among], self.settings.top
        # So many are asked for that without the kin enough are left.
        k = min(top + (self.kin.most if apart else 0), len(among))
        index = self._index(vectors)
        scores = np.zeros((len(items), top), dtype=np.float32)
        rows = np.full((len(items), top), -1)
        for start in progress(range(0, len(items), CHUNK), desc=f"neighbours ({name})"):
            part = slice(start, start + CHUNK)
            if index is None:
                near, places = search.exact(queries[part], vectors, k)
            else:
                near, places = search.approximate(queries[part], index, k)
            found = np.where(places >= 0, among[places], -1)
            own = np.broadcast_to(items[part, None], found.shape)
            barred = np.any(list(self.kin.reasons(own, found).values()), axis=0) if apart else np.zeros(own.shape, bool)
            scores[part], rows[part] = _first(near, found, (found >= 0) & ~barred, top)
        return (scores, rows), 1.0 if index is None else self._recall(queries, vectors, index)

    def _index(self, vectors: np.ndarray):
        """The approximate index of the settings; None where they ask for the exact search."""
        if self.settings.index == "exact":
            return None
        build = {"ivf": search.ivf, "hnsw": search.hnsw}[self.settings.index]
        return build(vectors, **getattr(self.settings, self.settings.index).model_dump())

    def _recall(self, queries: np.ndarray, vectors: np.ndarray, index) -> float:
        """Recall of the first `top` of an index, on queries evenly drawn from all."""
        asked = queries[np.unique(np.linspace(0, len(queries) - 1, SAMPLE).astype(int))]
        k = min(self.settings.top, len(vectors))
        return search.recall(search.approximate(asked, index, k)[1], search.exact(asked, vectors, k)[1])


def _first(scores: np.ndarray, rows: np.ndarray, kept: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `top` of those kept in each row, filled up with score 0 and row -1."""
    order = np.argsort(~kept, axis=1, kind="stable")[:, :top]  # those kept, in their order, then the others
    scores, rows = (np.take_along_axis(np.where(kept, a, none), order, 1) for a, none in ((scores, 0), (rows, -1)))
    fill = ((0, 0), (0, top - order.shape[1]))
    return np.pad(scores, fill), np.pad(rows, fill, constant_values=-1)


def by_rank(corpus: str) -> pd.DataFrame:
    """Mean similarity of test clips (their first caption) to their neighbours: [protocol, rank, similarity].

    A rank is the mean of the clips that have so many neighbours.
    """
    tables = []
    for protocol, find in _found(corpus).items():
        scores = np.where(find.mask, find.scores, np.nan)  # (B, top)
        ranks = np.flatnonzero(find.mask.any(axis=0))
        table = {"protocol": protocol, "rank": ranks + 1, "similarity": np.nanmean(scores[:, ranks], axis=0)}
        tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True)


def sounds_found(corpus: str) -> pd.DataFrame:
    """Share of the sounds of test scenes that are among those of their first neighbours.

    Returns
    -------
    DataFrame [a column for each of `FIRST`, as far as so many are stored], by (classes, neighbours): classes that
    training scenes have, and those held out; the neighbours under each protocol, and for chance those that another test
    scene has under "train". Empty of a corpus without scenes.
    """
    manifest = manifests.load(paths.CLIPS / corpus)
    told = [{sound["label"] for sound in manifests.sounds(events)} for events in manifest.events]
    seen = set().union(*(own for own, split in zip(told, manifest.split) if split == "train"))
    scenes = [own for own, split in zip(told, manifest.split) if split == "test"]
    found = {protocol: np.where(find.mask, find.rows, -1) for protocol, find in _found(corpus).items()}
    found["train, of another scene"] = np.roll(found["train"], len(scenes) // 2, axis=0)
    rows = [
        {"classes": "seen" if label in seen else "held out", "neighbours": name}
        | {k: any(label in told[row] for row in near[:k] if row >= 0) for k in FIRST if k <= len(near)}
        for name, nearest in found.items()
        for own, near in zip(scenes, nearest)
        for label in sorted(own)
    ]
    if not rows:
        return pd.DataFrame()
    shares = pd.DataFrame(rows).groupby(["classes", "neighbours"], sort=False).mean()
    return shares.sort_index(level="classes", ascending=False, sort_remaining=False, kind="stable")


def _found(corpus: str) -> dict[str, retrieval.Found]:
    """All stored neighbours of the test clips, for the first caption of each, by protocol."""
    manifest, folder = manifests.load(paths.CLIPS / corpus), paths.RETRIEVAL / corpus
    ids, found = list(manifest.id[manifest.split == "test"]), {}
    for protocol in retrieval.PROTOCOLS:
        neighbours = retrieval.Neighbours(folder, manifest, protocol)
        found[protocol] = neighbours(ids, neighbours.rows.shape[-1])
    return found


def leaks(corpus: str) -> pd.DataFrame:
    """How many pairs of a clip and its kin there are by the first reason that holds, which of `Kin.reasons` names them.

    Returns
    -------
    DataFrame by (split, protocol), with columns (reason, "in the index") for what a search could find and (reason,
    "found") for what is among the stored neighbours of any caption.
    """
    manifest, folder = manifests.load(paths.CLIPS / corpus), paths.RETRIEVAL / corpus
    kin, splits = retrieval.Kin(manifest, np.load(folder / "duplicates.npy")), manifest.split.to_numpy(dtype=str)
    items, others = kin.all()
    rows = {}
    for split in [split for split in retrieval.SPLITS if (splits == split).any()]:
        for protocol in retrieval.PROTOCOLS:
            there = (splits[items] == split) & np.isin(splits[others], retrieval.sources(split, protocol))
            stored = np.load(folder / f"rows_{protocol}.npy", mmap_mode="r")[splits == split]
            own = np.broadcast_to(np.flatnonzero(splits == split)[:, None, None], stored.shape)[stored >= 0]
            found = np.divmod(np.unique(own * kin.n + stored[stored >= 0]), kin.n)
            counts = {"in the index": kin.counts(items[there], others[there]), "found": kin.counts(*found)}
            rows[split, protocol] = {(reason, what): n for what, by in counts.items() for reason, n in by.items()}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["split", "protocol"])
    return table[[(reason, what) for reason in kin.counts(items[:0], others[:0]) for what in ("in the index", "found")]]
