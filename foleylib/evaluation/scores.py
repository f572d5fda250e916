"""One evaluator for every table: the scores of a run's clips against the test set, each with interval and protocol card."""

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax
from scipy.stats import norm

from foleylib.evaluation.distribution import NEIGHBOURS, Kad, neighbours, reached
from foleylib.evaluation.embeddings import Embeddings
from foleylib.evaluation.frechet import cosine_similarities
from foleylib.evaluation.metrics import inception_score, kl_of_means
from foleylib.evaluation.quick import judge_hits
from foleylib.evaluation.statistics import Interval, bootstrap_interval, frechet_bootstrap, group_rows, wilson
from foleylib.params.runs import Evaluate
from foleylib.runtime import write_json

COLUMNS = [
    *("paper", "table", "run", "class", "metric", "embedder", "value", "low", "high", "n", "seed"),
    *("published", "comparable", "protocol"),
]

BOTH = ("judge", "clap")  # embedders
NUMBERS = ("value", "low", "high", "sd")  # of an `Interval`


def score(
    reference: Embeddings, generated: Embeddings, *, judge_labels: Sequence[str], settings: Evaluate
) -> list[dict]:
    """Every metric for the whole set ("all"), each class, and the mean over classes ("average").

    KAD and coverage are on both embedders, density on the judge's; FAD is the Frechet distance of CLAP embeddings, FD
    that of the judge's embeddings (in the papers VGGish and PANNs). IS and KL are of the judge's posteriors, KL between
    the mean posteriors of a class (prompts, not clips, are paired).
    Intervals are bootstraps over the run's clips, drawn class by class as they were made, with the reference held fixed;
    those of accuracies are Wilson's. Where no clip has a class, only the whole set is scored, without KL and without the
    judge's accuracy, and "average" repeats it.

    Returns
    -------
    list of {class, metric, embedder, value, low, high, sd, n}
    """
    if not generated.has_classes:
        whole = _rows("all", reference, generated, judge_labels, settings)
        return whole + [{**row, "class": "average"} for row in whole if row["metric"] != "is"]
    present = set(generated.labels)
    if unknown := present - set(judge_labels):
        raise ValueError(f"classes {sorted(unknown)} are none of the judge's: {', '.join(judge_labels)}")
    whole = _rows("all", reference, generated, judge_labels, settings)
    by_class = [
        _rows(label, reference.only(label), generated.only(label), judge_labels, settings)
        for label in judge_labels
        if label in present
    ]
    averages = _averages(by_class, settings.level)
    # KL of the whole set is the mean over its prompts.
    kl = [{**row, "class": "all"} for row in averages if row["metric"] == "kl"]
    return [*whole, *chain.from_iterable(by_class), *averages, *kl]


