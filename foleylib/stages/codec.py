"""Stage codec: what VAE and vocoder leave of real clips, beside Griffin-Lim and beside other real clips."""

from functools import partial

import numpy as np
import pandas as pd
import torch

from foleylib import paths
from foleylib.audio.augment import through_microphone
from foleylib.audio.io import resample
from foleylib.audio.mel import front_end
from foleylib.datasets import manifest as manifests
from foleylib.evaluation.embeddings import Embeddings, embed_clips
from foleylib.evaluation.quick import judge_hits, kad_and_coverage
from foleylib.networks import clap as claps
from foleylib.networks import judge as judges
from foleylib.networks import vae as vaes
from foleylib.networks import vocoder as vocoders
from foleylib.params.settings import Params
from foleylib.runtime import pick_device, progress, write_csv

LIMIT = 512  # validation clips, and test clips, of a corpus: a published one has thousands of ten seconds


def make(cfg: Params) -> pd.DataFrame:
    """`compare` on the sampled corpus and on the foundation's; writes results/codec.csv."""
    corpora = list(dict.fromkeys([cfg.sampling.corpus, cfg.foundation.corpus]))
    scores = pd.concat({corpus: compare(corpus, cfg) for corpus in corpora}, names=["corpus"])
    write_csv(scores.reset_index(), paths.RESULTS / "codec.csv")
    return scores


def compare(corpus: str, cfg: Params) -> pd.DataFrame:
    """Scores of validation clips as they are, disturbed a little, from their mels, and through the VAE, against the
    corpus' test clips.

    As many clips of each class as a run has (`sampling.clips_per_class`), where there are so many; KAD and coverage are
    means over classes. Without classes they are so many in all, and the scores are of the whole set. No more than
    `LIMIT` clips are compared with as many test clips, spread over the classes.

    Returns
    -------
    DataFrame [index: clips, vocoder; mel (nepers), stft, and for judge and clap: kad, coverage; accuracy of the judge]
    """
    settings, device = cfg.entry("corpora", corpus), pick_device(cfg.device)
    log_mel = front_end(settings.rate, settings.padding).to(device)
    vae = vaes.load(paths.FOUNDATION / "vae").to(device)
    own = vocoders.load(paths.FOUNDATION / "vocoder").to(device)
    networks = {"HiFi-GAN": own, "Griffin-Lim": vocoders.GriffinLim(log_mel.config).to(device)}
    manifest = manifests.load(paths.CLIPS / corpus)
    if manifests.has_classes(manifest):
        manifest = manifest[manifest.target >= 0]
    judge, clap = judges.load(paths.JUDGE, device=device), claps.load(paths.FOUNDATION / "clap", device)
    held, waves = _clips(corpus, manifest[manifest.split == "val"].groupby("target").head(cfg.sampling.clips_per_class))
    others, other_waves = _clips(corpus, manifest[manifest.split == "test"])

    def embed(rows: pd.DataFrame, waves: torch.Tensor) -> Embeddings:
        texts = list(rows.label), list(rows.prompt)
        return embed_clips(waves.numpy(), *texts, judge=judge, clap=clap, rate=settings.rate)

    scores = partial(_scores, embed(others, other_waves), labels=judge.model.labels)
    disturbed = {"real": waves} | slightly_disturbed(waves, settings.rate, seed=cfg.seed)
    rows = {(name, "–"): scores(embed(held, clips)) for name, clips in disturbed.items()}
    ways = [(clips, name) for clips in ("real mels", "through the VAE") for name in networks]
    for clips, name in progress(ways, desc=f"codec {corpus}"):
        codec = vae if clips == "through the VAE" else None
        made = vocoders.resynthesise(networks[name], waves, log_mel, vae=codec).clamp(-1, 1)
        far = {key: float(values.mean()) for key, values in vocoders.errors(made, waves, log_mel).items()}
        rows[clips, name] = far | scores(embed(held, made))
    columns = list(dict.fromkeys(key for row in reversed(rows.values()) for key in row))
    return pd.DataFrame.from_dict(rows, orient="index")[columns].rename_axis(["clips", "vocoder"])


def slightly_disturbed(waves: torch.Tensor, rate: int, *, seed: int) -> dict[str, torch.Tensor]:
    """Clips [shape=(N, T)] changed by what an evaluation should forgive, by name: how much of a score is nothing."""
    generator = torch.Generator().manual_seed(seed)
    noise = 1e-3 * torch.randn(waves.shape, generator=generator)
    there_and_back = [resample(resample(wave, rate, 22050), 22050, rate)[: len(wave)] for wave in waves.numpy()]
    return {
        "real, half as loud": waves / 2,
        "real, noise at -60 dB": (waves + noise).clamp(-1, 1),
        "real, by way of 22.05 kHz": torch.from_numpy(np.stack(there_and_back)),
        "real, another microphone": through_microphone(waves, generator=generator, rate=rate).clamp(-1, 1),
    }


def _clips(corpus: str, rows: pd.DataFrame) -> tuple[pd.DataFrame, torch.Tensor]:
    if not len(rows):
        raise ValueError(f"corpus {corpus}: no clips in its split val or test; the codec needs both, change its splits")
    rows = rows.iloc[manifests.spread(len(rows), LIMIT)].reset_index(drop=True)
    return rows, manifests.Waves(paths.CLIPS / corpus, rows)[np.arange(len(rows))]


def _scores(reference: Embeddings, clips: Embeddings, *, labels) -> dict[str, float]:
    scores = {
        f"{metric}, {name}": value
        for name in ("judge", "clap")
        for metric, value in kad_and_coverage(reference, clips, name).items()
    }
    known = set(clips.labels) <= set(labels)
    return scores | ({"accuracy, judge": float(judge_hits(clips, labels).mean())} if known else {})
