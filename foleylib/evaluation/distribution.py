"""How generated clips lie among the reference: kernel distances (KAD, KID), density and coverage."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist, pdist

from foleylib.evaluation.frechet import MeanStd, pooled

KAD_SCALE = 100  # as published
NEIGHBOURS = 5  # of density and coverage, as published


def _refuse_overflow(*values: ArrayLike) -> None:
    """Stop where distances or kernels left the range of float64, since inf - inf and inf <= inf tell nothing."""
    if not all(np.isfinite(value).all() for value in values):
        raise ValueError("x or y is too large for a score, or the bandwidth too small; look at the largest embeddings")


class Mmd:
    """Unbiased squared MMD of two sets, ready to be asked again of some of the generated clips.

    `kernel` maps two sets of rows (N, D), (M, D) to the similarities of all pairs (N, M).
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, kernel: Callable[[np.ndarray, np.ndarray], np.ndarray]):
        k_xx = kernel(x, x)
        self.k_xx = (k_xx.sum() - np.trace(k_xx)) / (len(x) * (len(x) - 1))
        self.k_yy, self.k_xy = kernel(y, y), kernel(x, y).mean(axis=0)  # (M, M), (M,)
        _refuse_overflow(self.k_xx, self.k_yy, self.k_xy)

    def __call__(self, rows: np.ndarray | None = None) -> float:
        """MMD^2 of the generated clips `rows` (all by default); no clip is compared with itself, drawn twice or not."""
        rows = np.arange(len(self.k_xy)) if rows is None else rows
        other = rows[:, None] != rows[None, :]
        k_yy = self.k_yy[np.ix_(rows, rows)][other].mean() if other.any() else self.k_yy.diagonal()[rows].mean()
        return float(self.k_xx + k_yy - 2 * self.k_xy[rows].mean())


class Kad(Mmd):
    """Kernel audio distance of two sets, ready to be asked again of some of the generated clips.

    Parameters are those of `kad`.
    """

    def __init__(self, x: ArrayLike, y: ArrayLike, *, bandwidth: float | None = None):
        x, y = pooled(x, y)
        bandwidth = float(np.median(pdist(x))) if bandwidth is None else bandwidth
        if not 0 < bandwidth < np.inf:
            raise ValueError(
                f"bandwidth={bandwidth}: at least half of the reference clips are equal, or too far apart for a number; look "
                "at their audio"
            )
        super().__init__(x, y, lambda a, b: np.exp(-cdist(a, b, "sqeuclidean") / (2 * bandwidth**2)))

    def __call__(self, rows: np.ndarray | None = None) -> float:
        """KAD of the generated clips `rows` (all by default)."""
        return KAD_SCALE * super().__call__(rows)


def kad(x: ArrayLike, y: ArrayLike, *, bandwidth: float | None = None) -> float:
    """Kernel audio distance (Chung et al. 2025): 100 times the unbiased MMD^2 with a Gaussian kernel.

    Unlike FAD it assumes no normal distribution and has no bias at few clips. Its kernel is
    exp(-|a - b|^2 / (2 bandwidth^2)).

    Parameters
    ----------
    x, y : array_like [shape=(N, D) or (N, W, D)]
        embeddings of the reference and the generated clips; windows W are pooled
    bandwidth : float > 0, optional
        by default the median distance of two reference clips. (The authors' toolkit takes it from the generated clips.)

    Returns
    -------
    float
        in [-100, 200]; around 0, and as often below it, for two samples of one distribution
    """
    return Kad(x, y, bandwidth=bandwidth)()


def polynomial(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The kernel of KID, (x.y / D + 1)^3, of all pairs of rows."""
    return (a @ b.T / a.shape[1] + 1) ** 3


def kernel_distance(x: ArrayLike, y: ArrayLike, *, seed: int, subsets: int = 100, subset_size: int = 100) -> MeanStd:
    """Kernel distance (KID): unbiased MMD^2 with kernel (x.y / D + 1)^3, Binkowski et al. (2018).

    Parameters
    ----------
    x, y : array_like [shape=(N, D) or (N, W, D)]
    seed : int
        of the subsets, drawn without replacement
    subsets, subset_size : int
        a subset of size n costs n^2 D

    Returns
    -------
    MeanStd
        over subsets; the mean may be slightly negative
    """
    x, y = pooled(x, y)
    n, rng = subset_size, np.random.RandomState(seed)
    if subsets < 1:
        raise ValueError(f"subsets={subsets}: give 1 or more, of which the distance is the mean")
    if not 2 <= n <= min(len(x), len(y)):
        raise ValueError(f"subset_size={n}: give 2 to {min(len(x), len(y))}, the rows of the smaller set")
    values = []
    for _ in range(subsets):
        a, b = (z[rng.choice(len(z), n, replace=False)] for z in (x, y))
        k_aa, k_bb, k_ab = (polynomial(u, v) for u, v in ((a, a), (b, b), (a, b)))
        within = (k_aa.sum() - np.trace(k_aa) + k_bb.sum() - np.trace(k_bb)) / (n * (n - 1))
        values.append(within - 2 * k_ab.mean())
    result = MeanStd(float(np.mean(values)), float(np.std(values)))
    _refuse_overflow(result)
    return result


class DensityCoverage(NamedTuple):
    """Density, >= 0, which may exceed 1, and coverage, in [0, 1]."""

    density: float
    coverage: float


def neighbours(x: ArrayLike) -> int:
    """k of density and coverage: 5, or all other clips of a smaller reference."""
    return min(NEIGHBOURS, len(x) - 1)


def reached(x: ArrayLike, y: ArrayLike, *, k: int | None = None) -> np.ndarray:
    """Which generated clips lie within the distance of each reference clip to its k-th nearest other one
    [shape=(N, M), bool]; see `density_coverage`."""
    x, y = pooled(x, y)
    k = neighbours(x) if k is None else k
    if not 1 <= k < len(x):
        raise ValueError(f"k={k}: give 1 to {len(x) - 1}, the other clips of the reference")
    radii = np.partition(cdist(x, x), k, axis=1)[:, k]  # at 0 stands the clip itself
    _refuse_overflow(radii)  # a distance from x to y may be inf: it is beyond every radius
    return cdist(x, y) <= radii[:, None]


def density_coverage(x: ArrayLike, y: ArrayLike, *, k: int | None = None) -> DensityCoverage:
    """Density and coverage of y on the neighbourhoods of x (Naeem et al. 2020, Eqs. 3 and 4).

    The neighbourhood of a reference clip is the ball that reaches its k-th nearest other reference clip. Density is the
    number of balls that a generated clip lies in, divided by k: about 1 for another sample of the reference. Coverage
    is the share of balls that hold a generated clip: clips that repeat each other leave most of them empty. It
    grows with the number of generated clips, so compare systems at equal numbers only.

    Parameters
    ----------
    x, y : array_like [shape=(N, D) or (N, W, D)]
        embeddings of the reference and the generated clips; windows W are pooled
    k : int, optional
        1 to N - 1; by default 5 as published, or N - 1 where the reference is smaller

    Returns
    -------
    DensityCoverage
    """
    x, y = pooled(x, y)  # k counts rows, as the balls do
    k = neighbours(x) if k is None else k
    inside = reached(x, y, k=k)
    return DensityCoverage(float(inside.sum() / (k * inside.shape[1])), float(inside.any(axis=1).mean()))
