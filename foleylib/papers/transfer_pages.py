"""What the notebook of audioldm-transfer-benchmark shows of results on disk."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from foleylib.evaluation import statistics
from foleylib.evaluation.differences import paired_differences
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
    ("pretrained_text", "pretrained_audio"),
    ("pretrained_audio", "scratch_audio"),
    ("scratch_text", "scratch_audio"),
]
EMBEDDERS = {"judge": "the judge", "clap": "CLAP"}  # in words
LEAST = 0.005  # of the change under silence, for a change to count: a KL of clips with themselves is 0 to many digits
SCORES = {  # of the tables, with their embedder: those of the paper, and what else is a headline here
    "fd": "judge",
    "is": "judge",
    "kl_pairs": "judge",
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
    """Paired differences of the settings of `PAIRS`, for each score of `SCORES`; `scores` are those of `chosen`, of one
    corpus."""
    runs = scores.rename(columns={"setting": "run"}).assign(**{"class": "average"})  # of the whole set
    return paired_differences(runs, PAIRS, SCORES)


def from_scratch(scores: pd.DataFrame) -> str:
    """A sentence (Markdown) on how far training from scratch has come, by the judge's accuracy; `scores` are those of
    `chosen`, of one corpus with classes, else it is empty."""
    rows = scores[(scores.metric == "judge_accuracy") & (scores.embedder == "judge")]
    if rows.empty:
        return ""
    found = rows.groupby(rows.setting.str.startswith("scratch")).value.mean()
    return f"**From scratch** the judge recognises {found[True]:.2f} of the clips, pre-trained {found[False]:.2f}."


def noticed(frame: pd.DataFrame) -> pd.DataFrame:
    """From which share of damaged clips on a score notices that something is wrong.

    That is the least share from which on it is worse than with the same clips whole: Student's interval over draws of the
    change leaves zero out, and the mean change is more than `LEAST` of that under silence. Draws share clips, so that the
    interval is somewhat too narrow. `frame` is what `stages.sensitivity.make` returns.

    Returns
    -------
    DataFrame [damage, metric, embedder, share], the share NaN where it never is
    """
    changes = {}
    for (damage, metric, embedder), part in frame.groupby(["damage", "metric", "embedder"], sort=False):
        by_draw = part.pivot(index="draw", columns="share", values="value")
        change = by_draw.sub(by_draw.iloc[:, 0], axis=0).iloc[:, 1:]
        changes[damage, metric, embedder] = change if METRICS[metric].better == "lower" else -change
    table = []
    for (damage, metric, embedder), change in changes.items():
        least = LEAST * changes["silence", metric, embedder].iloc[:, -1].mean()
        worse = [
            mean > least and low > 0 for mean, low, _ in (statistics.over_seeds(change[share]) for share in change)
        ]
        clear = np.array(worse, dtype=int)[::-1].cumprod()[::-1].astype(bool)
        table.append((damage, metric, embedder, change.columns[clear][0] if clear.any() else np.nan))
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
