"""What the notebook of re-audioldm shows of results on disk."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from foleylib import paths
from foleylib.datasets import manifest as manifests
from foleylib.datasets import samples
from foleylib.datasets.retrieval import Neighbours
from foleylib.evaluation import statistics
from foleylib.evaluation.differences import paired_differences
from foleylib.evaluation.metrics import METRICS
from foleylib.params.retrieval import Read, ReAudioLdm
from foleylib.params.runs import Display

COLOURS = ("#777777", "#56b4e9", "#029e73", "#fbafe4", "#d55e00", "#cc78bc", "#0173b2", "#de8f05")  # of models, in turn
SCORES = {  # of the tables, with their embedder: those of the paper first
    "kl_pairs": "judge",
    "is": "judge",
    "fad": "clap",
    "clap_score": "clap",
    "fd": "judge",
    "coverage": "judge",
    "event_recall": "detector",
    "event_precision": "detector",
    "event_order": "detector",
    "event_ordered": "detector",
}
COMPARED = {
    name: embedder for name, embedder in SCORES.items() if name != "event_ordered"
}  # that one says how many clips
BY_CLASS = {"clap_score": "clap", "event_recall": "detector"}
NEAREST = {"nearest_clap": "clap", "nearest_mel": "mel"}
OWN = "own"  # the variant of the neighbours that a model was trained with
VARIANTS = {
    "own": "as trained",
    "off": "without neighbours",
    "swapped": "neighbours of another clip",
    "train": "among training clips",
    "full": "among test clips too, without kin",
    "published": "with the clip itself, as published",
}


def name_of(reads: Read | None) -> str:
    """What a model reads, in words: "Audio + text, K = 3"."""
    if reads is None:
        return "No retrieval"
    kinds = [kind for kind in ("audio", "text") if getattr(reads, kind)]
    return f"{' + '.join(kinds).capitalize()}, K = {reads.k}"


def display(settings: ReAudioLdm) -> dict[str, Display]:
    """Name and colour of each model, of the real clips and of these through the codec, and of the probed model's variants."""
    shown = {
        name: Display(name_of(reads), COLOURS[number % len(COLOURS)])
        for number, (name, reads) in enumerate(settings.models.items())
    }
    shown |= {"real": Display("Real clips", "#333333"), "codec": Display("Real clips through the codec", "#949494")}
    others = {variant: words[0].upper() + words[1:] for variant, words in VARIANTS.items() if variant != OWN}
    return shown | {variant: Display(name, None) for variant, name in others.items()}  # each in a colour of its own


