"""What the paper notebooks show of results on disk: clips, costs, paired differences, gains of a loss, the best of each
class."""

import numpy as np
import pandas as pd

from foleylib import paths
from foleylib.datasets import samples
from foleylib.evaluation import statistics
from foleylib.evaluation.metrics import HEADLINES
from foleylib.params.settings import Params
from foleylib.sampling.selection import economics

BEST = "best_per_class"  # the run of `best_per_class`


def first_clips(runs: list[str], seed: int | None = None) -> dict[tuple[str, str], np.ndarray]:
    """The first clip of each class, (run, class) -> wave [shape=(T,)], of a training seed where a run has it."""
    clips = {}
    for run in runs:
        folder = paths.clips_of(run)
        manifest, waves = samples.load(folder, seed if seed in samples.seeds(folder) else None)
        clips |= {(run, label): waves[rows[0]] for label, rows in manifest.groupby("label").indices.items()}
    return clips


def fad_as_published(summary: pd.DataFrame, cfg: Params) -> pd.DataFrame:
    """The FAD rows of one embedder: of the one with the challenge's convention, which both papers have, where the settings
    name it, else of CLAP."""
    challenge = [name for name in cfg.evaluate.further if cfg.evaluators[name].kind == "fad_dcase"]
    return summary[(summary.metric == "fad") & (summary.embedder == (challenge or ["clap"])[0])]


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
    return pd.concat([own, _of_same_protocol("exploration")], ignore_index=True)


def confirmed() -> pd.DataFrame:
    """What the weight that was chosen changes on seeds that had no part in the choice: sweeps in results/confirmation that
    share the protocol of this run's, in the form of `evaluation.differences.paired_differences`."""
    sweeps, runs = _of_same_protocol("confirmation"), {False: ("latent", "ldm"), True: ("tuning_latent", "tuning")}
    parts = []
    for metric in HEADLINES if len(sweeps) else ():
        change = gains(sweeps, metric)
        change[["run", "minus"]] = [runs[tuned] for tuned in change.tuning]
        parts.append(change.assign(metric=metric))
    columns = ["run", "minus", "metric", "mean", "low", "high", "seeds"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _of_same_protocol(folder: str) -> pd.DataFrame:
    """The sweeps in a folder of results with data, training and sampling of this run's sweep, stacked."""
    own = pd.read_csv(paths.RESULTS / "lambda_sweep.csv")
    every = pd.concat(
        [own.head(0), *map(pd.read_csv, sorted((paths.RESULTS / folder).glob("*.csv")))], ignore_index=True
    )
    return every.merge(own[["training", "sampling"]].head(1))


def comparisons(differences: pd.DataFrame) -> str:
    """How many comparisons there are, how many leave zero outside their interval, and how many would by chance."""
    tested = differences.dropna(subset="low")
    clear = ((tested.low > 0) | (tested.high < 0)).sum()
    chance = f"{0.05 * len(tested):.1f} would by chance"
    return f"{len(tested)} differences with an interval: {clear} leave zero out, where {chance}"


def best_per_class(summary: pd.DataFrame, validation: pd.DataFrame, runs: list[str]) -> tuple[pd.DataFrame, pd.Series]:
    """The headline of text-driven-foley, for each class the system that is best in it; chosen here on *validation* clips.

    The paper chose on the scores that it reports. The training seeds are those that all runs have.

    Parameters
    ----------
    validation : [run, class, seed, kad], as `stages.evaluate.on_validation` returns it

    Returns
    -------
    rows of the summary for the run "best_per_class", with averages over classes of their own; the run chosen [index=class]
    """
    same = validation[validation.run.isin(runs)]
    seeds = set.intersection(*(set(part.seed) for _, part in same.groupby("run")))
    kads = same[same.seed.isin(seeds)].groupby(["class", "run"]).kad.mean().unstack()
    choice = kads.idxmin(axis=1).rename("run")
    pairs = pd.MultiIndex.from_arrays([choice.index, choice])
    rows = summary[summary.seed.isin(seeds)]
    rows = rows[pd.MultiIndex.from_frame(rows[["class", "run"]]).isin(pairs)]
    average = rows.groupby(["metric", "embedder", "seed"], sort=False).value.mean().reset_index()
    return pd.concat([rows, average.assign(**{"class": "average"})], ignore_index=True).assign(run=BEST), choice
