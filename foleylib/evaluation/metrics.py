"""The registry of metrics, and scores of classifier outputs and captions: inception score, KL divergence, CLAP score.

Everything is computed in float64. A set needs two clips, and a value that is not finite stops the score: nothing is
skipped. Where clips are paired (KL, CLAP score), row i of both arrays is the same clip: the caller puts them in order.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr, expit, log_softmax, rel_entr, softmax

from foleylib.evaluation.frechet import MeanStd, checked, checked_pair, cosine_similarities

KL_EPS = 1e-6  # added to the generated probabilities before the logarithm (audioldm_eval, metrics/kl.py)


@dataclass(frozen=True)
class Metric:
    """How a metric is shown."""

    label: str
    better: Literal["lower", "higher"]
    digits: int


METRICS = {
    "kad": Metric("KAD", "lower", 1),
    "coverage": Metric("Coverage", "higher", 2),
    "density": Metric("Density", "higher", 2),
    "fad": Metric("FAD", "lower", 3),
    "fad_infinity": Metric("FAD∞", "lower", 2),
    "kernel_distance": Metric("Kernel distance", "lower", 3),
    "fd": Metric("FD", "lower", 1),
    "is": Metric("Inception score", "higher", 2),
    "kl": Metric("KL", "lower", 3),  # of class means (`kl_of_means`)
    "kl_pairs": Metric("KL of pairs", "lower", 2),  # of softmax outputs, which papers quote
    "kl_pairs_sigmoid": Metric("KL of pairs, sigmoid", "lower", 2),
    "clap_score": Metric("CLAP score", "higher", 3),
    "judge_accuracy": Metric("Accuracy", "higher", 2),
    "event_recall": Metric("Event recall", "higher", 2),
    "event_precision": Metric("Event precision", "higher", 2),
    "event_order": Metric("Order", "higher", 2),
    "event_ordered": Metric("Clips with an order", "higher", 0),  # of which two sounds or more are heard
    "nearest_clap": Metric("Nearest neighbour, CLAP", "lower", 3),
    "nearest_mel": Metric("Nearest neighbour, log-mel", "lower", 3),
    "rolloff": Metric("Roll-off (kHz)", "higher", 1),  # below which 99 % of the energy lies
    "rolloff_error": Metric("Roll-off error (kHz)", "lower", 1),  # from that of each clip's partner
    "same_event_clap": Metric("CLAP similarity", "higher", 3),  # of one seed's clips at two rates
    "same_event_envelope": Metric("Correlation of levels", "higher", 2),
    "overall_quality": Metric("Overall quality", "higher", 2),
    "audio_quality": Metric("Audio quality", "higher", 2),
    "class_relevance": Metric("Class relevance", "higher", 2),
}

HEADLINES = {  # metrics that every table of a paper has, with their embedder; those of the judge first
    "kad": "judge",
    "fd": "judge",
    "coverage": "judge",
    "judge_accuracy": "judge",
    "fad": "clap",
    "clap_score": "clap",
}


def checked_probabilities(name: str, values: ArrayLike) -> np.ndarray:
    """Checked rows that are distributions."""
    values = checked(name, values)
    if values.min() < 0 or not np.allclose(values.sum(axis=1), 1, atol=1e-4):
        raise ValueError(f"{name}: rows must be probabilities that sum to 1; take the softmax of the logits first")
    return values


def inception_score(outputs: ArrayLike, *, splits: int, seed: int, from_logits: bool = True) -> MeanStd:
    """Inception score exp(E KL(p(y|x) || p(y))), Salimans et al. (2016), over shuffled splits.

    The value grows with the size of a split, so scores are comparable only at equal n and `splits`.

    Parameters
    ----------
    outputs : array_like [shape=(N, C)]
        logits of softmax classes, or probabilities with `from_logits=False`
    splits : int
        parts of the shuffled set (audioldm_eval: 10); part i has the rows i N // splits to (i + 1) N // splits
    seed : int
        of the shuffle (audioldm_eval: 2020)
    from_logits : bool
        whether `outputs` are logits

    Returns
    -------
    MeanStd
        over splits, mean in [1, C]
    """
    outputs = checked("outputs", outputs)
    most = len(outputs) // 2
    if not 1 <= splits <= most:
        raise ValueError(f"splits={splits}: give 1 to {most}, so that each holds 2 of {len(outputs)} clips")
    p = softmax(outputs, axis=1) if from_logits else checked_probabilities("outputs", outputs)
    p = p[np.random.RandomState(seed).permutation(len(p))]
    bounds = [i * len(p) // splits for i in range(splits + 1)]
    parts = (p[a:b] for a, b in pairwise(bounds))
    scores = [np.exp(rel_entr(q, q.mean(axis=0)).sum(axis=1).mean()) for q in parts]
    return MeanStd(float(np.mean(scores)), float(np.std(scores)))


def kl_divergence(
    target_logits: ArrayLike, generated_logits: ArrayLike, variant: Literal["softmax", "sigmoid"] = "softmax"
) -> float:
    """Mean over paired clips of KL(target || generated) of a classifier's outputs, as audioldm_eval computes it.

    Sum over classes of q (ln q - ln(p + 1e-6)), with q the target's and p the generated clip's outputs. The softmax
    variant is the one papers quote; the sigmoid variant is no divergence between distributions and may be negative.

    Parameters
    ----------
    target_logits, generated_logits : array_like [shape=(N, C)]
        row i of both belongs to the same clip id
    variant : "softmax" or "sigmoid"

    Returns
    -------
    float
        nats; softmax: >= -C 1e-6, the effect of the epsilon
    """
    return float(kl_terms(target_logits, generated_logits, variant).mean())


def kl_terms(target_logits: ArrayLike, generated_logits: ArrayLike, variant: str = "softmax") -> np.ndarray:
    """The KL of each pair [shape=(N,)], of which `kl_divergence` is the mean."""
    target, generated = checked_pair(("target_logits", "generated_logits"), target_logits, generated_logits)
    if variant == "softmax":
        q, log_q = softmax(target, axis=1), log_softmax(target, axis=1)
        p = softmax(generated, axis=1)
        terms = q * (log_q - np.log(p + KL_EPS))
    elif variant == "sigmoid":
        q, p = expit(target), expit(generated)
        terms = -entr(q) - q * np.log(p + KL_EPS)
    else:
        raise ValueError(f"variant={variant!r}: give 'softmax' or 'sigmoid'")
    return terms.sum(axis=1)


def kl_of_means(target_probs: ArrayLike, generated_probs: ArrayLike) -> float:
    """KL(mean target || mean generated) of class posteriors, for sets that are not paired one to one.

    Convention: one call per condition (class), with all its reference and all its generated clips; q and p are the
    means of their posteriors, and the sum over outputs of q (ln q - ln(p + 1e-6)) keeps the epsilon of
    `kl_divergence`; a table averages the calls over conditions. By convexity it is at most the mean of any paired
    KL of the same clips, so the two never share a column.

    Parameters
    ----------
    target_probs : array_like [shape=(N, C)]
        rows sum to 1
    generated_probs : array_like [shape=(M, C)]

    Returns
    -------
    float
        nats, >= -C 1e-6
    """
    target = checked_probabilities("target_probs", target_probs)
    generated = checked_probabilities("generated_probs", generated_probs)
    if target.shape[1] != generated.shape[1]:
        raise ValueError(f"{target.shape[1]} target and {generated.shape[1]} generated classes; use one classifier")
    q, p = target.mean(axis=0), generated.mean(axis=0)
    return float(np.sum(-entr(q) - q * np.log(p + KL_EPS)))


def clap_score(audio: ArrayLike, text: ArrayLike) -> float:
    """CLAP score: mean cosine similarity of clips and their captions, in [-1, 1], neither clipped nor times 100.

    Parameters
    ----------
    audio, text : array_like [shape=(N, D)]
        CLAP embeddings; row i of both belongs to the same clip id
    """
    return float(cosine_similarities(audio, text).mean())
