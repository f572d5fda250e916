"""Stage judge: the evaluation classifier, trained on real clips and nothing else."""

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from foleylib import paths
from foleylib.datasets import manifest as manifests
from foleylib.networks import judge
from foleylib.params.settings import Params
from foleylib.runtime import fingerprint, pick_device, write_json
from foleylib.train import Job, Terms, Trainable, fit


def make(cfg: Params) -> pd.DataFrame:
    """Train models/judge on the training clips of its corpus; returns the history."""
    folder, corpus = paths.CLIPS / cfg.judge.corpus, cfg.corpus_of("judge")
    manifest = manifests.load(folder)
    part = {split: manifest[manifest.split == split].reset_index(drop=True) for split in ("train", "val")}
    labels = list(manifest.drop_duplicates("target").sort_values("target").label)
    waves = {split: manifests.Waves(folder, clips) for split, clips in part.items()}
    held_out = None
    if len(part["val"]):
        held_out = waves["val"][np.arange(len(part["val"]))], torch.tensor(part["val"].target.to_numpy())
    scratch = paths.SCRATCH / "judge" / fingerprint(cfg.judge, cfg.seed, manifests.digest(manifest))
    job = Job(cfg.seed, scratch, cfg.device, cfg.precision)
    targets = torch.tensor(part["train"].target.to_numpy())
    model, history = fit_judge(cfg.judge, waves["train"], targets, labels, corpus.rate, job, held_out=held_out)
    model.save_pretrained(paths.JUDGE)
    job.forget()
    return history


def score_test_clips(cfg: Params) -> tuple[pd.DataFrame, np.ndarray]:
    """The judge's verdict on the test clips of its corpus: (manifest, predicted class [shape=(N,)]).

    Writes the accuracy with the hash of the weights to results/judge.json.
    """
    folder, embedder = paths.CLIPS / cfg.judge.corpus, judge.load(paths.JUDGE)
    manifest = manifests.load(folder)
    manifest = manifest[manifest.split == "test"].reset_index(drop=True)
    predicted = embedder.embed(manifests.read_waves(folder, manifest))["logits"].argmax(1)
    accuracy = round(float((predicted == manifest.target).mean()), 6)
    result = {"accuracy": accuracy, "n": len(predicted), "weights_sha256": embedder.sha256}
    write_json(paths.RESULTS / "judge.json", result)
    return manifest, predicted


def fit_judge(settings, waves, targets: torch.Tensor, labels: list[str], rate: int, job: Job, *, held_out=None):
    """Train a judge; returns (Judge in evaluation mode, history).

    Parameters
    ----------
    settings : section `judge`.
    waves : training clips, `waves[indices]` -> [shape=(B, T)] at `rate` Hz.
    targets : their classes, indices into `labels` [shape=(N,)].
    held_out : (waves [shape=(M, T)], classes [shape=(M,)]) whose accuracy is logged while training.
    """
    sizes = {"widths": settings.widths, "embedding_dim": settings.embedding_dim}
    model, device = judge.build(labels, rate=rate, **sizes, seed=job.seed), pick_device(job.device)

    def loss(module, batch: dict, generator: torch.Generator) -> Terms:
        cpu = torch.Generator().manual_seed(generator.initial_seed())
        return judge_terms(module, batch["waves"], batch["targets"], generator=cpu, mixup_alpha=settings.mixup_alpha)

    def accuracy() -> dict:
        predicted = torch.cat([model(part)["logits"].argmax(1).cpu() for part in held_out[0].to(device).split(64)])
        return {"accuracy": float((predicted == held_out[1]).double().mean())}

    def load(indices) -> dict:
        return {"waves": waves[indices], "targets": targets[indices]}

    validate = accuracy if held_out is not None else None
    trainable = Trainable(model, loss, {"cross_entropy": 1.0})
    history = fit({"judge": trainable}, load, len(waves), settings.train, job, validate=validate)
    return model.cpu().eval(), history


