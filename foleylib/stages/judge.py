"""Stage judge: the evaluation network, trained on real clips for nothing but scoring."""

import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from foleylib import paths
from foleylib.audio.augment import augment, mixup, spec_augment
from foleylib.datasets import manifest as manifests
from foleylib.networks import judge
from foleylib.params.settings import Params
from foleylib.runtime import fingerprint, pick_device, write_json
from foleylib.stages import bundle
from foleylib.train import Job, Terms, Trainable, fit

# Parameters of a clip that it is not asked for: what augmentation changes, what follows from others, what is not heard.
NOT_ASKED = ("level", "change", "ambience", "room_level", "room_decay", "background", "act", "count", "phase")
SHARED = ("events", "distance", "reverberation", "background_snr")  # parameters of every class, the others of one
FEWEST = 16  # training clips of a parameter


def make(cfg: Params) -> pd.DataFrame:
    """Make models/judge from its source, the bundle or a training; returns the history.

    A `judge.corpus` without classes is refused.
    """
    if not manifests.has_classes(manifests.load(paths.CLIPS / cfg.judge.corpus)):
        raise ValueError(
            f"judge.corpus: '{cfg.judge.corpus}' has no classes, and the judge is trained and tested on naming them; give "
            "a corpus with labels (the judge then scores clips of any corpus)"
        )
    return bundle.make("judge", cfg.judge, cfg.corpus_of("judge"), paths.JUDGE, partial(train, cfg))


def train(cfg: Params, out: Path) -> None:
    """Train on the training clips of its corpus; scores on its validation clips are logged."""
    folder, corpus, start = paths.CLIPS / cfg.judge.corpus, cfg.corpus_of("judge"), time.perf_counter()
    manifest = manifests.load(folder).query("target >= 0").reset_index(drop=True)
    labels = list(manifests.classes(manifest).label)
    known = parameters_of(manifest)
    scales = scales_of(known[manifest.split == "train"])
    sets = {}
    for split in ("train", "val"):
        rows = manifest.split == split
        waves, targets = manifests.Waves(folder, manifest[rows]), torch.tensor(manifest.target[rows].to_numpy())
        sets[split] = Clips(waves, targets, torch.tensor(standardised(known[rows], scales), dtype=torch.float32))
    scratch = paths.SCRATCH / "judge" / fingerprint(cfg.judge, cfg.seed, cfg.precision, manifests.digest(manifest))
    job = Job(cfg.seed, scratch, cfg.device, cfg.precision)
    held_out = sets["val"] if len(sets["val"].waves) else None
    names = {"labels": labels, "parameters": scales}
    model, history = fit_judge(cfg.judge, sets["train"], job, **names, rate=corpus.rate, held_out=held_out)
    model.save_pretrained(out)
    seconds = time.perf_counter() - start
    bundle.write_provenance(out, cfg.judge, cfg.judge.corpus, cfg, seconds, history)
    job.forget()


@dataclass(frozen=True)
class Clips:
    """Real clips with what the judge is to say of them."""

    waves: manifests.Waves | torch.Tensor  # read by index [shape=(B, T)]
    targets: torch.Tensor  # classes [shape=(N,)]
    parameters: torch.Tensor  # standardised, NaN where a clip has no such parameter [shape=(N, P)]


def parameters_of(manifest: pd.DataFrame) -> pd.DataFrame:
    """What is known of each clip beyond its class, a word as one column of 0 and 1 for each value but the first.

    Recordings have no such parameters.

    Returns
    -------
    DataFrame [one column a parameter, named as `networks.judge.Judge` has them], NaN where unknown
    """
    columns = {}
    for row, clip in enumerate(manifest.itertuples()):
        drawn = json.loads(clip.parameters)
        for name, value in (
            manifests.facts({"events": json.loads(clip.events), "parameters": drawn}).items() if drawn else ()
        ):
            if name not in NOT_ASKED:
                key = name if name in SHARED else f"{clip.label}.{name}"
                columns.setdefault(key, {})[row] = value
    table = {}
    for key, values in columns.items():
        values = pd.Series(values)
        if values.map(type).eq(str).any():
            table |= {f"{key}={word}": (values == word).astype(float) for word in sorted(values.unique())[1:]}
        else:
            table[key] = values.astype(float)
    return pd.DataFrame(table, index=range(len(manifest)), dtype=float).set_axis(manifest.index)


def scales_of(known: pd.DataFrame) -> dict[str, tuple[bool, float, float]]:
    """How each parameter of training clips is standardised (`networks.judge.Judge`): by its logarithm where it spans
    more than a factor of three. Parameters of fewer than 16 clips, and those that never change, are left out."""
    scales = {}
    for name, column in known.items():
        values = column.dropna()
        log = bool(len(values) and values.min() > 0 and values.max() > 3 * values.min())
        values = np.log(values) if log else values
        if len(values) >= FEWEST and values.std() > 1e-9:
            scales[name] = (log, float(values.mean()), float(values.std()))
    return scales


def standardised(known: pd.DataFrame, scales: dict[str, tuple[bool, float, float]]) -> np.ndarray:
    """The parameters in `scales` of each clip [shape=(N, P)], NaN where unknown."""
    columns = []
    for name, (log, mean, std) in scales.items():
        values = known[name].to_numpy() if name in known else np.full(len(known), np.nan)
        columns.append(((np.log(values) if log else values) - mean) / std)
    return np.stack(columns, axis=1) if columns else np.zeros((len(known), 0))


