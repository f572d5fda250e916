"""Stage latent_clap: the Latent CLAP encoder (latent-clap-loss, III.D), and how well it agrees with CLAP."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from foleylib import paths
from foleylib.datasets import features
from foleylib.datasets.features import Latents, sample_latents, training_splits
from foleylib.diffusion.process import add_noise
from foleylib.evaluation import statistics
from foleylib.networks import vae
from foleylib.networks.latent_clap import LatentClap, LatentClapConfig, build, load
from foleylib.params.settings import Params
from foleylib.runtime import fingerprint, step_generator, weights_sha256, write_json
from foleylib.stages import bundle
from foleylib.train import Job, Terms, Trainable, fit

NEIGHBOURS = 10  # of a clip, in `agreement`


def make(cfg: Params) -> pd.DataFrame:
    """Make models/latent_clap from its source, the bundle or a training; returns the history."""
    out, corpus = paths.LATENT_CLAP, cfg.corpus_of("latent_clap")
    return bundle.make("latent_clap", cfg.latent_clap, corpus, out, partial(train, cfg))


def train(cfg: Params, out: Path) -> None:
    """Train on the cached features of its corpus."""
    section, folder = cfg.latent_clap, paths.FEATURES / cfg.latent_clap.corpus
    scale = vae.load(paths.FOUNDATION / "vae").config.scaling_factor
    data, start = training_splits(folder, "audio", scale), time.perf_counter()
    key = fingerprint(section, cfg.seed, cfg.precision, scale, features.read_key(folder))
    job = Job(cfg.seed, paths.SCRATCH / "latent_clap" / key, cfg.device, cfg.precision)
    model, history = fit_encoder(section, data["train"], job, val=data.get("val"))
    model.save_pretrained(out)
    bundle.write_provenance(out, section, section.corpus, cfg, time.perf_counter() - start, history)
    job.forget()


def fit_encoder(settings, data: Latents, job: Job, *, val: Latents | None = None):
    """Train an encoder to give the audio embeddings of clean latents, Eq. 2; returns (frozen LatentClap, history).

    Each step draws its latents anew from the cached posteriors. `settings` is the section `latent_clap`; `data` and
    `val` have the audio embeddings as condition, and error and cosine on `val` are logged while training.
    """
    _, channels, _, bands = data.moments.shape
    dim = data.conditions["embedding"].shape[1]
    config = LatentClapConfig(
        channels=channels // 2,
        bands=bands,
        widths=tuple(settings.widths),
        dim=dim,
        dropout=settings.dropout,
        normalise=settings.normalise,
        scaled=settings.scaled,
        scale=float(data.scale),
    )
    model = build(config, seed=job.seed)

    def loss(module, batch: dict, generator: torch.Generator) -> Terms:
        E_latent = module(sample_latents(batch["moments"], data.scale, generator)).float()
        return {"mse": (E_latent - batch["embedding"]).square().mean()}

    def validate() -> dict:
        result = agreement(*embed(model, val))
        return {"mse": result["mse"], "cosine": result["cosine"]}

    # times dim: the squared norm has the same minimum, and gradients well above Adam's epsilon
    trainable = Trainable(model, loss, {"mse": float(dim)})
    check = validate if val else None
    history = fit({"encoder": trainable}, data.__getitem__, len(data), settings.train, job, validate=check)
    return model.cpu().eval().requires_grad_(False), history


def load_encoder() -> LatentClap:
    """The frozen encoder of models/latent_clap."""
    return load(paths.LATENT_CLAP)


def clips(folder: Path, split: str, scale: float, *, limit: int | None = None) -> tuple[pd.DataFrame, Latents]:
    """Cached clips of a split with their audio embeddings, `limit` of them spread over the split.

    `folder` has the corpus' features, `scale` is the latent scale of the VAE. Returns (index, clips).
    """
    index, arrays = features.load(folder, split)
    if not len(index):
        raise ValueError(
            f"split={split!r}: {folder.name} has no clip there; give another split or prepare the corpus anew"
        )
    count = len(index) if limit is None else min(limit, len(index))
    rows = np.linspace(0, len(index) - 1, count).astype(int)
    index = index.iloc[rows].reset_index(drop=True)
    return index, Latents(arrays["moments"][rows], {"embedding": arrays["audio"][rows]}, scale)


def class_means(folder: Path, labels: Sequence[str]) -> np.ndarray:
    """The guess that knows the class alone: for each label the mean E_audio of its training clips, of unit norm
    [shape=(N, D)]."""
    index, arrays = features.load(folder, "train")
    members = index.groupby("label").indices
    absent = sorted(set(labels) - set(members))
    if absent:
        raise ValueError(f"labels {absent} have no training clip in {folder.name}: give its classes {sorted(members)}")
    return _unit(np.stack([arrays["audio"][members[label]].mean(axis=0, dtype=np.float64) for label in labels]))


@torch.no_grad()
def embed(
    encoder: LatentClap,
    data: Latents,
    *,
    n: int | None = None,
    alphas_bar: torch.Tensor | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> tuple[np.ndarray, np.ndarray]:
    """E_latent and E_audio of cached clips, two arrays [shape=(N, D)]; the encoder's mode is left as it is.

    Parameters
    ----------
    data : clips with their audio embeddings as condition.
    n : diffusion step up to which the latents are noised with `alphas_bar`; clean latents without.
    seed : of the posterior samples, the same at every `n`, and of the noise.
    """
    device, E_latent, E_audio = next(encoder.parameters()).device, [], []
    for start in range(0, len(data), batch_size):
        batch = data[np.arange(start, min(start + batch_size, len(data)))]
        z = sample_latents(batch["moments"], data.scale, step_generator("cpu", seed, start))
        if n is not None:
            eps = torch.randn(z.shape, generator=step_generator("cpu", seed, start, n + 1))
            z = add_noise(z, eps, torch.full((len(z),), n), alphas_bar)
        E_latent.append(encoder(z.to(device)).float().cpu())
        E_audio.append(batch["embedding"])
    return torch.cat(E_latent).numpy(), torch.cat(E_audio).numpy()


def agreement(E_latent: np.ndarray, E_audio: np.ndarray) -> dict[str, float]:
    """How near two embeddings of the same clips are, each to each and in what they call similar.

    Parameters
    ----------
    E_latent, E_audio : [shape=(N, D)], N >= 3; neighbours are by cosine, of other clips than the clip itself.

    Returns
    -------
    "mse", mean over dimensions; "cosine", mean; "neighbour": share of clips whose nearest other clip is the same in
    both; "neighbours": mean share of the 10 nearest (N - 1 where there are fewer) that both have; "own_audio": share
    of clips whose own E_audio is the nearest of all to their E_latent.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (E_latent, E_audio))
    if a.shape != b.shape or a.ndim != 2 or len(a) < 3:
        raise ValueError(f"E_latent is {a.shape}, E_audio {b.shape}: give the same (N, D) with N >= 3")
    mse, a, b = float(np.square(a - b).mean()), _unit(a), _unit(b)
    near_a, near_b = _neighbours(a), _neighbours(b)
    shared = [len(set(x) & set(y)) / len(x) for x, y in zip(near_a.tolist(), near_b.tolist())]
    own = (a @ b.T).argmax(axis=1) == np.arange(len(a))
    return {
        "mse": mse,
        "cosine": float((a * b).sum(axis=1).mean()),
        "neighbour": float((near_a[:, 0] == near_b[:, 0]).mean()),
        "neighbours": float(np.mean(shared)),
        "own_audio": float(own.mean()),
    }


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _neighbours(x: np.ndarray) -> np.ndarray:
    """Indices of the nearest other clips, nearest first, of unit rows x (N, D) -> (N, min(10, N - 1))."""
    similarity = x @ x.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(x) - 1)]


