"""Stage retrieval: the U-Net of re-audioldm, pre-trained with every kind of retrieval, from which its models start."""

import shutil
import time

import numpy as np
import pandas as pd

from foleylib import paths
from foleylib.datasets import features
from foleylib.datasets.features import Latents, training_splits
from foleylib.diffusion.loss import DiffusionLoss, errors_by_level
from foleylib.networks import retrieval
from foleylib.networks import unet as unets
from foleylib.networks.pipeline import load_parts
from foleylib.params.settings import Params
from foleylib.runtime import fingerprint, pick_device, weights_sha256
from foleylib.stages import bundle, neighbours
from foleylib.stages.ldm import alphas_bar, fit_unet
from foleylib.train import Job


def make(cfg: Params) -> pd.DataFrame:
    """Make models/re_audioldm from its source; returns the training history."""
    settings, out = cfg.re_audioldm, paths.RE_AUDIOLDM
    shutil.rmtree(out, ignore_errors=True)
    if settings.pretrained.source == "bundled":
        corpus = cfg.corpora[settings.corpus]
        bundle.copy_bundled("re_audioldm", settings.pretrained, "re_audioldm.pretrained", corpus, out)
        return bundle.history_of(out)
    begin = time.perf_counter()
    history = train(cfg)
    seconds = time.perf_counter() - begin
    bundle.write_provenance(out, settings.pretrained, settings.corpus, cfg, seconds, history)
    return history


def train(cfg: Params) -> pd.DataFrame:
    """Pre-train on the captions of the corpus; kinds of retrieval are dropped at random."""
    settings = cfg.re_audioldm.pretrained
    corpus, reads, parts = cfg.re_audioldm.corpus, settings.retrieval, load_parts(paths.FOUNDATION)
    data = training_splits(paths.FEATURES / corpus, "text", parts["vae"].config.scaling_factor)
    for split, latents in data.items():
        latents.conditions |= neighbours.of_split(corpus, split, reads, cfg)
    clap, vae = parts["clap"], parts["vae"]
    unet = retrieval.build(
        settings.channels,
        settings.head_channels,
        layers=settings.layers,
        groups=settings.groups,
        dim=clap.dim,
        latent_channels=vae.config.latent_channels,
        width=reads.width,
        **neighbours.channels(corpus, reads),
        seed=cfg.seed,
    )
    loss = DiffusionLoss(
        alphas_bar(cfg),
        retrieval.unconditional(clap, unet),
        data["train"].scale,
        settings.condition_dropout,
        settings.snr_gamma,
        retrieval_dropout=settings.retrieval_dropout,
    )
    models = [weights_sha256(paths.FOUNDATION / part) for part in ("clap", "vae")]
    inputs = [features.read_key(paths.FEATURES / corpus), *neighbours.keys(corpus, cfg), cfg.foundation.ldm.noise]
    key = fingerprint(settings, cfg.seed, cfg.precision, *models, *inputs)
    job = Job(cfg.seed, paths.SCRATCH / "re_audioldm-pretrained" / key, cfg.device, cfg.precision)
    history = fit_unet(unet, data["train"], loss, settings.train, job, held_out=data.get("val"))
    retrieval.save_unet(unet.cpu(), paths.RE_AUDIOLDM)
    job.forget()
    return history


def errors_by_noise(cfg: Params) -> pd.DataFrame:
    """Error against noise level on the test clips, under their captions and neighbours, and with less than that.

    Returns
    -------
    DataFrame [n, text and neighbours, text and those of another clip, text alone, nothing]
    """
    corpus, reads = cfg.re_audioldm.corpus, cfg.re_audioldm.pretrained.retrieval
    parts = load_parts(paths.FOUNDATION, "clap", "vae")
    index, arrays = features.load(paths.FEATURES / corpus, "test")
    rows = neighbours.find(corpus, cfg.retrieval.protocol)(list(index.id), reads.k).rows
    nothing = np.repeat(unets.unconditional(parts["clap"]).embedding.numpy(), len(index), axis=0)
    given = {
        "text and neighbours": (arrays["text"], rows),
        "text and those of another clip": (arrays["text"], np.roll(rows, len(rows) // 2, axis=0)),
        "text alone": (arrays["text"], np.full_like(rows, -1)),
        "nothing": (nothing, np.full_like(rows, -1)),
    }
    scale = parts["vae"].config.scaling_factor
    held = {
        name: Latents(arrays["moments"], {"embedding": E} | neighbours.conditions(corpus, reads, of), scale)
        for name, (E, of) in given.items()
    }
    unet = retrieval.load(paths.RE_AUDIOLDM).to(pick_device(cfg.device))
    return errors_by_level(held, unet, alphas_bar(cfg), limit=256)
