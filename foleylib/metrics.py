"""Scores of generated clips: set distances (from `frechet`), inception score, KL divergence, CLAP score.

Conventions
-----------
Everything is computed in float64 whatever the precision of the input. A set needs at least two clips, and a value
that is not finite stops the score: nothing is skipped. Where clips are paired (KL, CLAP score), row i of both
arrays belongs to the same clip id: to put them in one order by id is the caller's duty.
"""

from itertools import pairwise

import numpy as np
from scipy.special import entr, expit, log_softmax, rel_entr, softmax

from foleylib.frechet import (
    FadInfinity,
    Gaussian,
    MeanStd,
    checked,
    fad,
    fad_infinity,
    frechet_distance,
    gaussian,
    kernel_distance,
)

__all__ = [
    "FadInfinity",
    "Gaussian",
    "MeanStd",
    "clap_score",
    "cosine_similarities",
    "fad",
    "fad_infinity",
    "frechet_distance",
    "gaussian",
    "inception_score",
    "kernel_distance",
    "kl_divergence",
    "kl_of_means",
]

KL_EPS = 1e-6  # added to the generated probabilities before the logarithm (audioldm_eval, metrics/kl.py)


def checked_pair(names, first, second):
    """Two finite float64 arrays of the same shape."""
    first, second = checked(names[0], first), checked(names[1], second)
    if first.shape != second.shape:
        raise ValueError(f"{names[0]} is {first.shape} and {names[1]} {second.shape}; pair the clips by id first")
    return first, second


def checked_probabilities(name, values):
    """Rows that are distributions."""
    values = checked(name, values)
    if values.min() < 0 or not np.allclose(values.sum(axis=1), 1, atol=1e-4):
        raise ValueError(f"{name}: rows must be probabilities that sum to 1; take the softmax of the logits first")
    return values


def inception_score(outputs, *, splits, seed, from_logits=True):
    """Inception score exp(E KL(p(y|x) || p(y))), Salimans et al. (2016), over shuffled splits.

    The value grows with the size of a split, so scores are comparable only at equal n and `splits`.

    Parameters
    ----------
    outputs : np.ndarray [shape=(N, C)]
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

    Raises
    ------
    ValueError
        if a split would hold fewer than 2 clips, or a value is not finite or no probability
    """
    outputs = checked("outputs", outputs)
    if not 1 <= splits <= len(outputs) // 2:
        raise ValueError(
            f"splits={splits}: give 1 to {len(outputs) // 2}, so that each holds 2 of {len(outputs)} clips"
        )
    p = softmax(outputs, axis=1) if from_logits else checked_probabilities("outputs", outputs)
    p = p[np.random.RandomState(seed).permutation(len(p))]
    bounds = [i * len(p) // splits for i in range(splits + 1)]
    parts = (p[a:b] for a, b in pairwise(bounds))
    scores = [np.exp(rel_entr(q, q.mean(axis=0)).sum(axis=1).mean()) for q in parts]
    return MeanStd(float(np.mean(scores)), float(np.std(scores)))


def kl_divergence(target_logits, generated_logits, variant="softmax"):
    """Mean over paired clips of KL(target || generated) of a classifier's outputs, as audioldm_eval computes it.

    Sum over classes of q (ln q - ln(p + 1e-6)), with q the target's and p the generated clip's outputs. The softmax
    variant is the one papers quote; the sigmoid variant is no divergence between distributions and may be negative.

    Parameters
    ----------
    target_logits, generated_logits : np.ndarray [shape=(N, C)]
        row i of both belongs to the same clip id
    variant : "softmax" or "sigmoid"

    Returns
    -------
    float
        nats; softmax: >= -C 1e-6, the effect of the epsilon

    Raises
    ------
    ValueError
        if shapes differ, N < 2, a value is not finite or the variant is unknown
    """
    target, generated = checked_pair(("target_logits", "generated_logits"), target_logits, generated_logits)
    if variant not in ("softmax", "sigmoid"):
        raise ValueError(f"variant={variant!r}: give 'softmax' or 'sigmoid'")
    if variant == "softmax":
        q, log_q = softmax(target, axis=1), log_softmax(target, axis=1)
        p = softmax(generated, axis=1)
        terms = q * (log_q - np.log(p + KL_EPS))
    else:
        q, p = expit(target), expit(generated)
        terms = -entr(q) - q * np.log(p + KL_EPS)
    return float(terms.sum(axis=1).mean())


def kl_of_means(target_probs, generated_probs):
    """KL(mean target || mean generated) of class posteriors, for sets that are not paired one to one.

    Convention: one call per condition (class), with all its reference and all its generated clips; q and p are the
    means of their posteriors, and the sum over outputs of q (ln q - ln(p + 1e-6)) keeps the epsilon of
    `kl_divergence`; a table averages the calls over conditions. By convexity it is at most the mean of any paired
    KL of the same clips, so the two never share a column.

    Parameters
    ----------
    target_probs : np.ndarray [shape=(N, C)]
        rows sum to 1
    generated_probs : np.ndarray [shape=(M, C)]

    Returns
    -------
    float
        nats, >= -C 1e-6

    Raises
    ------
    ValueError
        if rows are no distributions, C differs or a set has fewer than 2 clips
    """
    target = checked_probabilities("target_probs", target_probs)
    generated = checked_probabilities("generated_probs", generated_probs)
    if target.shape[1] != generated.shape[1]:
        raise ValueError(f"{target.shape[1]} target and {generated.shape[1]} generated classes; use one classifier")
    q, p = target.mean(axis=0), generated.mean(axis=0)
    return float(np.sum(-entr(q) - q * np.log(p + KL_EPS)))


def cosine_similarities(audio_emb, text_emb):
    """Cosine similarity of each pair of rows (N, D), (N, D) -> (N,); embeddings need not be of unit length."""
    audio, text = checked_pair(("audio_emb", "text_emb"), audio_emb, text_emb)
    norms = np.linalg.norm(audio, axis=1) * np.linalg.norm(text, axis=1)
    if not norms.all():
        raise ValueError(f"pair {int(np.argmin(norms))} has an embedding of length 0; look at its audio and caption")
    return np.sum(audio * text, axis=1) / norms


def clap_score(audio_emb, text_emb):
    """CLAP score: mean cosine similarity of clips and their captions, in [-1, 1], neither clipped nor times 100.

    Parameters
    ----------
    audio_emb, text_emb : np.ndarray [shape=(N, D)]
        row i of both belongs to the same clip id

    Returns
    -------
    float

    Raises
    ------
    ValueError
        if shapes differ, N < 2, a value is not finite or an embedding is 0
    """
    return float(cosine_similarities(audio_emb, text_emb).mean())
