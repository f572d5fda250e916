"""What the reader sees of a listening test: counts, means with intervals, Table II, the levels of the sounds."""

import numpy as np
from scipy import stats

from foleylib import tables

METRICS = {"quality": "audio_quality", "relevance": "class_relevance"}
ROWS = {"real": "Ground Truth", "tuning": "LDM+Tuning", "tuning_latent": "LDM+Tuning+Latent"}  # run -> row of Table II


def describe(ratings):
    """How many rated what, who was left out, and whether ratings are simulated, in a sentence or two; or that none are.

    Parameters
    ----------
    ratings : pandas.DataFrame or None
        see `read_results`
    """
    if ratings is None:
        return (
            "There are no ratings yet: send listeners the pages in surveys/ (never key.csv), and keep the files that "
            "they send back beside a copy of key.csv."
        )
    people = ratings.drop_duplicates("participant")
    left_out = ratings.attrs.get("left_out", [])
    text = f"{len(people)} participants in {ratings.survey.nunique()} surveys rated {len(ratings)} times"
    text += f"; {len(left_out)} more were left out, for they missed an attention check."
    simulated = int(people.simulated.sum())
    if simulated:
        text += f" {simulated} of the participants are simulated: the numbers say nothing about the systems."
    return text


def means(ratings, *, level=0.95):
    """Mean ratings of each system, of all classes ("all") and of each, with t-intervals over listeners.

    Returns
    -------
    pandas.DataFrame [columns: run, class, metric, value, low, high, n, simulated]
        metric is "audio_quality" or "class_relevance", n the number of listeners; the interval of one is NaN
    """
    import pandas

    if not 0 < level < 1:
        raise ValueError(f"level={level}: give the share of the interval, in (0, 1)")
    rows = []
    for class_, part in [("all", ratings), *ratings.groupby("class")]:
        for run, of_run in part.groupby("run", sort=False):
            for measure, metric in METRICS.items():
                values = of_run.groupby("participant")[measure].mean()
                half = stats.t.ppf(0.5 + level / 2, len(values) - 1) * values.sem() if len(values) > 1 else np.nan
                mean = values.mean()
                rows.append((run, class_, metric, mean, mean - half, mean + half, len(values)))
    columns = ["run", "class", "metric", "value", "low", "high", "n"]
    return pandas.DataFrame(rows, columns=columns).assign(simulated=bool(ratings.simulated.any()))


def table_two(ratings, published, *, runs=None, rows=None, level=0.95):
    """Table II of *latent-clap-loss*: mean ratings of each system with intervals, the paper's numbers beside them.

    Parameters
    ----------
    ratings : pandas.DataFrame or None
        see `read_results`; None shows the published numbers alone
    published : pandas.DataFrame [index: row of the paper, columns: audio_quality, class_relevance]
        `tables.published("latent-clap-loss", "II")`
    runs : sequence of str, optional
        in their order; by default those of the ratings, or of `ROWS`
    rows : dict, optional
        run -> row of the paper, over `ROWS`
    level : float in (0, 1)

    Returns
    -------
    pandas.DataFrame of str [index: System; columns: (metric, "ours" or "published")]
        other listeners and other sounds: the two columns compare in their order of systems, not in their numbers
    """
    import pandas

    scores = None if ratings is None else means(ratings, level=level)
    runs = list(runs or (ROWS if ratings is None else [r for r in tables.SYSTEMS if r in set(ratings.run)]
                         + sorted(set(ratings.run) - set(tables.SYSTEMS))))  # fmt: skip
    rows, table = ROWS | (rows or {}), {}
    for metric in METRICS.values():
        paper = [published[metric].get(rows.get(run), np.nan) for run in runs]
        head = tables.metric_label(metric)
        if scores is not None:
            ours = scores[(scores.metric == metric) & (scores["class"] == "all")]
            kind = "simulated" if scores.simulated.any() else "ours"
            table[head, kind] = [tables.cell(ours[ours.run == run], 2) for run in runs]
        table[head, "published"] = [tables.number(value) for value in paper]
    names = pandas.Index([tables.SYSTEMS.get(run, run) for run in runs], name="System")
    return pandas.DataFrame(table, index=names)


def loudness_figure(key):
    """Active level of each clip before and after matching, a panel each; clips that were limited are crosses."""
    from foleylib import plots_style

    clips = key[key.kind == "clip"].reset_index(drop=True)
    runs = list(dict.fromkeys(clips.run))
    figure, axes = plots_style.panels(2, columns=2, width=4.5, height=0.8 + 0.4 * len(runs), sharex=True, sharey=True)
    for axis, column, title in zip(axes, ("before_db", "after_db"), ("As they are", "In the listening test")):
        for place, run in enumerate(runs):
            of_run = clips[(clips.run == run) & np.isfinite(clips[column])]
            spread = place + np.linspace(-0.25, 0.25, len(of_run))
            for marker, limited in (("o", False), ("X", True)):
                chosen = (of_run.limited == limited).to_numpy()
                axis.scatter(of_run[column][chosen], spread[chosen], color=plots_style.colour(run), marker=marker, s=16)
        axis.set(title=title, xlabel="Active level (dB re full scale)")
    axes[0].set_yticks(range(len(runs)), [tables.SYSTEMS.get(run, run) for run in runs])
    axes[0].set_ylim(len(runs) - 0.5, -0.5)
    return figure
