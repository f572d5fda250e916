"""Stage rates: U-Nets that are told a sampling rate, pre-trained at the lowest rate or at all, from which the models of
src-gaudio start; and what training and sampling at several rates share."""

import shutil
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from foleylib import paths
from foleylib.audio.mel import front_end
from foleylib.datasets import features
from foleylib.datasets import manifest as manifests
from foleylib.datasets import tokens as stores
from foleylib.datasets.features import Latents
from foleylib.diffusion.condition import Condition
from foleylib.diffusion.loss import DiffusionLoss, held_out_loss
from foleylib.networks import rates, tokens
from foleylib.networks import vocoder as vocoders
from foleylib.networks.pipeline import load_parts
from foleylib.params.retrieval import Read
from foleylib.params.settings import Params
from foleylib.runtime import fingerprint, in_parallel, pick_device, process, weights_sha256
from foleylib.stages import bundle, neighbours
from foleylib.stages.ldm import alphas_bar, fit_unet
from foleylib.train import Job

STARTS = ("low", "joint")  # what the pre-trained U-Nets know: the lowest rate, or all


def make(cfg: Params) -> pd.DataFrame:
    """Make models/src_gaudio/low and models/src_gaudio/joint from their source; returns their training history, with the
    one it is of in `start`."""
    settings, corpus = cfg.src_gaudio.pretrained, cfg.corpora[cfg.src_gaudio.corpus]
    history = bundle.make("src_gaudio.pretrained", settings, corpus, paths.SRC_GAUDIO, partial(train, cfg))
    here, unet = channels(cfg.src_gaudio.corpus), rates.load(paths.SRC_GAUDIO / STARTS[0], needed=True).unet
    own = unet.config.cross_attention_dim
    if own != here:
        raise ValueError(
            f"src_gaudio reads text tokens of {own} channels, those of corpora.{cfg.src_gaudio.corpus} have {here}: put "
            "foundation.clap and retrieval.tokens back, or set src_gaudio.pretrained.source to 'scratch'"
        )
    return history


def train(cfg: Params, out: Path) -> None:
    """Pre-train both U-Nets on the captions of the corpus, from the same first weights and in as many steps."""
    begin, how = time.perf_counter(), {"device": cfg.device, "jobs": cfg.jobs, "desc": "pre-training"}
    told = in_parallel(_pretrain, [(start, out) for start in STARTS], partial(_given, cfg), **how)
    history, settings = pd.concat(told, ignore_index=True), cfg.src_gaudio.pretrained
    seconds = time.perf_counter() - begin
    bundle.write_provenance(out, settings, cfg.src_gaudio.corpus, cfg, seconds, history)
    for start in STARTS if process()[0] == 0 else ():
        shutil.rmtree(_scratch(start), ignore_errors=True)


def _given(cfg: Params) -> Params:
    return cfg


def _scratch(start: str) -> Path:
    return paths.SCRATCH / f"src_gaudio-{start}"


def _pretrain(cfg: Params, start: str, out: Path) -> pd.DataFrame:
    """Pre-train one of the U-Nets and save it; returns its history."""
    settings, corpus = cfg.src_gaudio.pretrained, cfg.src_gaudio.corpus
    known = cfg.corpora[corpus].rates
    inputs = [features.read_key(paths.FEATURES / corpus), neighbours.read_key(corpus), cfg.foundation.ldm.noise]
    models = [weights_sha256(paths.FOUNDATION / part) for part in ("clap", "vae")]
    key = fingerprint(settings, start, cfg.seed, cfg.precision, *inputs, *models)
    unet, data = new_unet(cfg), splits(cfg, known[:1] if start == "low" else known)
    job = Job(cfg.seed, _scratch(start) / key, cfg.device, cfg.precision)
    history = fit(unet, data, settings, settings.train, cfg, job)
    rates.save_unet(unet.cpu(), out / start)
    return history.assign(start=start)


def new_unet(cfg: Params) -> rates.RateUnet:
    """An untrained U-Net in the size of `src_gaudio.pretrained`."""
    own = cfg.src_gaudio.pretrained
    return rates.build(
        own.channels,
        own.head_channels,
        text=channels(cfg.src_gaudio.corpus),
        place=own.place,
        layers=own.layers,
        groups=own.groups,
        latent_channels=cfg.foundation.vae.latent_channels,
        seed=cfg.seed,
    )


