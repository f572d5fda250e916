"""One evaluator for every table: the scores of a run's clips against the test set, each with interval and protocol card."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foleylib import metrics, statistics

COLUMNS = ["paper", "table", "run", "class", "metric", "embedder", "value", "low", "high", "n", "seed", "published",
           "comparable", "protocol"]  # fmt: skip


@dataclass
class Heard:
    """A set of clips as the embedders hear it: rows of all arrays belong together."""

    labels: np.ndarray  # (N,) class names
    judge: np.ndarray  # (N, D) embedding
    logits: np.ndarray  # (N, C) of the judge
    clap: np.ndarray  # (N, D) audio embedding
    text: np.ndarray  # (N, D) CLAP embedding of the prompt

    def only(self, label: str) -> "Heard":
        rows = self.labels == label
        return Heard(*(values[rows] for values in vars(self).values()))

    def __len__(self) -> int:
        return len(self.labels)


def hear(waves: np.ndarray, labels, prompts, *, judge, clap, rate: int, batch_size: int = 64) -> Heard:
    """Embed clips [shape=(N, T), at `rate` Hz] once for all metrics.

    Parameters
    ----------
    judge : `embedders.Embedder` with logits; clap : `clap.Clap`.
    """
    import torch

    if judge.rate != rate:
        raise ValueError(f"the judge hears {judge.rate} Hz, the clips are at {rate} Hz: train the judge at their rate")
    judged = judge.embed(waves, batch_size=batch_size)
    parts = torch.from_numpy(np.ascontiguousarray(waves)).split(batch_size)
    audio = torch.cat([clap.embed_audio(part, rate).cpu() for part in parts])
    texts = list(dict.fromkeys(prompts))
    embedded = dict(zip(texts, clap.embed_text(texts).cpu().numpy()))
    return Heard(
        np.array(labels), judged["embedding"], judged["logits"], audio.numpy(), np.stack([embedded[p] for p in prompts])
    )


def score(reference: Heard, made: Heard, *, judge_labels, settings) -> list[dict]:
    """Every metric for the whole set ("all"), each class, and the mean over classes ("average").

    FAD is the Frechet distance of CLAP embeddings, FD that of the judge's embeddings (in the papers VGGish and PANNs);
    IS and KL are of the judge's posteriors, KL between the mean posteriors of a class (prompts, not clips, are paired).
    Intervals are bootstraps over the run's clips with the reference held fixed.

    Parameters
    ----------
    settings : `params.Evaluate`.

    Returns
    -------
    list of {class, metric, embedder, value, low, high, n}
    """
    unknown = set(made.labels) - set(judge_labels)
    if unknown:
        raise ValueError(f"classes {sorted(unknown)} are none of the judge's: {', '.join(judge_labels)}")
    options = {"seed": settings.seed, "n_boot": settings.bootstrap, "level": settings.level}
    classes = [c for c in judge_labels if c in set(made.labels)]
    rows = _scores("all", reference, made, judge_labels, options)
    rows += _inception(made, settings, options)
    by_class = {c: _scores(c, reference.only(c), made.only(c), judge_labels, options) for c in classes}
    return rows + [row for one in by_class.values() for row in one] + _averages(list(by_class.values()), settings.level)


def _scores(name: str, reference: Heard, made: Heard, judge_labels, options: dict) -> list[dict]:
    similarity = metrics.cosine_similarities(made.clap, made.text)
    hits = made.logits.argmax(1) == np.array([list(judge_labels).index(label) for label in made.labels])
    intervals = {
        ("fad", "clap"): statistics.frechet_bootstrap(reference.clap, made.clap, resample="generated", **options),
        ("fd", "judge"): statistics.frechet_bootstrap(reference.judge, made.judge, resample="generated", **options),
        ("clap_score", "clap"): statistics.bootstrap_interval(
            len(made), lambda i: float(similarity[i].mean()), **options
        ),
        ("judge_accuracy", "judge"): statistics.bootstrap_interval(
            len(made), lambda i: float(hits[i].mean()), **options
        ),
    }
    if name != "all":
        target, p = softmax(reference.logits), softmax(made.logits)
        kl = statistics.bootstrap_interval(
            len(made), lambda i: metrics.kl_of_means(target, p[i]), method="recentred", **options
        )
        intervals["kl", "judge"] = kl
    return [_row(name, metric, embedder, i, len(made)) for (metric, embedder), i in intervals.items()]


def softmax(logits: np.ndarray) -> np.ndarray:
    from scipy.special import softmax as exact

    return exact(logits.astype(np.float64), axis=1)


def _inception(made: Heard, settings, options: dict) -> list[dict]:
    splits = min(settings.splits, len(made) // 2)
    interval = statistics.bootstrap_interval(
        len(made),
        lambda i: metrics.inception_score(made.logits[i], splits=splits, seed=settings.seed).mean,
        method="recentred",
        **options,
    )
    return [_row("all", "is", "judge", interval, len(made))]


def _row(name, metric, embedder, interval, n) -> dict:
    return {"class": name, "metric": metric, "embedder": embedder, "value": interval.estimate, "low": interval.low,
            "high": interval.high, "n": n, "sd": interval.sd}  # fmt: skip


def _averages(classes: list[list[dict]], level: float) -> list[dict]:
    """Mean over classes; classes are independent, so its standard error is sqrt(sum sd^2) / C (normal interval)."""
    from scipy.stats import norm

    rows, z = [], norm.ppf((1 + level) / 2)
    for same in zip(*classes):
        value = float(np.mean([r["value"] for r in same]))
        error = z * float(np.sqrt(np.sum([r["sd"] ** 2 for r in same]))) / len(same)
        rows.append({**same[0], "class": "average", "value": value, "low": value - error, "high": value + error,
                     "n": sum(r["n"] for r in same)})  # fmt: skip
    kl = next(r for r in rows if r["metric"] == "kl")
    return [*rows, {**kl, "class": "all"}]  # KL of the whole set is the mean over its prompts


def card(run: str, manifest, sampling: dict, *, models: dict, reference: str, judge: str, clap: str, seed: int,
         rate: int, device: str, settings) -> dict:  # fmt: skip
    """The protocol card: what a number depends on. The commit is that of dvc.lock's stage and not stored here."""
    import hashlib

    ids = hashlib.sha256("\n".join(sorted(manifest.id)).encode()).hexdigest()
    return {"run": run, "clips": ids, "n": len(manifest), "seed": seed, "rate": rate, "device": device,
            "sampling": sampling, "models_sha256": models, "reference_sha256": reference,
            "embedders_sha256": {"judge": judge, "clap": clap}, "resampler": "soxr HQ", "fad": "CLAP embeddings",
            "fd": "judge embeddings", "kl": "mean posteriors of each class",
            "interval": f"bootstrap over generated clips, {settings.bootstrap} draws, level {settings.level}",
            "inception_splits": settings.splits}  # fmt: skip