def as_trained(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of every model under the first captions with the neighbours that it was trained with."""
    return scores[(scores.variant == OWN) & (scores.caption == 0)]


def differences(
    scores: pd.DataFrame, pairs: Sequence[tuple[str, str]], metrics: Mapping[str, str] = COMPARED, column: str = "model"
) -> pd.DataFrame:
    """Paired differences of models, or of the values of another column, over the training seeds."""
    rows = scores.assign(run=scores[column], **{"class": "average"})  # of the whole set
    known = set(zip(rows.metric, rows.embedder))
    return paired_differences(rows, pairs, {m: e for m, e in metrics.items() if (m, e) in known})


def probes(scores: pd.DataFrame, probed: str) -> pd.DataFrame:
    """The rows of the probed model under every variant, which stands in `model`; as it was trained first."""
    rows = scores[(scores.model == probed) & (scores.caption == 0)]
    return rows.assign(model=rows.variant.where(rows.variant != OWN, probed))


def numbers(scores: pd.DataFrame, settings: ReAudioLdm) -> pd.DataFrame:
    """Fig. 3: the rows of the baseline and of the models that read both kinds, with their "k" (0 of the baseline)."""
    like = settings.models[settings.probed]
    k = {settings.baseline: 0}
    k |= {name: reads.k for name, reads in settings.models.items() if reads and reads == like.changed(k=reads.k)}
    rows = as_trained(scores)
    return rows[rows.model.isin(list(k))].assign(k=lambda frame: frame.model.map(k)).sort_values("k", kind="stable")


def groups(scores: pd.DataFrame, settings: ReAudioLdm) -> pd.DataFrame:
    """Fig. 3: the rows of baseline and probed model for each caption of a clip, of the seed that has them all."""
    rows = scores[(scores.variant == OWN) & scores.model.isin([settings.baseline, settings.probed])]
    return rows[rows.seed == settings.seeds[0]].assign(caption=lambda frame: frame.caption + 1)


def bucket_names(edges: Sequence[int]) -> list[str]:
    """Names of buckets by their least numbers of training sounds: "0", "1 to 99", "100 and more"."""
    ends = [*edges[1:], None]
    names = [f"{low} and more" if end is None else f"{low} to {end - 1}" for low, end in zip(edges, ends)]
    return [f"{low}" if end == low + 1 else name for low, end, name in zip(edges, ends, names)]


def buckets(classes: pd.DataFrame, edges: Sequence[int]) -> pd.DataFrame:
    """Fig. 4: the scores of clips by how often their class was trained on, means over classes weighted by their clips.

    Returns
    -------
    DataFrame [model, variant, seed, bucket, clips, metric, embedder, value], buckets from rare to frequent
    """
    names, rows = bucket_names(edges), classes[classes.caption == 0]
    place = np.searchsorted(edges, rows.trained, side="right") - 1
    rows = rows.assign(bucket=pd.Categorical(np.array(names)[place], names, ordered=True))
    keys, table = ["model", "variant", "seed", "bucket"], []
    for key, part in rows.groupby(keys, sort=False, observed=True):
        for metric, embedder in BY_CLASS.items():
            value = np.average(part[metric], weights=part.clips)
            table.append((*key, int(part.clips.sum()), metric, embedder, value))
    frame = pd.DataFrame(table, columns=[*keys, "clips", "metric", "embedder", "value"])
    return frame.assign(bucket=pd.Categorical(frame.bucket, names, ordered=True))


def gain_by_bucket(frame: pd.DataFrame, model: str, minus: str, variant: str = OWN) -> pd.DataFrame:
    """What a model under a variant brings in each bucket beside another as trained: [bucket, clips, metric, mean, low, high,
    seeds], Student's 95 % interval over seeds. `frame` is of `buckets`."""
    own = frame[(frame.model == model) & (frame.variant == variant)]
    base = frame[(frame.model == minus) & (frame.variant == OWN)]
    both = own.merge(base, on=["seed", "bucket", "metric"], suffixes=("", "_base"))
    table = []
    for (metric, bucket), part in both.groupby(["metric", "bucket"], sort=False, observed=True):
        change = part.value - part.value_base
        table.append((bucket, part.clips.iloc[0], metric, *statistics.over_seeds(change), len(change)))
    columns = ["bucket", "clips", "metric", "mean", "low", "high", "seeds"]
    return pd.DataFrame(table, columns=columns).sort_values(["metric", "bucket"], ignore_index=True)


def tail_against_head(frame: pd.DataFrame, model: str, minus: str, metric: str, variant: str = OWN) -> pd.Series:
    """How much more a model brings in the rarest bucket than in the most frequent one: mean, low, high over seeds."""
    own = frame[(frame.model == model) & (frame.variant == variant) & (frame.metric == metric)]
    base = frame[(frame.model == minus) & (frame.variant == OWN) & (frame.metric == metric)]
    both = own.merge(base, on=["seed", "bucket"], suffixes=("", "_base"))
    change = (both.value - both.value_base).groupby([both.seed, both.bucket], observed=True).first().unstack()
    more = change.iloc[:, 0] - change.iloc[:, -1]
    return pd.Series([*statistics.over_seeds(more)], index=["mean", "low", "high"])


def gains_table(frame: pd.DataFrame, model: str, minus: str) -> pd.DataFrame:
    """What the model brings in each bucket beside another, among training clips and, where it was asked, among test clips
    too: a row a bucket, a column a score and protocol, "mean [low, high]"."""
    table = {}
    for variant in (OWN, "full"):
        for row in gain_by_bucket(frame, model, minus, variant).itertuples():
            head = METRICS[row.metric].label, VARIANTS["train" if variant == OWN else variant]
            digits = METRICS[row.metric].digits
            interval = "" if np.isnan(row.low) else f" [{row.low:+.{digits}f}, {row.high:+.{digits}f}]"
            table.setdefault(head, {})[row.bucket] = f"{row.mean:+.{digits}f}{interval}".replace("-", "−")
    return pd.DataFrame(table).rename_axis("Training sounds")


def sentence_on_tail(frame: pd.DataFrame, model: str, minus: str) -> str:
    """A sentence (Markdown) on whether rare and unseen sounds gain more of retrieval than frequent ones."""
    told = []
    for variant in (OWN, "full"):
        for metric in BY_CLASS if (frame.variant == variant).any() else ():
            more = tail_against_head(frame, model, minus, metric, variant)
            if np.isnan(more.low):  # too few seeds
                continue
            clear = "more" if more.low > 0 else "less" if more.high < 0 else "neither more nor less"
            where = VARIANTS["train" if variant == OWN else variant]
            digits = METRICS[metric].digits
            numbers = f"{more['mean']:+.{digits}f} [{more.low:+.{digits}f}, {more.high:+.{digits}f}]".replace("-", "−")
            told.append(f"{clear} in {METRICS[metric].label} ({numbers}; {where})")
    if not told:
        return ""
    rarest = frame[(frame.metric == "event_recall") & (frame.bucket == frame.bucket.cat.categories[0])]
    heard = [rarest[rarest.model == name].groupby("variant").value.mean().max() for name in (model, minus)]
    return (
        f"**Sounds of the rarest bucket gain, beside the most frequent ones**: {'; '.join(told)}. Their own recall is "
        f"{heard[0]:.2f} with retrieval at best, {heard[1]:.2f} without."
    )


def sentence_on_copying(scores: pd.DataFrame, settings: ReAudioLdm) -> str:
    """A sentence (Markdown) on how near the samples are to the neighbours they were given."""
    rows, names = as_trained(scores), (settings.probed, settings.baseline, "real")
    told = []
    for metric in NEAREST:
        values = rows[rows.metric == metric].groupby("model").value.mean()
        own, base, real = (f"{values[name]:.{METRICS[metric].digits}f}" for name in names)
        told.append(f"{own} with retrieval, {base} without, {real} of real clips ({METRICS[metric].label})")
    return f"**Copying**, as similarity to the nearest neighbour of the caption: {'; '.join(told)}."


def panel(
    settings: ReAudioLdm, protocol: str, count: int, look: Mapping[str, Display]
) -> dict[tuple[str, str], np.ndarray]:
    """Of the first `count` captions the neighbours, the real clip and the samples of baseline and probed model:
    (caption, what it is) -> wave [shape=(T,)]."""
    corpus, reads = paths.CLIPS / settings.corpus, settings.models[settings.probed]
    manifest, found = manifests.load(corpus), {}
    drawn = {
        name: samples.load(paths.EXAMPLES / "re_audioldm" / f"{name}_{OWN}")
        for name in (settings.baseline, settings.probed)
    }
    shown = next(iter(drawn.values()))[0].head(count)
    rows = Neighbours(paths.RETRIEVAL / settings.corpus, manifest, protocol)(list(shown.id), reads.k).rows
    waves, row_of = manifests.Waves(corpus, manifest), {id: row for row, id in enumerate(manifest.id)}
    for number, clip in enumerate(shown.itertuples()):
        own = {f"Neighbour {k + 1}": int(row) for k, row in enumerate(rows[number]) if row >= 0}
        own["Real clip of the caption"] = row_of[clip.id]
        found |= {(clip.prompt, name): waves[[row]][0].numpy() for name, row in own.items()}
        found |= {(clip.prompt, look[name].name): sounds[number] for name, (_, sounds) in drawn.items()}
    return found
