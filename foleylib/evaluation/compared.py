"""A set of clips beside a reference on the embeddings of one evaluator: every metric that suits it, with its interval.

Intervals are bootstraps over the generated clips, drawn class by class, with the reference held fixed. Frechet distances
pool the windows of all clips, as published; in kernel distances, density and coverage a clip is one point, the mean of
its windows.
"""

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Protocol

import numpy as np
from scipy.special import softmax

from foleylib.evaluation.distribution import NEIGHBOURS, Kad, Mmd, kernel_distance, neighbours, polynomial, reached
from foleylib.evaluation.embeddings import Evaluated
from foleylib.evaluation.frechet import Gaussian, cosine_similarities, fad_infinity
from foleylib.evaluation.metrics import inception_score, kl_of_means, kl_terms
from foleylib.evaluation.statistics import Interval, bootstrap_interval, frechet_bootstrap, pool

NO_INTERVAL = (float("nan"),) * 3
SUBSET = 100  # clips in a subset of the kernel distance, or all of a smaller set
LEAST_OF_INFINITY = 8  # rows from which FAD-infinity has three sizes to extrapolate from
OF_REFERENCE = ("kad", "coverage", "density", "kernel_distance")  # need the reference's own clips
PAIRS = {True: "by id: kl_pairs", False: "not paired: kl, of mean posteriors"}


class Settings(Protocol):
    """What `params.runs.Evaluate` and `folders.Options` share."""

    seed: int
    bootstrap: int
    level: float
    splits: int