def _rows(
    name: str, reference: Embeddings, generated: Embeddings, judge_labels: Sequence[str], settings: Evaluate
) -> list[dict]:
    """The scores of one class, or of all clips."""
    groups = group_rows(generated.labels)
    options = {"seed": settings.seed, "n_boot": settings.bootstrap, "level": settings.level}

    def frechet(embedder: str) -> Interval:
        fixed = {"fixed_reference": True, "groups": groups}
        return frechet_bootstrap(reference[embedder], generated[embedder], **fixed, **options)

    def over_clips(statistic: Callable[[np.ndarray], float], *, recentre: bool = False) -> Interval:
        return bootstrap_interval(groups, statistic, recentre=recentre, **options)

    def covered(embedder: str) -> Interval:
        inside = reached(reference[embedder], generated[embedder])
        return over_clips(lambda rows: inside[:, rows].any(axis=1).mean(), recentre=True)

    balls = reached(reference["judge"], generated["judge"]).sum(axis=0) / neighbours(reference["judge"])  # (M,)
    kads = {embedder: over_clips(Kad(reference[embedder], generated[embedder]), recentre=True) for embedder in BOTH}
    cosine = cosine_similarities(generated["clap"], generated["text"])
    table = [
        *(("kad", embedder, kads[embedder]) for embedder in BOTH),
        *(("coverage", embedder, covered(embedder)) for embedder in BOTH),
        ("density", "judge", over_clips(lambda rows: balls[rows].mean())),
        ("fad", "clap", frechet("clap")),
        ("fd", "judge", frechet("judge")),
        ("clap_score", "clap", over_clips(lambda rows: cosine[rows].mean())),
    ]
    if generated.has_classes:
        hits = judge_hits(generated, judge_labels)
        table.append(("judge_accuracy", "judge", wilson(float(hits.mean()), len(hits), level=settings.level)))
    if name == "all":
        logits, splits = generated["logits"], min(settings.splits, len(generated) // 2)
        inception = partial(inception_score, splits=splits, seed=settings.seed)
        table.append(("is", "judge", over_clips(lambda rows: inception(logits[rows]).mean, recentre=True)))
    else:
        q, p = (softmax(clips["logits"].astype(np.float64), axis=1) for clips in (reference, generated))
        table.append(("kl", "judge", over_clips(lambda rows: kl_of_means(q, p[rows]), recentre=True)))
    return [
        {"class": name, "metric": metric, "embedder": embedder, **dict(zip(NUMBERS, interval)), "n": len(generated)}
        for metric, embedder, interval in table
    ]


def _averages(by_class: list[list[dict]], level: float) -> list[dict]:
    """Mean over classes; classes are independent, so its standard error is sqrt(sum sd^2) / C (normal interval; that of
    an accuracy is Wilson's, of as many clips as a mean over classes of unequal size is worth)."""
    averages, z = [], norm.ppf((1 + level) / 2)
    for rows in zip(*by_class):
        value = float(np.mean([row["value"] for row in rows]))
        sd, n = float(np.sqrt(np.sum([row["sd"] ** 2 for row in rows]))) / len(rows), sum(row["n"] for row in rows)
        interval = Interval(value, value - z * sd, value + z * sd, sd)
        if rows[0]["metric"] == "judge_accuracy":
            worth = len(rows) ** 2 / sum(1 / row["n"] for row in rows)  # n where all classes have as many
            interval = wilson(value, worth, level=level)
        averages.append({**rows[0], "class": "average", **dict(zip(NUMBERS, interval)), "n": n})
    return averages


def card(
    run: str,
    clips: dict[int, pd.DataFrame],
    sampling: dict,
    *,
    models: dict[int, dict[str, str]],
    reference: str,
    embedders: dict[str, str],
    rate: int,
    device: str,
    settings: Evaluate,
) -> dict:
    """The protocol card: what a number depends on. The commit is that of dvc.lock's stage and not stored here.

    `clips` (manifests of the clips scored) and `models` (SHA-256 of each part) are by training seed; `reference` and
    `embedders` are the SHA-256 of the reference clips and of each embedder's weights.
    """
    return {
        "run": run,
        "clips": {seed: _digest(manifest.id) for seed, manifest in clips.items()},
        "n": {seed: len(manifest) for seed, manifest in clips.items()},
        "rate": rate,
        "device": device,
        "sampling": sampling,
        "models_sha256": models,
        "reference_sha256": reference,
        "embedders_sha256": embedders,
        "resampler": "soxr HQ",
        "kad": "Gaussian kernel, bandwidth the median distance of two reference clips, times 100",
        "coverage": f"{NEIGHBOURS} nearest neighbours",
        "fad": "CLAP embeddings",
        "fd": "judge embeddings",
        "kl": "mean posteriors of each class",
        "interval": f"bootstrap over generated clips by class, {settings.bootstrap} draws, level {settings.level}; "
        "Wilson's for accuracies",
        "inception_splits": settings.splits,
    }


def _digest(ids: pd.Series) -> str:
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def save(path: Path, card: dict, scores: list[dict]) -> None:
    """Write results/evaluate/RUN.json: the headline numbers, the card and every score."""
    keys = ("class", "metric", "embedder", "value", "low", "high", "n", "seed")
    rows = [{key: round(v, 6) if isinstance(v := row[key], float) else v for key in keys} for row in scores]
    write_json(path, {"headline": headline_of(scores), "card": card, "scores": rows})


def save_headlines(files: list[Path], out: Path) -> None:
    """The headline numbers alone of what `save` wrote, a file each in `out`: what `dvc metrics show` and `diff` print."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for file in files:
        write_json(out / file.name, json.loads(file.read_text())["headline"])


def headline_of(scores: list[dict]) -> dict[str, float]:
    """The scores of the whole set, and the class averages of KAD, coverage and FAD; each the mean over seeds.

    Of a metric with several embedders it is the first, the judge's.
    """
    values, first = defaultdict(list), {row["metric"]: row["embedder"] for row in reversed(scores)}
    for row in scores:
        if row["embedder"] != first[row["metric"]]:
            continue
        if row["class"] == "all":
            values[row["metric"]].append(row["value"])
        elif row["class"] == "average" and row["metric"] in ("kad", "coverage", "fad"):
            values[f"{row['metric']}_average"].append(row["value"])
    return {name: round(float(np.mean(of_seeds)), 6) for name, of_seeds in values.items()}


def summarise(files: list[Path], tables: dict[str, list[str]], published: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Every number of every run in one flat table with the published number beside it where a table has one.

    Parameters
    ----------
    files : results/evaluate/*.json and the like, in the order of the runs; named as seen from `root`
    tables : run -> rows of published tables it answers to, as paper:table:row; a run of two tables has its rows twice
    published : DataFrame [paper, table, row, class, metric, value]
    """
    columns = published[["paper", "table", "row", "class", "metric", "value"]].astype({"table": str})
    numbers = {tuple(key): value for *key, value in columns.itertuples(index=False)}
    rows = []
    for file in files:
        content = json.loads(file.read_text())
        run = content["card"]["run"]
        if run not in tables:
            raise ValueError(f"{file} scores the run '{run}', which params.yaml no longer has; delete the file")
        for published_row in tables[run] or ["::"]:
            paper, table, row = published_row.split(":")
            for scored in content["scores"]:
                number = numbers.get((paper, table, row, scored["class"], scored["metric"]))
                rows.append({"paper": paper, "table": table, "run": run, **scored, "published": number})
                rows[-1] |= {"comparable": False, "protocol": file.relative_to(root).as_posix()}
    return pd.DataFrame(rows, columns=COLUMNS)
