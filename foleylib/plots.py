"""Figures of the reports. Each function returns a matplotlib Figure, to be the last value of a notebook's cell.

Nothing global changes but by `set_theme`, called once per notebook. Systems have one colour throughout (`PALETTE`).
"""

import matplotlib.pyplot as plt
import numpy as np
import seaborn
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator

from foleylib.plots_style import PALETTE, colour, colours, panels, set_theme, words
from foleylib.tables import CLASSES, SYSTEMS, metric_label, select

__all__ = [
    "PALETTE",
    "audit",
    "colour",
    "confusion",
    "embedding_map",
    "frontier",
    "history",
    "mel_grid",
    "metric_bars",
    "noise_levels",
    "set_theme",
    "similarity",
]

AUDITED = {
    "rms_db": "RMS level (dB re full scale)",
    "silence_fraction": "Silent frames (share of clip)",
    "effective_bandwidth_hz": "Effective bandwidth (kHz)",
}


def mel_grid(mels, titles, *, rate, hop, columns=4, limits=None):
    """Log-mel spectrograms under one colour scale.

    Parameters
    ----------
    mels : sequence of np.ndarray [shape=(frames, n_mels)]
    titles : sequence of str
    rate, hop : int > 0
        samples per second, samples per frame
    columns : int > 0
    limits : (float, float), optional
        of the colour scale; by default the least and largest value of all
    """
    mels = [np.asarray(mel, dtype=np.float32) for mel in mels]
    if len(mels) != len(titles) or any(mel.ndim != 2 for mel in mels):
        shapes = [mel.shape for mel in mels]
        raise ValueError(f"{len(titles)} titles for mels of shapes {shapes}: give one title per (frames, n_mels)")
    figure, axes = panels(len(mels), columns=columns, width=3.2 if len(mels) > 1 else 5, height=2.3)
    low, high = limits or (min(mel.min() for mel in mels), max(mel.max() for mel in mels))
    for i, (axis, mel, title) in enumerate(zip(axes, mels, titles)):
        extent = (0, len(mel) * hop / rate, 0, mel.shape[1])
        image = axis.imshow(mel.T, origin="lower", aspect="auto", extent=extent, vmin=low, vmax=high, cmap="magma")
        axis.set(title=title, xlabel="Time (s)" if i + columns >= len(mels) else "")
        axis.set_ylabel("Mel band" if i % columns == 0 else "")
    figure.colorbar(image, ax=axes, label="Log magnitude", aspect=12 * -(-len(mels) // columns), pad=0.01)
    return figure


def history(frame, *, terms, log=False):
    """Training curves, one panel per term: each step faint, a running mean over 2 % of them, validation as points.

    Parameters
    ----------
    frame : pandas.DataFrame
        `step`, loss terms, and `val_<term>` with NaN at steps without validation
    terms : sequence of str
        columns to show; one that has only a `val_` column shows its points
    log : bool
        logarithmic losses
    """
    unknown = [t for t in terms if t not in frame and f"val_{t}" not in frame]
    if unknown:
        raise ValueError(f"terms={unknown} are not in the history, which has {list(frame.columns)}")
    figure, axes = panels(len(terms), columns=3, width=4, height=2.9)
    for i, (axis, term) in enumerate(zip(axes, terms)):
        if term in frame:
            curve = frame[["step", term]].dropna()
            smooth = curve[term].rolling(max(1, len(curve) // 50), center=True, min_periods=1).mean()
            axis.plot(curve.step, curve[term], color=PALETTE["ldm"], alpha=0.25, linewidth=0.8)
            axis.plot(curve.step, smooth, color=PALETTE["ldm"], linewidth=1.8, label="training")
        if f"val_{term}" in frame:
            points = frame[["step", f"val_{term}"]].dropna()
            axis.plot(points.step, points[f"val_{term}"], "o-", color=PALETTE["tuning_latent"], markersize=5,
                      linewidth=1, label="validation")  # fmt: skip
        axis.set(title=term.replace("_", " "), xlabel="Training step" if i + 3 >= len(terms) else "")
        axis.set_yscale("log" if log else "linear")
    max(axes, key=lambda axis: len(axis.lines)).legend()  # one that has validation, where any has
    return figure


def metric_bars(summary, *, metric, runs, class_="all", names=None):
    """Scores as points with their intervals, one line per run; the papers' numbers as dashed marks.

    Parameters
    ----------
    summary : pandas.DataFrame
        see `tables`; where a metric has several embedders, filter it to one
    metric : str
    runs : sequence of str
        from top to bottom
    class_ : str or None
        one class ("all": the whole set), or None for a panel per class
    names : dict, optional
        run -> what the reader sees, over `tables.SYSTEMS`
    """
    rows = select(summary, metric=metric, runs=runs, classes=None if class_ is None else [class_])
    classes = [c for c in rows["class"].unique() if c != "all"] if class_ is None else [class_]
    if rows.empty or not classes:
        raise ValueError(f"no {metric} of class {class_!r}: the summary has {sorted(set(summary['class']))}")
    figure, axes = panels(len(classes), columns=4, width=3 if class_ is None else 6, height=0.8 + 0.38 * len(runs),
                          sharey=True)  # fmt: skip
    for axis, name in zip(axes, classes):
        for place, run in enumerate(runs):
            _points(axis, place, rows[(rows["class"] == name) & (rows.run == run)], colour(run))
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.set(title=CLASSES.get(name, name) if class_ != "all" else "", xlabel=metric_label(metric))
    names = SYSTEMS | (names or {})
    axes[0].set_yticks(range(len(runs)), [names.get(run, run) for run in runs])
    axes[0].set_ylim(len(runs) - 0.5, -0.5)
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels())}
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    return figure


def _points(axis, place, rows, shade):
    """One run: a point and whiskers per seed, and the published score across its line."""
    spread = np.linspace(-0.2, 0.2, len(rows)) if len(rows) > 1 else [0.0]
    for offset, row in zip(spread, rows.itertuples()):
        axis.plot([row.low, row.high], [place + offset] * 2, color=shade, linewidth=2, solid_capstyle="round")
        axis.plot(row.value, place + offset, "o", color=shade, markersize=6)
    for row in rows[rows.published.notna()].drop_duplicates("published").itertuples():
        label = "published" if row.comparable is True or row.comparable == 1 else "published (not comparable)"
        axis.plot([row.published] * 2, [place - 0.4, place + 0.4], linestyle=(0, (2, 1.5)), color="#777777",
                  linewidth=1.8, label=label)  # fmt: skip


def _heatmap(matrix, rows, cols, *, bar, texts=None, limits=(None, None)):
    """An annotated image with a name at each row and column."""
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape != (len(rows), len(cols)):
        raise ValueError(f"matrix is {matrix.shape} for {len(rows)} rows and {len(cols)} columns: one name each")
    small = matrix.size <= 200
    size = 0.62 if small else max(0.12, min(0.3, 9 / max(matrix.shape)))
    figure, (axis,) = panels(1, columns=1, width=2.6 + size * len(cols), height=1.6 + size * len(rows))
    texts = np.vectorize("{:.2f}".format)(matrix) if texts is None else texts
    seaborn.heatmap(matrix, ax=axis, annot=texts if small else None, fmt="", cmap="mako", vmin=limits[0],
                    vmax=limits[1], square=True, annot_kws={"size": 8}, cbar_kws={"label": bar, "shrink": 0.8},
                    xticklabels=[words(c) for c in cols], yticklabels=[words(r) for r in rows])  # fmt: skip
    plt.setp(axis.get_xticklabels(), rotation=40, ha="right", rotation_mode="anchor")
    plt.setp(axis.get_yticklabels(), rotation=0)
    axis.tick_params(length=0)
    return figure, axis


def confusion(matrix, labels):
    """Confusion of a classifier: counts, coloured by their share of the true class; matrix [shape=(true, judged)]."""
    counts = np.asarray(matrix)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axis = _heatmap(share, labels, labels, bar="Share of the class", texts=counts.astype(str), limits=(0, 1))
    axis.set(xlabel="Judged as", ylabel="True class")
    return figure


def similarity(matrix, rows, cols):
    """Cosine similarities [shape=(rows, cols)] as an image, with numbers up to 200 cells."""
    figure, axis = _heatmap(matrix, rows, cols, bar="Cosine similarity")
    axis.set(xlabel="", ylabel="")
    return figure


def embedding_map(points2d, labels):
    """Embeddings in two dimensions [shape=(N, 2)], a colour and a mark per label (classes or systems)."""
    points, labels = np.asarray(points2d), np.asarray(labels)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) != len(labels):
        raise ValueError(f"points2d is {points.shape} for {len(labels)} labels: give (N, 2) and N labels")
    figure, (axis,) = panels(1, columns=1, width=7, height=4.8)
    names = sorted(set(labels.tolist()))
    seaborn.scatterplot(x=points[:, 0], y=points[:, 1], hue=labels, style=labels, hue_order=names, style_order=names,
                        palette=colours(names), s=26, alpha=0.8, linewidth=0.3, ax=axis)  # fmt: skip
    handles, _ = axis.get_legend_handles_labels()
    axis.legend(handles, [words(name) for name in names], loc="center left", bbox_to_anchor=(1, 0.5))
    axis.set(xlabel="First axis", ylabel="Second axis", xticks=[], yticks=[])
    return figure


def audit(audit_frame, *, bins=30):
    """Histograms per class (one line of cells each) of level, silence and bandwidth, from `corpora.audit`."""
    groups = dict(list(audit_frame.groupby("label", sort=True))) if "label" in audit_frame else {"all": audit_frame}
    figure, axes = panels(3, columns=3, width=3.9, height=1.4 + 0.26 * len(groups), sharey=True)
    norm = PowerNorm(0.5, vmin=0, vmax=100)  # a few clips far out are seen too
    for axis, (column, title) in zip(axes, AUDITED.items()):
        scale = 1000 if column.endswith("_hz") else 1
        values = [0, 1] if column == "silence_fraction" else audit_frame[column] / scale
        edges = np.histogram_bin_edges(values, bins)
        share = [100 * np.histogram(g[column] / scale, edges)[0] / len(g) for g in groups.values()]
        image = axis.pcolormesh(edges, np.arange(len(groups) + 1), share, cmap="Blues", norm=norm)
        axis.set(xlabel=title, ylim=(len(groups), 0))
    axes[0].set_yticks(np.arange(len(groups)) + 0.5, [words(name) for name in groups])
    figure.colorbar(image, ax=axes, label="Clips of the class (%)", pad=0.01)
    return figure


def frontier(frame, x, y, hue, *, log=False):
    """Quality against cost: column `y` over column `x`, a line per value of column `hue`; `log` is of the x axis.

    Columns `low` and `high` of the frame, where there are any, are drawn as intervals of `y`.
    """
    figure, (axis,) = panels(1, columns=1, width=6.5, height=4)
    shades = colours(frame[hue])
    for name, line in frame.sort_values(x).groupby(hue, sort=False):
        axis.plot(line[x], line[y], "o-", color=shades[name], label=words(name))
        if {"low", "high"} <= set(line.columns):
            axis.vlines(line[x], line.low, line.high, color=shades[name], alpha=0.6)
    axis.set(xlabel=words(x), ylabel=words(y), xscale="log" if log else "linear")
    axis.legend(title=words(hue))
    return figure


def noise_levels(frame, *, x="n"):
    """What depends on the noise: each numeric column of the frame over the diffusion step, column `x`."""
    curves = [c for c in frame.select_dtypes("number") if c != x]
    if not curves:
        raise ValueError(f"no curves: the frame has {list(frame.columns)}, give {x!r} and a column per curve")
    figure, (axis,) = panels(1, columns=1, width=6.5, height=3.8)
    shades, ordered = colours(curves), frame.sort_values(x)
    for name in curves:
        axis.plot(ordered[x], ordered[name], "o-" if len(frame) <= 30 else "-", color=shades[name], label=words(name))
    axis.set(xlabel=words(x), ylabel=words(curves[0]) if len(curves) == 1 else "")
    if len(curves) > 1:
        axis.legend()
    return figure
