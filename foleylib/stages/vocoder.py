"""Stage vocoder: HiFi-GAN on real mels, first on the mel loss alone, then against its discriminators (Kong et al. 2020)."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from foleylib import paths
from foleylib.audio.mel import LogMel, MelConfig, front_end
from foleylib.audio.stft import StftDistance
from foleylib.networks import vae as vaes
from foleylib.networks import vocoder
from foleylib.networks.discriminators import Discriminators
from foleylib.params.settings import Params
from foleylib.runtime import pick_device, weights_sha256
from foleylib.stages import foundation
from foleylib.train import Job, Terms, Trainable, fit

DISCRIMINATOR_WEIGHTS = {"real": 1.0, "fake": 1.0}


def make(cfg: Params) -> pd.DataFrame:
    """Make models/foundation/vocoder from its source; returns the training history."""
    return foundation.make("vocoder", cfg, train)


def train(cfg: Params, out: Path) -> pd.DataFrame:
    """Train the HiFi-GAN of the corpus' rate."""
    _, waves = foundation.clips(cfg, "train")
    _, held = foundation.held_out(cfg, 96)
    corpus = cfg.corpus_of("foundation")
    log_mel, vae = front_end(corpus.rate, corpus.padding), vaes.load(paths.FOUNDATION / "vae")
    job = foundation.job(cfg, "vocoder", weights_sha256(paths.FOUNDATION / "vae"))
    start = foundation.initial("vocoder", cfg, vocoder.load)
    model, history = fit_vocoder(cfg.foundation.vocoder, waves, log_mel, vae, job, initial=start, held_out=held)
    vocoder.save(model, out)
    job.forget()
    return history


