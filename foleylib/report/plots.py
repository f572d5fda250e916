"""Figures of the reports, each to be the last value of a notebook's cell; `display` has the runs' names and colours."""

import base64
import io
from collections.abc import Mapping, Sequence

import matplotlib.figure
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator
from PIL import Image

from foleylib.evaluation.metrics import HEADLINES
from foleylib.report.style import Displays, class_label, colours, metric_label, shown, words
from foleylib.report.tables import select

BLUE, RED = "#0173b2", "#d55e00"
REFERENCE = {"color": "#777777", "linestyle": (0, (2, 1.5))}  # zero: grey and dashed
AUDITED = {
    "rms_db": "RMS level (dB re full scale)",
    "silence_fraction": "Silent frames (share of clip)",
    "effective_bandwidth_hz": "Effective bandwidth (kHz)",
}


def set_theme() -> None:
    """Set the look of every figure (seaborn on white, colour-blind palette, 100 dots per inch), and show tables whole."""
    rc = {"figure.dpi": 100, "savefig.dpi": 100, "axes.spines.top": False, "axes.spines.right": False}
    rc |= {"axes.titlesize": "medium", "legend.frameon": False}
    seaborn.set_theme(context="notebook", style="ticks", palette="colorblind", font_scale=0.9, rc=rc)
    pd.set_option("display.max_columns", None, "display.width", 240)  # else what is left out depends on the terminal


class Figure(matplotlib.figure.Figure):
    """A figure that notebooks show as a PNG of 64 colours: it looks the same and is a third of the size."""

    def png(self) -> bytes:
        """The figure as PNG, the same bytes on every run."""
        full, small = io.BytesIO(), io.BytesIO()
        self.savefig(full, format="png", bbox_inches="tight")
        Image.open(full).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(small, "png", optimize=True)
        return small.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"image/png": base64.b64encode(self.png()).decode()}


