"""What the paper notebooks show of results on disk: clips, costs, paired differences, the gain of a loss."""

import numpy as np
import pandas as pd

from foleylib import paths
from foleylib.datasets import samples
from foleylib.evaluation import statistics
from foleylib.evaluation.metrics import HEADLINES
from foleylib.sampling.selection import economics


def first_clips(runs: list[str], seed: int | None = None) -> dict[tuple[str, str], np.ndarray]:
    """The first clip of each class, (run, class) -> wave [shape=(T,)], of a training seed where a run has it."""
    clips = {}
    for run in runs:
        folder = paths.SAMPLES / run
        manifest, waves = samples.load(folder, seed if seed in samples.seeds(folder) else None)
        clips |= {(run, label): waves[rows[0]] for label, rows in manifest.groupby("label").indices.items()}
    return clips


def report_of(name: str) -> pd.DataFrame:
    """What `stages.selection.make` returned, read from data/samples/`name`."""
    file = paths.SAMPLES / name / "report.csv"
    if not file.is_file():
        raise ValueError(f"{file} is missing; run the selection stage of '{name}' first")
    return pd.read_csv(file)


def candidates_per_clip(names: list[str]) -> pd.DataFrame:
    """Candidates drawn for each accepted clip, over all seeds: a row a class and "all", a column a selected run."""
    costs = {}
    for name in names:
        drawn = report_of(name).groupby("label", sort=False)[["accepted", "candidates"]].sum().reset_index()
        costs[name] = economics(drawn, 1.0).set_index("label").candidates_per_clip
    return pd.DataFrame(costs)


def gains(sweeps: pd.DataFrame, metric: str) -> pd.DataFrame:
    """What a weight of the Latent CLAP loss changes, from the model of weight 0 of the same `protocol`, weighting of the
    diffusion loss, length and seed.

    `sweeps` are one or more tables of `sweep`, stacked; a row that is there twice counts once.

    Returns
    -------
    DataFrame [training, sampling, weighting, steps, tuning, s_n, lambda_lclap, mean, low, high, seeds]: Student's 95 %
    interval over seeds, NaN below three.
    """
    shared = ["training", "sampling", "weighting", "steps", "tuning"]
    same, keys = [*shared, "seed"], [*shared, "s_n", "lambda_lclap"]
    base = sweeps[sweeps.lambda_lclap == 0].drop_duplicates(same).set_index(same)[metric]
    rows = sweeps[sweeps.lambda_lclap > 0].drop_duplicates([*keys, "seed"])
    change = rows[metric] - base.reindex(pd.MultiIndex.from_frame(rows[same])).to_numpy()
    groups = rows.assign(change=change).dropna(subset="change").groupby(keys, sort=True).change
    table = [(*key, *statistics.over_seeds(part), len(part)) for key, part in groups]
    return pd.DataFrame(table, columns=[*keys, "mean", "low", "high", "seeds"])


def explored() -> pd.DataFrame:
    """The sweep of this run with those of results/exploration that share its protocol, stacked."""
    own = pd.read_csv(paths.RESULTS / "lambda_sweep.csv")
    files = sorted((paths.RESULTS / "exploration").glob("*.csv"))
    every = pd.concat([own, *map(pd.read_csv, files)], ignore_index=True)
    return every.merge(own[["training", "sampling"]].head(1))


def paired_differences(summary: pd.DataFrame, pairs: list[tuple[str, str]]) -> pd.DataFrame:
    """Differences of class averages between two runs, for every headline metric, over the training seeds that both have.

    Two runs of one seed were drawn from the same noise, so what both share cancels.

    Returns
    -------
    DataFrame [run, minus, metric, mean, low, high, seeds], Student's 95 % interval over seeds, NaN below three seeds.
    """
    rows, summary = [], summary[summary["class"] == "average"].drop_duplicates(["run", "metric", "embedder", "seed"])
    for metric, embedder in HEADLINES.items():
        scores = summary[(summary.metric == metric) & (summary.embedder == embedder)]
        scores = scores.pivot(index="seed", columns="run", values="value")
        for run, minus in pairs if len(scores) else ():
            change = (scores[run] - scores[minus]).dropna()
            interval = statistics.over_seeds(change) if len(change) else [np.nan] * 3
            rows.append((run, minus, metric, *interval, len(change)))
    return pd.DataFrame(rows, columns=["run", "minus", "metric", "mean", "low", "high", "seeds"])


def comparisons(differences: pd.DataFrame) -> str:
    """How many comparisons there are, how many leave zero outside their interval, and how many would by chance."""
    tested = differences.dropna(subset="low")
    clear = ((tested.low > 0) | (tested.high < 0)).sum()
    chance = f"{0.05 * len(tested):.1f} would by chance"
    return f"{len(tested)} differences with an interval: {clear} leave zero out, where {chance}"
