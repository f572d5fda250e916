"""What the notebook of audioldm-transfer-benchmark shows of results on disk."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from foleylib.evaluation import statistics
from foleylib.evaluation.metrics import METRICS
from foleylib.params.runs import Display

SETTINGS = {  # of Table II, in its order: how each is shown
    "scratch_audio": Display("Scratch, audio", "#ca9161"),
    "scratch_text": Display("Scratch, text", "#d55e00"),
    "pretrained_audio": Display("Pre-trained, audio", "#56b4e9"),
    "pretrained_text": Display("Pre-trained, text", "#0173b2"),
}
PAIRS = [  # what pre-training changes under each condition, and the condition after each start
    ("pretrained_text", "scratch_text"),
    ("pretrained_audio", "scratch_audio"),
    ("scratch_text", "scratch_audio"),
    ("pretrained_text", "pretrained_audio"),
]
EMBEDDERS = {"judge": "the judge", "clap": "CLAP"}  # in words
LEAST = 0.005  # of the change under silence, for a change to count: a KL of clips with themselves is 0 to many digits
SCORES = {  # of the tables, with their embedder: those of the paper, and what else is a headline here
    "fd": "judge",
    "is": "judge",
    "kl": "judge",
    "fad": "clap",
    "kad": "judge",
    "coverage": "judge",
    "judge_accuracy": "judge",
    "clap_score": "clap",
}


def chosen(tuned: pd.DataFrame) -> pd.DataFrame:
    """Test scores of the checkpoint of each training that has the least KAD on *validation* clips."""
    kads = tuned[(tuned.split == "val") & (tuned.metric == "kad") & (tuned.embedder == "judge")]
    training = ["corpus", "setting", "seed"]
    best = kads.loc[kads.groupby(training).value.idxmin(), [*training, "step"]]
    return tuned[tuned.split == "test"].merge(best)


def best_on_test(tuned: pd.DataFrame) -> pd.DataFrame:
    """The paper's protocol, as what it is: of each metric the best *test* score of all checkpoints of a training."""
    rows = tuned[tuned.split == "test"]
    rows = rows.assign(worse=[v if METRICS[m].better == "lower" else -v for v, m in zip(rows.value, rows.metric)])
    best = rows.groupby(["corpus", "setting", "seed", "metric", "embedder"]).worse.idxmin()
    return rows.loc[best.sort_values()].drop(columns="worse").reset_index(drop=True)


def differences(scores: pd.DataFrame) -> pd.DataFrame:
    """Paired differences of the settings of `PAIRS` over training seeds, for each score of `SCORES`.

    `scores` are those of `chosen`, of one corpus; the form is that of `papers.pages.paired_differences`.
    """
    rows = []
    for metric, embedder in SCORES.items():
        part = scores[(scores.metric == metric) & (scores.embedder == embedder)]
        wide = part.pivot(index="seed", columns="setting", values="value")
        for run, minus in PAIRS if len(wide) else ():
            change = (wide[run] - wide[minus]).dropna()
            interval = statistics.over_seeds(change) if len(change) else [np.nan] * 3
            rows.append((run, minus, metric, *interval, len(change)))
    return pd.DataFrame(rows, columns=["run", "minus", "metric", "mean", "low", "high", "seeds"])


def noticed(frame: pd.DataFrame) -> pd.DataFrame:
    """From which share of damaged clips on a score notices that something is wrong.

    That is the least share from which on the mean over draws is worse than with whole clips by more than twice the
    deviation over draws there, and by more than `LEAST` of what it is worse by when all clips are silent. `frame` is what
    `stages.sensitivity.make` returns.

    Returns
    -------
    DataFrame [damage, metric, embedder, share], the share NaN where it never is
    """
    rows, scale = [], {}
    for (damage, metric, embedder), part in frame.groupby(["damage", "metric", "embedder"], sort=False):
        by_share = part.groupby("share").value.agg(["mean", "std"])
        worse = by_share["mean"] - by_share["mean"].iloc[0]
        worse = worse if METRICS[metric].better == "lower" else -worse
        rows.append((damage, metric, embedder, worse, 2 * by_share["std"].iloc[0]))
        if damage == "silence":
            scale[metric, embedder] = worse.iloc[-1]
    table = []
    for damage, metric, embedder, worse, chance in rows:
        clear = (worse > max(chance, LEAST * scale[metric, embedder])).to_numpy()[::-1].cumprod()[::-1].astype(bool)
        table.append((damage, metric, embedder, worse.index[clear][0] if clear.any() else np.nan))
    return pd.DataFrame(table, columns=["damage", "metric", "embedder", "share"])


def sentence(seen: pd.DataFrame, damages: Mapping[str, str]) -> str:
    """A sentence (Markdown) on which scores notice which damage; `seen` is of `noticed`, and `damages` has the words for
    those that are told."""
    several = seen.groupby("metric").embedder.nunique() > 1
    names = [
        METRICS[row.metric].label + (f" on {EMBEDDERS.get(row.embedder, row.embedder)}" if several[row.metric] else "")
        for row in seen.itertuples()
    ]
    told, seen = [], seen.assign(name=names)
    for damage, words in damages.items():
        rows = seen[seen.damage == damage]
        sees, blind = rows.name[rows.share.notna()], rows.name[rows.share.isna()]
        if len(blind) < len(sees):
            who = "every score" + (f" but {', '.join(blind)}" if len(blind) else "")
        else:
            who = f"only {', '.join(sees)}" if len(sees) else "no score"
        told += [f"{words} by {who}"] if len(rows) else []
    return f"**What the scores notice**: {'; '.join(told)}."


def start_of(untuned: pd.DataFrame, corpus: str) -> pd.DataFrame:
    """Scores of the untuned foundation under text, as those of the pre-trained settings before their first step."""
    rows = untuned[(untuned.corpus == corpus) & (untuned.condition == "text")]
    return pd.concat([rows.assign(setting=setting) for setting in SETTINGS if setting.startswith("pretrained")])
