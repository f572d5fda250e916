"""Scores of a set of clips of which each has a partner among the reference, by every network that has embedded them.

They are over the whole set, the inception score in one split, and have no intervals: seeds or draws are compared instead.
"""

from collections.abc import Sequence

from foleylib.evaluation.distribution import density_coverage, kad
from foleylib.evaluation.embeddings import Embeddings
from foleylib.evaluation.frechet import fad
from foleylib.evaluation.metrics import clap_score, inception_score, kl_divergence
from foleylib.evaluation.quick import judge_hits


def paired_scores(
    reference: Embeddings,
    partners: Embeddings,
    generated: Embeddings,
    *,
    judge_labels: Sequence[str] = (),
) -> list[dict]:
    """Every metric that the embeddings allow. The Frechet distance is called "fd" on a classifier, "fad" on others.

    Parameters
    ----------
    reference : clips that the set is compared with as a whole (KAD, Frechet distances, coverage, density)
    partners : the clip that belongs to each generated one, in the same order (KL of softmax outputs)
    judge_labels : with them, the judge's accuracy, if it knows all classes

    Returns
    -------
    list of {metric, embedder, value}
    """
    if len(partners) != len(generated):
        raise ValueError(
            f"{len(partners)} partners of {len(generated)} clips: give the one that belongs to each, in the same order"
        )
    rows = []

    def add(embedder: str, **values: float) -> None:
        rows.extend({"metric": name, "embedder": embedder, "value": float(value)} for name, value in values.items())

    for name in ("judge", "clap", *generated.further):
        x, y = reference.by(name), generated.by(name)
        add(name, **{"fad" if y.logits is None else "fd": fad(x.windows, y.windows), "kad": kad(x.points, y.points)})
        add(name, **density_coverage(x.points, y.points)._asdict())
        if y.logits is not None:
            inception = inception_score(y.logits, splits=1, seed=0).mean  # one split needs no shuffle
            add(name, **{"is": inception, "kl_pairs": kl_divergence(partners.by(name).logits, y.logits)})
        if y.text is not None:
            add(name, clap_score=clap_score(y.points, y.text))
    if set(generated.labels) <= set(judge_labels):
        add("judge", judge_accuracy=judge_hits(generated, judge_labels).mean())
    return rows
