"""Tables for the reader: settings, and our numbers with their intervals beside the papers'.

A summary (results/summary.csv) has one row per score: paper, table, run, class ("all" is the whole set in one score),
metric, embedder, value, low, high, n, seed, published, comparable, protocol. A table of runs of one seed has intervals
over clips, `3.21 [2.9, 3.6]`; as soon as a run has several seeds, the table has deviations over seeds in their place,
`3.21 ± 0.12`, and none for a run of one seed, for the two do not compare. "–" stands where there is no number. The
papers' average is the mean of the class scores, which is not the score of all clips together.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from pydantic import BaseModel

from foleylib.evaluation.metrics import HEADLINES, METRICS
from foleylib.params.runs import PUBLISHED
from foleylib.report.style import Displays, class_label, metric_label, shown

DASH, SPACE = "–", "\N{NO-BREAK SPACE}"  # a number and its spread stay on one line


def settings(section: BaseModel | dict) -> pd.DataFrame:
    """A section of the settings as a two-column table for the top of a notebook [columns: setting, value]."""
    section = section.model_dump() if isinstance(section, BaseModel) else section
    return pd.DataFrame(_leaves(section, ""), columns=["setting", "value"]).set_index("setting")


def _leaves(node, name: str):
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, str(node)


def made_by(provenance: dict, section: BaseModel) -> pd.DataFrame:
    """The settings behind a part's weights, as `settings` shows them.

    Those of `section` where the part was trained here. Bundled weights were trained elsewhere: their provenance.json
    (which names a commit) tells the settings, and the corpus, seed, device, seconds, held-out scores and commit.
    """
    if "settings" in provenance and "commit" not in provenance:
        return settings(section)
    others = {key: value for key, value in provenance.items() if key not in ("settings", "sha256")}
    return pd.concat([settings(part) for part in (provenance.get("settings"), others) if part])


def select(
    summary: pd.DataFrame, *, metric: str, runs: Iterable[str], classes: Iterable[str] | None = None
) -> pd.DataFrame:
    """Rows of one metric, of the given runs and classes, at most one per run, class and seed.

    Several scores that differ in something else (embedder, paper, ...) are an error: the caller must choose.
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


def of_table(summary: pd.DataFrame, paper: str, table: str) -> pd.DataFrame:
    """Every run of a summary once, with the published numbers of one table where that table has the run."""
    here = summary[(summary.paper == paper) & (summary.table.astype(str) == str(table))]
    others = summary[~summary.run.isin(here.run)]
    others = others[~others.duplicated(["run", "class", "metric", "embedder", "seed"])].assign(published=np.nan)
    return pd.concat([here, others], ignore_index=True)


def number(value: float, metric: str) -> str:
    """A score in the digits of its metric, or a dash for NaN."""
    digits = METRICS[metric].digits if metric in METRICS else 2
    return DASH if np.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}"  # no negative zero


def cell(rows: pd.DataFrame, metric: str, *, by_seed: bool) -> str:
    """Text of the scores of one run and class: with the deviation over seeds where there are several, or without
    `by_seed` with the interval over the clips of the one seed."""
    rows = rows[rows.value.notna()]
    if not len(rows):
        return DASH
    if by_seed or len(rows) > 1:
        mean, spread = number(rows.value.mean(), metric), number(rows.value.std(), metric)
        return mean if len(rows) == 1 else f"{mean}{SPACE}±{SPACE}{spread}"
    value, low, high = (number(x, metric) for x in rows.iloc[0][["value", "low", "high"]])
    return value if DASH in (low, high) else f"{value}{SPACE}[{low},{SPACE}{high}]"


def has_seeds(rows: pd.DataFrame) -> bool:
    """Whether a run of the table has several seeds."""
    return bool((rows.groupby("run").seed.nunique() > 1).any())


