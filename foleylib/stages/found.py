"""What retrieval finds: tables of stage retrieval_index on the neighbours it stored."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from foleylib import paths
from foleylib.datasets import manifest as manifests
from foleylib.datasets.retrieval import PROTOCOLS, read_key
from foleylib.stages.neighbours import find

DEPTHS = (1, 3, 10)  # numbers of neighbours that are looked at


def sizes(folders: Sequence[Path]) -> pd.DataFrame:
    """The arrays of the folders: [shape, type, size], a row an array."""
    rows = {}
    for folder in folders:
        for file in sorted(folder.rglob("*.npy")):
            array = np.load(file, mmap_mode="r")
            name = f"{folder.parent.name}/{file.relative_to(folder).with_suffix('')}"
            rows[name] = (array.shape, str(array.dtype), f"{array.nbytes / 1e6:.1f} MB")
    return pd.DataFrame.from_dict(rows, orient="index", columns=["shape", "type", "size"])


def by_rank(corpus: str, manifest: pd.DataFrame) -> pd.DataFrame:
    """Mean score of the neighbours of test clips: [protocol, rank, metric, embedder, value]."""
    ids, rows = list(manifest.id[manifest.split == "test"]), []
    for protocol in PROTOCOLS:
        neighbours = find(corpus, protocol)
        of = neighbours(ids, neighbours.rows.shape[-1])
        for rank in range(of.mask.shape[1]):
            if of.mask[:, rank].any():
                value = of.scores[of.mask[:, rank], rank].mean()
                rows.append((protocol, rank + 1, "clap_score", "clap", float(value)))
    return pd.DataFrame(rows, columns=["protocol", "rank", "metric", "embedder", "value"])


def events_found(corpus: str, manifest: pd.DataFrame) -> pd.DataFrame:
    """Share of the sounds of test scenes that are among their first 1, 3 and 10 neighbours: a row a protocol, columns
    (classes in training or held out, K); without scenes there is no row."""
    scenes = [{sound["label"] for sound in manifests.sounds(told)} for told in manifest.events]
    trained = set().union(*(scene for scene, split in zip(scenes, manifest.split) if split == "train"))
    test = np.flatnonzero((manifest.split == "test") & np.array([bool(scene) for scene in scenes]))
    if not len(test):
        return pd.DataFrame()
    table = {}
    for protocol in PROTOCOLS:
        neighbours = find(corpus, protocol)
        rows = neighbours(list(manifest.id.iloc[test]), min(max(DEPTHS), neighbours.rows.shape[-1])).rows
        for k in DEPTHS:
            hits = {"in training": [], "held out": []}
            for item, near in zip(test, rows[:, :k]):
                heard = set().union(*(scenes[row] for row in near if row >= 0))
                for label in scenes[item]:
                    hits["in training" if label in trained else "held out"].append(label in heard)
            for kind, found in hits.items():
                table.setdefault((kind, f"K = {k}"), {})[protocol] = np.mean(found) if found else np.nan
    return pd.DataFrame(table).sort_index(axis=1, level=0, sort_remaining=False, ascending=False)


def leaks(corpus: str, manifest: pd.DataFrame) -> pd.DataFrame:
    """Kin among the stored neighbours, of training clips and of the others, and the recall of the index: a row a
    protocol."""
    recall, table = read_key(paths.RETRIEVAL / corpus)["recall"], {}
    trains = manifest.split.to_numpy() == "train"
    for protocol in PROTOCOLS:
        neighbours = find(corpus, protocol)
        items, _, _ = np.nonzero(neighbours.rows != -1)
        rows = neighbours.rows[neighbours.rows != -1].astype(np.int64)
        kin = np.any(list(neighbours.kin.reasons(items, rows).values()), axis=0)
        known = [value for name, value in recall.items() if name.endswith(f", {protocol}")]
        table[protocol] = {
            "neighbours": len(rows),
            "kin, of training clips": int(kin[trains[items]].sum()),
            "kin, of the others": int(kin[~trains[items]].sum()),
            "recall": min(known),
        }
    return pd.DataFrame(table).T.astype({"neighbours": int, "kin, of training clips": int, "kin, of the others": int})


def panel(corpus: str, manifest: pd.DataFrame, protocol: str, *, prompts: int, k: int) -> tuple[dict, pd.DataFrame]:
    """Of the first test clips the clip itself and its neighbours, (caption, what it is) -> wave [shape=(T,)]; and the
    captions of these [a row a prompt; columns: what it is]."""
    test = manifest[manifest.split == "test"].head(prompts)
    rows, waves = find(corpus, protocol)(list(test.id), k).rows, manifests.Waves(paths.CLIPS / corpus, manifest)
    clips, told = {}, {}
    for item, near in zip(test.index, rows):
        prompt = manifest.prompt[item]
        shown = {"the clip": item} | {f"neighbour {n + 1}": int(row) for n, row in enumerate(near) if row >= 0}
        clips |= {(prompt, name): waves[[row]][0].numpy() for name, row in shown.items()}
        told[prompt] = {name: manifest.prompt[row] for name, row in shown.items() if name != "the clip"}
    return clips, pd.DataFrame(told).T
