"""Tables for the reader: our numbers with their intervals, and the papers' beside them.

Conventions
-----------
A summary (results/summary.csv) has one row per score: paper, table, run, class ("all" is the whole set in one score),
metric, embedder, value, low, high, n, seed, published, comparable, protocol. A cell reads `3.21 [2.9, 3.6]` (bootstrap
interval over clips), or `3.21 ± 0.12 (3 seeds)` where a run has several seeds, or "–" without a number. The papers'
average is the mean of the class scores, which is not the score of all clips together.
"""

import os
from pathlib import Path

import numpy as np

PUBLISHED = Path(__file__).with_name("published.csv")  # paper, table, row, class, metric, value
PUBLISHED_TEXT_FOLEY = ("text-driven-foley", "1")
PUBLISHED_LATENT_CLAP = ("latent-clap-loss", "I")
DASH, DAGGER = "–", "†"

CLASSES = {  # column heads
    "DogBark": "Dog bark",
    "Footstep": "Footstep",
    "GunShot": "Gun shot",
    "Keyboard": "Keyboard",
    "MovingMotorVehicle": "Motor vehicle",
    "Rain": "Rain",
    "Sneeze_Cough": "Sneeze, cough",
    "average": "Average",
    "std": "Std.",
    "all": "All clips",
}
SYSTEMS = {  # run -> what the reader sees
    "real": "Real clips",
    "reconstruction": "VAE and vocoder",
    "foundation": "Foundation",
    "scratch": "LDM from scratch",
    "ldm": "LDM",
    "ldm_ddim": "LDM, DDIM",
    "tuning": "LDM + tuning",
    "latent": "LDM + latent CLAP",
    "tuning_latent": "LDM + tuning + latent CLAP",
    "label": "LDM, label as text",
    "large": "Large LDM + tuning",
    "ldm_filter": "LDM, filter",
    "tuning_filter": "LDM + tuning, filter",
    "latent_filter": "LDM + latent CLAP, filter",
    "tuning_latent_filter": "LDM + tuning + latent CLAP, filter",
    "large_filter": "Large LDM + tuning, filter",
}
METRICS = {  # metric -> label, arrow to the better side, digits
    "fad": ("FAD", "↓", 3),
    "fad_dcase": ("FAD (DCASE)", "↓", 2),
    "fad_16k": ("FAD (16 kHz)", "↓", 2),
    "fad_infinity": ("FAD∞", "↓", 2),
    "kernel_distance": ("Kernel distance", "↓", 3),
    "fd": ("FD", "↓", 2),
    "is": ("Inception score", "↑", 2),
    "kl": ("KL divergence", "↓", 3),
    "clap_score": ("CLAP score", "↑", 3),
    "judge_accuracy": ("Judge accuracy", "↑", 3),
    "audio_quality": ("Audio quality", "↑", 2),
    "class_relevance": ("Class relevance", "↑", 2),
}


def metric_label(metric, embedder=None):
    """Label of a metric with the arrow to its better side, "FAD ↓" or "FAD (vggish) ↓"; unknown names as they are."""
    label, arrow, _ = METRICS.get(metric, (str(metric), "", 2))
    return " ".join(filter(None, (label, f"({embedder})" if embedder else "", arrow)))


def select(summary, *, metric, runs, classes=None):
    """Rows of one metric, of the given runs and classes, at most one per run, class and seed.

    Raises
    ------
    ValueError
        if the summary lacks the metric or a run, or a run and class have several scores that differ in something else
        than the seed (embedder, paper, ...), which the caller must choose between
    """
    lacking = [run for run in runs if run not in set(summary.run)]
    if lacking or metric not in set(summary.metric):
        has = f"runs {sorted(set(summary.run))} and metrics {sorted(set(summary.metric))}"
        raise ValueError(f"no scores of runs={lacking}, metric={metric!r}: the summary has {has}")
    rows = summary[(summary.metric == metric) & summary.run.isin(list(runs))]
    rows = rows if classes is None else rows[rows["class"].isin(list(classes))]
    twice = rows[rows.duplicated(["run", "class", "seed"], keep=False)]
    if len(twice):
        first = twice[(twice.run == twice.run.iloc[0]) & (twice["class"] == twice["class"].iloc[0])]
        tell = {c: list(map(str, first[c].unique())) for c in ("paper", "table", "embedder", "protocol")}
        differ = {c: values for c, values in tell.items() if len(values) > 1} or "nothing"
        where = f"run {first.run.iloc[0]!r}, class {first['class'].iloc[0]!r}"
        raise ValueError(f"{metric}: several scores of {where}, which differ in {differ}; filter the summary first")
    return rows


