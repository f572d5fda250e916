"""Stage sensitivity: real clips are damaged in known ways, and every metric is asked whether it notices (Fig. 1 of
audioldm-transfer-benchmark)."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch

from foleylib import paths
from foleylib.audio.io import resample
from foleylib.corpora.listing import OFFSETS
from foleylib.corpora.synth.captions import scene_caption
from foleylib.corpora.synth.render import render_scene
from foleylib.datasets import manifest as manifests
from foleylib.evaluation import corruption
from foleylib.evaluation.embeddings import Embeddings
from foleylib.evaluation.paired import paired_scores
from foleylib.networks import pipeline as pipelines
from foleylib.params.settings import Params
from foleylib.runtime import pick_device, progress, write_csv
from foleylib.stages import evaluators
from foleylib.stages.embedders import Embedders
from foleylib.stages.reference import evenly, reference
from foleylib.stages.sample import corpus_front_end, load_pipeline

FEWEST = 2  # clips of a set that is scored
OTHER_RATE = 22050  # Hz, of a detour with poor interpolation


def make(cfg: Params) -> pd.DataFrame:
    """Score sets of clips of which a growing share is damaged; writes results/sensitivity.csv.

    Each set are some of `clips` test clips of the sampled corpus, drawn anew in each draw and partly replaced by their
    damaged versions; the other test clips are the reference. "order" has clips of several events, and the same in another
    order. "fewer clips" leaves the share out instead. Whatever the paper does to the mel-spectrogram is done there, and
    damaged, whole and reference clips are decoded again by the vocoder of `sampling`; "silence", "one clip" and
    "resampler" act on the sound.

    Returns
    -------
    DataFrame [damage, share, draw, metric, embedder, value]
    """
    embedders = Embedders(cfg, evaluators.load(cfg))
    manifest, waves = reference(cfg)
    rows = evenly(manifest, cfg.sensitivity.clips, "sensitivity.clips")
    if len(manifest) - len(rows) < FEWEST:
        raise ValueError(f"sensitivity.clips is {len(rows)} of {len(manifest)} test clips: leave some as the reference")
    decode, log_mel = _decoder(cfg), corpus_front_end(cfg)
    labels = embedders.judge.model.labels

    # Every version of the clips is decoded and embedded once.
    others = np.setdiff1d(np.arange(len(manifest)), rows)
    real = embedders.embed(manifest.iloc[others], decode(log_mel(torch.from_numpy(waves[others]))).numpy())
    manifest, mels = manifest.iloc[rows].reset_index(drop=True), log_mel(torch.from_numpy(waves[rows]))
    whole = decode(mels)
    versions = progress(_damaged(manifest, mels, whole, decode, cfg), desc="damage", total=6)
    clips = {name: embedders.embed(manifest, damaged.numpy()) for name, damaged in versions}
    own = embedders.embed(manifest, whole.numpy())
    table = [row for name, E in clips.items() for row in _scored(name, real, own, E, labels, cfg)]
    table += _scored("fewer clips", real, own, None, labels, cfg)

    # Clips of several events, and the same in another order.
    if cfg.corpus_of("sampling").kind == "synthetic":
        scenes, texts = _scenes(manifest, cfg)
        of_events = [embedders.embed(manifest, decode(log_mel(part)).numpy()) for part in scenes]
        in_order, reordered, others = (_retold(E, texts, embedders.clap) for E in of_events)
        table += _scored("order", others, in_order, reordered, (), cfg)
    else:
        swapped = embedders.embed(manifest, decode(corruption.swap_parts(mels)).numpy())
        table += _scored("order", real, own, swapped, labels, cfg)
    frame = pd.DataFrame(table)
    write_csv(frame, paths.RESULTS / "sensitivity.csv")
    return frame


def _damaged(
    manifest: pd.DataFrame, mels: torch.Tensor, whole: torch.Tensor, decode, cfg: Params
) -> Iterator[tuple[str, torch.Tensor]]:
    """Damage, and all clips damaged so [shape=(N, T)]."""
    settings, rng = cfg.sensitivity, np.random.default_rng([cfg.seed, 1])
    yield "noise", decode(corruption.add_noise(mels, rng, share=settings.noise))
    yield "masking", decode(corruption.mask(mels, rng, count=settings.masks, length=settings.mask_length))
    if settings.interferers:
        others = corpus_front_end(cfg)(_interferers(len(mels), cfg, rng))
        yield "interference", decode(corruption.mix(mels, others))
    yield "one clip", _first_of_class(manifest, whole)
    yield "silence", torch.zeros_like(whole)
    yield "resampler", _detour(whole, cfg.corpus_of("sampling").rate)


def _decoder(cfg: Params) -> Callable[[torch.Tensor], torch.Tensor]:
    """Log-mels [shape=(N, 1, frames, n_mels)] to waves [shape=(N, T)] by the vocoder of `sampling`."""
    pipeline = load_pipeline(paths.FOUNDATION / "ldm", cfg, cfg.sampling)
    hop, device = corpus_front_end(cfg).config.hop, pick_device(cfg.device)

    def decode(mels: torch.Tensor) -> torch.Tensor:
        parts = mels.split(cfg.sampling.batch_size)
        return torch.cat([pipelines.vocode(pipeline, part.to(device), hop=hop) for part in parts])

    return decode


def _interferers(count: int, cfg: Params, rng: np.random.Generator) -> torch.Tensor:
    """Test clips [shape=(count, T)] of `interferers` classes of the foundation's corpus that the sampled one has not."""
    folder, settings = paths.CLIPS / cfg.foundation.corpus, cfg.sensitivity
    manifest, own = manifests.load(folder), manifests.load(paths.CLIPS / cfg.sampling.corpus)
    if unknown := set(settings.excluded) - set(manifest.label):
        raise ValueError(f"sensitivity.excluded names {sorted(unknown)}, no classes of corpora.{cfg.foundation.corpus}")
    others = manifest[(manifest.split == "test") & (manifest.target >= 0)]
    others = others[~others.label.isin([*own.label, *settings.excluded])]
    classes = sorted(others.label.unique())
    if len(classes) < settings.interferers:
        raise ValueError(
            f"sensitivity.interferers is {settings.interferers}, but corpora.{cfg.foundation.corpus} has "
            f"{len(classes)} classes in its test split that corpora.{cfg.sampling.corpus} has not: lower it (0 leaves "
            "the experiment out)"
        )
    drawn = rng.choice(classes, settings.interferers, replace=False)
    others = others[others.label.isin(drawn)].reset_index(drop=True)
    return manifests.Waves(folder, others)[rng.integers(0, len(others), count)]


