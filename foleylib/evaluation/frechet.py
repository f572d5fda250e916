"""Comparisons of two sets of embeddings: FAD and FD, FAD-infinity, cosine similarity of pairs.

Everything is computed in float64. An array is (N, D), one row per clip, or (N, W, D), W windows per clip (VGGish),
which are pooled. A set needs two clips, and a value that is not finite stops the score: nothing is skipped. Random
draws use `numpy.random.RandomState(seed)`, whose stream is the same in all versions of numpy.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg

ROUNDING = 1e-6  # of float32 numbers, re the largest, in an eigenvalue that is 0
TOO_LARGE = "x or y is too large for a distance that is a number; look at the clips whose embeddings are"


class FadInfinity(NamedTuple):
    """Intercept, slope and r2 of FAD = score + slope / n, and the points of the fit (n, FAD)."""

    score: float
    slope: float
    r2: float
    points: tuple[tuple[int, float], ...]


class Gaussian(NamedTuple):
    """Mean (D,) and covariance (D, D) of a set of embeddings whose rows are not at hand; `n` rows, where it is known."""

    mean: np.ndarray
    cov: np.ndarray
    n: int | None = None

    def factor(self) -> np.ndarray:
        """F (D, D) with F'F = covariance."""
        return _singular_root(self.cov)


class MeanStd(NamedTuple):
    """Mean and population standard deviation over splits or subsets."""

    mean: float
    std: float


def real(name: str, values: ArrayLike) -> np.ndarray:
    """`values` in float64, which would drop the imaginary part of complex ones."""
    values = np.asarray(values)
    if np.iscomplexobj(values):
        raise ValueError(f"{name} is of {values.dtype}; give real numbers, such as the real part or the magnitude")
    return np.asarray(values, dtype=np.float64)


def checked(name: str, values: ArrayLike, ndims: tuple[int, ...] = (2,)) -> np.ndarray:
    """`values` as a finite float64 array of at least two clips."""
    values = real(name, values)
    if values.ndim not in ndims:
        raise ValueError(f"{name} has shape {values.shape}; give {' or '.join(f'{n}-D' for n in ndims)}, clips first")
    if len(values) < 2:
        raise ValueError(f"{name} holds {len(values)} clip(s); a score needs at least 2")
    if not values.size:
        raise ValueError(f"{name} has shape {values.shape}; give clips of 1 window and 1 dimension or more")
    if not np.isfinite(values).all():
        rows = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
        raise ValueError(f"{name} is not finite in {len(rows)} clip(s), first {rows[:5].tolist()}; look at their audio")
    return values