def of_table(summary, paper, table):
    """The rows of a summary for one published table: every run once, with that table's published numbers where it has any."""
    import pandas

    here = summary[(summary.paper == paper) & (summary.table.astype(str) == str(table))]
    others = summary[~summary.run.isin(here.run)]
    others = others[~others.duplicated(["run", "class", "metric", "embedder", "seed"])].assign(published=np.nan)
    return pandas.concat([here, others], ignore_index=True)


def number(value, digits=2):
    """A number of fixed digits, or a dash for NaN."""
    return DASH if value is None or np.isnan(value) else f"{value:.{digits}f}"


def cell(rows, digits=2):
    """Text of the scores of one run and class: one row with its interval, or mean and deviation over seeds."""
    rows = rows[rows.value.notna()]
    if len(rows) > 1:
        return f"{number(rows.value.mean(), digits)} ± {number(rows.value.std(ddof=1), digits)} ({len(rows)} seeds)"
    if not len(rows):
        return DASH
    row = rows.iloc[0]
    if np.isnan(row.low) or np.isnan(row.high):
        return number(row.value, digits)
    return f"{number(row.value, digits)} [{number(row.low, digits)}, {number(row.high, digits)}]"


def _with_spread(rows, classes):
    """Rows of the classes with the mean of the class scores ("average", where the summary has none) and their "std"."""
    import pandas

    rows, made = rows[rows["class"].isin([*classes, "average"])], []
    for (run, seed), group in rows.groupby(["run", "seed"], dropna=False):
        parts = group[group["class"].isin(list(classes))]
        if parts["class"].nunique() != len(classes):
            continue
        values = {"average": parts.value.mean(skipna=False), "std": parts.value.std(ddof=1)}
        made += [
            {"run": run, "seed": seed, "class": name, "value": value, "low": np.nan, "high": np.nan,
             "published": np.nan, "comparable": np.nan}
            for name, value in values.items() if name not in set(group["class"])
        ]  # fmt: skip
    return pandas.concat([rows.astype(object), pandas.DataFrame(made, dtype=object)]) if made else rows


def _published_cell(rows, run, class_, reference, digits):
    """Published number of a run and class, marked where it does not compare with ours."""
    of_run = rows[(rows.run == run) & rows.published.notna()]
    values = of_run[of_run["class"] == class_].published
    value = float(values.iloc[0]) if len(values) else np.nan
    if np.isnan(value) and reference is not None and run in reference.index and class_ in reference.columns:
        value = float(reference.loc[run, class_])
    same = of_run[of_run["class"] == class_].comparable if len(values) else of_run.comparable
    compares = len(same) and same.eq(True).all()
    return DASH if np.isnan(value) else number(value, digits) + ("" if compares else f" {DAGGER}")


