"""One evaluator for every table: the scores of a run's clips against the test set, each with interval and protocol card."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from foleylib.evaluation.comparable import comparable, facts_of, read, refuse_unlike
from foleylib.evaluation.compared import PAIRS, Compared, all_metrics, conventions
from foleylib.evaluation.embeddings import Embeddings
from foleylib.evaluation.metrics import HEADLINES
from foleylib.evaluation.quick import judge_hits
from foleylib.evaluation.statistics import Interval, group_rows, wilson
from foleylib.params.runs import Evaluate
from foleylib.runtime import write_json

COLUMNS = [
    *("paper", "table", "run", "class", "metric", "embedder", "value", "low", "high", "n", "seed"),
    *("published", "comparable", "protocol"),
]

BOTH = ("judge", "clap")  # embedders
NUMBERS = ("value", "low", "high", "sd")  # of an `Interval`


def score(
    reference: Embeddings,
    generated: Embeddings,
    *,
    judge_labels: Sequence[str],
    settings: Evaluate,
    paired: bool = False,
) -> list[dict]:
    """Every metric for the whole set ("all"), each class, and the mean over classes ("average").

    KAD and coverage are on both embedders, density on the judge's; FAD is the Frechet distance of CLAP embeddings, FD
    that of the judge's embeddings (in the papers VGGish and PANNs). IS and KL are of the judge's posteriors, KL between
    the mean posteriors of a class (prompts, not clips, are paired). Further evaluators have all metrics that suit them
    (`compared.all_metrics`), after these.
    Clips are `paired` by id, decided for the whole set at once, where the caller knows that ids mean that, and always
    without classes.
    Intervals are bootstraps over the run's clips, drawn class by class as they were made, with the reference held fixed;
    those of accuracies are Wilson's. Where no clip has a class, only the whole set is scored, with KL between each clip
    and the one of its id and without the judge's accuracy, and "average" repeats it.

    Returns
    -------
    list of {class, metric, embedder, value, low, high, sd, n}
    """
    paired = (paired or not generated.has_classes) and reference.partners(generated) is not None
    options = {"paired": paired, "judge_labels": judge_labels, "settings": settings}
    if not generated.has_classes:
        whole = _rows("all", reference, generated, **options)
        return whole + [{**row, "class": "average"} for row in whole if row["metric"] != "is"]
    present = set(generated.labels)
    if unknown := present - set(judge_labels):
        raise ValueError(f"classes {sorted(unknown)} are none of the judge's: {', '.join(judge_labels)}")
    for side, clips in (("generated", generated), ("reference", reference)):
        if few := [label for label in judge_labels if label in present and (clips.labels == label).sum() < 2]:
            raise ValueError(f"class {', '.join(few)} has fewer than 2 {side} clips, and a score needs 2: add to it")
    whole = _rows("all", reference, generated, **options)
    by_class = [
        _rows(label, reference.only(label), generated.only(label), **options)
        for label in judge_labels
        if label in present
    ]
    averages = over_classes(by_class, settings.level)
    # KL of the whole set is the mean over its prompts.
    kl = [{**row, "class": "all"} for row in averages if row["metric"] == "kl"]
    return [*whole, *chain.from_iterable(by_class), *averages, *kl]


def _rows(
    name: str,
    reference: Embeddings,
    generated: Embeddings,
    *,
    paired: bool,
    judge_labels: Sequence[str],
    settings: Evaluate,
) -> list[dict]:
    """The scores of one class, or of all clips."""
    groups = group_rows(generated.labels)
    names = (*BOTH, *generated.further)
    of = {e: Compared(reference.by(e), generated.by(e), groups, settings) for e in names}
    table = [
        *(("kad", embedder, of[embedder].kad()) for embedder in BOTH),
        *(("coverage", embedder, of[embedder].coverage()) for embedder in BOTH),
        ("density", "judge", of["judge"].density()),
        ("fad", "clap", of["clap"].frechet()),
        ("fd", "judge", of["judge"].frechet()),
        ("clap_score", "clap", of["clap"].clap_score()),
    ]
    if generated.has_classes:
        hits = judge_hits(generated, judge_labels)
        table.append(("judge_accuracy", "judge", wilson(float(hits.mean()), len(hits), level=settings.level)))
    if name == "all":
        table.append(("is", "judge", of["judge"].inception()))
    else:
        table.append(("kl", "judge", of["judge"].kl_of_means()))
    partners = reference.partners(generated) if paired else None
    if paired and not generated.has_classes:
        table.append(("kl_pairs", "judge", of["judge"].kl_of_pairs(partners, "softmax")))
    for further in generated.further:
        metrics = all_metrics(of[further], whole=name == "all", partners=partners)
        table += [(metric, further, interval) for metric, interval in metrics]
    return [
        {"class": name, "metric": metric, "embedder": embedder, **dict(zip(NUMBERS, interval)), "n": len(generated)}
        for metric, embedder, interval in table
    ]


def over_classes(by_class: list[list[dict]], level: float) -> list[dict]:
    """Mean over classes; classes are independent, so its standard error is sqrt(sum sd^2) / C (normal interval; that of
    an accuracy is Wilson's, of as many clips as a mean over classes of unequal size is worth)."""
    averages, z = [], norm.ppf((1 + level) / 2)
    for rows in zip(*by_class, strict=True):
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
    evaluators: dict[str, dict[str, str]],
    paired: bool,
    rate: int,
    device: str,
    settings: Evaluate,
) -> dict:
    """The protocol card: what a number depends on. The commit is that of dvc.lock's stage and not stored here.

    `clips` (manifests of the clips scored) and `models` (SHA-256 of each part) are by training seed; `reference` is the
    SHA-256 of the reference clips, `evaluators` what `embeddings.described` says, `paired` whether the clips have partners.
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
        "evaluators": evaluators,
        "resampler": "soxr HQ",
        "conventions": conventions(settings, min(map(len, clips.values()))),
        "pairs": PAIRS[paired],
        "interval": f"bootstrap over generated clips by class, {settings.bootstrap} draws, level {settings.level}; "
        "Wilson's for accuracies",
    }


def _digest(ids: pd.Series) -> str:
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def save(path: Path, card: dict, scores: list[dict]) -> None:
    """Write results/evaluate/RUN.json: the headline numbers, the card and every score."""
    keys = ("class", "metric", "embedder", "value", "low", "high", "n", "seed")
    rows = [{key: _written(row[key]) for key in keys} for row in scores]
    write_json(path, {"headline": headline_of(scores), "card": card, "scores": rows})


def _written(value):
    """A value for JSON, which knows no NaN: a bound that a score does not have is null."""
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 6)
    return value


def headlines(summary: pd.DataFrame) -> pd.DataFrame:
    """The headline metrics of every run, means over classes and training seeds, of what `summarise` returns.

    Returns
    -------
    DataFrame [run, and a column for each of `HEADLINES` that the summary has]
    """
    rows = summary[summary["class"] == "average"].drop_duplicates(["run", "metric", "embedder", "seed"])
    rows = rows[[HEADLINES.get(metric) == embedder for metric, embedder in zip(rows.metric, rows.embedder)]]
    means = rows.groupby(["run", "metric"], sort=False).value.mean().unstack()
    return means.reindex(columns=[name for name in HEADLINES if name in means]).reset_index().rename_axis(columns=None)


def save_headlines(table: pd.DataFrame, baseline: str, runs: Sequence[str], file: Path) -> None:
    """Write the few numbers that `dvc exp show`, `dvc metrics show` and the diffs print, {run: {metric: value}}: all of the
    baseline's in a table of `headlines`, and the first metric of each of `runs`."""
    numbers = table.set_index("run").round(4)
    told = {baseline: numbers.loc[baseline].dropna().to_dict()}
    first = numbers.columns[0]
    told |= {run: {first: numbers.loc[run, first]} for run in runs if run != baseline}
    write_json(file, told)


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


