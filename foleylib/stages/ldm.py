"""What pre-training and fine-tuning of the latent diffusion model share."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from foleylib.audio.mel import front_end
from foleylib.datasets.features import Latents
from foleylib.diffusion.loss import DiffusionLoss, held_out_loss
from foleylib.diffusion.process import schedule
from foleylib.networks import rates
from foleylib.networks import unet as unets
from foleylib.networks.pipeline import save
from foleylib.params.settings import Params
from foleylib.train import Job, Trainable, fit


def fit_unet(
    unet,
    data: Latents,
    loss: DiffusionLoss,
    settings,
    job: Job,
    *,
    lambda_lclap: float = 0.0,
    held_out: Latents | None = None,
    validate: Callable[[], dict] | None = None,
    best: bool = False,
) -> pd.DataFrame:
    """Train (or fine-tune) `unet` in place on cached latents; returns the history. `settings` is `params.base.Train`.

    The weighted sum of the loss' terms is L_DDPM + lambda_lclap L_LCLAP (Eq. 4 of latent-clap-loss). Validation is the
    error on the clips `held_out`, or what `validate` returns; with `best`, the weights are those of its least "ddpm".
    """
    if held_out is not None:
        validate = validate or (lambda: held_out_loss(unet, held_out, loss.alphas_bar))
    trainable = Trainable(unet, loss, {"ddpm": 1.0, "lclap": lambda_lclap})
    best_of = "ddpm" if best and validate is not None else None
    return fit({"unet": trainable}, data.__getitem__, len(data), settings, job, validate=validate, best=best_of)


def kept(folder: Path, make: Callable[[], nn.Module]) -> nn.Module:
    """The U-Net of a folder; made and saved there at once unless it is, so that a killed run goes on without it."""
    if not folder.is_dir():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        rates.save_unet(make().cpu(), part)
        part.rename(folder)
    return rates.load(folder)


def alphas_bar(cfg: Params) -> torch.Tensor:
    """The noise schedule of the foundation [shape=(N,)]."""
    return schedule(**cfg.foundation.ldm.noise.model_dump())


def new_unet(cfg: Params, size: str, seed: int):
    """An untrained U-Net: "ldm", or one of `foundation.sizes`."""
    settings = cfg.foundation
    sizes = {"dim": settings.clap.dim, "latent_channels": settings.vae.latent_channels}
    return unets.new(settings.section(size), **sizes, seed=seed)


def save_with_parts(out: Path, unet, cfg: Params, parts: dict) -> None:
    """Save a U-Net with the foundation's other parts as a pipeline."""
    corpus = cfg.corpus_of("foundation")
    frames = corpus.samples // front_end(corpus.rate, corpus.padding).config.hop
    save(out, unet, cfg.foundation.ldm.noise, frames=frames, **parts)
