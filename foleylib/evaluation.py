"""One evaluator for every table: the scores of a run's clips against the test set, each with interval and protocol card."""

import json
import shutil
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

    def save(self, path: Path) -> None:
        """Write an .npz file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **vars(self))


def load_heard(path: Path) -> Heard:
    """Read what `Heard.save` wrote."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; run the evaluate stage first")
    return Heard(**np.load(path))


def hear(waves: np.ndarray, labels, prompts, *, judge, clap, rate: int, batch_size: int = 64) -> Heard:
    """Embed clips [shape=(N, T), at `rate` Hz] once for all metrics.

    Parameters
    ----------
    judge : `embedders.Embedder` with logits; clap : `clap.Clap`.
    """
    if judge.rate != rate:
        raise ValueError(f"the judge hears {judge.rate} Hz, the clips are at {rate} Hz: train the judge at their rate")
    judged = judge.embed(waves, batch_size=batch_size)
    audio = clap.embed_audio(waves, rate, batch_size=batch_size).cpu().numpy()
    texts = list(dict.fromkeys(prompts))
    embedded = dict(zip(texts, clap.embed_text(texts).cpu().numpy()))
    text = np.stack([embedded[p] for p in prompts])
    return Heard(np.array(labels), judged["embedding"], judged["logits"], audio, text)


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


def quick(reference: Heard, made: Heard, judge_labels) -> dict[str, float]:
    """FAD (mean over classes), judge accuracy and CLAP score without intervals, for sweeps."""
    hits = made.logits.argmax(1) == np.array([list(judge_labels).index(label) for label in made.labels])
    real = {label: reference.only(label).clap for label in dict.fromkeys(made.labels)}
    return {"fad": average_fad(real, made.labels, made.clap), "judge_accuracy": float(hits.mean()),
            "clap_score": float(metrics.cosine_similarities(made.clap, made.text).mean())}  # fmt: skip


def average_fad(real: dict[str, np.ndarray], labels: np.ndarray, made: np.ndarray) -> float:
    """The papers' average: FAD on CLAP embeddings class by class, then the mean.

    Parameters
    ----------
    real : label -> embeddings of the reference [shape=(M, D)].
    labels, made : classes [shape=(N,)] and embeddings [shape=(N, D)] of the clips.
    """
    return float(np.mean([metrics.fad(real[label], made[labels == label]) for label in dict.fromkeys(labels)]))


def paired_difference(real: dict[str, np.ndarray], a: Heard, b: Heard, settings) -> statistics.Interval:
    """average_fad of a minus that of b with an interval over clips, the same clips (class, number) drawn from both.

    Parameters
    ----------
    real : label -> CLAP embeddings of the reference [shape=(N, D)].

    Raises
    ------
    ValueError
        if the runs do not have the same classes and numbers of clips.
    """
    if not np.array_equal(a.labels, b.labels):
        raise ValueError("the two runs differ in classes or clips: sample both with the same clips_per_class")

    def difference(rows: np.ndarray) -> float:
        first, second = (average_fad(real, heard.labels[rows], heard.clap[rows]) for heard in (a, b))
        return first - second

    return statistics.paired_bootstrap_difference(
        difference, statistics.group_rows(a.labels), seed=settings.seed, n_boot=settings.bootstrap, level=settings.level,
        method="recentred",
    )  # fmt: skip


def card(run: str, clips: dict, sampling: dict, *, models: dict, reference: str, judge: str, clap: str,
         rate: int, device: str, settings) -> dict:  # fmt: skip
    """The protocol card: what a number depends on. The commit is that of dvc.lock's stage and not stored here.

    Parameters
    ----------
    clips : training seed -> manifest of the clips scored; models : training seed -> SHA-256 of each part.
    """
    return {"run": run, "clips": {seed: _ids(manifest) for seed, manifest in clips.items()},
            "n": {seed: len(manifest) for seed, manifest in clips.items()}, "rate": rate, "device": device,
            "sampling": sampling, "models_sha256": models, "reference_sha256": reference,
            "embedders_sha256": {"judge": judge, "clap": clap}, "resampler": "soxr HQ", "fad": "CLAP embeddings",
            "fd": "judge embeddings", "kl": "mean posteriors of each class",
            "interval": f"bootstrap over generated clips, {settings.bootstrap} draws, level {settings.level}",
            "inception_splits": settings.splits}  # fmt: skip


def _ids(manifest) -> str:
    import hashlib

    return hashlib.sha256("\n".join(sorted(manifest.id)).encode()).hexdigest()


def save(path: Path, card: dict, scores: list[dict]) -> None:
    """Write results/evaluate/RUN.json: the headline numbers, the card and every score."""
    headline = headline_of(scores)
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = ("class", "metric", "embedder", "value", "low", "high", "n", "seed")
    kept = [{k: round(v, 6) if isinstance(v := row[k], float) else v for k in keys} for row in scores]
    path.write_text(json.dumps({"headline": headline, "card": card, "scores": kept}, indent=1) + "\n")


def save_headlines(files: list[Path], out: Path) -> None:
    """The headline numbers alone of what `save` wrote, a file each in `out`: what `dvc metrics show` and `diff` print."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for file in files:
        (out / file.name).write_text(json.dumps(json.loads(file.read_text())["headline"], indent=1) + "\n")


def headline_of(scores: list[dict]) -> dict[str, float]:
    """The scores of the whole set and the average FAD, each the mean over seeds."""
    found: dict[str, list] = {}
    for row in scores:
        if row["class"] == "all" or (row["class"], row["metric"]) == ("average", "fad"):
            found.setdefault(row["metric"] if row["class"] == "all" else "fad_average", []).append(row["value"])
    return {name: round(float(np.mean(values)), 6) for name, values in found.items()}


def summarise(files: list[Path], tables: dict[str, list[str]], published, root: Path) -> "pandas.DataFrame":  # noqa: F821
    """Every number of every run in one flat table with the published number beside it where a table has one.

    Parameters
    ----------
    files : results/evaluate/*.json and the like, in the order of the runs; named as seen from `root`.
    tables : run -> the rows of published tables it answers to, as paper:table:row; a run of two tables has its rows twice.
    published : DataFrame [paper, table, row, class, metric, value].
    """
    import pandas as pd

    rows = []
    for file in files:
        found = json.loads(file.read_text())
        run, protocol = found["card"]["run"], file.relative_to(root).as_posix()
        if run not in tables:
            raise ValueError(f"{file} scores the run '{run}', which params.yaml no longer has; delete the file")
        for where in tables[run] or ["::"]:
            paper, table, row = where.split(":")
            known = published[
                (published.paper == paper) & (published.table.astype(str) == table) & (published.row == row)
            ]
            values = {(r["class"], r.metric): r.value for _, r in known.iterrows()}
            for s in found["scores"]:
                rows.append({"paper": paper, "table": table, "run": run, **s, "comparable": False, "protocol": protocol,
                             "published": values.get((s["class"], s["metric"]))})  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)