def summarise(
    files: list[Path], tables: dict[str, list[str]], published: pd.DataFrame, protocols: pd.DataFrame, root: Path
) -> pd.DataFrame:
    """Every number of every run in one flat table with the published number beside it where a table has one.

    A number is comparable where its card and what is known of the published one agree (`comparable`).

    Parameters
    ----------
    files : results/evaluate/*.json and the like, in the order of the runs; named as seen from `root`
    tables : run -> rows of published tables it answers to, as paper:table:row; a run of two tables has its rows twice
    published : DataFrame [paper, table, row, class, metric, value]
    protocols : DataFrame [paper, table, metric, and `comparable.FACTS`], texts, "" what is not known
    """
    columns = published[["paper", "table", "row", "class", "metric", "value"]].astype({"table": str})
    numbers = {tuple(key): value for *key, value in columns.itertuples(index=False)}
    known = {(row["paper"], row["table"], row["metric"]): row for row in protocols.to_dict("records")}
    rows, contents = [], {file: read(file) for file in files}
    refuse_unlike({file.relative_to(root).as_posix(): content["card"] for file, content in contents.items()})
    for file, content in contents.items():
        run = content["card"]["run"]
        if run not in tables:
            raise ValueError(f"{file} scores the run '{run}', which params.yaml no longer has; delete the file")
        for published_row in tables[run] or ["::"]:
            paper, table, row = published_row.split(":")
            for scored in content["scores"]:
                number = numbers.get((paper, table, row, scored["class"], scored["metric"]))
                rows.append({"paper": paper, "table": table, "run": run, **scored, "published": number})
                protocol = None if number is None else known.get((paper, table, scored["metric"]))
                alike = comparable(facts_of(content["card"], scored), protocol)
                rows[-1] |= {"comparable": alike, "protocol": file.relative_to(root).as_posix()}
    return pd.DataFrame(rows, columns=COLUMNS)
