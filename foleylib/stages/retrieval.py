"""Stage retrieval: the U-Net of re-audioldm, pre-trained with every kind of retrieval, from which its models start."""

import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from foleylib import paths
from foleylib.datasets import features
from foleylib.datasets.features import Latents, training_splits
from foleylib.diffusion.loss import DiffusionLoss, errors_by_level
from foleylib.networks import rates, retrieval
from foleylib.networks import unet as unets
from foleylib.networks.pipeline import load_parts
from foleylib.params.retrieval import ReAudioLdm
from foleylib.params.settings import Params
from foleylib.runtime import fingerprint, pick_device, weights_sha256
from foleylib.stages import bundle, neighbours
from foleylib.stages.ldm import alphas_bar, fit_unet
from foleylib.train import Job


def make(cfg: Params) -> pd.DataFrame:
    """Make models/re_audioldm from its source; returns the training history."""
    settings, name = cfg.re_audioldm, "re_audioldm.pretrained"
    corpus, out = cfg.corpora[settings.corpus], paths.RE_AUDIOLDM
    history = bundle.make(name, settings.pretrained, corpus, out, partial(train, cfg))
    _check_tokens(settings)
    return history


def _check_tokens(settings: ReAudioLdm) -> None:
    """Refuse a U-Net that was made for other tokens than those of the corpus."""
    config, stored = retrieval.load(paths.RE_AUDIOLDM, needed=True).retrieval.config, paths.TOKENS / settings.corpus
    here = neighbours.channels(settings.corpus, settings.pretrained.retrieval)
    if (config.audio, config.text) != (here["audio"], here["text"]):
        raise ValueError(
            f"re_audioldm reads tokens of {config.audio} (audio) and {config.text} (text) channels, those in "
            f"{stored} have {here['audio']} and {here['text']}: put foundation.clap and retrieval.tokens back, or set "
            "re_audioldm.pretrained.source to 'scratch'"
        )


def train(cfg: Params, out: Path) -> None:
    """Pre-train on the captions of the corpus; kinds of retrieval are dropped at random.

    With attention "second" it is the paper's U-Net, from scratch; with "added" the foundation's `ldm` goes on, which may be a
    published one.
    """
    settings, begin = cfg.re_audioldm.pretrained, time.perf_counter()
    corpus, reads, parts = cfg.re_audioldm.corpus, settings.retrieval, load_parts(paths.FOUNDATION, "clap", "vae")
    data = training_splits(paths.FEATURES / corpus, "text", parts["vae"].config.scaling_factor)
    for split, latents in data.items():
        latents.conditions |= neighbours.of_split(corpus, split, reads, cfg)
    clap, added = parts["clap"], reads.attention == "added"
    sizes = {"dim": clap.dim, "latent_channels": parts["vae"].config.latent_channels, "seed": cfg.seed}
    base = unets.load(paths.FOUNDATION / "ldm") if added else unets.new(settings, **sizes)
    unet = retrieval.of_settings(reads, base, **neighbours.channels(corpus, reads), seed=cfg.seed)
    loss = DiffusionLoss(
        alphas_bar(cfg),
        retrieval.unconditional(clap, unet),
        data["train"].scale,
        settings.condition_dropout,
        settings.snr_gamma,
        retrieval_dropout=settings.retrieval_dropout,
    )
    models = [weights_sha256(paths.FOUNDATION / part) for part in ("clap", "vae", *(["ldm/unet"] if added else []))]
    inputs = [features.read_key(paths.FEATURES / corpus), *neighbours.keys(corpus, cfg), cfg.foundation.ldm.noise]
    key = fingerprint(settings, cfg.seed, cfg.precision, *models, *inputs)
    job = Job(cfg.seed, paths.SCRATCH / "re_audioldm-pretrained" / key, cfg.device, cfg.precision)
    history = fit_unet(unet, data["train"], loss, settings.train, job, held_out=data.get("val"))
    rates.save_unet(unet.cpu(), out)
    seconds = time.perf_counter() - begin
    bundle.write_provenance(out, settings, corpus, cfg, seconds, history)
    job.forget()


def errors_by_noise(cfg: Params) -> pd.DataFrame:
    """Error against noise level on test clips, by what the U-Net is told beside the noisy latent.

    Returns
    -------
    DataFrame [n, own neighbours, those of another clip, text alone, nothing]; the first three have the clip's caption.
    """
    corpus, reads = cfg.re_audioldm.corpus, cfg.re_audioldm.pretrained.retrieval
    parts = load_parts(paths.FOUNDATION, "clap", "vae")
    index, arrays = features.load(paths.FEATURES / corpus, "test")
    rows, text = neighbours.find(corpus, cfg.retrieval.protocol)(list(index.id), reads.k).rows, arrays["text"]
    unet = retrieval.load(paths.RE_AUDIOLDM, needed=True).to(pick_device(cfg.device))
    empty = retrieval.unconditional(parts["clap"], unet).embedding.numpy()
    told = {
        "own neighbours": (text, rows),
        "those of another clip": (text, np.roll(rows, len(rows) // 2, axis=0)),
        "text alone": (text, np.full_like(rows, -1)),
        "nothing": (np.tile(empty, (len(rows), 1)), np.full_like(rows, -1)),
    }
    data = {
        name: Latents(
            arrays["moments"],
            {"embedding": embeddings} | neighbours.conditions(corpus, reads, found),
            parts["vae"].config.scaling_factor,
        )
        for name, (embeddings, found) in told.items()
    }
    return errors_by_level(data, unet, alphas_bar(cfg))
