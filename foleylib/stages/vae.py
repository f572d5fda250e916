"""Stage vae: the autoencoder between log-mels and latents, and its latent scale."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from foleylib.audio.mel import front_end
from foleylib.datasets.features import encode_moments, sample_latents
from foleylib.networks import vae
from foleylib.params.settings import Params
from foleylib.runtime import pick_device, step_generator
from foleylib.stages import foundation
from foleylib.train import Job, Terms, Trainable, fit


def make(cfg: Params) -> pd.DataFrame:
    """Make models/foundation/vae from its source; returns the training history."""
    return foundation.make("vae", cfg, train)


def train(cfg: Params, out: Path) -> pd.DataFrame:
    """Train the VAE; its latent scale is measured once, on training clips, and stored in its config."""
    _, waves = foundation.clips(cfg, "train")
    _, held = foundation.held_out(cfg)
    corpus, job = cfg.corpus_of("foundation"), foundation.job(cfg, "vae")
    log_mel = front_end(corpus.rate, corpus.padding)
    held_mels = None if held is None else log_mel(held)
    model, history = fit_vae(cfg.foundation.vae, waves, log_mel, job, held_out=held_mels)

    log_mel = log_mel.cpu()
    rows = np.linspace(0, len(waves) - 1, min(512, len(waves))).astype(int)
    parts = np.array_split(rows, -(-len(rows) // 32))
    moments = torch.cat([encode_moments(model, log_mel(waves[part])) for part in parts])
    model.register_to_config(scaling_factor=measure_scale(moments, step_generator("cpu", cfg.seed)))
    model.save_pretrained(out)
    job.forget()
    return history


def fit_vae(settings, waves, log_mel, job: Job, *, held_out: torch.Tensor | None = None):
    """Train a VAE on the clips that `waves[indices]` reads; returns (model, history).

    Parameters
    ----------
    settings : section `foundation.vae`.
    log_mel : `audio.mel.LogMel` that makes the spectrograms.
    held_out : mels [shape=(N, 1, T, n_mels)] whose reconstruction error is logged while training.
    """
    model = vae.build(settings.channels, settings.layers, settings.latent_channels, settings.groups, seed=job.seed)
    mean = log_mel(waves[np.arange(min(64, len(waves)))]).mean()
    torch.nn.init.constant_(model.decoder.conv_out.bias, float(mean))
    log_mel.to(pick_device(job.device))

    def loss(module, batch: dict, generator: torch.Generator) -> Terms:
        return vae_terms(module, log_mel(batch["waves"]), generator)

    validate = None if held_out is None else lambda: reconstruction_error(model, held_out)
    trainable = Trainable(model, loss, settings.weights)
    history = fit({"vae": trainable}, lambda i: {"waves": waves[i]}, len(waves), settings.train, job, validate=validate)
    return model.cpu(), history


def vae_terms(model, mels: torch.Tensor, generator: torch.Generator | None) -> Terms:
    """Reconstruction (L1, L2, per mel bin) and KL divergence to N(0, 1) (per latent element).

    Parameters
    ----------
    mels : natural-log mel spectrograms [shape=(B, 1, T, n_mels)].
    generator : draws the posterior sample.
    """
    posterior = model.encode(mels).latent_dist
    decoded = model.decode(posterior.sample(generator)).sample
    return {
        "l1": (decoded - mels).abs().mean(),
        "l2": (decoded - mels).square().mean(),
        "kl": posterior.kl().mean() / posterior.mean[0].numel(),
    }


@torch.no_grad()
def reconstruction_error(model, mels: torch.Tensor, batch_size: int = 32) -> dict[str, float]:
    """Mean absolute error of decoded posterior means, in nepers of mel magnitude."""
    total = 0.0
    for part in mels.split(batch_size):
        part = part.to(model.device)
        decoded = model.decode(model.encode(part).latent_dist.mean).sample
        total += float((decoded - part).abs().mean()) * len(part)
    return {"l1": total / len(mels)}


def measure_scale(moments: torch.Tensor, generator: torch.Generator) -> float:
    """The latent scale 1 / std(z) of AudioLDM, measured once over the given clips and stored with the VAE."""
    return 1.0 / float(sample_latents(moments, 1.0, generator).double().std())