def ours_and_published(
    summary, *, metric, runs, classes, digits=2, names=None, average=True, std=False, reference=None
):
    """One row per system, and per class our score with its interval beside the published number.

    Parameters
    ----------
    summary : pandas.DataFrame
        of results/summary.csv
    metric : str
    runs, classes : sequences of str
        rows and columns, in their order
    digits : int >= 0
    names : dict, optional
        run -> what the reader sees, over `SYSTEMS`
    average : bool
        add the papers' average, the mean of the class scores; it has an interval only if the summary holds rows of
        class "average"
    std : bool
        add the sample deviation over classes, as latent-clap-loss prints it
    reference : pandas.DataFrame [index=run, columns=class], optional
        published numbers where the summary has none (the average): `published(...)` with its rows renamed to runs

    Returns
    -------
    pandas.DataFrame of str [columns=(class, "ours" or "published")]
        published numbers that do not compare with ours carry a dagger

    Raises
    ------
    ValueError
        as `select`
    """
    import pandas

    rows = select(summary, metric=metric, runs=runs)
    extra = [name for name, wanted in [("average", average), ("std", std)] if wanted and name not in classes]
    columns = [*classes, *extra]
    rows = _with_spread(rows, [c for c in classes if c not in ("all", "average")]) if extra else rows
    table = {}
    for class_ in columns:
        of_class, head = rows[rows["class"] == class_], CLASSES.get(class_, class_)
        table[head, "ours"] = [cell(of_class[of_class.run == run], digits) for run in runs]
        table[head, "published"] = [_published_cell(rows, run, class_, reference, digits) for run in runs]
    frame = pandas.DataFrame(table, index=_row_heads(runs, names))
    note = f"{DAGGER} not comparable" if any(DAGGER in text for text in frame.to_numpy().ravel()) else ""
    frame.columns.names = [metric_label(metric), note]
    return frame


def metrics_overview(summary, runs, *, class_="all", names=None):
    """One row per run and one column per metric (and embedder, where a metric has several), with intervals.

    Columns come in the order of `METRICS`, then other metrics as the summary has them.
    """
    import pandas

    rows = summary[(summary["class"] == class_) & summary.run.isin(list(runs))]
    present = list(dict.fromkeys(rows.metric))
    table = {}
    for metric in [m for m in METRICS if m in present] + [m for m in present if m not in METRICS]:
        of_metric, digits = rows[rows.metric == metric], METRICS.get(metric, ("", "", 2))[2]
        embedders = list(of_metric.embedder.dropna().unique())
        for embedder in embedders if len(embedders) > 1 else [None]:
            part = select(of_metric if embedder is None else of_metric[of_metric.embedder == embedder],
                          metric=metric, runs=of_metric.run.unique())  # fmt: skip
            table[metric_label(metric, embedder)] = [cell(part[part.run == run], digits) for run in runs]
    return pandas.DataFrame(table, index=_row_heads(runs, names))


def _row_heads(runs, names):
    import pandas

    names = SYSTEMS | (names or {})
    return pandas.Index([names.get(run, run) for run in runs], name="System")


def published(paper, table):
    """A table as its paper prints it, rows and columns in its order.

    Parameters
    ----------
    paper, table : str
        such as "latent-clap-loss" and "I"; see `PUBLISHED_LATENT_CLAP`, `PUBLISHED_TEXT_FOLEY`

    Returns
    -------
    pandas.DataFrame of float64 [index=row, columns=class, or metric where the table has several]
    """
    import pandas

    every = pandas.read_csv(PUBLISHED, dtype={"table": str})
    rows = every[(every.paper == paper) & (every.table == str(table))]
    if rows.empty:
        known = sorted(set(zip(every.paper, every.table)))
        raise ValueError(f"no published table {table!r} of {paper!r}: there are {known}")
    columns = "metric" if rows.metric.nunique() > 1 else "class"
    wide = rows.pivot(index="row", columns=columns, values="value")
    return wide.loc[rows.row.unique(), rows[columns].unique()].astype(np.float64)


def write(frame, path):
    """Write a table as CSV: UTF-8, "\\n" line ends, floats of 6 digits, two-level heads as "class ours"; atomic."""
    import pandas

    path, frame = Path(path), frame.copy()
    if isinstance(frame.columns, pandas.MultiIndex):
        frame.columns = [" ".join(map(str, head)) for head in frame.columns]
    text = frame.to_csv(index=not isinstance(frame.index, pandas.RangeIndex), float_format="%.6g", lineterminator="\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_bytes(text.encode())
    os.replace(path.with_suffix(".tmp"), path)
    return path
