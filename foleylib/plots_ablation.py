"""Figures of the ablations: differences to a baseline, the sweep of lambda, repeated samplings."""

import numpy as np

from foleylib.plots_style import PALETTE, colour, colours, panels, words
from foleylib.tables import SYSTEMS, metric_label


def differences(frame, *, metric="fad", names=None):
    """Differences to a baseline, one line per run: a point and its interval per seed, and the mean of the seeds.

    Parameters
    ----------
    frame : pandas.DataFrame
        of `runs.differences`: run, seed, value, low, high
    metric : str
        of which they are differences
    names : dict, optional
        run -> what the reader sees, over `tables.SYSTEMS`
    """
    names, runs = SYSTEMS | (names or {}), list(dict.fromkeys(frame.run))
    figure, (axis,) = panels(1, columns=1, width=6.5, height=1 + 0.5 * len(runs))
    for place, run in enumerate(runs):
        rows = frame[frame.run == run]
        for offset, row in zip(np.linspace(-0.22, 0.22, len(rows)), rows.itertuples()):
            axis.plot([row.low, row.high], [place + offset] * 2, color=colour(run), linewidth=1.8)
            axis.plot(row.value, place + offset, "o", color=colour(run), markersize=5)
        axis.plot([rows.value.mean()] * 2, [place - 0.36, place + 0.36], color=colour(run), linewidth=1)
    axis.axvline(0, color="#777777", linewidth=1, linestyle=(0, (2, 1.5)))
    axis.set_yticks(range(len(runs)), [names.get(run, run) for run in runs])
    axis.set(ylim=(len(runs) - 0.5, -0.5), xlabel=f"Difference of {metric_label(metric)}, below 0 is better")
    return figure


def lambda_sweep(frame, *, metrics=("fad", "judge_accuracy")):
    """Fig. 3 of latent-clap-loss: scores over lambda with and without tuning layer; bands span the seeds.

    Parameters
    ----------
    frame : pandas.DataFrame
        of `foley.sweep`, both values of `tuning` stacked
    metrics : sequence of str
        one panel each
    """
    figure, axes = panels(len(metrics), columns=2, width=4.4, height=3.2)
    lambdas = sorted(frame.lambda_lclap.unique())
    for axis, metric in zip(axes, metrics):
        for tuning, run in ((False, "latent"), (True, "tuning_latent")):
            rows = frame[frame.tuning == tuning].groupby("lambda_lclap")[metric].agg(["mean", "min", "max"])
            if len(rows):
                at = [lambdas.index(value) for value in rows.index]
                axis.plot(at, rows["mean"], "o-", color=colour(run), label=SYSTEMS[run])
                axis.fill_between(at, rows["min"], rows["max"], color=colour(run), alpha=0.2, linewidth=0)
        axis.set_xticks(range(len(lambdas)), [f"{value:g}" for value in lambdas])
        axis.set(xlabel=words("lambda_lclap"), ylabel=metric_label(metric))
    axes[0].legend()
    return figure


def gains(frame, *, metric="fad"):
    """What a weight of the Latent CLAP loss changes, a panel for each length of training, a line for each s_n.

    Intervals are drawn from three seeds on: Student's of two spans everything.

    Parameters
    ----------
    frame : pandas.DataFrame
        of `foley.gains`
    metric : str
        of which they are differences
    """
    lengths = sorted(frame.steps.unique())
    lines = {(s_n, tuning): f"{s_n}{', tuning' if tuning else ''}" for s_n, tuning in zip(frame.s_n, frame.tuning)}
    shade = colours(lines.values())
    figure, axes = panels(len(lengths), columns=len(lengths), width=4.0, height=3.2)
    for axis, steps in zip(axes, lengths):
        for line, name in lines.items():
            rows = frame[(frame.steps == steps) & (frame.s_n == line[0]) & (frame.tuning == line[1])]
            error = np.array([rows["mean"] - rows.low, rows.high - rows["mean"]])
            if len(rows):
                error[:, rows.seeds < 3] = np.nan
                axis.errorbar(
                    rows.lambda_lclap, rows["mean"], error, fmt="o-", capsize=3, color=shade[name], label=name
                )
        axis.axhline(0, color="#777777", linewidth=1, linestyle=(0, (2, 1.5)))
        axis.set(xscale="log", xlabel=words("lambda_lclap"), ylabel=f"Change of {metric_label(metric)}",
                 title=f"{steps} steps")  # fmt: skip
        axis.legend()
    return figure


def boxes(frame, *, x="fad", y="row"):
    """Repeated samplings: a box per row of the table with the samplings as points."""
    groups = {name: part[x].to_numpy() for name, part in frame.groupby(y, sort=False)}
    figure, (axis,) = panels(1, columns=1, width=6.5, height=1 + 0.45 * len(groups))
    axis.boxplot(list(groups.values()), orientation="horizontal", showfliers=False, widths=0.6, tick_labels=list(groups),
                 medianprops={"color": "#333333"})  # fmt: skip
    for place, values in enumerate(groups.values(), 1):
        axis.plot(values, np.full(len(values), place), "o", color=PALETTE["ldm"], markersize=4, alpha=0.7)
    axis.invert_yaxis()
    axis.set(xlabel=metric_label(x), ylabel="")
    return figure
