"""Stage controls: the rows of the tables that no model made, which a metric has to put where they belong."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from foleylib import paths
from foleylib.datasets import manifest as manifests
from foleylib.datasets import samples
from foleylib.datasets.features import load
from foleylib.networks import pipeline as pipelines
from foleylib.params.settings import Params
from foleylib.runtime import pick_device, progress
from foleylib.stages.sample import corpus_front_end, load_pipeline


def make(cfg: Params) -> Path:
    """Make data/controls/NAME/SEED for every control, as `stages.sample.make` does for runs; returns data/controls.

    Manifests of clips of the corpus keep their ids.
    """
    shutil.rmtree(paths.CONTROLS, ignore_errors=True)
    codec = load_pipeline(paths.FOUNDATION / "ldm", cfg, cfg.sampling)
    for name, control in progress(cfg.controls.items(), desc="controls"):
        manifest, waves = _clips(control.source, cfg)
        if control.decoded:
            log_mel = corpus_front_end(cfg).to(pick_device(cfg.device))
            waves = pipelines.reconstruct(codec, waves, log_mel, batch_size=cfg.sampling.batch_size)
        out = paths.CONTROLS / name / str(cfg.seed)
        samples.write(out, manifest, waves.numpy(), cfg.corpus_of("sampling").rate)
    return paths.CONTROLS


def _clips(source: str, cfg: Params) -> tuple[pd.DataFrame, torch.Tensor]:
    """`clips_per_class` clips of each class, as they are, by source (`params.runs.Control`): manifest, waves.

    Without classes there are so many in all.
    """
    count, folder = cfg.sampling.clips_per_class, paths.CLIPS / cfg.sampling.corpus
    manifest = manifests.load(folder)
    split = source if source in ("val", "test") else "train"
    manifest = manifest[manifest.split == split].sort_values("target", kind="stable").reset_index(drop=True)
    rows = manifest.groupby("target").indices.values()
    if source in ("one_clip", "medoid"):
        chosen = [_medoid(own, cfg) if source == "medoid" else _one(own, cfg) for own in rows]
        rows = [np.repeat(row, count) for row in chosen]
    rows = np.concatenate([own[:count] for own in rows])
    waves = manifests.Waves(folder, manifest)[rows]
    if source == "silence":
        waves = torch.zeros_like(waves)
    if source == "noise":
        waves = (0.1 * torch.randn(waves.shape, generator=torch.Generator().manual_seed(cfg.seed))).clamp(-1, 1)
    manifest = manifest[["label", "target", "prompt", "id"]].iloc[rows].reset_index(drop=True).assign(seed=0)
    if source not in ("val", "train", "test"):
        number = manifest.groupby("label").cumcount()
        manifest["id"] = [f"{label or source}-{n:04d}" for label, n in zip(manifest.label, number)]
    return manifest, waves


def _one(rows: np.ndarray, cfg: Params) -> int:
    """A clip of a class, drawn."""
    return int(np.random.default_rng([cfg.seed, len(rows)]).choice(rows))


def _medoid(rows: np.ndarray, cfg: Params) -> int:
    """The training clip of a class whose CLAP embedding is most similar to those of the others."""
    _, arrays = load(paths.FEATURES / cfg.sampling.corpus, "train")
    E = arrays["audio"][rows]
    return int(rows[np.argmax(E @ E.sum(axis=0))])
