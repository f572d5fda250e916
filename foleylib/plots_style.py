"""Theme, colours and figure frames of `plots`."""

import zlib

import matplotlib.pyplot as plt
import seaborn

from foleylib.tables import CLASSES, SYSTEMS, metric_label

PALETTE = {  # seaborn's colour-blind palette, one colour per system in every figure
    "real": "#333333",
    "reconstruction": "#949494",
    "foundation": "#56b4e9",
    "scratch": "#de8f05",
    "ldm": "#0173b2",
    "ldm_ddim": "#56788f",
    "label": "#ca9161",
    "tuning": "#029e73",
    "latent": "#cc78bc",
    "tuning_latent": "#d55e00",
    "large": "#b8a200",
}
OTHERS = ("#332288", "#44aa99", "#999933", "#882255", "#cc6677", "#117733", "#aa4499", "#88ccee")  # Tol's muted scheme
AXES = {
    "seconds": "Time per clip (s)",
    "seconds_per_clip": "Time per clip (s)",
    "n": "Diffusion step n",
    "step": "Training step",
    "steps": "Sampling steps",
    "lambda_lclap": "λ of the latent CLAP loss",
    "cosine": "Cosine similarity",
}


def set_theme():
    """Set the look of every figure: seaborn on white, colour-blind palette, 100 dots per inch."""
    seaborn.set_theme(
        context="notebook",
        style="ticks",
        palette="colorblind",
        font_scale=0.9,
        rc={"figure.dpi": 100, "savefig.dpi": 100, "axes.spines.top": False, "axes.spines.right": False,
            "axes.titlesize": "medium", "legend.frameon": False},
    )  # fmt: skip


def colour(name):
    """Colour of a system, the same in every figure and for its selected clips; other names get one of their own."""
    return PALETTE.get(str(name).removesuffix("_filter")) or OTHERS[zlib.crc32(str(name).encode()) % len(OTHERS)]


def colours(names):
    """Colour by name: systems as `colour`, other labels (classes) by their order."""
    names = list(dict.fromkeys(names))
    if any(str(name).removesuffix("_filter") in PALETTE for name in names):
        return {name: colour(name) for name in names}
    kind = "colorblind" if len(names) <= 10 else "husl"
    return dict(zip(names, seaborn.color_palette(kind, len(names))))


def panels(n, *, columns, width, height, sharex=False, sharey=False):
    """A figure of `n` panels in rows of `columns`; returns the figure and its n axes.

    The figure is closed for pyplot: a notebook shows it once, as the value of its cell, and none piles up.
    """
    if n < 1:
        raise ValueError("nothing to plot: give at least one panel")
    columns = min(n, columns)
    rows = -(-n // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False,
                                sharex=sharex, sharey=sharey, layout="constrained")  # fmt: skip
    figure.get_layout_engine().set(wspace=0.05, hspace=0.05)
    plt.close(figure)
    for spare in axes.flat[n:]:
        spare.remove()
    return figure, list(axes.flat[:n])


def words(name):
    """A column or class name as words of an axis."""
    known = AXES.get(name) or CLASSES.get(name) or SYSTEMS.get(name)
    label = known or metric_label(name)
    return label if label != name else str(name).replace("_", " ")
