"""Bootstrap intervals over clips, and the mean over seeds with its interval.

The clip is the unit that is drawn, with all its windows: those of one recording are not independent. An interval has
the quantiles of the statistic t* on resampled clips. For a biased statistic they are recentred: the quantiles of
t* - median(t*) + t, with t the estimate. FAD is one: a resample repeats clips, which adds variance to means and takes
rank from covariances, so t* lies above t, at few clips wholly, and plain quantiles miss the estimate (Efron's BC
correction is then infinite). Shifting by the median keeps the spread, contains t by construction, and is an interval
for the expected score at *this* number of clips: compare systems at equal n only, and see `frechet.fad_infinity`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg
from scipy.stats import norm, t

from foleylib.evaluation.frechet import Gaussian, covariance_factor, fad, real, trace_sqrt


class Interval(NamedTuple):
    """An estimate with its bootstrap interval and the standard deviation of the draws."""

    estimate: float
    low: float
    high: float
    sd: float


def over_seeds(values: ArrayLike, *, level: float = 0.95) -> tuple[float, float, float]:
    """Mean of scores over seeds with its Student interval (mean, low, high); NaN bounds for fewer than three seeds."""
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    if not n or not np.isfinite(values).all():
        raise ValueError(f"values={values.tolist()}: give a list of finite scores, one per seed")
    mean = float(values.mean())
    half = t.ppf((1 + level) / 2, n - 1) * float(values.std(ddof=1)) / np.sqrt(n) if n > 2 else float("nan")
    return mean, mean - half, mean + half


def wilson(share: float, n: float, *, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share of n clips: it stays within [0, 1] and has a width at 0 and 1 too."""
    if not (0 <= share <= 1 and n > 0 and 0 < level < 1):
        raise ValueError(
            f"share={share}, n={n}, level={level}: give a share in [0, 1] of 1 clip or more, a level in (0, 1)"
        )
    z = norm.ppf((1 + level) / 2)
    middle, shrink = (share + z**2 / (2 * n)) / (1 + z**2 / n), 1 + z**2 / n
    half = z * np.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2) / shrink
    low, high = max(0.0, float(middle - half)), min(1.0, float(middle + half))
    return Interval(share, min(low, share), max(high, share), float(np.sqrt(share * (1 - share) / n)))


def group_rows(labels: Iterable[str]) -> dict[str, np.ndarray]:
    """Rows of each label, in order of first appearance."""
    groups = {}
    for row, label in enumerate(labels):
        groups.setdefault(label, []).append(row)
    return {label: np.array(rows) for label, rows in groups.items()}


def bootstrap_interval(
    clips: int | Mapping[str, np.ndarray],
    statistic: Callable[[np.ndarray], float],
    *,
    seed: int,
    n_boot: int = 1000,
    level: float = 0.95,
    recentre: bool = False,
) -> Interval:
    """Interval of `statistic(rows [shape=(N,)])`, to which a clip drawn twice comes twice.

    `clips` is their number, or the rows of each class, which are then drawn class by class and keep their numbers.
    """
    strata = [np.arange(clips)] if isinstance(clips, int) else list(clips.values())
    if not sum(map(len, strata)):
        raise ValueError("there are no clips: a score needs at least 2, of every class")
    estimate = statistic(np.concatenate(strata))
    draws = _draws(strata, lambda *rows: statistic(np.concatenate(rows)), seed=seed, n_boot=n_boot)
    return _interval(estimate, draws, level=level, recentre=recentre)


