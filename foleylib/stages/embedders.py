"""The networks that embed clips for the metrics, loaded once; quick scores on validation clips for choices."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from foleylib import paths
from foleylib.evaluation.embeddings import Embeddings, embed_clips, embed_with
from foleylib.evaluation.quick import quick
from foleylib.networks import judge
from foleylib.networks.embedders import Embedder
from foleylib.params.runs import Sampling
from foleylib.params.settings import Params
from foleylib.runtime import pick_device
from foleylib.stages.reference import reference
from foleylib.stages.sample import Drawer, class_rows, load_clap


class Embedders:
    """Judge, CLAP and `further` evaluators (of `stages.evaluators`), loaded once: clips to the embeddings that all
    metrics are computed on."""

    def __init__(self, cfg: Params, further: Mapping[str, Embedder] | None = None):
        self.cfg, self.device, self.further = cfg, pick_device(cfg.device), further or {}
        self.judge = judge.load(paths.JUDGE, device=self.device)
        self.clap = load_clap(cfg)
        self.texts = class_rows(cfg).query("target >= 0").prompt  # the corpus' own, whatever a model was prompted with

    def embed(self, manifest: pd.DataFrame, waves: np.ndarray, rate: int | None = None) -> Embeddings:
        """Embeddings of clips [shape=(N, T)] and of the prompts of their classes, or without a class of their own.

        Clips have the rate of the sampled corpus. Where they have another, `rate`, each network hears them resampled to its
        own: what lies above is not scored.
        """
        own = self.cfg.corpus_of("sampling").rate if rate is None else rate
        labels, prompts = list(manifest.label), list(manifest.label.map(self.texts).fillna(manifest.prompt))
        embedded = embed_clips(
            waves, labels, prompts, judge=self.judge, clap=self.clap, rate=own, resampled=rate is not None
        )
        embedded.arrays["id"] = np.array(manifest.id.tolist())
        if self.further:
            found = embed_with(self.further, waves, [own] * len(waves), texts=prompts)
            for name, evaluated in found.items():
                embedded.arrays |= evaluated.arrays(name)
        return embedded


class Validation:
    """Scores U-Nets on *validation* clips without intervals, for choices: what does not change is loaded once."""

    def __init__(self, cfg: Params):
        self.cfg, self.embedders = cfg, Embedders(cfg)
        self.real = self.embedders.embed(*reference(cfg, "val"))
        self.drawer = Drawer(paths.FOUNDATION / "ldm", cfg, clap=self.embedders.clap, split="val")

    def scores(self, unet, prompts: dict[str, str], *, seed: int, clips_per_class: int) -> dict[str, float]:
        """The scores of `quick` of a U-Net's first clips, prompted with `prompts` (label -> text), without classes with
        the first captions of the first validation clips."""
        return self.score(*self.draw(unet, prompts, seed=seed, clips_per_class=clips_per_class))

    def draw(
        self, unet, prompts: dict[str, str], *, seed: int, clips_per_class: int, options: Sampling | None = None
    ) -> tuple[pd.DataFrame, np.ndarray]:
        """Those clips, sampled as `options` or the settings say: manifest, waves [shape=(N, T)]."""
        drawer = self.drawer
        drawer.pipeline.unet = unet.eval().to(self.embedders.device)
        if prompts:
            drawer.classes = drawer.classes.assign(prompt=drawer.classes.label.map(prompts))
        drawer.options = options or self.cfg.sampling
        manifest = drawer.rows(clips_per_class, self.cfg.seed + seed)
        return manifest, drawer.draw(manifest).numpy()

    def score(self, manifest: pd.DataFrame, waves: np.ndarray) -> dict[str, float]:
        """The scores of clips."""
        clips = self.embedders.embed(manifest, waves)
        return quick(self.real, clips, self.embedders.judge.model.labels)