def by_noise(
    encoder: LatentClap, data: Latents, alphas_bar: torch.Tensor, *, levels: int = 10, seed: int = 0, limit: int = 256
) -> pd.DataFrame:
    """`agreement` on latents noised up to evenly spaced diffusion steps, for the first `limit` clips.

    Returns
    -------
    DataFrame [n, mse, cosine, neighbour, neighbours, own_audio]
    """
    used = Latents(data.moments[:limit], {"embedding": data.conditions["embedding"][:limit]}, data.scale)
    steps = torch.linspace(0, len(alphas_bar) - 1, levels).long().tolist()
    return pd.DataFrame(
        [{"n": n, **agreement(*embed(encoder, used, n=n, alphas_bar=alphas_bar, seed=seed))} for n in steps]
    )


def scores(
    E_latent: np.ndarray,
    E_audio: np.ndarray,
    labels: Sequence[str] | None = None,
    *,
    seed: int = 0,
    bootstrap: int = 300,
    level: float = 0.95,
) -> list[dict]:
    """Cosine and squared error, with bootstrap intervals over clips, of the whole set ("all") and of each class.

    Classes with one clip are left out (no interval), as are clips without a class. Returns rows of {class, metric, embedder, value, low, high, n,
    seed}; `seed` is that of the bootstrap and of the training that is scored.
    """
    a, b = np.asarray(E_latent, dtype=np.float64), np.asarray(E_audio, dtype=np.float64)
    values = {"cosine": (_unit(a) * _unit(b)).sum(axis=1), "mse": np.square(a - b).mean(axis=1)}
    groups = {"all": np.arange(len(a))}
    if labels is not None:
        groups |= {label: rows for label, rows in statistics.group_rows(labels).items() if label and len(rows) > 1}
    rows = []
    for group, members in groups.items():
        for metric, of_clip in values.items():
            own = of_clip[members]
            interval = statistics.bootstrap_interval(
                len(own), lambda i, own=own: float(own[i].mean()), seed=seed, n_boot=bootstrap, level=level
            )
            row = {"class": group, "metric": metric, "embedder": "clap", "value": interval.estimate}
            rows.append(row | {"low": interval.low, "high": interval.high, "n": len(own), "seed": seed})
    return rows


def evaluate(cfg: Params, split: str = "test") -> tuple[list[dict], np.ndarray, np.ndarray, pd.DataFrame]:
    """Score the encoder on the clips of a split; writes results/latent_clap.json (headline, card, scores).

    Returns
    -------
    rows of scores, E_latent and E_audio [shape=(N, D)], index of the clips
    """
    encoder, folder = load_encoder(), paths.FEATURES / cfg.latent_clap.corpus
    index, data = clips(folder, split, encoder.config.scale)
    E_latent, E_audio = embed(encoder, data)
    options = {"seed": cfg.seed, "bootstrap": cfg.evaluate.bootstrap, "level": cfg.evaluate.level}
    rows = scores(E_latent, E_audio, index.label, **options)
    card = {
        "run": "latent_clap",
        "corpus": cfg.latent_clap.corpus,
        "split": split,
        "n": len(index),
        "seed": cfg.seed,
        "embedder_sha256": weights_sha256(paths.LATENT_CLAP),
        "target": "CLAP audio embeddings",
        "interval": "bootstrap over clips",
    }
    kept = [{k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    headline = {row["metric"]: row["value"] for row in kept if row["class"] == "all"}
    write_json(paths.RESULTS / "latent_clap.json", {"headline": headline, "card": card, "scores": kept})
    return rows, E_latent, E_audio, index
