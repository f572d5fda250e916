"""Score-based selection (Yuan et al., 2023, 3.2): clips are drawn until enough of a class pass a CLAP threshold.

A candidate is known by its class and its number, from 0; its score is the cosine similarity, in [-1, 1], of its CLAP
audio embedding to a target of its class. Candidates are decided in order of number, so that the size of the rounds
changes no decision unless a threshold is lowered. With `best_of` = N they come in groups of N, of which the best alone
is decided on, as in the challenge's system. Embeddings need not be of unit length; a threshold of -1 is no filter.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from foleylib.params.runs import Selection

NO_FILTER = -1.0
PASSED, BELOW, DUPLICATE, SURPLUS = "passed", "below threshold", "near duplicate", "surplus"
BEATEN = "not the best of its group"
COLUMNS = ["label", "number", "score", "threshold", "target", "accepted", "reason", "tries"]


class Selected(NamedTuple):
    """Every candidate drawn, one row each, and the numbers of each class.

    `threshold` is the one at which a candidate was decided, `target` the row of its target. `reason` is "passed", "below
    threshold", "near duplicate", "not the best of its group", or "surplus" for one that passes when the class is full.
    `tries` of a clip taken: candidates drawn since the one taken before.
    """

    candidates: pd.DataFrame  # COLUMNS
    report: pd.DataFrame  # as `Pool.report`

    @property
    def accepted(self) -> pd.DataFrame:
        """Rows of the candidates that were taken, by class and number."""
        return self.candidates[self.candidates.accepted].reset_index(drop=True)


@dataclass
class Pool:
    """One class while it is being filled: all its candidates so far, and which of them were taken."""

    label: str
    wanted: int
    threshold: float
    targets: np.ndarray  # (M, D), of unit length
    settings: Selection
    seed: int
    rows: list[dict] = field(default_factory=list)
    embeddings: list[np.ndarray] = field(default_factory=list)  # of all candidates, of unit length
    taken: list[int] = field(default_factory=list)  # numbers of candidates
    failures: int = 0  # rounds in a row that brought no clip
    drawn_at_last: int = 0  # candidates drawn when the last clip was taken

    def next_round(self) -> int:
        """How many candidates to draw, at most as many as in the first round; 0 if the class is full or at its cap."""
        drawn, taken, group = len(self.rows), len(self.taken), self.group
        asked = first = self.wanted * group
        if taken:
            # More after a failure: three unlucky rounds for the one last clip are no reason to lower the threshold.
            asked = -(-(self.wanted - taken) * drawn * (1 + self.failures) // taken)
        left = self.settings.cap * self.wanted - drawn
        return min(-(-min(asked, first) // group), left // group) * group

    @property
    def group(self) -> int:
        """Candidates of which the best alone is decided on."""
        return self.settings.best_of.get(self.label, 1)

    def add(self, E: np.ndarray) -> None:
        """Decide on the unit rows E (count, D) in order; lower the threshold if too many rounds brought no clip."""
        first, before = len(self.rows), len(self.taken)
        targets, scores = scores_of(self.label, E, self.targets, seed=self.seed, first=first)
        for start in range(0, len(E), self.group):
            group = range(first + start, first + start + self.group)
            for number, e, target, score in zip(group, E[start:], targets[start:], scores[start:]):
                row = {"label": self.label, "number": number, "score": score, "target": target}
                self.rows.append(
                    row | {"threshold": self.threshold, "accepted": False, "reason": BEATEN, "tries": None}
                )
                self.embeddings.append(e)
            self.decide(max(group, key=lambda number: self.rows[number]["score"]))
        self.failures = 0 if len(self.taken) > before else self.failures + 1
        if self.failures >= self.settings.relax_after:
            self.relax()

    def decide(self, number: int) -> None:
        """Take or leave one candidate."""
        row, e = self.rows[number], self.embeddings[number]
        if row["score"] < self.threshold:
            reason = BELOW
        elif any(self.embeddings[i] @ e >= self.settings.duplicate for i in self.taken):
            reason = DUPLICATE
        else:
            reason = PASSED if len(self.taken) < self.wanted else SURPLUS
        row |= {"threshold": self.threshold, "accepted": reason == PASSED, "reason": reason, "tries": None}
        if reason == PASSED:
            row["tries"] = len(self.rows) - self.drawn_at_last
            self.drawn_at_last = len(self.rows)
            self.taken.append(number)

    def relax(self) -> None:
        """Lower the threshold and decide again, best first, on the candidates that were below it."""
        self.threshold, self.failures = max(self.threshold - self.settings.relax_by, NO_FILTER), 0
        again = [row for row in self.rows if row["reason"] == BELOW and row["score"] >= self.threshold]
        for row in sorted(again, key=lambda row: (-row["score"], row["number"])):
            self.decide(row["number"])

    def report(self, threshold: float) -> dict:
        """The numbers of the class, which began with `threshold`."""
        taken, drawn = len(self.taken), len(self.rows)
        return {
            "label": self.label,
            "wanted": self.wanted,
            "accepted": taken,
            "candidates": drawn,
            "acceptance": taken / drawn,
            "threshold_first": threshold,
            "threshold_last": self.threshold,
            "short": taken < self.wanted,
        }


def select(
    draw: Callable[[dict[str, tuple[int, int]]], dict[str, np.ndarray]],
    wanted: int,
    thresholds: Mapping[str, float],
    targets: Mapping[str, np.ndarray],
    *,
    settings: Selection,
    seed: int,
) -> Selected:
    """Draw candidates in rounds until `wanted` clips of each class have passed, or `cap` candidates per clip are drawn.

    A candidate passes if its score reaches the threshold and no clip taken before is as similar as
    `settings.duplicate`. After `settings.relax_after` rounds in a row without a clip the threshold falls by
    `settings.relax_by`, and what was below it is decided again, best first; near duplicates stay out.

    Parameters
    ----------
    draw : generates candidates `first` to `first + count - 1` of each class asked for, the same clip for the same number
        whatever else is asked, and returns their CLAP audio embeddings [shape=(count, D)]
    thresholds : class -> threshold in [-1, 1], of the classes to fill
    targets : class -> embeddings [shape=(M, D)], of which each candidate draws one by (seed, class, number)
    """
    thresholds = checked_thresholds("thresholds", thresholds, list(thresholds))
    check_classes("targets", targets, thresholds)
    if not thresholds or wanted < 1:
        raise ValueError(f"wanted={wanted} clips of {len(thresholds)} classes: give 1 or more, and a threshold a class")
    pools = {
        label: Pool(label, wanted, threshold, unit_rows(f"targets of {label}", targets[label]), settings, seed)
        for label, threshold in thresholds.items()
    }
    while requests := {label: (len(p.rows), n) for label, p in pools.items() if (n := p.next_round())}:
        drawn = draw(requests)
        for label, (_, n) in requests.items():
            if label not in drawn or len(drawn[label]) != n:
                raise ValueError(f"draw returned no {n} embeddings of {label}; return as many as are asked for")
            pools[label].add(unit_rows(f"draw of {label}", drawn[label]))
    candidates = pd.DataFrame([row for pool in pools.values() for row in pool.rows], columns=COLUMNS)
    report = pd.DataFrame([pool.report(thresholds[label]) for label, pool in pools.items()])
    return Selected(candidates.astype({"tries": "Int64"}), report)


def sentence(report: pd.DataFrame) -> str:
    """Which classes of a report came out short and by how much, in one sentence; empty if none did."""
    parts = [
        f"{row.label} has {row.accepted} of {row.wanted} clips after {row.candidates} candidates"
        for row in report[report.short].itertuples()
    ]
    remedy = "lower its threshold" if len(parts) == 1 else "lower their thresholds"
    return f"selection: {', '.join(parts)}; {remedy} or raise selection.cap" if parts else ""


def scores_of(
    label: str, E: np.ndarray, targets: np.ndarray, *, seed: int, first: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Target indices and similarities, both (N,), of candidates `first`, first + 1, ... from unit rows."""
    if E.shape[1] != targets.shape[1]:
        raise ValueError(f"{label}: embeddings have {E.shape[1]} columns, targets {targets.shape[1]}; use one CLAP")
    index = np.zeros(len(E), dtype=int)
    if len(targets) > 1:
        key = [zlib.crc32(b"target"), seed, zlib.crc32(label.encode())]  # not that of the clips' own seeds
        index[:] = [np.random.default_rng([*key, first + i]).integers(len(targets)) for i in range(len(E))]
    return index, np.sum(E * targets[index], axis=1).clip(-1, 1)