class Compared:
    """Generated clips beside a reference, of which stored statistics will do; `groups` are the rows of each class."""

    def __init__(
        self,
        reference: Evaluated | Gaussian,
        generated: Evaluated,
        groups: Mapping[str, np.ndarray],
        settings: Settings,
    ):
        self.reference, self.generated, self.groups, self.settings = reference, generated, groups, settings
        self.options = {"seed": settings.seed, "n_boot": settings.bootstrap, "level": settings.level}

    def over_clips(self, statistic: Callable[[np.ndarray], float], *, recentre: bool = False) -> Interval:
        """Interval of `statistic(rows)` over the generated clips."""
        return bootstrap_interval(self.groups, statistic, recentre=recentre, **self.options)

    def frechet(self) -> Interval:
        """FAD, which on a classifier of sounds is called FD."""
        reference = self.reference if isinstance(self.reference, Gaussian) else self.reference.windows
        fixed = {"fixed_reference": True, "groups": self.groups}
        return frechet_bootstrap(reference, self.generated.windows, **fixed, **self.options)

    def fad_infinity(self) -> Interval:
        """FAD extrapolated to an infinite set, without an interval: a draw would cost 25 distances."""
        reference = self.reference if isinstance(self.reference, Gaussian) else pool(self.reference.windows)[0]
        found = fad_infinity(reference, pool(self.generated.windows)[0], seed=self.settings.seed)
        return Interval(found.score, *NO_INTERVAL)

    def kad(self) -> Interval:
        return self.over_clips(Kad(self.reference.points, self.generated.points), recentre=True)

    def kernel_distance(self) -> Interval:
        """KID, the mean over seeded subsets; its interval has the spread of the distance of all clips."""
        x, y = (np.asarray(clips.points, dtype=np.float64) for clips in (self.reference, self.generated))
        size = min(SUBSET, len(x), len(y))
        value = kernel_distance(x, y, seed=self.settings.seed, subset_size=size).mean
        whole = self.over_clips(Mmd(x, y, polynomial), recentre=True)
        moved = value - whole.estimate
        return Interval(value, whole.low + moved, whole.high + moved, whole.sd)

    @cached_property
    def inside(self) -> np.ndarray:
        """Which generated clips lie in the ball of each reference clip (N, M)."""
        return reached(self.reference.points, self.generated.points)

    def coverage(self) -> Interval:
        return self.over_clips(lambda rows: self.inside[:, rows].any(axis=1).mean(), recentre=True)

    def density(self) -> Interval:
        balls = self.inside.sum(axis=0) / neighbours(self.reference.points)  # (M,)
        return self.over_clips(lambda rows: balls[rows].mean())

    def inception(self) -> Interval:
        logits, splits = self.generated.logits, min(self.settings.splits, len(self.generated) // 2)
        score = partial(inception_score, splits=splits, seed=self.settings.seed)
        return self.over_clips(lambda rows: score(logits[rows]).mean, recentre=True)

    def kl_of_means(self) -> Interval:
        """KL between the mean posteriors of both sets, which should be of one class."""
        sets = (self.reference, self.generated)
        q, p = (softmax(np.asarray(clips.logits, dtype=np.float64), axis=1) for clips in sets)
        return self.over_clips(lambda rows: kl_of_means(q, p[rows]), recentre=True)

    def kl_of_pairs(self, partners: np.ndarray, variant: str) -> Interval:
        """Mean KL of each generated clip to its partner, whose row of the reference `partners` (M,) names."""
        terms = kl_terms(self.reference.logits[partners], self.generated.logits, variant)
        return self.over_clips(lambda rows: terms[rows].mean())

    def clap_score(self) -> Interval:
        cosine = cosine_similarities(self.generated.points, self.generated.text)
        return self.over_clips(lambda rows: cosine[rows].mean())


def all_metrics(compared: Compared, *, whole: bool, partners: np.ndarray | None = None) -> list[tuple[str, Interval]]:
    """Every metric that suits an evaluator and what is at hand, by name.

    `whole` says that the clips are a whole set, not those of one class; `partners` (M,) are the rows of the reference
    with the ids of the generated clips, where there are such. The Frechet distance is called "fd" on a classifier, "fad"
    on others. KL is "kl_pairs" and "kl_pairs_sigmoid" of pairs; without pairs it is "kl" of mean posteriors, of a class.
    """
    reference, generated, table = compared.reference, compared.generated, []
    clips, classifier = not isinstance(reference, Gaussian), generated.logits is not None
    if clips:
        table += [(metric, getattr(compared, metric)()) for metric in OF_REFERENCE]
    table.append(("fd" if classifier else "fad", compared.frechet()))
    if whole and len(pool(generated.windows)[0]) >= LEAST_OF_INFINITY:
        table.append(("fad_infinity", compared.fad_infinity()))
    if whole and classifier:
        table.append(("is", compared.inception()))
    if classifier and clips and partners is not None:
        table.append(("kl_pairs", compared.kl_of_pairs(partners, "softmax")))
        table.append(("kl_pairs_sigmoid", compared.kl_of_pairs(partners, "sigmoid")))
    elif classifier and clips and not whole:
        table.append(("kl", compared.kl_of_means()))
    if generated.text is not None:
        table.append(("clap_score", compared.clap_score()))
    return table


def conventions(settings: Settings, n: int) -> dict[str, str]:
    """How metrics are taken that are taken in several ways: for cards, and to tell whether published numbers compare; `n` clips."""
    points = "clips are the means of their windows"
    return {
        "kad": f"Gaussian kernel, bandwidth the median distance of two reference clips, times 100; {points}",
        "coverage": f"{NEIGHBOURS} nearest neighbours; {points}",
        "density": f"{NEIGHBOURS} nearest neighbours; {points}",
        "kernel_distance": f"100 subsets of {SUBSET} clips or of all, seed {settings.seed}; {points}",
        "fad_infinity": f"25 sizes from a quarter of the rows, drawn without replacement, seed {settings.seed}",
        "is": f"{min(settings.splits, n // 2)} splits, seed {settings.seed}",
        "kl": "mean posteriors of each class",
        "kl_pairs": "softmax of pairs",
        "kl_pairs_sigmoid": "sigmoid of pairs",
    }
