"""What selection by CLAP buys for what it costs: every headline score over the candidates drawn for each clip.

./run python -m benchmarks.economics          # of the models that set the thresholds, whose seed no table has
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import timing
from foleylib import paths
from foleylib.evaluation.embeddings import Embeddings
from foleylib.evaluation.quick import quick
from foleylib.params import settings
from foleylib.params.settings import Params
from foleylib.runtime import progress, weights_sha256, write_csv
from foleylib.sampling.selection import scores_of, unit_rows
from foleylib.stages.candidates import targets_of
from foleylib.stages.embedders import Embedders
from foleylib.stages.reference import reference
from foleylib.stages.sample import Drawer

CANDIDATES = (1, 2, 3, 5, 10, 20, 50)  # for each clip


def measure(cfg: Params, arguments: argparse.Namespace) -> pd.DataFrame:
    """A row for each kind of target, way to select and number of candidates: mean and deviation of the scores over draws.

    All sets have `clips` clips a class, drawn from one pool: with a "threshold" from the best 1 / candidates of it, as
    "best of" the best of as many random candidates. They are compared with *validation* clips, so that the strictness of
    `selection` may be chosen by it. Where a set takes more than half of what it is drawn from, no deviation is given.
    """
    embedders, tables = Embedders(cfg), []
    real = embedders.embed(*reference(cfg, "val"))
    for kind, system in cfg.selection.calibrate.items():
        seed = cfg.calibrating_seed(system)
        folder = paths.SYSTEMS / system / str(seed)
        pool = _pool(folder, seed, arguments, cfg, embedders)
        similarity = _similarities(pool, targets_of(kind, folder, cfg, embedders.clap), cfg.seed)
        rng = np.random.default_rng(cfg.seed)
        for candidates in progress(arguments.candidates, desc=f"selection, {kind}"):
            for way, choose in (("threshold", _passing), ("best of", _best_of)):
                scores = []
                for _ in range(arguments.draws):
                    rows = choose(pool.labels, similarity, candidates, arguments.clips, rng)
                    scores.append(quick(real, pool.at(rows), embedders.judge.model.labels))
                what = {"target": kind, "way": way, "candidates": candidates, "clips": arguments.clips}
                table, apart = pd.DataFrame(scores), 2 * candidates <= max(arguments.candidates)
                deviations = table.std() if apart else table.std() * np.nan
                tables.append(what | table.mean().to_dict() | deviations.add_suffix("_sd").to_dict())
                tables[-1]["unet_sha256"] = weights_sha256(folder / "unet")
    return pd.DataFrame(tables)


def _pool(folder: Path, seed: int, arguments: argparse.Namespace, cfg: Params, embedders: Embedders) -> Embeddings:
    """Embeddings of `clips` times the largest number of candidates, of each class."""
    drawer, parts = Drawer(folder, cfg, clap=embedders.clap), []
    count = arguments.clips * max(arguments.candidates)
    for label in drawer.classes.label:
        rows = drawer.rows_of([(label, number) for number in range(count)], cfg.seed + seed)
        parts.append(embedders.embed(rows, drawer.draw(rows).numpy()))
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0].arrays}
    return Embeddings(np.concatenate([part.labels for part in parts]), arrays)


def _similarities(pool: Embeddings, targets: dict[str, np.ndarray], seed: int) -> np.ndarray:
    """Similarity of each clip to a target of its class [shape=(N,)]."""
    values = np.empty(len(pool))
    for label in dict.fromkeys(pool.labels):
        rows = np.flatnonzero(pool.labels == label)
        E, target = unit_rows(label, pool["clap"][rows]), unit_rows(label, targets[label])
        values[rows] = scores_of(label, E, target, seed=seed)[1]
    return values


def _passing(labels: np.ndarray, similarity: np.ndarray, candidates: int, clips: int, rng) -> np.ndarray:
    """Rows of `clips` clips of each class, drawn from the best 1 / candidates."""
    chosen = []
    for label in dict.fromkeys(labels):
        rows = np.flatnonzero(labels == label)
        best = rows[np.argsort(-similarity[rows], kind="stable")][: len(rows) // candidates]
        chosen.append(rng.choice(best, clips, replace=False))
    return np.concatenate(chosen)


def _best_of(labels: np.ndarray, similarity: np.ndarray, candidates: int, clips: int, rng) -> np.ndarray:
    """Rows of `clips` clips of each class, each the best of a group of its own."""
    chosen = []
    for label in dict.fromkeys(labels):
        groups = rng.permutation(np.flatnonzero(labels == label))[: clips * candidates].reshape(clips, candidates)
        chosen.append(groups[np.arange(clips), similarity[groups].argmax(axis=1)])
    return np.concatenate(chosen)


def main(argv: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=paths.PARAMS, help="settings file")
    parser.add_argument("--candidates", type=int, nargs="+", default=CANDIDATES, help="for each clip")
    parser.add_argument("--clips", type=int, default=20, help="of each class")
    parser.add_argument("--draws", type=int, default=20, help="of each set, whose mean and deviation are reported")
    parser.add_argument("--out", type=Path, default=timing.OUT, help="folder of the results")
    arguments = parser.parse_args(argv)
    table = measure(settings.load(arguments.params), arguments)
    print(table.drop(columns="unet_sha256").round(3).to_string(index=False))
    return write_csv(table, arguments.out / "economics.csv")


if __name__ == "__main__":
    main()
