"""Stage detector: the network that finds the sounds of scenes in clips, trained on real scenes for nothing but scoring."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import average_precision_score
from torch.nn import functional as F

from foleylib import paths
from foleylib.audio.augment import spec_augment, through_microphone
from foleylib.audio.mel import front_end
from foleylib.datasets import manifest as manifests
from foleylib.evaluation import events
from foleylib.networks import detector
from foleylib.networks import vae as vaes
from foleylib.networks.vocoder import GriffinLim, resynthesise
from foleylib.params.settings import Params
from foleylib.runtime import fingerprint, pick_device
from foleylib.stages import bundle
from foleylib.train import Job, Terms, Trainable, fit

GAIN = 6.0  # dB, up and down, in training


def make(cfg: Params) -> pd.DataFrame:
    """Make models/detector from its source, the bundle or a training; returns the history."""
    return bundle.make("detector", cfg.detector, cfg.corpus_of("detector"), paths.DETECTOR, partial(train, cfg))


@dataclass(frozen=True)
class Scenes:
    """Clips with the sounds in them, as `manifests.sounds` has them."""

    waves: manifests.Waves | torch.Tensor  # read by index [shape=(N, T)]
    sounds: list[list[dict]]

    @property
    def labels(self) -> list[list[str]]:
        """The events of each scene in order."""
        return [[sound["label"] for sound in sounds] for sounds in self.sounds]


def scenes(cfg: Params, split: str) -> Scenes:
    """The scenes of a split of the detector's corpus; a corpus without any is refused."""
    folder = paths.CLIPS / cfg.detector.corpus
    manifest = manifests.load(folder)
    sounds = manifest.events.map(manifests.sounds)
    rows = (manifest.split == split) & (sounds.map(len) > 0)
    if not rows.any():
        raise ValueError(
            f"detector.corpus: '{cfg.detector.corpus}' has no {split} scenes, whose sounds and their times are known; give a "
            "synthetic corpus with 'scenes' in that split"
        )
    return Scenes(manifests.Waves(folder, manifest[rows]), list(sounds[rows]))


def train(cfg: Params, out: Path) -> None:
    """Train on the training scenes of its corpus and choose its thresholds on the validation scenes.

    It has an output for the classes of test scenes alone too, which it has not learned and should never hear.
    """
    manifest, start = manifests.load(paths.CLIPS / cfg.detector.corpus), time.perf_counter()
    clips, held_out = scenes(cfg, "train"), scenes(cfg, "val")
    labels = sorted({sound["label"] for row in manifest.events for sound in manifests.sounds(row)})
    key = fingerprint(cfg.detector, cfg.seed, cfg.precision, manifests.digest(manifest))
    job = Job(cfg.seed, paths.SCRATCH / "detector" / key, cfg.device, cfg.precision)
    rate = cfg.corpus_of("detector").rate
    model, history = fit_detector(cfg.detector, clips, job, labels=labels, rate=rate, held_out=held_out)
    model.save_pretrained(out)
    seconds = time.perf_counter() - start
    bundle.write_provenance(out, cfg.detector, cfg.detector.corpus, cfg, seconds, history)
    job.forget()


def frame_targets(sounds: list[dict], labels: list[str], frames: int, length: float) -> np.ndarray:
    """Whether each class sounds in each frame of `length` s, be it for a part of it [shape=(frames, C), float32]."""
    targets, start = np.zeros((frames, len(labels)), dtype=np.float32), length * np.arange(frames)
    for sound in sounds:
        in_frame = (start < sound["offset"]) & (start + length > sound["onset"])
        targets[in_frame, labels.index(sound["label"])] = 1
    return targets