def ours_and_published(
    summary: pd.DataFrame,
    *,
    metric: str,
    runs: Sequence[str],
    classes: Sequence[str],
    display: Displays = None,
    average: bool = True,
    std: bool = False,
    reference: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Two lines per run, our scores (means over seeds) and below them the published ones, if any; one column per class.

    `average` adds the papers' average, the mean of the class scores; `std` adds the sample deviation over classes, as
    latent-clap-loss prints it. `reference` [index=run, columns=class] are published
    numbers where the summary has none: `published(...)` with its rows renamed to runs. The head says where published
    numbers do not compare with ours.
    """
    parts = [c for c in classes if c not in ("all", "average")]
    rows = _with_spread(select(summary, metric=metric, runs=runs), parts)
    reference = pd.DataFrame(index=runs) if reference is None else reference.reindex(runs)
    extra = [name for name, wanted in [("average", average), ("std", std)] if wanted and name not in classes]
    columns, names, lines = [*classes, *extra], [], []
    for run in runs:
        of_run = rows[rows.run == run]
        ours = [number(of_run[of_run["class"] == class_].value.mean(), metric) for class_ in columns]
        theirs = [_published(of_run, class_, reference.loc[run]) for class_ in columns]
        names, lines = [*names, shown(run, display).name], [*lines, ours]
        if set(theirs) != {DASH}:
            names, lines = [*names, f"{DASH} published"], [*lines, theirs]
    frame = pd.DataFrame(lines, index=pd.Index(names, name="System"), columns=[class_label(c) for c in columns])
    compares = rows.published.notna().any() and rows[rows.published.notna()].comparable.eq(True).all()
    return frame.rename_axis(columns=metric_label(metric) + ("" if compares else " (published: another scale)"))


def _with_spread(rows: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """The rows with the mean of the class scores ("average") and their "std" of each run and seed that lacks them."""
    scores = rows[rows["class"].isin(classes)].groupby(["run", "seed"], dropna=False).value
    spread = scores.agg(average=lambda values: values.mean(skipna=False), std="std", classes="size")
    spread = spread[spread.classes == len(classes)].drop(columns="classes")
    spread = spread.melt(ignore_index=False, var_name="class").reset_index()
    return pd.concat([rows, spread], ignore_index=True).drop_duplicates(["run", "seed", "class"])


def _published(of_run: pd.DataFrame, class_: str, reference: pd.Series) -> str:
    """Published number of a class as the paper prints it, of the run's own rows or of the reference."""
    known = of_run[of_run.published.notna() & (of_run["class"] == class_)]
    value = known.published.iloc[0] if len(known) else reference.get(class_, np.nan)
    return DASH if np.isnan(value) else f"{value:.2f}"


def by_run(table: dict, runs: Sequence[str], display: Displays) -> pd.DataFrame:
    """Columns as a table with the names of the runs as row heads."""
    return pd.DataFrame(table, index=pd.Index([shown(run, display).name for run in runs], name="System"))


def metrics_overview(
    summary: pd.DataFrame, runs: Sequence[str], *, display: Displays = None, class_: str = "all"
) -> pd.DataFrame:
    """One row per run and one column per metric (and embedder, where a metric has several), with intervals.

    Columns come in the order of `METRICS`, then other metrics as the summary has them.
    """
    rows = summary[(summary["class"] == class_) & summary.run.isin(list(runs))]
    present, table, by_seed = list(dict.fromkeys(rows.metric)), {}, has_seeds(rows)
    for metric in [m for m in METRICS if m in present] + [m for m in present if m not in METRICS]:
        of_metric = rows[rows.metric == metric]
        embedders = list(of_metric.embedder.dropna().unique())
        for embedder in embedders if len(embedders) > 1 else [None]:
            part = of_metric if embedder is None else of_metric[of_metric.embedder == embedder]
            table[metric_label(metric, embedder)] = _column(part, metric, runs, by_seed=by_seed)
    return by_run(table, runs, display)


def headlines(summary: pd.DataFrame, runs: Sequence[str], *, display: Displays = None) -> pd.DataFrame:
    """One row per run, averages over classes of the headline metrics: the judge's, and under their own heading CLAP's,
    the embedding of which also conditions the models and selects among their clips.

    With deviations over seeds; the intervals over clips of a single seed would not fit, and are in the figures."""
    rows, table = summary[(summary["class"] == "average") & summary.run.isin(list(runs))], {}
    for metric, embedder in HEADLINES.items():
        part = rows[(rows.metric == metric) & (rows.embedder == embedder)]
        if part.empty and metric == "judge_accuracy":
            continue  # of clips without classes
        head = {"judge": "independent judge", "clap": "CLAP, which also conditions and selects"}[embedder]
        table[head, metric_label(metric)] = _column(part, metric, runs, by_seed=True)
    return by_run(table, runs, display)


def by_embedder(
    summary: pd.DataFrame, runs: Sequence[str], *, display: Displays = None, class_: str = "average"
) -> pd.DataFrame:
    """One row per run, and under the name of each embedder a column for each of its metrics."""
    rows, table = summary[(summary["class"] == class_) & summary.run.isin(list(runs))], {}
    for (embedder, metric), part in rows.groupby(["embedder", "metric"], sort=False):
        table[embedder, metric_label(metric)] = _column(part, metric, runs, by_seed=has_seeds(rows))
    return by_run(table, runs, display)


def _column(rows: pd.DataFrame, metric: str, runs: Sequence[str], *, by_seed: bool) -> list[str]:
    """The cells of a metric, a run each."""
    rows = select(rows, metric=metric, runs=rows.run.unique())
    return [cell(rows[rows.run == run], metric, by_seed=by_seed) for run in runs]


def of_settings(
    scores: pd.DataFrame, metrics: Mapping[str, str], *, by: Sequence[str], display: Displays = None
) -> pd.DataFrame:
    """A row for each value of the columns `by`, in order of appearance, and a column for each metric (with its embedder):
    mean and deviation over the seeds.

    `scores` have the columns `by`, metric, embedder, value and, where there are several, seed; a dash stands where there
    is no score.
    """
    groups = list(scores.groupby(list(by), sort=False))
    index = pd.MultiIndex.from_tuples([[shown(key, display).name for key in keys] for keys, _ in groups], names=by)
    table = {}
    for metric, embedder in metrics.items():
        parts = [rows[(rows.metric == metric) & (rows.embedder == embedder)] for _, rows in groups]
        table[metric_label(metric)] = [cell(part, metric, by_seed=True) for part in parts]
    return pd.DataFrame(table, index=index)


def noticed(frame: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """The share of damaged clips from which on each score notices (`papers.transfer_pages.noticed`): a row a score, a column
    a damage, "–" where it never does.

    `published` [index=damage, columns=metric] is 1 where the paper says that its metric notices and 0 where it says that
    it does not; its rows come last.
    """
    damages = list(dict.fromkeys(frame.damage))
    wide = frame.pivot(index=["embedder", "metric"], columns="damage", values="share")[damages]
    wide = wide.sort_index(level="embedder", ascending=False, sort_remaining=False)
    lines = {
        (e, METRICS[m].label): [DASH if np.isnan(s) else f"{s:.0%}" for s in row] for (e, m), row in wide.iterrows()
    }
    words = {1.0: "yes", 0.0: "no"}
    for metric, said in published.reindex(damages).items():
        lines["paper", METRICS[metric].label] = [words.get(value, DASH) for value in said]
    index = pd.MultiIndex.from_tuples(lines, names=["on", "score"])
    return pd.DataFrame(
        list(lines.values()), index=index, columns=[class_label(d)[0].upper() + class_label(d)[1:] for d in damages]
    )


def targets(frame: pd.DataFrame, published: pd.Series) -> pd.DataFrame:
    """Table 2 of text-driven-foley from results/targets.csv: KAD and FAD of each row's clips, unselected and selected,
    mean and deviation over seeds, beside the published FAD [index=row]."""
    rows, table = list(dict.fromkeys(frame.row)), {}
    for metric in ("kad", "fad"):
        for selected in (False, True):
            part = frame[frame.selected == selected].rename(columns={metric: "value"})
            texts = [cell(part[part.row == row], metric, by_seed=True) for row in rows]
            table[metric_label(metric), "selected" if selected else "unselected"] = texts
    table[metric_label("fad"), "published"] = [f"{published[row]:.2f}" if row in published else DASH for row in rows]
    return pd.DataFrame(table, index=pd.Index(rows, name="Text"))


def differences(frame: pd.DataFrame, display: Displays = None) -> pd.DataFrame:
    """Paired differences of runs (`evaluation.differences.paired_differences`): a row a pair, a column a metric, and their seeds.

    A star marks a difference whose interval leaves zero out; the intervals are in `plots.differences`.
    """
    clear, table = (frame.low > 0) | (frame.high < 0), {}
    for metric, rows in frame.assign(clear=clear).groupby("metric", sort=False):
        table[metric_label(metric)] = [signed(row.mean, metric) + "*" * row.clear for row in rows.itertuples()]
    pairs = frame[["run", "minus", "seeds"]].drop_duplicates(["run", "minus"])
    names = [f"{shown(row.run, display).name} − {shown(row.minus, display).name}" for row in pairs.itertuples()]
    return pd.DataFrame(table | {"seeds": pairs.seeds.tolist()}, index=pd.Index(names, name="Difference"))


def finding(frame: pd.DataFrame, run: str, minus: str, display: Displays = None) -> str:
    """A sentence (Markdown) on two runs: in which headline metrics the first is better, in which worse, in which neither.

    `frame` are paired differences with their intervals. From fewer than three seeds there is no interval; the sentence
    then says so, and goes by the signs.
    """
    rows = frame[(frame.run == run) & (frame.minus == minus)]
    names = f"**{shown(run, display).name} against {shown(minus, display).name}**"
    if rows["mean"].isna().all():
        return f"{names}: no training seed in common."
    said: dict[str, list[str]] = {"better": [], "worse": [], "not told apart": []}
    for row in rows.itertuples():
        label, alone = METRICS[row.metric].label, np.isnan(row.low)
        good = row.mean < 0 if METRICS[row.metric].better == "lower" else row.mean > 0
        clear = row.mean != 0 if alone else row.low > 0 or row.high < 0
        change = signed(row.mean, row.metric)
        interval = "" if alone else f"{SPACE}[{signed(row.low, row.metric)},{SPACE}{signed(row.high, row.metric)}]"
        said["not told apart" if not clear else "better" if good else "worse"].append(
            f"{label}{SPACE}({change}{interval})"
        )
    seeds = int(rows.seeds.iloc[0])
    how = f"{seeds} training seeds" if seeds >= 3 else "too few training seeds for an interval"
    return f"{names} ({how}): " + "; ".join(f"{word} in {', '.join(what)}" for word, what in said.items() if what) + "."


def signed(value: float, metric: str) -> str:
    """A difference in the digits of its metric, with its sign; a dash for NaN."""
    if np.isnan(value):
        return DASH
    return f"{value:+.{METRICS[metric].digits}f}".replace("-", "−")


def published(paper: str, table: str) -> pd.DataFrame:
    """A table as its paper prints it, rows and columns in its order, such as table "I" of "latent-clap-loss".

    Columns are classes, or metrics where the table has several.
    """
    every = pd.read_csv(PUBLISHED, dtype={"table": str})
    rows = every[(every.paper == paper) & (every.table == str(table))]
    if rows.empty:
        known = sorted(set(zip(every.paper, every.table)))
        raise ValueError(f"no published table {table!r} of {paper!r}: there are {known}")
    columns = "metric" if rows.metric.nunique() > 1 else "class"
    wide = rows.pivot(index="row", columns=columns, values="value")
    return wide.loc[rows.row.unique(), rows[columns].unique()].astype(np.float64)
