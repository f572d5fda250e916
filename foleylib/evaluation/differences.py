"""What changes from one run to another, paired over training seeds."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from foleylib.evaluation import statistics
from foleylib.evaluation.metrics import HEADLINES


def paired_differences(
    summary: pd.DataFrame, pairs: Sequence[tuple[str, str]], metrics: Mapping[str, str] = HEADLINES
) -> pd.DataFrame:
    """Differences of class averages between two runs, for every metric (with its embedder), over the training seeds that
    both have.

    Two runs of one seed were drawn from the same noise, so what both share cancels.

    Returns
    -------
    DataFrame [run, minus, metric, mean, low, high, seeds], Student's 95 % interval over seeds, NaN below three seeds.
    """
    rows, summary = [], summary[summary["class"] == "average"].drop_duplicates(["run", "metric", "embedder", "seed"])
    for metric, embedder in metrics.items():
        scores = summary[(summary.metric == metric) & (summary.embedder == embedder)]
        scores = scores.pivot(index="seed", columns="run", values="value")
        for run, minus in pairs if len(scores) else ():
            if lacking := sorted({run, minus} - set(scores)):
                raise ValueError(f"{', '.join(lacking)}: no {metric} by {embedder} of this run; score it first")
            change = (scores[run] - scores[minus]).dropna()
            interval = statistics.over_seeds(change) if len(change) else [np.nan] * 3
            rows.append((run, minus, metric, *interval, len(change)))
    return pd.DataFrame(rows, columns=["run", "minus", "metric", "mean", "low", "high", "seeds"])