def unit_rows(name: str, values: ArrayLike) -> np.ndarray:
    """`values` as finite float64 rows of unit length (N, D), N >= 1."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"{name}: shape {values.shape}; give (N, D) with N >= 1, one embedding a row")
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    if not (np.isfinite(norms) & (norms > 0)).all():
        raise ValueError(f"{name}: an embedding is 0 or not finite; look at the clips or texts it was made from")
    return values / norms


def check_classes(name: str, given: Mapping, classes: Iterable[str]) -> None:
    """Refuse a dict that lacks a class."""
    if lacking := [label for label in classes if label not in given]:
        raise ValueError(f"{name} has no {', '.join(lacking)}, only {', '.join(given) or 'nothing'}; add every class")


def checked_thresholds(name: str, given: Mapping[str, float], classes: list[str]) -> dict[str, float]:
    """Thresholds of `classes`, in their order, each a cosine similarity."""
    check_classes(name, given, classes)
    if wrong := {label: given[label] for label in classes if not -1 <= given[label] <= 1}:
        raise ValueError(f"{name}: {wrong} is no cosine similarity; give values in [-1, 1], where -1 takes every clip")
    return {label: float(given[label]) for label in classes}


def multi_targets(E_audio: ArrayLike, k: int) -> np.ndarray:
    """Targets of a class that no one embedding describes (Yuan et al., 2023, 5): its k most typical training clips.

    Of CLAP audio embeddings [shape=(N, D)] those k, made unit vectors [shape=(k, D)], with the highest mean cosine
    similarity to the other clips, highest first.
    """
    E = unit_rows("E_audio", E_audio)
    if len(E) < 2 or not 1 <= k <= len(E):
        raise ValueError(f"k={k} of {len(E)} training clips: give at least 2 clips and k from 1 to their number")
    return E[np.argsort(-E @ E.sum(axis=0), kind="stable")[:k]]  # similarity to itself is 1 for all


def economics(report: pd.DataFrame, seconds_per_candidate: float) -> pd.DataFrame:
    """Cost of each class and of "all", from a report and the seconds that it takes to draw and embed one candidate.

    Returns a table [label, accepted, candidates, candidates_per_clip, seconds, seconds_per_clip], infinite per clip
    where none was taken.
    """
    total = {"label": "all", "accepted": report.accepted.sum(), "candidates": report.candidates.sum()}
    table = pd.concat([report[list(total)], pd.DataFrame([total])], ignore_index=True)
    table["candidates_per_clip"] = table.candidates / table.accepted
    table["seconds"] = seconds_per_candidate * table.candidates
    table["seconds_per_clip"] = seconds_per_candidate * table.candidates_per_clip
    return table
