"""What the reader sees of a listening test: counts, means with intervals, Table II, the levels of the sounds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from foleylib.report import plots, tables
from foleylib.report.listening.ratings import MEASURES
from foleylib.report.style import Displays, metric_label, shown

ROWS = {"real": "Ground Truth", "tuning": "LDM+Tuning", "tuning_latent": "LDM+Tuning+Latent"}  # run -> row of Table II


def describe(ratings: pd.DataFrame | None) -> str:
    """How many rated what, who was left out, and whether ratings are simulated; or that there are none."""
    if ratings is None:
        send = "send listeners the pages in surveys/ (never key.csv)"
        return f"There are no ratings yet: {send}, and keep the files that they send back beside a copy of key.csv."
    people = ratings.drop_duplicates("participant")
    text = f"{len(people)} participants in {ratings.survey.nunique()} surveys rated {len(ratings)} times"
    text += f"; {len(ratings.attrs.get('left_out', []))} more were left out, for they missed an attention check."
    if people.simulated.any():
        simulated = int(people.simulated.sum())
        text += f" {simulated} of the participants are simulated: the numbers say nothing about the systems."
    return text


def means(ratings: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Mean ratings of each run, of all classes ("all") and of each, with t-intervals over listeners.

    A row has run, class, metric, value, low, high, n (listeners; the interval of one is NaN) and simulated.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level}: give the share of the interval, in (0, 1)")
    rows = []
    for class_, part in [("all", ratings), *ratings.groupby("class")]:
        for run, of_run in part.groupby("run", sort=False):
            for measure, metric in MEASURES.items():
                values = of_run.groupby("participant")[measure].mean()
                half = stats.t.ppf(0.5 + level / 2, len(values) - 1) * values.sem() if len(values) > 1 else np.nan
                mean = values.mean()
                rows.append((run, class_, metric, mean, mean - half, mean + half, len(values)))
    columns = ["run", "class", "metric", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns).assign(simulated=bool(ratings.simulated.any()))


def table_two(
    ratings: pd.DataFrame | None, published: pd.DataFrame, *, runs: Sequence[str], display: Displays = None, rows=ROWS
) -> pd.DataFrame:
    """Table II of *latent-clap-loss*: mean ratings of each run with 95 % intervals, the paper's numbers beside them.

    `ratings` is as `read_results` returns it, or None for the published numbers alone; `published` is
    `tables.published("latent-clap-loss", "II")`, and `rows` says which of its rows stands beside a run. Other listeners
    and other sounds: the two columns compare in their order of systems, not in their numbers.
    """
    scores, table = None if ratings is None else means(ratings), {}
    for metric in MEASURES.values():
        head = metric_label(metric)
        if scores is not None:
            ours = scores[(scores.metric == metric) & (scores["class"] == "all")]
            kind = "simulated" if scores.simulated.any() else "ours"
            table[head, kind] = [tables.cell(ours[ours.run == run], metric, by_seed=False) for run in runs]
        paper = [published[metric].get(rows.get(run), np.nan) for run in runs]
        table[head, "published"] = [tables.number(value, metric) for value in paper]
    return tables.by_run(table, runs, display)


def loudness_figure(key: pd.DataFrame, *, display: Displays = None) -> plots.Figure:
    """Active level of each clip before and after matching, a panel each; clips that were limited are crosses."""
    clips = key[key.kind == "clip"]
    runs = list(dict.fromkeys(clips.run))
    size = {"width": 4.5, "height": 0.8 + 0.4 * len(runs)}
    figure, axes = plots.panels(2, columns=2, **size, sharex=True, sharey=True)
    for axis, column, title in zip(axes, ("before_db", "after_db"), ("As they are", "In the listening test")):
        for line, run in enumerate(runs):
            of_run = clips[(clips.run == run) & np.isfinite(clips[column])]
            of_run = of_run.assign(line=line + np.linspace(-0.25, 0.25, len(of_run)))
            for limited, part in of_run.groupby("limited"):
                look = {"color": shown(run, display).colour, "marker": "X" if limited else "o", "s": 16}
                axis.scatter(part[column], part.line, **look)
        axis.set(title=title, xlabel="Active level (dB re full scale)")
    plots.name_rows(axes[0], [shown(run, display).name for run in runs])
    return figure
