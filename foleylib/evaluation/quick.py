"""Scores without intervals, for sweeps that train models: an edit of metrics.py or statistics.py does not rerun them."""

from collections.abc import Sequence

import numpy as np

from foleylib.evaluation.distribution import density_coverage, kad
from foleylib.evaluation.embeddings import Embeddings
from foleylib.evaluation.frechet import cosine_similarities, fad


def quick(reference: Embeddings, generated: Embeddings, judge_labels: Sequence[str]) -> dict[str, float]:
    """KAD, coverage, FD (on the judge) and FAD (on CLAP), means over classes; judge accuracy and CLAP score.

    Without classes they are of the whole set, and there is no accuracy.
    """

    def frechet(embedder: str) -> float:
        real = {label: reference.only(label)[embedder] for label in dict.fromkeys(generated.labels)}
        return average_fad(real, generated.labels, generated[embedder])

    scores = kad_and_coverage(reference, generated, "judge") | {"fd": frechet("judge"), "fad": frechet("clap")}
    if generated.has_classes:
        scores["judge_accuracy"] = float(judge_hits(generated, judge_labels).mean())
    return scores | {"clap_score": float(cosine_similarities(generated["clap"], generated["text"]).mean())}


def kad_and_coverage(reference: Embeddings, generated: Embeddings, embedder: str) -> dict[str, float]:
    """Both class by class on the embeddings of a network ("judge", "clap"), then the mean."""
    pairs = [(reference.only(c)[embedder], generated.only(c)[embedder]) for c in _classes(generated.labels)]
    coverage = [density_coverage(x, y).coverage for x, y in pairs]
    return {"kad": float(np.mean([kad(x, y) for x, y in pairs])), "coverage": float(np.mean(coverage))}


def average_fad(reference: dict[str, np.ndarray], labels: np.ndarray, embeddings: np.ndarray) -> float:
    """The papers' average: Fréchet distance class by class, then the mean; on CLAP embeddings it is called FAD.

    Parameters
    ----------
    reference : label -> embeddings of the reference clips [shape=(M, D)]
    labels, embeddings : classes [shape=(N,)] and embeddings [shape=(N, D)] of the generated clips
    """
    classes = _classes(labels)
    if lacking := [label for label in classes if label not in reference or not len(reference[label])]:
        raise ValueError(f"the reference has no clips of class {', '.join(lacking)}: add some, or leave the class out")
    return float(np.mean([fad(reference[label], embeddings[labels == label]) for label in classes]))


def _classes(labels: Sequence[str]) -> list[str]:
    """Each class once; a mean over none would be NaN."""
    if not len(labels):
        raise ValueError("there are no generated clips: give at least 2 of every class")
    return list(dict.fromkeys(labels))


def judge_hits(clips: Embeddings, judge_labels: Sequence[str]) -> np.ndarray:
    """Whether the judge assigns each clip to its own class [shape=(N,), bool]."""
    index = {label: i for i, label in enumerate(judge_labels)}
    if unknown := sorted(set(clips.labels) - set(index)):
        raise ValueError(f"classes {', '.join(map(repr, unknown))} are none of the judge's: {', '.join(judge_labels)}")
    if not np.isfinite(clips["logits"]).all():
        raise ValueError("the judge's logits are not finite; look at the clips they are of")
    return clips["logits"].argmax(1) == np.array([index[label] for label in clips.labels])