def panels(n: int, *, columns: int, width: float, height: float, **options) -> tuple[Figure, list[Axes]]:
    """A figure (unknown to pyplot, so that none stays open) of `n` panels in rows of `columns`, and its axes."""
    if n < 1:
        raise ValueError("nothing to plot: give at least one panel")
    columns = min(n, columns)
    rows = -(-n // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    figure.get_layout_engine().set(wspace=0.05, hspace=0.05)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for spare in axes.flat[n:]:
        spare.remove()
    return figure, list(axes.flat[:n])


def name_rows(axis: Axes, names: Sequence[str]) -> None:
    """Make every name a line of the axis, from top to bottom."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)


def mel_grid(mels: Sequence, titles: Sequence[str], *, rate: int, hop: int, limits: tuple | None = None) -> Figure:
    """Log-mel spectrograms [shape=(frames, n_mels)] on one colour scale; `rate` is in Hz, `hop` in samples a frame."""
    mels = [np.asarray(mel, dtype=np.float32) for mel in mels]
    if len(mels) != len(titles) or any(mel.ndim != 2 for mel in mels):
        shapes = [mel.shape for mel in mels]
        raise ValueError(f"{len(titles)} titles for mels of shapes {shapes}: give one title per (frames, n_mels)")
    figure, axes = panels(len(mels), columns=4, width=3.2 if len(mels) > 1 else 5, height=2.3)
    low, high = limits or (min(mel.min() for mel in mels), max(mel.max() for mel in mels))
    # Seven spectrograms are 60 kB in 64 shades and without smoothing, three times as much in all shades.
    look = {"vmin": low, "vmax": high, "cmap": plt.get_cmap("magma", 64), "interpolation": "nearest"}
    for i, (axis, mel, title) in enumerate(zip(axes, mels, titles)):
        extent = (0, len(mel) * hop / rate, 0, mel.shape[1])
        image = axis.imshow(mel.T, origin="lower", aspect="auto", extent=extent, **look)
        axis.set(title=title, xlabel="Time (s)" if i + 4 >= len(mels) else "")
        axis.set_ylabel("Mel band" if i % 4 == 0 else "")
    figure.colorbar(image, ax=axes, label="Log magnitude", aspect=12 * -(-len(mels) // 4), pad=0.01)
    return figure


def history(frame: pd.DataFrame, *, terms: Sequence[str]) -> Figure:
    """Training curves of `<term>` and `val_<term>`: each step faint, a mean over 2 % of them, validation as points."""
    unknown = [t for t in terms if t not in frame and f"val_{t}" not in frame]
    if unknown:
        raise ValueError(f"terms={unknown} are not in the history, which has {list(frame.columns)}")
    figure, axes = panels(len(terms), columns=3, width=4, height=2.9)
    for i, (axis, term) in enumerate(zip(axes, terms)):
        if term in frame:
            curve = frame[["step", term]].dropna()
            smooth = curve[term].rolling(max(1, len(curve) // 50), center=True, min_periods=1).mean()
            axis.plot(curve.step, curve[term], color=BLUE, alpha=0.25, linewidth=0.8)
            axis.plot(curve.step, smooth, color=BLUE, linewidth=1.8, label="training")
        if f"val_{term}" in frame:
            points = frame[["step", f"val_{term}"]].dropna()
            axis.plot(*points.to_numpy().T, "o-", color=RED, markersize=5, linewidth=1, label="validation")
        axis.set(title=term.replace("_", " "), xlabel="Training step" if i + 3 >= len(terms) else "")
    max(axes, key=lambda axis: len(axis.lines)).legend()  # one that has validation, where any has
    return figure


def metric_bars(
    summary: pd.DataFrame, *, metric: str, runs: Sequence[str], display: Displays = None, class_: str | None = "all"
) -> Figure:
    """Scores as points with their intervals over clips, one line per run, one point per training seed.

    `class_` is one class ("all": the whole set), or None for a panel per class. `tables` says what a summary is.
    """
    rows = select(summary, metric=metric, runs=runs, classes=None if class_ is None else [class_])
    classes = [c for c in rows["class"].unique() if c not in ("all", "average")] if class_ is None else [class_]
    if rows.empty or not classes:
        raise ValueError(f"no {metric} of class {class_!r}: the summary has {sorted(set(summary['class']))}")
    width, height = 3 if class_ is None else 6, 0.8 + 0.38 * len(runs)
    figure, axes = panels(len(classes), columns=4, width=width, height=height, sharey=True)
    for axis, name in zip(axes, classes):
        for line, run in enumerate(runs):
            of_run = rows[(rows["class"] == name) & (rows.run == run)]
            _points(axis, line, of_run, shown(run, display).colour)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.set(title=class_label(name) if class_ != "all" else "", xlabel=metric_label(metric))
    name_rows(axes[0], [shown(run, display).name for run in runs])
    return figure


def headlines(
    summary: pd.DataFrame, *, metrics: Sequence[str], runs: Sequence[str], display: Displays = None
) -> Figure:
    """Class averages of one embedder as points with their intervals, a panel for each metric, one line per run and one
    point per training seed."""
    figure, axes = panels(len(metrics), columns=4, width=3.6, height=0.8 + 0.3 * len(runs), sharey=True)
    for axis, metric in zip(axes, metrics):
        rows = select(summary, metric=metric, runs=runs, classes=["average"])
        for line, run in enumerate(runs):
            _points(axis, line, rows[rows.run == run], shown(run, display).colour)
        axis.set(xlabel=metric_label(metric))
    name_rows(axes[0], [shown(run, display).name for run in runs])
    return figure


def _points(axis: Axes, line: int, rows: pd.DataFrame, colour: str, *, spread: float = 0.2) -> None:
    """On one line of the axis a point with its interval for each row (a seed)."""
    offsets = np.linspace(-spread, spread, len(rows)) if len(rows) > 1 else np.zeros(1)
    for y, row in zip(line + offsets, rows.itertuples()):
        axis.plot([row.low, row.high], [y, y], color=colour, linewidth=2, solid_capstyle="round")
        axis.plot(row.value, y, "o", color=colour, markersize=6)


def beside_published(
    summary: pd.DataFrame,
    published: pd.Series,
    *,
    metric: str,
    runs: Sequence[str],
    display: Displays = None,
) -> Figure:
    """Class averages of runs and, in a panel of their own, the published ones [index=run]: two scales, one order."""
    figure, (ours, theirs) = panels(2, columns=2, width=4.6, height=0.8 + 0.38 * len(runs), sharey=True)
    rows = select(summary, metric=metric, runs=runs, classes=["average"])
    for line, run in enumerate(runs):
        look = shown(run, display)
        _points(ours, line, rows[rows.run == run], look.colour)
        theirs.plot(published.get(run, np.nan), line, "D", color=look.colour, markersize=6)
    ours.set(title="ours", xlabel=metric_label(metric))
    theirs.set(title="published", xlabel="FAD of the paper ↓")
    name_rows(ours, [shown(run, display).name for run in runs])
    return figure


def differences(frame: pd.DataFrame, *, display: Displays = None) -> Figure:
    """Paired differences of runs (`evaluation.differences.paired_differences`): a panel for each metric, a line for each pair.

    A pair of fewer than three seeds is a point without an interval.
    """
    metrics, pairs = list(dict.fromkeys(frame.metric)), list(dict.fromkeys(zip(frame.run, frame.minus)))
    size = {"columns": 3, "width": 3.2, "height": 1.1 + 0.36 * len(pairs)}
    figure, axes = panels(len(metrics), **size, sharey=True)
    for axis, metric in zip(axes, metrics):
        for row in frame[frame.metric == metric].itertuples():
            line, colour = pairs.index((row.run, row.minus)), shown(row.run, display).colour
            axis.plot([row.low, row.high], [line, line], color=colour, linewidth=2, solid_capstyle="round")
            axis.plot(row.mean, line, "o", color=colour, markersize=6)
        axis.axvline(0, linewidth=1, **REFERENCE)
        axis.xaxis.set_major_locator(MaxNLocator(3))
        axis.set_xlabel(f"Change of {metric_label(metric)}")
    name_rows(axes[0], [f"{shown(run, display).name}, from {shown(minus, display).name}" for run, minus in pairs])
    return figure


def lambda_sweep(frame: pd.DataFrame, runs: tuple[str, str], *, display: Displays = None) -> Figure:
    """Fig. 3 of latent-clap-loss: scores over lambda, named as the runs without and with tuning; bands span seeds."""
    metrics = [metric for metric in HEADLINES if metric in frame]
    figure, axes = panels(len(metrics), columns=3, width=3.6, height=2.9)
    lambdas = sorted(frame.lambda_lclap.unique())
    for axis, metric in zip(axes, metrics):
        for tuning, run in zip((False, True), runs):
            rows = frame[frame.tuning == tuning].groupby("lambda_lclap")[metric].agg(["mean", "min", "max"])
            if len(rows):
                at, look = [lambdas.index(value) for value in rows.index], shown(run, display)
                axis.plot(at, rows["mean"], "o-", color=look.colour, label=look.name)
                axis.fill_between(at, rows["min"], rows["max"], color=look.colour, alpha=0.2, linewidth=0)
        axis.set_xticks(range(len(lambdas)), [f"{value:g}" for value in lambdas])
        axis.set(xlabel=words("lambda_lclap"), ylabel=metric_label(metric))
    axes[0].legend()
    return figure


def curves(
    frame: pd.DataFrame,
    metrics: Mapping[str, str],
    *,
    x: str = "step",
    line: str = "setting",
    start: pd.DataFrame | None = None,
    display: Displays = None,
) -> Figure:
    """Scores over the training steps or another column `x`, a panel for each metric (with its embedder) and a line for
    each value of the column `line`; bands span seeds.

    `frame` has [`line`, seed, `x`, metric, embedder, value]; `start` [`line`, metric, embedder, value], where a line has
    one, is its score at 0, before the first step.
    """
    figure, axes = panels(len(metrics), columns=4, width=3.0, height=2.7)
    for axis, (metric, embedder) in zip(axes, metrics.items()):
        for name, rows in _of(frame, metric, embedder).groupby(line, sort=False):
            look, over = shown(name, display), rows.groupby(x, observed=True).value.agg(["mean", "min", "max"])
            axis.fill_between(over.index, over["min"], over["max"], color=look.colour, alpha=0.15, linewidth=0)
            mean = over["mean"]
            if start is not None and len(first := _of(start[start[line] == name], metric, embedder)):
                mean = pd.concat([pd.Series({0: first.value.iloc[0]}), mean])  # of one draw, so without a band
            axis.plot(mean.index, mean, "o-", color=look.colour, label=look.name, markersize=4)
        axis.set(xlabel=words(x), ylabel=metric_label(metric))
        if not pd.api.types.is_numeric_dtype(frame[x]):  # names, which are longer than numbers
            axis.tick_params(axis="x", labelrotation=20)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure


def _of(frame: pd.DataFrame, metric: str, embedder: str) -> pd.DataFrame:
    return frame[(frame.metric == metric) & (frame.embedder == embedder)]


def sensitivity(frame: pd.DataFrame) -> Figure:
    """Fig. 1 of audioldm-transfer-benchmark: every score over the share of clips that is damaged, a line for each damage;
    bands are deviations over draws (`stages.sensitivity.make`)."""
    scores = list(dict.fromkeys(zip(frame.metric, frame.embedder)))
    shades = colours(frame.damage)
    figure, axes = panels(len(scores), columns=4, width=3.0, height=2.5)
    for axis, (metric, embedder) in zip(axes, scores):
        for damage, rows in _of(frame, metric, embedder).groupby("damage", sort=False):
            line = rows.groupby("share").value.agg(["mean", "std"])
            axis.plot(line.index, line["mean"], color=shades[damage], label=damage)
            band = (line["mean"] - line["std"], line["mean"] + line["std"])
            axis.fill_between(line.index, *band, color=shades[damage], alpha=0.15, linewidth=0)
        axis.set(xlabel="Damaged share", ylabel=metric_label(metric, embedder))
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure


def gains(frame: pd.DataFrame, *, metric: str) -> Figure:
    """What a weight of the Latent CLAP loss changes, a panel for each weighting of the diffusion loss and length of
    training, a line for each s_n.

    Intervals are drawn from three seeds on: Student's of two spans everything.
    """
    frame = frame.assign(line=frame.s_n + np.where(frame.tuning, ", tuning", ""))
    shades, parts = colours(frame.line), list(frame.groupby(["weighting", "steps"]))
    figure, axes = panels(len(parts), columns=3, width=4.0, height=3.2, sharey=True)
    for axis, ((weighting, steps), part) in zip(axes, parts):
        for name, rows in part.groupby("line", sort=False):
            error = np.array([rows["mean"] - rows.low, rows.high - rows["mean"]])
            look = {"fmt": "o-", "capsize": 3, "color": shades[name], "label": name}
            axis.errorbar(rows.lambda_lclap, rows["mean"], error, **look)
        axis.axhline(0, linewidth=1, **REFERENCE)
        weighted = "plain loss" if weighting == "none" else weighting
        axis.set(xscale="log", xlabel=words("lambda_lclap"), title=f"{weighted}, {steps} steps")
        _ticks(axis, part.lambda_lclap)
        axis.set_ylabel(f"Change of {metric_label(metric)}")
        axis.legend()
    return figure


def _ticks(axis, values: pd.Series) -> None:
    """Ticks of a logarithmic axis at the values that were measured."""
    at = sorted(values.unique())
    axis.set_xticks(at, [f"{value:g}" for value in at])
    axis.minorticks_off()


def economics(frame: pd.DataFrame) -> Figure:
    """What selection buys (`benchmarks.economics`): a panel for each score, over the candidates drawn for each clip.

    A line for each kind of target and way to select; bands are deviations over draws from one pool.
    """
    metrics = [metric for metric in HEADLINES if metric in frame]
    lines = list(frame.groupby(["target", "way"], sort=False))
    shades = colours([target for (target, _), _ in lines])
    figure, axes = panels(len(metrics), columns=3, width=3.6, height=2.9)
    for axis, metric in zip(axes, metrics):
        for (target, way), rows in lines:
            style = "-" if way == "threshold" else "--"
            axis.plot(rows.candidates, rows[metric], style, marker="o", markersize=4, color=shades[target])
            low, high = (rows[metric] + sign * rows[f"{metric}_sd"] for sign in (-1, 1))
            axis.fill_between(rows.candidates, low, high, color=shades[target], alpha=0.12, linewidth=0)
        axis.set(xscale="log", xlabel="Candidates per clip", ylabel=metric_label(metric))
        _ticks(axis, frame.candidates)
    names = [f"{target} target, {way}" for (target, way), _ in lines]
    figure.legend(axes[0].lines, names, loc="outside lower center", ncols=min(len(names), 4))
    return figure


def boxes(frame: pd.DataFrame, *, x: str = "fad", y: str = "row") -> Figure:
    """Repeated samplings: a box per row of the table with the samplings as points."""
    groups = {name: part[x] for name, part in frame.groupby(y, sort=False)}
    figure, (axis,) = panels(1, columns=1, width=6.5, height=1 + 0.45 * len(groups))
    look = {"positions": range(len(groups)), "widths": 0.6, "showfliers": False, "medianprops": {"color": "#333333"}}
    axis.boxplot(list(groups.values()), orientation="horizontal", **look)
    for line, values in enumerate(groups.values()):
        axis.plot(values, np.full(len(values), line), "o", color=BLUE, markersize=4, alpha=0.7)
    name_rows(axis, list(groups))
    axis.set_xlabel(metric_label(x))
    return figure


def _heatmap(matrix: np.ndarray, rows: Sequence, cols: Sequence, texts: np.ndarray, bar: str, **limits) -> Figure:
    """An annotated image with a name at each row and column; texts are written in up to 200 cells."""
    if matrix.shape != (len(rows), len(cols)):
        raise ValueError(f"matrix is {matrix.shape} for {len(rows)} rows and {len(cols)} columns: one name each")
    small = matrix.size <= 200
    size = 0.62 if small else max(0.12, min(0.3, 9 / max(matrix.shape)))
    figure, (axis,) = panels(1, columns=1, width=2.6 + size * len(cols), height=1.6 + size * len(rows))
    names = {"xticklabels": [words(c) for c in cols], "yticklabels": [words(r) for r in rows]}
    look = {"cmap": "mako", "square": True, "annot_kws": {"size": 8}, "cbar_kws": {"label": bar, "shrink": 0.8}}
    seaborn.heatmap(matrix, ax=axis, annot=texts if small else None, fmt="", **names, **look, **limits)
    plt.setp(axis.get_xticklabels(), rotation=40, ha="right", rotation_mode="anchor")
    plt.setp(axis.get_yticklabels(), rotation=0)
    axis.tick_params(length=0)
    return figure


def confusion(matrix: np.ndarray, labels: Sequence[str]) -> Figure:
    """Confusion of a classifier: counts [shape=(true, judged)], coloured by their share of the true class."""
    counts = np.asarray(matrix)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = _heatmap(share, labels, labels, counts.astype(str), "Share of the class", vmin=0, vmax=1)
    figure.axes[0].set(xlabel="Judged as", ylabel="True class")
    return figure


def shares(frame: pd.DataFrame, *, label: str) -> Figure:
    """Shares from 0 to 1 called `label`: a line for each row, and on it a point for each column."""
    figure, (axis,) = panels(1, columns=1, width=6.5, height=1 + 0.25 * len(frame))
    for column, mark in zip(frame, "osD^v"):
        axis.plot(frame[column], np.arange(len(frame)), mark, markersize=5, alpha=0.8, label=words(column))
    name_rows(axis, [words(name) for name in frame.index])
    axis.set(xlabel=label, xlim=(-0.03, 1.03))
    axis.grid(axis="y", alpha=0.4)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def similarity(matrix: np.ndarray, rows: Sequence[str], cols: Sequence[str]) -> Figure:
    """Cosine similarities [shape=(rows, cols)] as an image, with numbers up to 200 cells."""
    matrix = np.asarray(matrix, dtype=np.float64)
    return _heatmap(matrix, rows, cols, np.vectorize("{:.2f}".format)(matrix), "Cosine similarity")


def embedding_map(points2d: np.ndarray, labels: Sequence[str], *, display: Displays = None) -> Figure:
    """Embeddings in two dimensions [shape=(N, 2)], a colour and a mark per label (classes or runs)."""
    points, labels = np.asarray(points2d), np.asarray(labels)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) != len(labels):
        raise ValueError(f"points2d is {points.shape} for {len(labels)} labels: give (N, 2) and N labels")
    figure, (axis,) = panels(1, columns=1, width=7, height=4.8)
    names = sorted(set(labels.tolist()))
    by_label = {"hue": labels, "hue_order": names, "style": labels, "style_order": names}
    look = {"palette": colours(names, display), "s": 26, "alpha": 0.8, "linewidth": 0.3}
    seaborn.scatterplot(x=points[:, 0], y=points[:, 1], ax=axis, **by_label, **look)
    handles, _ = axis.get_legend_handles_labels()
    if any(names):  # clips without a class need no legend
        axis.legend(handles, [words(name, display) for name in names], loc="center left", bbox_to_anchor=(1, 0.5))
    axis.set(xlabel="First axis", ylabel="Second axis", xticks=[], yticks=[])
    return figure


def audit(audit_frame: pd.DataFrame, *, bins: int = 30) -> Figure:
    """Histograms per class (one line of cells each) of level, silence and bandwidth, from the audit of a corpus."""
    groups = dict(list(audit_frame.groupby("label", sort=True))) if "label" in audit_frame else {"all": audit_frame}
    figure, axes = panels(3, columns=3, width=3.9, height=1.4 + 0.26 * len(groups), sharey=True)
    norm = PowerNorm(0.5, vmin=0, vmax=100)  # a few clips far out are seen too
    for axis, (column, title) in zip(axes, AUDITED.items()):
        scale = 1000 if column.endswith("_hz") else 1
        values = [0, 1] if column == "silence_fraction" else audit_frame[column] / scale
        edges = np.histogram_bin_edges(values, bins)
        share = [100 * np.histogram(g[column] / scale, edges)[0] / len(g) for g in groups.values()]
        image = axis.pcolormesh(edges, np.arange(len(groups) + 1) - 0.5, share, cmap="Blues", norm=norm)
        axis.set_xlabel(title)
    name_rows(axes[0], [words(name) for name in groups])
    figure.colorbar(image, ax=axes, label="Clips of the class (%)", pad=0.01)
    return figure


def frontier(frame: pd.DataFrame, x: str, y: str, hue: str, *, log: bool = False) -> Figure:
    """Quality against cost: a line per value of `hue`, with columns `low` and `high` as intervals; `log` is of x."""
    figure, (axis,) = panels(1, columns=1, width=6.5, height=4)
    shades = colours(frame[hue])
    for name, line in frame.sort_values(x).groupby(hue, sort=False):
        axis.plot(line[x], line[y], "o-", color=shades[name], label=words(name))
        if {"low", "high"} <= set(line.columns):
            axis.vlines(line[x], line.low, line.high, color=shades[name], alpha=0.6)
    axis.set(xlabel=words(x), ylabel=words(y), xscale="log" if log else "linear")
    axis.legend(title=words(hue))
    return figure


def noise_levels(frame: pd.DataFrame, *, x: str = "n", display: Displays = None) -> Figure:
    """What depends on the noise: each numeric column of the frame over the diffusion step, column `x`."""
    curves = [c for c in frame.select_dtypes("number") if c != x]
    if not curves:
        raise ValueError(f"no curves: the frame has {list(frame.columns)}, give {x!r} and a column per curve")
    figure, (axis,) = panels(1, columns=1, width=6.5, height=3.8)
    lines = frame.sort_values(x).set_index(x)[curves].rename(columns=lambda name: words(name, display))
    style, shades = "o-" if len(frame) <= 30 else "-", list(colours(curves, display).values())
    lines.plot(ax=axis, style=style, color=shades, legend=len(curves) > 1)
    axis.set(xlabel=words(x), ylabel=lines.columns[0] if len(curves) == 1 else "")
    return figure