def coloured_noise(batch: int, samples: int, *, generator: torch.Generator) -> torch.Tensor:
    """Noise [shape=(batch, samples)] between white and brown, -50 to -6 dB below full scale, drawn per clip."""
    slope, level = torch.rand((2, batch, 1), generator=generator)
    bins = torch.arange(samples // 2 + 1).clamp(min=samples // 500)  # flat below some tens of Hz
    spectrum = torch.fft.rfft(torch.randn(batch, samples, generator=generator)) * bins**-slope
    noise = torch.fft.irfft(spectrum, samples)
    return 10 ** (-(6 + 44 * level) / 20) * noise / noise.std(dim=1, keepdim=True)


def detector_terms(
    model, waves: torch.Tensor, targets: torch.Tensor, *, generator: torch.Generator, noise_share: float = 0.0
) -> Terms:
    """Binary cross-entropy (nats) over frames and classes, of clips at another level, through another microphone and with
    bands of their spectrogram left out.

    Parameters
    ----------
    waves : at the detector's rate, in [-1, 1] [shape=(B, T)].
    targets : 0 or 1 [shape=(B, frames, C)].
    generator : on the CPU; all augmentation is drawn from it.
    noise_share : of the clips, those that are noise instead, in which nothing is to be heard.
    """
    noisy = torch.rand((len(waves), 1), generator=generator) < noise_share
    noise = coloured_noise(*waves.shape, generator=generator)
    waves = torch.where(noisy.to(waves.device), noise.to(waves), waves)
    targets = targets * ~noisy[..., None].to(targets.device)
    gains = 10 ** (GAIN * (2 * torch.rand((len(waves), 1), generator=generator) - 1) / 20)
    waves = through_microphone(waves * gains.to(waves), generator=generator, rate=model.mel.rate)
    # No stripes in time: they would leave out a short sound that the targets have.
    features = spec_augment(model.features(waves), generator=generator, time=0.0)
    return {"cross_entropy": F.binary_cross_entropy_with_logits(model.classify(features)["logits"], targets)}


def fit_detector(settings, clips: Scenes, job: Job, *, labels: list[str], rate: int, held_out: Scenes):
    """Train a detector; returns (Detector in evaluation mode, with its thresholds; history).

    Parameters
    ----------
    settings : section `detector`.
    clips : to train on, at `rate` Hz; held_out : those whose scores are logged and that the thresholds are chosen on.
    """
    model = detector.build(labels, rate=rate, widths=settings.widths, seed=job.seed)
    length, device = model.stride / rate, pick_device(job.device)
    there = events.present(events.indices(held_out.labels, labels), len(labels))

    def load(rows) -> dict:
        waves = clips.waves[rows]
        frames = waves.shape[1] // model.stride
        targets = [frame_targets(clips.sounds[row], labels, frames, length) for row in rows]
        return {"waves": waves, "targets": torch.from_numpy(np.stack(targets))}

    def loss(module, batch: dict, generator: torch.Generator) -> Terms:
        cpu = torch.Generator().manual_seed(generator.initial_seed())
        return detector_terms(module, batch["waves"], batch["targets"], generator=cpu, noise_share=settings.noise_share)

    def highest() -> np.ndarray:
        waves = held_out.waves[np.arange(len(held_out.sounds))]
        parts = [model(part.to(device))["logits"].sigmoid().amax(dim=1).cpu() for part in waves.split(64)]
        return torch.cat(parts).numpy()

    def validate() -> dict:
        return {"average_precision": average_precision_score(there, highest(), average="micro")}

    trainable = Trainable(model, loss, {"cross_entropy": 1.0})
    history = fit({"detector": trainable}, load, len(clips.sounds), settings.train, job, validate=validate)
    with torch.no_grad():
        model.thresholds.fill_(events.best_threshold(highest(), there))
    return model.cpu().eval(), history


def controls(cfg: Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the detector finds in the test scenes of its corpus, and in what it must not take for them.

    Clips are "real" scenes; those "through VAE and Griffin-Lim"; real scenes held against the "events of another" scene;
    "cut and swapped", as many equal parts as there are events in the opposite order, held against the order that was;
    "white noise"; "silence".

    Returns
    -------
    scores : [a row a clip; index: clips, number; columns of `evaluation.events.score`].
    recall : of each class in each kind of clips [index: label; columns: clips].
    """
    test, device = scenes(cfg, "test"), pick_device(cfg.device)
    network = detector.load(paths.DETECTOR, device=device)
    labels, thresholds = network.model.labels, network.model.thresholds.cpu().numpy()
    waves, own = test.waves[np.arange(len(test.sounds))], events.indices(test.labels, labels)
    clips = {
        "real": (waves, own),
        "through VAE and Griffin-Lim": (through_codec(waves, cfg), own),
        "events of another": (waves, own[1:] + own[:1]),
        "cut and swapped": (torch.stack([swapped(wave, len(scene)) for wave, scene in zip(waves, own)]), own),
        "white noise": (0.1 * torch.randn(waves.shape, generator=torch.Generator().manual_seed(cfg.seed)), own),
        "silence": (torch.zeros_like(waves), own),
    }
    scores, recall = {}, {}
    for name, (made, told) in clips.items():
        frames = detector.probabilities(network, made.numpy())
        scores[name] = events.score(frames, thresholds, told)
        recall[name] = events.recall_by_class(events.detected(frames, thresholds), told)
    return pd.concat(scores, names=["clips", "number"]), pd.DataFrame(recall, index=list(labels))


def through_codec(waves: torch.Tensor, cfg: Params) -> torch.Tensor:
    """Waves [shape=(N, T)] through the foundation's VAE and Griffin-Lim, as generated clips come."""
    corpus, device = cfg.corpus_of("detector"), pick_device(cfg.device)
    log_mel = front_end(corpus.rate, corpus.padding).to(device)
    vae, vocoder = vaes.load(paths.FOUNDATION / "vae").to(device), GriffinLim(log_mel.config).to(device)
    return resynthesise(vocoder, waves, log_mel, vae=vae).clamp(-1, 1)


def swapped(wave: torch.Tensor, parts: int) -> torch.Tensor:
    """A wave [shape=(T,)] cut into so many equal parts, in the opposite order."""
    return torch.cat(wave.tensor_split(parts)[::-1])