def _scenes(manifest: pd.DataFrame, cfg: Params) -> tuple[list[torch.Tensor], list[str]]:
    """Scenes of the classes of the synthetic corpus, the same sounds placed backwards, and as many other scenes
    [shape=(N, T) each]; captions that tell the order of the first. The times of all events are known."""
    corpus, classes, count = cfg.corpus_of("sampling"), list(manifest.label.unique()), len(manifest)
    how = {"seed": corpus.seed, "rate": corpus.rate, "seconds": corpus.seconds, "ambience": corpus.ambience}

    def render(first: int, backwards: bool = False) -> list[tuple]:
        return [render_scene(classes, index=first + i, backwards=backwards, **how) for i in range(count)]

    first = OFFSETS["test"]
    sets = render(first), render(first, backwards=True), render(first + count)
    texts = [scene_caption(parts, np.random.default_rng([cfg.seed, 3, i])) for i, (_, parts) in enumerate(sets[0])]
    return [torch.from_numpy(np.stack([wave for wave, _ in scenes])) for scenes in sets], texts


def _retold(clips: Embeddings, texts: list[str], clap) -> Embeddings:
    """The embeddings with other texts than those of the clips' classes."""
    kept = {name: values for name, values in clips.arrays.items() if not name.endswith(".text")}
    return Embeddings(clips.labels, kept | {"text": clap.embed_text(texts).cpu().numpy()})


def _first_of_class(manifest: pd.DataFrame, waves: torch.Tensor) -> torch.Tensor:
    """For each clip the first of its class."""
    first = {label: rows[0] for label, rows in manifest.groupby("label").indices.items()}
    return waves[[first[label] for label in manifest.label]]


def _detour(waves: torch.Tensor, rate: int) -> torch.Tensor:
    """The waves at another rate by linear interpolation, and back by soxr: what a careless loader does."""
    samples = waves.shape[1]
    at = np.arange(round(samples * OTHER_RATE / rate)) * rate / OTHER_RATE
    back = [
        resample(np.interp(at, np.arange(samples), wave).astype(np.float32), OTHER_RATE, rate) for wave in waves.numpy()
    ]
    return torch.from_numpy(np.stack([np.pad(wave, (0, max(0, samples - len(wave))))[:samples] for wave in back]))


def _scored(
    damage: str, reference: Embeddings, whole: Embeddings, damaged: Embeddings | None, judge_labels, cfg: Params
) -> list[dict]:
    """The scores of draws of clips, by the share of them that is damaged, or left out."""
    settings, rows = cfg.sensitivity, []
    for draw in range(settings.draws):
        rng = np.random.default_rng([cfg.seed, 2, draw])
        order = rng.permutation(len(whole))[: settings.scored]
        for share in settings.shares:
            changed = round(share * settings.scored)
            kept = order if damaged is not None else order[changed:]
            if len(kept) < FEWEST:
                continue
            clips = whole.at(kept)
            if damaged is not None:
                clips = _joined(damaged.at(order[:changed]), whole.at(order[changed:]))
            scores = paired_scores(reference, whole.at(kept), clips, judge_labels=judge_labels)
            rows += [{"damage": damage, "share": share, "draw": draw} | row for row in scores]
    return rows


def _joined(first: Embeddings, second: Embeddings) -> Embeddings:
    arrays = {name: np.concatenate([first[name], second[name]]) for name in first.arrays}
    return Embeddings(np.concatenate([first.labels, second.labels]), arrays)
