"""Thresholds of score-based selection: published ones, and those with the best metric against validation clips."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from foleylib.params.runs import Selection
from foleylib.sampling.selection import NO_FILTER, check_classes, checked_thresholds, scores_of, unit_rows

CLASSES = ("DogBark", "Footstep", "GunShot", "Keyboard", "MovingMotorVehicle", "Rain", "Sneeze_Cough")
WHOLE = "all"  # the one threshold of clips without classes
PRESETS = {  # as published, for the published CLAP: similarities of another CLAP lie elsewhere
    "text-driven-foley": dict(zip(CLASSES, (0.3, 0.03, 0.2, 0.15, 0.75, 0.2, 0.2))),
    "latent-clap-loss": dict(zip(CLASSES, (0.2, 0.2, 0.2, 0.15, 0.75, 0.2, 0.2))),
}


def thresholds_of(
    settings: Selection, calibrated: Mapping[str, float] | None, classes: Sequence[str]
) -> dict[str, float]:
    """What `settings.thresholds` stands for, in the order of `classes` (`WHOLE` alone without any): "validation" (then
    `calibrated`, the result of `calibrate`), a name of `PRESETS`, or a dict."""
    given = settings.thresholds
    if not isinstance(given, str):
        return checked_thresholds("selection.thresholds", given, classes)
    known = calibrated if given == "validation" else PRESETS[given]
    if known is None:
        raise ValueError(f"selection.thresholds '{given}': nothing was calibrated; calibrate or name a preset")
    return checked_thresholds(f"selection.thresholds '{given}'", known, classes)


def calibrate(
    E: ArrayLike,
    labels: Sequence[str],
    targets: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
    *,
    metric: Callable[[np.ndarray, np.ndarray], float],
    shares: Sequence[float],
    seed: int,
    draws: int = 20,
    paired: bool = False,
) -> tuple[dict[str, float], pd.DataFrame]:
    """Thresholds by class with the least FAD against validation clips, all compared at one number of clips.

    For each share the threshold is the (1 - share)-quantile of the class's scores. FAD falls with the number of clips
    n, so each share is scored on n = floor(least share * clips of the class), averaged over draws of n clips
    from those that pass, the same order of clips for every share.

    Parameters
    ----------
    E, labels : CLAP audio embeddings [shape=(N, D)] and classes of clips generated for this purpose alone
    targets : class -> embeddings [shape=(M, D)], as in `selection.select`
    reference : class -> embeddings of validation clips [shape=(R, D)], never of the clips the result is reported on
    metric : `frechet.fad`, or another (reference, clips) -> float of which less is better
    shares : parts of the pool that pass, in (0, 1]; 1 is a threshold of -1
    paired : whether row i of a class's targets is the target of its i-th clip, in place of a draw

    Returns
    -------
    (class -> the threshold of the least metric, the lower one of equals;
    table [label, share, threshold, fad, n, draws])
    """
    E, labels, rows = np.asarray(E), np.asarray(labels), []
    if len(labels) != len(E):
        raise ValueError(f"{len(labels)} labels of {len(E)} clips: give a label a clip")
    if not len(E):
        raise ValueError("there are no clips to calibrate on: draw some of each class")
    if not shares or not all(0 < share <= 1 for share in shares) or draws < 1:
        raise ValueError(
            f"shares={list(shares)}, draws={draws}: give shares in (0, 1], one at least, and 1 draw or more"
        )
    classes = list(dict.fromkeys(labels.tolist()))
    check_classes("targets", targets, classes)
    check_classes("reference", reference, classes)
    for label in classes:
        pool, target = E[labels == label], unit_rows(f"targets of {label}", targets[label])
        if paired and len(target) != len(pool):
            raise ValueError(f"targets of {label}: {len(target)} of {len(pool)} clips; give one a clip")
        unit = unit_rows("E", pool)
        scores = np.sum(unit * target, axis=1) if paired else scores_of(label, unit, target, seed=seed)[1]
        of_class = partial(metric, reference[label])
        rows += _curve(label, pool, scores, of_class, shares=shares, seed=seed, draws=draws)
    table = pd.DataFrame(rows, columns=["label", "share", "threshold", "fad", "n", "draws"])
    best = table.sort_values(["fad", "threshold"], kind="stable").groupby("label", sort=False).threshold.first()
    return {label: float(best[label]) for label in classes}, table


def _curve(
    label: str,
    pool: np.ndarray,
    scores: np.ndarray,
    metric: Callable[[np.ndarray], float],
    *,
    shares: Sequence[float],
    seed: int,
    draws: int,
) -> list[tuple]:
    """Rows of `calibrate`'s table for one class, from its pool (N, D) and scores (N,)."""
    n = int(round(min(shares) * len(pool), 9))
    if n < 2:
        raise ValueError(f"shares: {min(shares)} of the {len(pool)} clips of {label} is {n}; enlarge one until it is 2")
    rng, rows = np.random.default_rng([seed, zlib.crc32(label.encode())]), []
    orders = [rng.permutation(len(pool)) for _ in range(draws)]
    for share in sorted(shares, reverse=True):
        threshold = NO_FILTER if share == 1 else float(np.quantile(scores, 1 - share))
        passing = scores >= threshold
        used = orders if passing.sum() > n else orders[:1]  # all draws are one if no more than n clips pass
        values = [metric(pool[order[passing[order]][:n]]) for order in used]
        rows.append((label, share, threshold, np.mean(values), n, len(used)))
    return rows


def nearest_of_class(E: ArrayLike, labels: Sequence[str]) -> np.ndarray:
    """Cosine similarity of each clip to the nearest other clip of its class [shape=(N,)]; NaN where it is alone."""
    E, labels = unit_rows("clips", E), np.asarray(labels)
    if len(labels) != len(E):
        raise ValueError(f"{len(labels)} labels of {len(E)} clips: give a label a clip")
    nearest = np.full(len(E), np.nan)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        similarity = E[rows] @ E[rows].T
        np.fill_diagonal(similarity, -np.inf)
        if len(rows) > 1:
            nearest[rows] = similarity.max(axis=1)
    return nearest
