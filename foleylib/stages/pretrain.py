"""Stage pretrain: the latent diffusion model on CLAP audio embeddings, saved as a whole pipeline."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from foleylib import paths
from foleylib.datasets import features
from foleylib.datasets.features import Latents, training_splits
from foleylib.diffusion.loss import DiffusionLoss, errors_by_level
from foleylib.networks import unet as unets
from foleylib.networks import vae as vaes
from foleylib.networks.pipeline import load_parts
from foleylib.params.settings import Params
from foleylib.runtime import pick_device
from foleylib.stages import bundle, cards, foundation
from foleylib.stages.ldm import alphas_bar, fit_unet, new_unet, save_with_parts


def make(part: str, cfg: Params) -> pd.DataFrame:
    """Make models/foundation/`part` ("ldm", or one of `foundation.sizes`) from its source; returns the history."""
    history, out = foundation.make(part, cfg, train), paths.FOUNDATION / part
    if cfg.foundation.source == "bundled" or cfg.foundation.published:  # the U-Net alone
        unet, parts = unets.load(out), load_parts(paths.FOUNDATION)
        shutil.rmtree(out / "unet")
        if cfg.foundation.published:  # a size may have been trained at a latent scale of its own
            parts["vae"].register_to_config(scaling_factor=bundle.provenance_of(out)["latent_scale"])
        save_with_parts(out, unet, cfg, parts)
        cards.write(out, cards.provenance_of(out))
    return history


def train(cfg: Params, out: Path) -> pd.DataFrame:
    """Pre-train the LDM named as `out` on CLAP *audio* embeddings and save the whole pipeline."""
    section, folder = cfg.foundation.section(out.name), paths.FEATURES / cfg.foundation.corpus
    parts = load_parts(paths.FOUNDATION)
    data = training_splits(folder, "audio", parts["vae"].config.scaling_factor)
    unet = foundation.initial(out.name, cfg, unets.load) or new_unet(cfg, out.name, cfg.seed)
    job = foundation.job(cfg, out.name, (folder / "features.json").read_text())
    loss = DiffusionLoss(
        alphas_bar(cfg),
        unets.unconditional(parts["clap"]),
        data["train"].scale,
        section.condition_dropout,
        section.snr_gamma,
    )
    history = fit_unet(unet, data["train"], loss, section.train, job, held_out=data.get("val"))
    save_with_parts(out, unet.cpu(), cfg, parts)
    job.forget()
    return history


def errors_by_noise(part: str, cfg: Params) -> pd.DataFrame:
    """Error against noise level on the test clips of the foundation's corpus, with their condition and without.

    Returns
    -------
    DataFrame [n, audio condition, unconditional]
    """
    unet = unets.load(paths.FOUNDATION / part).to(pick_device(cfg.device))
    held = test_split(part, cfg)
    nothing = unets.unconditional(load_parts(paths.FOUNDATION, "clap")["clap"]).embedding.numpy()
    without = Latents(held.moments, {"embedding": np.tile(nothing, (len(held), 1))}, held.scale)
    return errors_by_level({"audio condition": held, "unconditional": without}, unet, alphas_bar(cfg))


def test_split(part: str, cfg: Params) -> Latents:
    """The test clips of the foundation's corpus with their audio embeddings as condition, at the scale of the part."""
    _, arrays = features.load(paths.FEATURES / cfg.foundation.corpus, "test")
    scale = vaes.load(paths.FOUNDATION / part / "vae").config.scaling_factor
    return Latents(arrays["moments"], {"embedding": arrays["audio"]}, scale)
