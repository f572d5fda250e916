"""Which sounds of a scene are in a clip, and in which order: scores of clips by the frames of a sound event detector.

`probabilities` [shape=(N, frames, C)] are those of each class in each frame; `events` has for each clip the classes of
its scene, as their indices in order of time, each once. Every score has a value a clip, NaN where it says nothing of it.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

GRID = np.arange(1, 64) / 64  # thresholds to choose from; float16 holds them exactly


def indices(scenes: Sequence[Sequence[str]], labels: Sequence[str]) -> list[list[int]]:
    """The events of each scene as indices into `labels`, which must have them all; none may come twice in a scene."""
    if unknown := sorted({label for scene in scenes for label in scene} - set(labels)):
        raise ValueError(f"the detector does not know {', '.join(unknown)}; train one on scenes that have them")
    if twice := [list(scene) for scene in scenes if len(set(scene)) < len(scene)]:
        raise ValueError(
            f"a sound comes twice in {len(twice)} scenes, first {twice[0]}; give scenes of different sounds"
        )
    number = {label: i for i, label in enumerate(labels)}
    return [[number[label] for label in scene] for scene in scenes]


def present(events: Sequence[Sequence[int]], classes: int) -> np.ndarray:
    """Whether each class is an event of each clip's scene [shape=(N, C), bool]."""
    for clip, scene in enumerate(events):
        if len(set(scene)) < len(scene) or not set(scene) <= set(range(classes)):
            raise ValueError(f"clip {clip} has the events {list(scene)}; give classes of 0 to {classes - 1}, each once")
    return np.array([[c in set(scene) for c in range(classes)] for scene in events], dtype=bool).reshape(-1, classes)


def detected(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Whether each class is heard in each clip: its most probable frame reaches its threshold [shape=(N, C), bool]."""
    if np.ndim(probabilities) != 3 or np.shape(thresholds) != np.shape(probabilities)[2:]:
        raise ValueError(
            f"probabilities has shape {np.shape(probabilities)} and thresholds {np.shape(thresholds)}; give (N, frames, C) "
            "and (C,)"
        )
    if not (np.isfinite(probabilities).all() and np.isfinite(thresholds).all()):
        raise ValueError("probabilities or thresholds are not finite; look at the clips and at the detector")
    return probabilities.max(axis=1) >= thresholds


def event_recall(heard: np.ndarray, events: Sequence[Sequence[int]]) -> np.ndarray:
    """Share of the events of each clip's scene that are `detected` in it [shape=(N,)]; NaN of a scene without events."""
    there = _aligned(heard, events)
    return _share((heard & there).sum(axis=1), there.sum(axis=1))


def event_precision(heard: np.ndarray, events: Sequence[Sequence[int]]) -> np.ndarray:
    """Share of the classes `detected` in each clip that are events of its scene [shape=(N,)]; NaN where none is."""
    there = _aligned(heard, events)
    return _share((heard & there).sum(axis=1), heard.sum(axis=1))


def positions(probabilities: np.ndarray) -> np.ndarray:
    """Where each class lies in each clip, the centre of mass of its probabilities in frames [shape=(N, C)]."""
    frames = np.arange(probabilities.shape[1])
    return np.einsum("ntc,t->nc", probabilities, frames) / np.maximum(probabilities.sum(axis=1), 1e-12)


def order_accuracy(probabilities: np.ndarray, thresholds: np.ndarray, events: Sequence[Sequence[int]]) -> np.ndarray:
    """Share of the pairs of events of a scene, both `detected`, that come in its order, by `positions` [shape=(N,)].

    NaN of a clip without such a pair. Chance is one half.
    """
    heard, where = detected(probabilities, thresholds), positions(probabilities)
    _aligned(heard, events)
    right, pairs = np.zeros(len(heard)), np.zeros(len(heard))
    for clip, scene in enumerate(events):
        known = [event for event in scene if heard[clip, event]]
        for first, second in combinations(known, 2):
            right[clip] += where[clip, first] < where[clip, second]
            pairs[clip] += 1
    return _share(right, pairs)


def score(probabilities: np.ndarray, thresholds: np.ndarray, events: Sequence[Sequence[int]]) -> pd.DataFrame:
    """Every score of each clip [a row a clip]: events of its scene, classes heard, recall, precision, order."""
    heard = detected(probabilities, thresholds)
    return pd.DataFrame(
        {
            "events": list(map(len, events)),
            "heard": heard.sum(axis=1),
            "recall": event_recall(heard, events),
            "precision": event_precision(heard, events),
            "order": order_accuracy(probabilities, thresholds, events),
        }
    )


def recall_by_class(heard: np.ndarray, events: Sequence[Sequence[int]]) -> np.ndarray:
    """Share of the clips with each class in their scene in which it is `detected` [shape=(C,)]; NaN of one in no scene."""
    there = _aligned(heard, events)
    return _share((heard & there).sum(axis=0), there.sum(axis=0))


def best_threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """The threshold on GRID with the largest F1 of `scores >= threshold` against `truth` (of equal shape); of several
    equally good ones, the middle."""
    _check_truths("truth", truth)
    if np.shape(scores) != np.shape(truth) or not np.isfinite(scores).all():
        raise ValueError(
            f"scores {np.shape(scores)} and truth {np.shape(truth)} differ in shape or scores are not finite; pair them"
        )
    if not np.any(truth):
        raise ValueError("no event is there to be found: choose a threshold on scenes that have some")
    f1 = np.array([_f1(scores >= threshold, truth) for threshold in GRID])
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(GRID[best[len(best) // 2]])


def _f1(guess: np.ndarray, truth: np.ndarray) -> float:
    return 2 * (guess & truth).sum() / (guess.sum() + truth.sum())


def _aligned(heard: np.ndarray, events: Sequence[Sequence[int]]) -> np.ndarray:
    """`present` of events that must be those of as many clips as are `heard`."""
    _check_truths("heard", heard)
    if len(heard) != len(events):
        raise ValueError(f"{len(heard)} clips but the events of {len(events)} scenes; give those of each clip")
    return present(events, heard.shape[1])


def _check_truths(name: str, values: np.ndarray) -> None:
    if not np.isin(values, (0, 1)).all():
        raise ValueError(f"{name} is not true or false throughout; give whether each class is there, not its number")


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
