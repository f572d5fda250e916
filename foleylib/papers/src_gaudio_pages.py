"""What the notebooks of src-gaudio and of the combined model show of results on disk."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from foleylib import paths
from foleylib.audio.io import at_rate
from foleylib.datasets import samples
from foleylib.evaluation import statistics
from foleylib.evaluation.differences import paired_differences
from foleylib.evaluation.metrics import METRICS
from foleylib.params.runs import Display

DISPLAY = {
    "joint": Display("Joint", "#0173b2"),
    "joint_low": Display("Joint, pre-trained low", "#029e73"),
    "per_rate": Display("Per rate, pre-trained low", "#d55e00"),
    "real": Display("Real clips", "#333333"),
    "codec": Display("Real clips through the codec", "#949494"),
}
PAIRS = [("joint_low", "per_rate"), ("joint_low", "joint")]  # which differ in one thing each
SCORES = {  # of the tables, with their embedder: those of the paper, and what else is a headline here
    "fd": "judge",
    "is": "judge",
    "kl_pairs": "judge",
    "fad": "clap",
    "clap_score": "clap",
    "coverage": "judge",
    "judge_accuracy": "judge",
    "rolloff": "none",
    "rolloff_error": "none",
}
CURVES = {name: SCORES[name] for name in ("fd", "kl_pairs", "clap_score", "judge_accuracy", "rolloff", "rolloff_error")}
JUDGED = {
    name: embedder for name, embedder in SCORES.items() if name != "rolloff"
}  # of which one is better than another
KINDS = {"same": "Same seed", "other": "Another clip of the class"}


def rate_name(rate: int) -> str:
    """ "16 kHz"."""
    return f"{rate / 1000:g} kHz"


def named(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores with their rate in words."""
    return scores.assign(rate=scores.rate.map(rate_name))


def rows_by_rate(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores with their rate in kHz, for curves over it."""
    return scores.assign(rate=scores.rate / 1000)


def over_rates(scores: pd.DataFrame) -> pd.DataFrame:
    """The means over all rates, by model and seed."""
    return scores.groupby(["model", "seed", "metric", "embedder"], sort=False).value.mean().reset_index()


def differences(
    scores: pd.DataFrame, pairs: Sequence[tuple[str, str]], metrics: Mapping[str, str] = JUDGED, rate: int | None = None
) -> pd.DataFrame:
    """Paired differences of models over the training seeds, at a rate, or of the means over all rates."""
    means = over_rates(scores if rate is None else scores[scores.rate == rate])
    return paired_differences(means.assign(run=means.model, **{"class": "average"}), pairs, metrics)


def by_rate(scores: pd.DataFrame, pairs: Sequence[tuple[str, str]], display: Mapping[str, Display]) -> pd.DataFrame:
    """Differences at each rate: a row a pair and rate, a column a metric; a star where the interval leaves zero out."""
    table = {}
    for run, minus in pairs:
        for rate in dict.fromkeys(scores.rate):
            rows = differences(scores, [(run, minus)], rate=rate)
            key = f"{display[run].name} − {display[minus].name}", rate_name(rate)
            table[key] = {METRICS[row.metric].label: _signed(row) for row in rows.itertuples()}
    return pd.DataFrame.from_dict(table, orient="index").rename_axis(["Difference", "rate"])


def _signed(row) -> str:
    star = "*" if row.low > 0 or row.high < 0 else ""
    return f"{row.mean:+.{METRICS[row.metric].digits}f}".replace("-", "−") + star


def swap_table(swap: pd.DataFrame) -> pd.DataFrame:
    """How alike clips of one seed are at each rate and at the lowest: means over seeds, a row a model and rate."""
    rows = named(swap).assign(model=swap.model.map(lambda name: DISPLAY[name].name), kind=swap.kind.map(KINDS))
    rows = rows.assign(metric=rows.metric.map(lambda metric: METRICS[metric].label))
    return rows.pivot_table(index=["model", "rate"], columns=["metric", "kind"], values="value", sort=False).round(2)


def bands_table(bands: pd.DataFrame, model: str) -> pd.DataFrame:
    """How high each class reaches at each rate, in the clips of a model and in real ones: roll-off (kHz), and at the highest
    rate the energy above 12 kHz in dB of all. Clips without classes are one row."""
    bands, table = bands.assign(label=bands.label.fillna("all")), {}
    for name in (model, "real"):
        rows = named(bands[bands.model == name])
        wide = rows.groupby(["label", "rate"], sort=False).rolloff.mean().unstack()
        for rate in dict.fromkeys(rows.rate):
            table[DISPLAY[name].name, f"roll-off, {rate}"] = wide[rate].round(1)
        top = bands[(bands.model == name) & (bands.rate == bands.rate.max())].groupby("label", sort=False).above.mean()
        table[DISPLAY[name].name, "above 12 kHz (dB)"] = top.round(0)
    return pd.DataFrame(table)


def sentence_on_rates(scores: pd.DataFrame, model: str) -> str:
    """A sentence (Markdown) on how high the clips of a model reach at each rate, and where they have classes on how many of
    them the judge recognises, beside real ones."""
    told = []
    for rate, rows in scores.groupby("rate"):
        own, real = (rows[rows.model == name].groupby("metric").value.mean() for name in (model, "real"))
        known = f"{own.judge_accuracy:.0%} ({real.judge_accuracy:.0%}), " if "judge_accuracy" in own else ""
        told.append(f"{rate_name(rate)} {known}{own.rolloff:.1f} kHz ({real.rolloff:.1f})")
    what = "recognised by the judge, and " if "judge_accuracy" in set(scores.metric) else ""
    return f"**{DISPLAY[model].name}**, {what}roll-off, real clips in brackets: {'; '.join(told)}."


def sentence_on_swap(swap: pd.DataFrame, model: str) -> str:
    """A sentence (Markdown) on whether one caption and noise is the same event at every rate."""
    rows, told = swap[swap.model == model], []
    for metric, part in rows.groupby("metric", sort=False):
        wide = part.groupby(["seed", "kind"]).value.mean().unstack()
        mean, low, high = statistics.over_seeds(wide.same - wide.other)
        label, digits = METRICS[metric].label, METRICS[metric].digits
        interval = "" if np.isnan(low) else f" [{low:+.{digits}f}, {high:+.{digits}f}]"
        own, other = wide.same.mean(), wide.other.mean()
        told.append(
            f"{label} {own:.{digits}f}, with another clip of the class {other:.{digits}f} ({mean:+.{digits}f}{interval})"
        )
    return f"**One clip at two rates, of the same noise**: {'; '.join(told)}.".replace("-", "−")


def panel(
    folder: str, models: Sequence[str], rates: Sequence[int], count: int, display: Mapping[str, Display] = DISPLAY
) -> dict[tuple[str, str], np.ndarray]:
    """Clips of each model at each rate, of as many classes, or the first where there are none, brought to the highest rate:
    (model and rate, caption) -> wave [shape=(T,)]. All are of the first seed."""
    found = {}
    for model in models:
        for rate in rates:
            manifest, waves = samples.load(paths.EXAMPLES / folder / f"{model}_{rate}")
            rows = manifest.groupby("label", sort=False).head(1) if (manifest.target >= 0).any() else manifest
            for row, clip in zip(rows.index[:count], rows.itertuples()):
                wave = at_rate(torch.from_numpy(waves[[row]]), rate, rates[-1])[0].numpy()
                found[f"{display[model].name}, {rate_name(rate)}", clip.caption] = wave
    return found