def save(path: Path, card: dict, scores: list[dict]) -> None:
    """Write results/evaluate/RUN.json: the card, the headline numbers (for `dvc metrics`) and every score."""
    headline = {r["metric"]: round(r["value"], 6) for r in scores if r["class"] == "all"}
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = ("class", "metric", "embedder", "value", "low", "high", "n")
    kept = [{k: round(v, 6) if isinstance(v := row[k], float) else v for k in keys} for row in scores]
    path.write_text(json.dumps({"headline": headline, "card": card, "scores": kept}, indent=1) + "\n")


def summarise(files: list[Path], runs: dict, published) -> "pandas.DataFrame":  # noqa: F821
    """Every number of every run in one flat table with the published number beside it where a table has one.

    Parameters
    ----------
    files : results/evaluate/*.json, in the order of the runs.
    runs : name -> `params.Run`, whose `table` says which row of which published table a run answers to.
    published : DataFrame [paper, table, row, class, metric, value].
    """
    import pandas as pd

    rows = []
    for file in files:
        found = json.loads(file.read_text())
        run, protocol = found["card"]["run"], f"results/evaluate/{file.name}"
        if run not in runs:
            raise ValueError(f"{file} scores the run '{run}', which params.yaml no longer has; delete the file")
        paper, table, row = (runs[run].table or "::").split(":")
        known = published[(published.paper == paper) & (published.table.astype(str) == table) & (published.row == row)]
        values = {(r["class"], r.metric): r.value for _, r in known.iterrows()}
        for s in found["scores"]:
            rows.append({"paper": paper, "table": table, "run": run, **s, "seed": found["card"]["seed"],
                         "published": values.get((s["class"], s["metric"])), "comparable": False,
                         "protocol": protocol})  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)