def frechet_bootstrap(
    x: ArrayLike | Gaussian | Sequence[np.ndarray],
    y: ArrayLike | Sequence[np.ndarray],
    *,
    seed: int,
    fixed_reference: bool = False,
    groups: Mapping[str, np.ndarray] | None = None,
    n_boot: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Recentred interval of `fad(x, y)` over the clips of both sets, or of y alone with `fixed_reference`.

    `groups` are the rows of each class of y, which are then drawn class by class (`bootstrap_interval`).
    Embeddings are (N, D) or (N, W, D), or a list of (W, D) where clips differ in their windows; of a fixed reference a
    `Gaussian` will do. No covariance of a resample is formed where clips are fewer than dimensions: a draw then costs a
    singular value decomposition of the size of the distinct clips, whatever D.
    """
    y = pool(y)
    if isinstance(x, Gaussian):
        if not fixed_reference:
            raise ValueError("x is stored statistics, from which no clips can be drawn: give fixed_reference=True")
        estimate, reference = fad(x, y[0]), (x.mean, x.factor())
    else:
        x = pool(x)
        estimate, reference = fad(x[0], y[0]), (x[0].mean(axis=0), covariance_factor(x[0]))
    n = y[1][-1] + 1
    if groups is not None and sorted(row for rows in groups.values() for row in rows) != list(range(n)):
        raise ValueError(f"groups do not hold each of the {n} clips of y once; give all rows, 0 to {n - 1}")
    strata = [np.arange(n)] if groups is None else list(groups.values())
    strata = strata if fixed_reference else [np.arange(x[1][-1] + 1), *strata]

    def distance(*drawn: np.ndarray) -> float:
        if fixed_reference:
            return _factored_distance(reference, _factor(*y, np.concatenate(drawn)))
        return _factored_distance(_factor(*x, drawn[0]), _factor(*y, np.concatenate(drawn[1:])))

    draws = _draws(strata, distance, seed=seed, n_boot=n_boot)
    interval = _interval(estimate, draws, level=level, recentre=True)
    return interval._replace(low=max(interval.low, 0.0))


def pool(x: ArrayLike | Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The rows (R, D) of all clips, in float64, and the number (R,) of the clip of each."""
    if empty := [row for row, clip in enumerate(x) if 0 in np.shape(clip)]:
        raise ValueError(f"{len(empty)} clip(s) without windows, first {empty[:5]}; leave them out or embed them again")
    parts = [real("a clip's embedding", clip).reshape(-1, np.shape(clip)[-1]) for clip in x]
    if not parts:
        raise ValueError("there are no clips: a score needs at least 2, of every class")
    if len(widths := sorted({part.shape[1] for part in parts})) > 1:
        raise ValueError(f"embeddings of {widths} dimensions: embed all clips with the same model")
    return np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def _draws(strata: Sequence[np.ndarray], statistic: Callable[..., float], *, seed: int, n_boot: int) -> np.ndarray:
    """`statistic` of rows drawn from each stratum with replacement, `n_boot` times.

    A loop: `scipy.stats.bootstrap` draws the same rows, but takes 0.2 ms more for each resample of several strata.
    """
    if n_boot < 1:
        raise ValueError(f"n_boot={n_boot}: an interval needs a draw at least, and bounds that hold some hundred")
    if (fewest := min(map(len, strata), default=0)) < 2:
        raise ValueError(f"{fewest} clip(s): an interval over clips needs at least 2, of every class")
    rng = np.random.default_rng(seed)
    resamples = ([rows[rng.integers(len(rows), size=len(rows))] for rows in strata] for _ in range(n_boot))
    return np.array([statistic(*drawn) for drawn in resamples])


def _interval(estimate: float, draws: np.ndarray, *, level: float, recentre: bool) -> Interval:
    """Interval of an estimate from its bootstrap draws (n_boot,)."""
    if not 0 < level < 1:
        raise ValueError(f"level={level}: give the share of draws that lie inside, such as 0.95")
    if not np.isfinite([estimate, *draws]).all():
        raise ValueError("the statistic is not finite on the clips or on a resample of them; look at it on few clips")
    moved = draws - np.median(draws) + estimate if recentre else draws
    low, high = np.quantile(moved, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(estimate), float(low), float(high), float(draws.std()))


def _factor(rows: np.ndarray, clip: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and factor F, F'F = covariance, of the rows (R, D) of the drawn clips, each distinct row once."""
    weights = np.bincount(drawn, minlength=clip[-1] + 1)[clip].astype(np.float64)
    rows, weights = rows[weights > 0], weights[weights > 0]
    mean = weights @ rows / weights.sum()
    return mean, (rows - mean) * np.sqrt(weights / (weights.sum() - 1))[:, None]


def _factored_distance(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> float:
    """Frechet distance of two (mean, factor) pairs."""
    (mu1, f1), (mu2, f2) = first, second
    if min(len(f1), len(f2)) >= len(mu1):
        root = trace_sqrt(f1.T @ f1, f2.T @ f2)
    else:
        root = linalg.svdvals(f1 @ f2.T, check_finite=False).sum()
    return max(float(np.sum((mu1 - mu2) ** 2) + np.sum(f1**2) + np.sum(f2**2) - 2 * root), 0.0)