def fit(unet: nn.Module, data: dict[str, Latents], common, train, cfg: Params, job: Job) -> pd.DataFrame:
    """Train a U-Net that reads text tokens and a rate, in place; returns the history.

    `common` has `condition_dropout` and `snr_gamma`, `train` is a section `params.base.Train`. What is dropped is the text:
    the rate stays, as in the paper's unconditional input.
    """
    nothing = text_condition([""], cfg, load_parts(paths.FOUNDATION, "clap")["clap"])
    loss = DiffusionLoss(alphas_bar(cfg), nothing, data["train"].scale, common.condition_dropout, common.snr_gamma)
    return fit_unet(unet, data["train"], loss, train, job, held_out=data.get("val"), best=True)


def splits(cfg: Params, known: list[int]) -> dict[str, Latents]:
    """The training and, where there are any, validation clips of `src_gaudio.corpus` at the rates `known` in Hz.

    Each pass of the training goes through every clip once at every rate, all shuffled together: so are batches mixed.
    """
    corpus, scale = cfg.src_gaudio.corpus, load_parts(paths.FOUNDATION, "vae")["vae"].config.scaling_factor
    row_of = {id: row for row, id in enumerate(manifests.load(paths.CLIPS / corpus).id)}
    found = {}
    for split in ("train", "val"):
        index, arrays = features.load(paths.FEATURES / corpus, split)
        rows = np.flatnonzero(np.isin(arrays["rate"], known))
        if split == "val":  # rate by rate: the noise levels of `held_out_loss` go by turns, each rate has them all
            rows = rows[np.argsort(arrays["rate"][rows], kind="stable")]
        if len(rows):
            clips = np.array([row_of[id] for id in index.id.iloc[rows]])
            conditions = captions(corpus, clips) | {"rate": arrays["rate"][rows]}
            found[split] = Latents(arrays["moments"][rows], conditions, scale)
    if "train" not in found:
        raise ValueError(f"corpora.{corpus} has no training clips: give it some, src_gaudio trains on them")
    return found


def captions(corpus: str, clips: np.ndarray) -> dict[str, stores.Neighbours]:
    """The text tokens of clips, by their rows in the manifest [shape=(B,)], as conditions: written by retrieval_index."""
    return stores.of_neighbours(clips[:, None], audio=text_store(corpus))


def text_store(corpus: str) -> Path:
    """The folder of the text tokens of a corpus' captions; a corpus without them is refused."""
    return neighbours.stores_of(corpus, Read(audio=False))["text"]


def channels(corpus: str) -> int:
    """Channels of a text token."""
    return neighbours.channels(corpus, Read(audio=False))["text"]


def text_condition(texts: list[str], cfg: Params, clap) -> Condition:
    """The tokens of texts, by the network behind the stored ones, one row a text."""
    found, mask = tokens.of_text(tokens.placed(cfg.retrieval.tokens, paths.ROOT), clap).to(pick_device(cfg.device))(
        texts
    )
    return Condition(tokens=found.cpu(), mask=mask.cpu())


def errors_by_rate(cfg: Params) -> pd.DataFrame:
    """Error of both pre-trained U-Nets on validation clips at each rate, told it and told another.

    Returns
    -------
    DataFrame [start, rate, told, ddpm]: `told` is the rate itself, the lowest and the highest in turn; no row where the
    corpus has no validation clips
    """
    known, rows = cfg.corpora[cfg.src_gaudio.corpus].rates, []
    for start in STARTS:
        unet = rates.load(paths.SRC_GAUDIO / start, needed=True).to(pick_device(cfg.device))
        for rate in known:
            data = splits(cfg, [rate]).get("val")
            for told in dict.fromkeys((rate, known[0], known[-1])) if data is not None else ():
                data.conditions["rate"] = np.full(len(data), told, dtype=np.float32)
                rows.append((start, rate, told, held_out_loss(unet, data, alphas_bar(cfg).to(unet.device))["ddpm"]))
    return pd.DataFrame(rows, columns=["start", "rate", "told", "ddpm"])


def vocoder_at(rate: int, cfg: Params) -> nn.Module:
    """What decodes mels at a rate, on the device: Griffin-Lim, or the HiFi-GAN of that rate (`sampling.vocoder`)."""
    corpus, device = cfg.corpora[cfg.src_gaudio.corpus], pick_device(cfg.device)
    if cfg.sampling.vocoder == "griffin_lim":
        return vocoders.GriffinLim(front_end(rate, corpus.padding).config).to(device)
    name = next(name for name, own in cfg.src_gaudio.vocoders.items() if own.rate == rate)
    return vocoders.load(paths.vocoder_of(name)).to(device)