def judge_terms(
    model,
    waves: torch.Tensor,
    targets: torch.Tensor,
    *,
    generator: torch.Generator,
    mixup_alpha: float = 1.0,
    gain_db: float = 6.0,
) -> Terms:
    """Cross-entropy (nats) under gain and shift of the wave, SpecAugment and mixup of the log-mel.

    Parameters
    ----------
    waves : at the judge's rate, in [-1, 1] [shape=(B, T)].
    targets : indices into the labels [shape=(B,)], or probabilities [shape=(B, C)].
    generator : on the CPU; all augmentation is drawn from it.
    mixup_alpha : 0 switches mixup off; gain_db : largest gain or loss.
    """
    if targets.ndim == 1:
        targets = F.one_hot(targets, len(model.labels)).to(waves.dtype)
    features = model.features(gain_and_shift(waves, generator=generator, gain_db=gain_db))
    features = spec_augment(features, generator=generator)
    features, targets = mixup(features, targets, generator=generator, alpha=mixup_alpha)
    return {"cross_entropy": F.cross_entropy(model.classify(features)["logits"], targets)}


def gain_and_shift(waves: torch.Tensor, *, generator: torch.Generator, gain_db: float = 6.0) -> torch.Tensor:
    """Waves [shape=(B, T)] with a gain of up to +-gain_db dB and a circular shift in time, each drawn per clip."""
    batch, samples = waves.shape
    gains = 10 ** ((-gain_db + 2 * gain_db * torch.rand((batch, 1), generator=generator)) / 20)
    shifts = torch.randint(samples, (batch, 1), generator=generator)
    index = (torch.arange(samples) + shifts) % samples
    return waves.gather(1, index.to(waves.device)) * gains.to(waves)


def spec_augment(
    features: torch.Tensor,
    *,
    generator: torch.Generator,
    stripes: int = 2,
    time: float = 0.1,
    frequency: float = 0.125,
) -> torch.Tensor:
    """SpecAugment of Park et al. (2019) without warping: zero stripes in time and in frequency, drawn per clip.

    Parameters
    ----------
    features : of zero mean, as after bn0 [shape=(B, 1, T, F)].
    generator : on the CPU.
    stripes : on each axis.
    time, frequency : widest stripe as a part of its axis; PANNs: 64 of 1001 frames and 8 of 64 bands.
    """
    batch, _, length, n_mels = features.shape
    keep = torch.ones(batch, 1, length, n_mels, dtype=torch.bool)
    for axis, size, part in ((2, length, time), (3, n_mels, frequency)):
        shape = [batch, 1, 1, 1]
        position = torch.arange(size).view([-1 if i == axis else 1 for i in range(4)])
        for _ in range(stripes):
            width = torch.randint(int(part * size) + 1, shape, generator=generator)
            start = (torch.rand(shape, generator=generator) * (size - width)).long()
            keep &= (position < start) | (position >= start + width)
    return features * keep.to(features)


def mixup(features: torch.Tensor, targets: torch.Tensor, *, generator: torch.Generator, alpha: float):
    """Mixup of Zhang et al. (2018): each clip is mixed with another, weights from Beta(alpha, alpha).

    Parameters
    ----------
    features : [shape=(B, ...)]; targets : probabilities [shape=(B, C)].
    generator : on the CPU.
    alpha : 0 leaves both as they are; PANNs: 1.
    """
    if alpha == 0:
        return features, targets
    if alpha < 0:
        raise ValueError(f"alpha={alpha}: give 0 (no mixup) or more")
    seed = int(torch.randint(2**31, (), generator=generator))  # torch draws no beta from a generator
    weight = torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, len(features))).to(features)
    other = torch.randperm(len(features), generator=generator).to(features.device)

    def mix(x: torch.Tensor) -> torch.Tensor:
        w = weight.view(-1, *[1] * (x.ndim - 1))
        return w * x + (1 - w) * x[other]

    return mix(features), mix(targets)
