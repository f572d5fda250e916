"""Scores of a set of clips of which each has a partner among the reference, by every network that has embedded them.

They are over the whole set, as audioldm_eval has them, and have no intervals: seeds or draws are compared instead.
"""

from collections.abc import Sequence

from foleylib.evaluation.distribution import density_coverage, kad
from foleylib.evaluation.embeddings import Embeddings
from foleylib.evaluation.frechet import fad
from foleylib.evaluation.metrics import clap_score, inception_score, kl_divergence
from foleylib.evaluation.quick import judge_hits

FAD_ON = ("clap", "fad_16k", "fad_dcase")  # embedders whose Frechet distance is called FAD; that of others is FD


def paired_scores(
    reference: Embeddings,
    partners: Embeddings,
    generated: Embeddings,
    *,
    splits: int,
    seed: int,
    judge_labels: Sequence[str] = (),
) -> list[dict]:
    """Every metric that the embeddings allow.

    Parameters
    ----------
    reference : clips that the set is compared with as a whole (KAD, Frechet distances, coverage, density)
    partners : the clip that belongs to each generated one, in the same order (KL of softmax outputs)
    splits : of the inception score, shuffled by `seed`; fewer where a split would hold less than ten clips
    judge_labels : with them, the judge's accuracy, if it knows all classes

    Returns
    -------
    list of {metric, embedder, value}
    """
    rows = []

    def add(embedder: str, **values: float) -> None:
        rows.extend({"metric": name, "embedder": embedder, "value": float(value)} for name, value in values.items())

    for embedder in embedders_of(generated):
        x, y = reference[embedder], generated[embedder]
        add(embedder, **{"fad" if embedder in FAD_ON else "fd": fad(x, y), "kad": kad(x, y)})
        add(embedder, **density_coverage(x, y)._asdict())
    for name in logits_of(generated):
        parts = max(1, min(splits, len(generated) // 10))
        inception = inception_score(generated[name], splits=parts, seed=seed).mean
        embedder = name.removesuffix("logits").removesuffix(".") or "judge"
        add(embedder, **{"is": inception, "kl": kl_divergence(partners[name], generated[name])})
    add("clap", clap_score=clap_score(generated["clap"], generated["text"]))
    if set(generated.labels) <= set(judge_labels):
        add("judge", judge_accuracy=judge_hits(generated, judge_labels).mean())
    return rows


def embedders_of(clips: Embeddings) -> list[str]:
    """The networks that have embedded the clips."""
    return [name for name in clips.arrays if name != "text" and not name.endswith("logits")]


def logits_of(clips: Embeddings) -> list[str]:
    """The arrays that are a classifier's logits: "logits" of the judge, "NAME.logits" of others."""
    return [name for name in clips.arrays if name.endswith("logits")]