def checked_pair(names: tuple[str, str], first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two checked arrays of the same shape."""
    first, second = checked(names[0], first), checked(names[1], second)
    if first.shape != second.shape:
        raise ValueError(f"{names[0]} is {first.shape} and {names[1]} {second.shape}; pair the clips by id first")
    return first, second


def pooled(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two sets (N, D) or (N, W, D) as checked rows (N or N*W, D) of the same width."""
    x, y = (checked(name, values, ndims=(2, 3)) for name, values in (("x", x), ("y", y)))
    x, y = (values.reshape(-1, values.shape[-1]) for values in (x, y))
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x has {x.shape[1]} columns and y {y.shape[1]}; embed both sets with the same model")
    return x, y


def gaussian(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and unbiased covariance (D, D) of rows (N, D)."""
    return x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False))


def check_statistics(name: str, mean: np.ndarray, cov: np.ndarray) -> None:
    """Refuse a mean and a covariance that no set of clips has, beyond rounding."""
    wrong = None
    if mean.ndim != 1 or not mean.size or cov.shape != 2 * mean.shape:
        wrong = f"mean {mean.shape} and covariance {cov.shape}: they must be (D,) and (D, D)"
    elif not (np.isfinite(mean).all() and np.isfinite(cov).all()):
        wrong = "the mean or the covariance is not finite"
    elif not np.allclose(cov, cov.T, atol=ROUNDING * np.abs(cov).max()):
        wrong = "the covariance is not symmetric"
    elif (values := linalg.eigvalsh((cov + cov.T) / 2))[0] < -ROUNDING * values[-1]:
        wrong = "the covariance has a negative eigenvalue, which none of real clips has"
    if wrong:
        raise ValueError(f"{name}: {wrong}; compute the statistics from the clips again")


def _singular_root(cov: np.ndarray) -> np.ndarray:
    """F (D, D) with F'F = cov, of whatever rank; negative eigenvalues, which are rounding, are taken as 0."""
    values, vectors = linalg.eigh(cov, check_finite=False)
    return np.sqrt(values.clip(min=0))[:, None] * vectors.T


def trace_sqrt(cov1: np.ndarray, cov2: np.ndarray) -> float:
    """Tr (cov1 cov2)^(1/2): by Cholesky where cov1 has full rank, else by eigh with negative eigenvalues clipped."""
    # cov1 cov2 has the eigenvalues of root' cov2 root, which is symmetric.
    try:
        root = linalg.cholesky(cov1, lower=True, check_finite=False)
        product, _ = linalg.lapack.dsygst(cov2, root, itype=2, lower=1)  # its lower half, at a quarter of the cost
    except linalg.LinAlgError:
        root = _singular_root(cov1)
        product = root @ cov2 @ root.T
    values = linalg.eigvalsh(product, check_finite=False)
    return float(np.sqrt(values.clip(min=0)).sum())


def frechet_distance(mu1: ArrayLike, cov1: ArrayLike, mu2: ArrayLike, cov2: ArrayLike) -> float:
    """Squared Frechet distance of two Gaussians, Dowson & Landau (1982), as FAD of Kilgour et al. (2019).

    |mu1 - mu2|^2 + Tr(cov1 + cov2 - 2 (cov1 cov2)^(1/2)), clipped at 0, with no epsilon on the diagonal.

    Parameters
    ----------
    mu1, mu2 : array_like [shape=(D,)]
    cov1, cov2 : array_like [shape=(D, D)]
        symmetric, positive semi-definite

    Returns
    -------
    float >= 0
        in squared units of the embedding
    """
    names = ("mu1", "cov1", "mu2", "cov2")
    mu1, cov1, mu2, cov2 = (real(name, values) for name, values in zip(names, (mu1, cov1, mu2, cov2)))
    shapes = [a.shape for a in (mu1, cov1, mu2, cov2)]
    if mu1.ndim != 1 or shapes != [mu1.shape, mu1.shape * 2] * 2:
        raise ValueError(f"mu1, cov1, mu2, cov2 have shapes {shapes}; give (D,), (D, D), (D,), (D, D)")
    check_statistics("mu1, cov1", mu1, cov1)
    check_statistics("mu2, cov2", mu2, cov2)
    return _distance(mu1, cov1, mu2, cov2)


def _distance(mu1: np.ndarray, cov1: np.ndarray, mu2: np.ndarray, cov2: np.ndarray) -> float:
    """`frechet_distance` of statistics that clips have; they may be too large for a number."""
    if not all(np.isfinite(a).all() for a in (mu1, cov1, mu2, cov2)):
        raise ValueError(TOO_LARGE)
    return _clipped(np.sum((mu1 - mu2) ** 2) + np.trace(cov1) + np.trace(cov2) - 2 * trace_sqrt(cov1, cov2))


def _clipped(distance: float) -> float:
    """A distance, of which rounding may have made a negative number."""
    if not np.isfinite(distance):
        raise ValueError(TOO_LARGE)
    return max(float(distance), 0.0)


def covariance_factor(x: np.ndarray) -> np.ndarray:
    """F with F'F = covariance of the rows of x (n, D): the centred rows, or their triangular factor if n > D."""
    centred = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    return centred if len(x) <= x.shape[1] else linalg.qr(centred, mode="r", check_finite=False)[0][: x.shape[1]]


def fad(x: ArrayLike | Gaussian, y: ArrayLike) -> float:
    """Frechet distance of two sets of embeddings (FAD on VGGish, FD on PANNs), >= 0 and symmetric.

    Where a set has no more rows than dimensions its covariance is singular; the trace of the square root is then
    taken as the nuclear norm of F_x F_y', F the factors of the covariances, which loses no digits to squaring.

    Parameters
    ----------
    x, y : array_like [shape=(N, D) or (N, W, D)]
        embeddings of the reference and the generated clips; windows W are pooled. Of the reference a `Gaussian` will do
    """
    if isinstance(x, Gaussian):
        return _fad_of_stored(x, y)
    x, y = pooled(x, y)
    if min(len(x), len(y)) > x.shape[1]:
        return _distance(*gaussian(x), *gaussian(y))
    return _nuclear_distance(x.mean(axis=0), covariance_factor(x), y.mean(axis=0), covariance_factor(y))


def _fad_of_stored(x: Gaussian, y: ArrayLike) -> float:
    """`fad` to a reference of which the statistics alone are at hand."""
    y = checked("y", y, ndims=(2, 3))
    y = y.reshape(-1, y.shape[-1])
    mean, cov = real("the mean of x", x.mean), real("the covariance of x", x.cov)
    check_statistics("x", mean, cov)
    if y.shape[1:] != mean.shape:
        raise ValueError(
            f"the stored statistics have {len(mean)} dimensions, the clips {y.shape[1]}: they are of another embedder"
        )
    if len(y) > y.shape[1]:
        return _distance(mean, cov, *gaussian(y))
    return _nuclear_distance(x.mean, x.factor(), y.mean(axis=0), covariance_factor(y))


def _nuclear_distance(mu1: np.ndarray, factor1: np.ndarray, mu2: np.ndarray, factor2: np.ndarray) -> float:
    """Frechet distance from means and factors of covariances."""
    distance = np.sum((mu1 - mu2) ** 2) + np.sum(factor1**2) + np.sum(factor2**2)
    return _clipped(distance - 2 * linalg.svdvals(factor1 @ factor2.T).sum())


def fad_infinity(
    x: ArrayLike | Gaussian,
    y: ArrayLike,
    *,
    seed: int,
    steps: int = 25,
    min_n: int | None = None,
    replace: bool = False,
) -> FadInfinity:
    """FAD extrapolated to an infinite generated set, Gui et al. (2024), after Chong & Forsyth (2020).

    FAD is computed for `steps` sizes n from `min_n` to the size of y, each on n rows drawn from y, and
    FAD = score + slope / n is fitted by least squares. Draws without replacement are fresh samples of size n.
    Draws with replacement (fadtk) come from the empirical distribution of y, so that their limit is the FAD of y
    itself and not that of an infinite set: use them for parity with published numbers only.

    Parameters
    ----------
    x, y : array_like [shape=(N, D) or (N, W, D)]
        reference and generated embeddings; windows are drawn singly. Of the reference a `Gaussian` will do
    seed : int
    steps : int >= 3
        number of sizes
    min_n : int, optional
        smallest size, by default a quarter of y
    replace : bool
        draw with replacement

    Returns
    -------
    FadInfinity
        the score may be slightly negative
    """
    y = checked("y", y, ndims=(2, 3))
    y = y.reshape(-1, y.shape[-1])
    sizes = np.linspace(len(y) // 4 if min_n is None else min_n, len(y), steps).astype(int)
    if steps < 3 or sizes[0] < 2 or len(set(sizes)) < 3:
        raise ValueError(f"min_n={min_n}, steps={steps} give sizes {sizes.tolist()}; at least 3 must differ, all >= 2")
    rng = np.random.RandomState(seed)
    points = np.array([fad(x, y[rng.choice(len(y), n, replace=replace)]) for n in sizes])
    slope, score = np.polyfit(1 / sizes, points, 1)
    residual = np.sum((points - score - slope / sizes) ** 2)
    spread = np.sum((points - points.mean()) ** 2)
    r2 = float(1 - residual / spread) if spread > 0 else 1.0
    return FadInfinity(float(score), float(slope), r2, tuple(zip(sizes.tolist(), points.tolist())))


def cosine_similarities(audio: ArrayLike, text: ArrayLike) -> np.ndarray:
    """Cosine similarity of each pair of rows (N, D), (N, D) -> (N,); embeddings need not be of unit length."""
    audio, text = checked_pair(("audio", "text"), audio, text)
    norms = np.linalg.norm(audio, axis=1) * np.linalg.norm(text, axis=1)
    if not np.isfinite(norms).all():
        raise ValueError(f"pair {int(np.argmax(norms))} is too long for a cosine; look at its audio and caption")
    if not norms.all():
        raise ValueError(f"pair {int(np.argmin(norms))} has an embedding of length 0; look at its audio and caption")
    return np.sum(audio * text, axis=1) / norms