def score_test_clips(cfg: Params) -> tuple[pd.DataFrame, np.ndarray, pd.Series]:
    """The judge's verdict on the test clips of its corpus.

    Writes the accuracy with the hash of the weights to results/judge.json.

    Returns
    -------
    manifest, predicted class [shape=(N,)], and R^2 of each parameter over the clips that have it
    """
    folder, embedder = paths.CLIPS / cfg.judge.corpus, judge.load(paths.JUDGE)
    manifest = manifests.load(folder).query("target >= 0").reset_index(drop=True)
    scales, test = embedder.model.parameters_known, manifest.split == "test"
    known, manifest = standardised(parameters_of(manifest)[test], scales), manifest[test].reset_index(drop=True)
    outputs = embedder.embed(manifests.read_waves(folder, manifest))
    predicted = outputs["logits"].argmax(1)
    r2 = explained(outputs["parameters"], known) if scales else np.zeros(0)
    accuracy = round(float((predicted == manifest.target).mean()), 6)
    result = {"accuracy": accuracy, "n": len(predicted), "weights_sha256": embedder.sha256}
    write_json(paths.RESULTS / "judge.json", result)
    return manifest, predicted, pd.Series(r2, index=list(scales), dtype=float, name="R2").dropna()


def explained(predicted: np.ndarray, known: np.ndarray) -> np.ndarray:
    """R^2 of each parameter [shape=(P,)], 1 - squared error / variance, over the clips that have it; NaN for fewer than
    two. Both arrays are [shape=(N, P)], standardised."""
    there = np.isfinite(known)
    count = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, known, 0).sum(axis=0) / count
    error, variance = (np.where(there, x, 0).sum(axis=0) for x in ((predicted - known) ** 2, (known - mean) ** 2))
    return np.where(there.sum(axis=0) > 1, 1 - error / np.maximum(variance, 1e-12), np.nan)


def fit_judge(settings, clips: Clips, job: Job, *, labels: list[str], parameters: dict, rate: int, held_out=None):
    """Train a judge; returns (Judge in evaluation mode, history).

    Parameters
    ----------
    settings : section `judge`.
    clips : to train on, at `rate` Hz; held_out : those whose accuracy and mean R^2 are logged while training.
    labels, parameters : names of the classes, and by name the scales of the columns of `Clips.parameters`.
    """
    sizes = {"widths": settings.widths, "embedding_dim": settings.embedding_dim}
    model = judge.build(labels, parameters, rate=rate, **sizes, seed=job.seed)

    def load(indices) -> dict:
        return {"waves": clips.waves[indices], "targets": clips.targets[indices], "known": clips.parameters[indices]}

    def loss(module, batch: dict, generator: torch.Generator) -> Terms:
        cpu = torch.Generator().manual_seed(generator.initial_seed())
        waves = augment(batch["waves"], generator=cpu, rate=rate)
        known = batch["known"] if parameters else None
        return judge_terms(module, waves, batch["targets"], known, generator=cpu, mixup_alpha=settings.mixup_alpha)

    def validate() -> dict:
        waves, device = held_out.waves[np.arange(len(held_out.waves))], pick_device(job.device)
        outputs = [{k: v.cpu() for k, v in model(part.to(device)).items()} for part in waves.split(64)]
        hits = torch.cat([part["logits"].argmax(1) for part in outputs]) == held_out.targets
        scores = {"accuracy": float(hits.double().mean())}
        if parameters:
            predicted = torch.cat([part["parameters"] for part in outputs]).numpy()
            r2 = explained(predicted, held_out.parameters.numpy())
            scores["r2"] = float(np.median(r2[np.isfinite(r2)])) if np.isfinite(r2).any() else 0.0
        return scores

    trainable = Trainable(model, loss, {"cross_entropy": 1.0, "parameters": settings.parameters})
    check = validate if held_out is not None else None
    history = fit({"judge": trainable}, load, len(clips.waves), settings.train, job, validate=check)
    return model.cpu().eval(), history


def judge_terms(
    model,
    waves: torch.Tensor,
    targets: torch.Tensor,
    known: torch.Tensor | None = None,
    *,
    generator: torch.Generator,
    mixup_alpha: float = 1.0,
) -> Terms:
    """Cross-entropy of the classes (nats) and squared error of the known parameters, under SpecAugment and mixup.

    Mixup is for the first half of the batch, whose clips have no parameters then, and classes alone are asked of it.

    Parameters
    ----------
    waves : at the judge's rate, in [-1, 1] [shape=(B, T)].
    targets : indices into the labels [shape=(B,)].
    known : standardised parameters, NaN where a clip has none [shape=(B, P)].
    generator : on the CPU; all augmentation is drawn from it.
    mixup_alpha : 0 switches mixup off.
    """
    features = spec_augment(model.features(waves), generator=generator)
    targets = F.one_hot(targets, len(model.labels)).to(features.dtype)
    half = len(features) // 2 if known is not None else len(features)
    mixed, mixed_targets = mixup(features[:half], targets[:half], generator=generator, alpha=mixup_alpha)
    outputs = model.classify(torch.cat([mixed, features[half:]]))
    terms = {"cross_entropy": F.cross_entropy(outputs["logits"], torch.cat([mixed_targets, targets[half:]]))}
    if known is not None:
        there = torch.isfinite(known[half:])
        error = torch.where(there, outputs["parameters"][half:] - known[half:].nan_to_num(), 0.0).square()
        terms["parameters"] = error.sum() / there.sum().clamp(min=1)
    return terms