def fit_vocoder(settings, waves, log_mel: LogMel, vae, job: Job, *, initial=None, held_out: torch.Tensor | None = None):
    """Train a generator, from step `settings.adversarial_from` on against discriminators too; returns (generator, history).

    From step `settings.decoded_from` on it reads mels as the VAE decodes them, for the sound that they come from.

    Parameters
    ----------
    settings : section `foundation.vocoder`.
    waves : training clips, `waves[indices]` -> [shape=(B, T)].
    log_mel : with "dataset" padding; vae : of the foundation.
    initial : a generator that is trained further (its discriminators are new); without it, one is drawn anew.
    held_out : clips [shape=(N, T)] whose mel error is logged while training.
    """
    mel, start = log_mel.config, settings.adversarial_from
    generator_net = initial or new_generator(settings, mel, job.seed)
    generator_net.apply_weight_norm()
    discriminators = Discriminators(
        width=settings.discriminator_width,
        periods=tuple(settings.periods),
        scales=settings.scales,
        seed=job.seed,
    )
    device = pick_device(job.device)
    distances = Distances(log_mel.to(device), StftDistance().to(device))
    vae.to(device).eval()

    def waves_of(batch: dict, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        # One segment and one generated wave a step, shared by both sides.
        if "fake" not in batch:
            cpu = torch.Generator().manual_seed(generator.initial_seed())
            mels = log_mel(batch["waves"])
            if settings.decoded_from is not None and batch["step"] >= settings.decoded_from:
                mels = vaes.reconstruct(vae, mels)
            mels = mels[:, 0]  # (B, frames, n_mels)
            batch["real"], mels = random_segments(batch["waves"], mels, settings.segment, mel.hop, cpu)
            batch["fake"] = vocoder.trim(generator_net(mels), mels.shape[1], mel.hop)
        return batch["real"], batch["fake"]

    def discriminators_loss(module, batch: dict, generator: torch.Generator) -> Terms:
        return discriminator_terms(module, *waves_of(batch, generator))

    def generator_loss(module, batch: dict, generator: torch.Generator) -> Terms:
        against = discriminators if batch["step"] >= start else None
        return generator_terms(against, distances, *waves_of(batch, generator))

    trainables = {
        "discriminators": Trainable(discriminators, discriminators_loss, DISCRIMINATOR_WEIGHTS, start=start),
        "generator": Trainable(generator_net, generator_loss, settings.weights),
    }

    def validate() -> dict:
        made = vocoder.errors(vocoder.resynthesise(generator_net, held_out, log_mel), held_out, log_mel)
        return {name: values.mean() for name, values in made.items()}

    check = None if held_out is None else validate
    history = fit(trainables, lambda i: {"waves": waves[i]}, len(waves), settings.train, job, validate=check)
    return vocoder.remove_weight_norm(generator_net).cpu().eval(), history


def new_generator(settings, mel: MelConfig, seed: int):
    """An untrained generator of a section `foundation.vocoder` for a front end."""
    own = settings.upsampling
    layers = {} if own is None else {"upsample_rates": own.rates, "upsample_kernels": own.kernels}
    config = vocoder.generator_config(mel.rate, n_mels=mel.n_mels, channels=settings.channels, **layers)
    return vocoder.generator(config, seed=seed)


def random_segments(
    waves: torch.Tensor, mels: torch.Tensor, segment: int, hop: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """One aligned segment of each wave and of its log-mel, drawn from a generator on the CPU.

    Parameters
    ----------
    waves : [shape=(B, T)]; mels : [shape=(B, frames, n_mels)] with "dataset" padding, where frame k covers samples
        k hop to (k + 1) hop.
    segment : samples, a multiple of `hop`.

    Returns
    -------
    waves [shape=(B, segment)], mels [shape=(B, segment // hop, n_mels)]
    """
    count, starts = segment // hop, min(mels.shape[1], waves.shape[1] // hop) - segment // hop + 1
    if segment % hop or segment <= 0:
        raise ValueError(f"segment={segment}: give a positive multiple of hop={hop}")
    if starts < 1:
        raise ValueError(f"segment={segment} is longer than {waves.shape[1]} samples or {mels.shape[1]} frames")
    first = torch.randint(starts, (len(waves),), generator=generator).tolist()
    return (
        torch.stack([wave[start * hop : start * hop + segment] for wave, start in zip(waves, first)]),
        torch.stack([mel[start : start + count] for mel, start in zip(mels, first)]),
    )


def discriminator_terms(discriminators, real: torch.Tensor, fake: torch.Tensor) -> Terms:
    """Least-squares losses of the discriminators (Eq. 1), summed over them; `fake` is detached here."""
    scores = [score.chunk(2) for score, _ in discriminators(torch.cat([real, fake.detach()]))]
    return {
        "real": sum(((1 - score) ** 2).mean() for score, _ in scores),
        "fake": sum((score**2).mean() for _, score in scores),
    }


class Distances(NamedTuple):
    """What compares a generated wave with the real one; HiFi-GAN takes the full band (fmax = rate / 2) for its mels."""

    log_mel: Callable[[torch.Tensor], torch.Tensor]
    stft: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def generator_terms(discriminators, distances: Distances, real: torch.Tensor, fake: torch.Tensor) -> Terms:
    """Losses of the generator (Eqs. 2 to 4): "mel", "stft" and, with discriminators, "adversarial", "feature_matching".

    The distance of spectra, "stft", is not HiFi-GAN's: without it a small generator loses the harmonics that lie
    closer than its mel bands. The gradient also reaches the discriminators: clear it before their step, or freeze them.
    """
    log_mel = distances.log_mel
    terms = {"mel": (log_mel(fake) - log_mel(real)).abs().mean(), "stft": distances.stft(fake, real).mean()}
    if discriminators is None:
        return terms
    with torch.no_grad():
        of_real = discriminators(real)
    of_fake = discriminators(fake)
    pairs = [(a, b) for (_, x), (_, y) in zip(of_real, of_fake) for a, b in zip(x, y)]
    terms["adversarial"] = sum(((1 - score) ** 2).mean() for score, _ in of_fake)
    terms["feature_matching"] = sum((a - b).abs().mean() for a, b in pairs)
    return terms
