"""Stage codec: what VAE and vocoder leave of real clips, beside Griffin-Lim in the vocoder's place and beside other real clips."""

import numpy as np
import pandas as pd
import torch

from foleylib import paths
from foleylib.audio.mel import front_end
from foleylib.datasets import manifest as manifests
from foleylib.evaluation.distribution import kad, reached
from foleylib.evaluation.embeddings import Embeddings, embed_clips
from foleylib.evaluation.quick import judge_hits
from foleylib.networks import clap as claps
from foleylib.networks import judge as judges
from foleylib.networks import vae as vaes
from foleylib.networks import vocoder as vocoders
from foleylib.params.settings import Params
from foleylib.runtime import pick_device, progress, write_csv

FEWEST = 4  # clips of a class, of each of two sets, that are compared by themselves


def make(cfg: Params) -> pd.DataFrame:
    """`compare` on the sampled corpus and on the foundation's; writes results/codec.csv."""
    corpora = list(dict.fromkeys([cfg.sampling.corpus, cfg.foundation.corpus]))
    scores = pd.concat({corpus: compare(corpus, cfg) for corpus in corpora}, names=["corpus"])
    write_csv(scores.reset_index(), paths.RESULTS / "codec.csv")
    return scores


def compare(corpus: str, cfg: Params) -> pd.DataFrame:
    """Scores of validation clips as they are, from their mels, and through the VAE, against the corpus' test clips.

    As many clips of each class as a run has (`sampling.clips_per_class`), where there are so many. KAD and coverage are means over classes, or of all clips at once where a class has
    fewer than four.

    Returns
    -------
    DataFrame [index: clips, vocoder; mel (nepers), stft, and for judge and clap: kad, coverage; accuracy of the judge]
    """
    settings, device = cfg.entry("corpora", corpus), pick_device(cfg.device)
    log_mel = front_end(settings.rate, settings.padding).to(device)
    vae = vaes.load(paths.FOUNDATION / "vae").to(device)
    own = vocoders.load(paths.FOUNDATION / "vocoder").to(device)
    networks = {"HiFi-GAN": own, "Griffin-Lim": vocoders.GriffinLim(log_mel.config).to(device)}
    manifest = manifests.load(paths.CLIPS / corpus).query("target >= 0")
    embed = _Embed(cfg, settings.rate)
    held, waves = _clips(corpus, manifest[manifest.split == "val"].groupby("target").head(cfg.sampling.clips_per_class))
    reference = embed(*_clips(corpus, manifest[manifest.split == "test"]))

    rows = {("real", "–"): _scores(reference, embed(held, waves), embed.judge.model.labels)}
    ways = [(clips, name) for clips in ("real mels", "through the VAE") for name in networks]
    for clips, name in progress(ways, desc=f"codec {corpus}"):
        codec = vae if clips == "through the VAE" else None
        made = vocoders.resynthesise(networks[name], waves, log_mel, vae=codec).clamp(-1, 1)
        far = {key: float(values.mean()) for key, values in vocoders.errors(made, waves, log_mel).items()}
        rows[clips, name] = far | _scores(reference, embed(held, made), embed.judge.model.labels)
    columns = list(dict.fromkeys(key for row in reversed(rows.values()) for key in row))
    return pd.DataFrame.from_dict(rows, orient="index")[columns].rename_axis(["clips", "vocoder"])


class _Embed:
    """Judge and CLAP, loaded once."""

    def __init__(self, cfg: Params, rate: int):
        device = pick_device(cfg.device)
        self.judge, self.rate = judges.load(paths.JUDGE, device=device), rate
        self.clap = claps.load(paths.FOUNDATION / "clap", device)

    def __call__(self, manifest: pd.DataFrame, waves: torch.Tensor) -> Embeddings:
        options = {"judge": self.judge, "clap": self.clap, "rate": self.rate}
        return embed_clips(waves.numpy(), list(manifest.label), list(manifest.prompt), **options)


def _clips(corpus: str, rows: pd.DataFrame) -> tuple[pd.DataFrame, torch.Tensor]:
    rows = rows.reset_index(drop=True)
    return rows, manifests.Waves(paths.CLIPS / corpus, rows)[np.arange(len(rows))]


def _scores(reference: Embeddings, clips: Embeddings, labels) -> dict[str, float]:
    sets, scores = [(reference.only(label), clips.only(label)) for label in dict.fromkeys(clips.labels)], {}
    if min(len(part) for pair in sets for part in pair) < FEWEST:
        sets = [(reference, clips)]
    for name in ("judge", "clap"):
        pairs = [(x[name], y[name]) for x, y in sets]
        scores[f"kad, {name}"] = float(np.mean([kad(x, y) for x, y in pairs]))
        covered = [reached(x, y, k=min(5, len(x) - 1)).any(axis=1).mean() for x, y in pairs]
        scores[f"coverage, {name}"] = float(np.mean(covered))
    known = set(clips.labels) <= set(labels)
    return scores | ({"accuracy, judge": float(judge_hits(clips, labels).mean())} if known else {})
