"""Stage sample: from a run of params.yaml to its clips."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from foleylib import paths
from foleylib.audio.mel import LogMel, front_end
from foleylib.datasets import manifest as manifests
from foleylib.datasets import samples
from foleylib.datasets.features import Latents, load, sample_latents
from foleylib.diffusion.condition import Condition
from foleylib.networks import clap as claps
from foleylib.networks import pipeline as pipelines
from foleylib.networks.pipeline import Pipeline
from foleylib.networks.retrieval import unconditional
from foleylib.networks.vocoder import GriffinLim
from foleylib.params.runs import Sampling
from foleylib.params.settings import Params
from foleylib.runtime import clip_seeds, in_parallel, pick_device
from foleylib.sampling.sampler import SamplerOptions, sample


def make(run: str, cfg: Params) -> Path:
    """Make data/samples/`run`/SEED for every model behind the run: audio/*.wav and manifest.parquet; returns the folder.

    Each seed of a system is sampled with noise of that seed: classes in order, clips numbered within the class, each
    with its own seed. Of a corpus without classes there are `clips_per_class` clips in all, one for each of its first
    test clips, whose id and first caption it has. Manifest: [id, path, label, target, prompt, seed].
    """
    cfg.entry("runs", run)
    out = paths.SAMPLES / run
    shutil.rmtree(out, ignore_errors=True)
    how = {"device": cfg.device, "jobs": cfg.jobs, "desc": f"sample {run}"}
    in_parallel(
        _write, [(run, seed, folder) for seed, folder in cfg.models_of(run).items()], partial(_context, cfg), **how
    )
    return out


def _context(cfg: Params) -> tuple[Params, claps.Clap]:
    """What the models of a run are sampled with: the settings, and CLAP."""
    return cfg, load_clap(cfg)


def _write(context: tuple[Params, claps.Clap], run: str, seed: int, folder: Path) -> None:
    """Sample and write the clips of one model."""
    cfg, clap = context
    options = cfg.sampling_of(run)
    drawer = Drawer(paths.ROOT / folder, cfg, options, clap)
    manifest = drawer.rows(options.clips_per_class, cfg.seed + seed)
    waves = drawer.draw(manifest).numpy()
    samples.write(paths.SAMPLES / run / str(seed), manifest, waves, cfg.corpus_of("sampling").rate)


class Drawer:
    """Draws clips of one model: pipeline and CLAP are loaded once.

    Parameters
    ----------
    folder : of the model; its own prompts, where it has any, are used.
    options : solver, steps, guidance, ...; `sampling` without.
    clap : the foundation's CLAP, if it is loaded already.
    split : of whose clips the captions are drawn where the corpus has no classes.
    """

    def __init__(
        self,
        folder: Path,
        cfg: Params,
        options: Sampling | None = None,
        clap: claps.Clap | None = None,
        split: str = "test",
    ):
        self.options, self.clap = options or cfg.sampling, clap or load_clap(cfg)
        self.pipeline = load_pipeline(folder, cfg, self.options)
        self.log_mel, self.samples = corpus_front_end(cfg), cfg.corpus_of("sampling").samples
        self.classes = class_rows(cfg, pipelines.prompts_of(folder), split)
        self.unconditional = unconditional(self.clap, self.pipeline.unet)

    def rows(self, count: int, seed: int) -> pd.DataFrame:
        """Rows [label, target, prompt, id, seed] of the first `count` clips of each class, or of all without classes."""
        return self.rows_of(self.keys(count), seed)

    def keys(self, count: int) -> list[tuple[str, int]]:
        """The first `count` clips of each class by (class, number within the class); without classes by (id, 0)."""
        if manifests.has_classes(self.classes):
            return [(label, number) for label in self.classes.label for number in range(count)]
        if count > len(self.classes):
            raise ValueError(
                f"{count} clips are asked for (sampling.clips_per_class), one for each clip of the split, but the corpus has "
                f"only {len(self.classes)} there, and no classes; ask for fewer"
            )
        return [(id, 0) for id in self.classes.index[:count]]

    def rows_of(self, keys: list[tuple[str, int]], seed: int) -> pd.DataFrame:
        """Rows of clips by key (`keys`), each with its own seed; without classes, clips of any number have the id of the
        corpus' clip."""
        classes = self.classes.loc[[name for name, _ in keys]].reset_index(drop=True)
        by_class = manifests.has_classes(self.classes)
        ids = [f"{name}-{n:04d}" if by_class else name for name, n in keys]
        return classes.assign(id=ids, seed=clip_seeds(seed, keys))

    def draw(self, rows: pd.DataFrame) -> torch.Tensor:
        """Waves [shape=(N, T)] for the rows of a manifest (their prompt and seed)."""
        texts = list(dict.fromkeys(rows.prompt))
        embedded = dict(zip(texts, self.clap.embed_text(texts)))
        condition = Condition(embedding=torch.stack([embedded[p] for p in rows.prompt]))
        latents = self.latents(condition, list(rows.seed), SamplerOptions.of(self.options))
        hop = self.log_mel.config.hop
        return pipelines.decode(self.pipeline, latents, hop=hop, batch_size=self.options.batch_size)

    def latents(self, condition: Condition, seeds: list[int], options: SamplerOptions) -> torch.Tensor:
        """Scaled latents [shape=(N, C, T, F)] under a condition."""
        shape = pipelines.latent_shape(self.pipeline.vae, self.log_mel, self.samples)
        return sample(self.pipeline, condition, self.unconditional, shape, seeds=seeds, options=options)


def class_rows(cfg: Params, prompts: dict[str, str] | None = None, split: str = "test") -> pd.DataFrame:
    """What is asked of a model of the sampled corpus: one row a class [label, target, prompt], indexed by label.

    `prompts` (label -> text) stand in place of the corpus'. Without classes there is one row a clip of `split`, indexed
    by its id, with its first caption as prompt.
    """
    manifest = manifests.load(paths.CLIPS / cfg.sampling.corpus)
    by_class = manifests.has_classes(manifest)
    rows = manifests.classes(manifest) if by_class else manifest[manifest.split == split]
    rows = rows.set_index(rows.label if by_class else rows.id)[["label", "target", "prompt"]].rename_axis("key")
    return rows.assign(prompt=rows.label.map(prompts)) if by_class and prompts else rows


def load_pipeline(folder: Path, cfg: Params, options: Sampling) -> Pipeline:
    """The model of a folder, on the device, with the vocoder that the options name."""
    pipeline = pipelines.load(folder)
    if options.vocoder == "griffin_lim":
        pipeline.vocoder = GriffinLim(corpus_front_end(cfg).config)
    return pipeline.to(pick_device(cfg.device))


def corpus_front_end(cfg: Params) -> LogMel:
    """The mel front end of the sampled corpus."""
    corpus = cfg.corpus_of("sampling")
    return front_end(corpus.rate, corpus.padding)


def load_clap(cfg: Params) -> claps.Clap:
    """The foundation's CLAP, on the device: it conditions the LDM, scores candidates and embeds clips for FAD."""
    return claps.load(paths.FOUNDATION / "clap", pick_device(cfg.device))


def load_run(run: str, seed: int | None = None) -> tuple[pd.DataFrame, np.ndarray]:
    """The clips of a row and training seed (the first by default): manifest, waves [shape=(N, T)]."""
    return samples.load(paths.clips_of(run), seed)


def deviation_by_steps(run: str, cfg: Params, steps: tuple[int, ...] = (5, 10, 20, 40), limit: int = 28) -> pd.Series:
    """Deviation of latents sampled under the audio embeddings of held-out clips, by number of steps.

    The first entry is that of these clips' own latents. A model that repeats an error at every step drifts away from it.
    """
    drawer = Drawer(paths.ROOT / next(iter(cfg.models_of(run).values())), cfg)
    scale = drawer.pipeline.scale
    _, arrays = load(paths.FEATURES / cfg.foundation.corpus, "test")
    held = Latents(arrays["moments"], {"embedding": arrays["audio"]}, scale)
    batch = held[np.linspace(0, len(held) - 1, min(limit, len(held))).astype(int)]
    own = sample_latents(batch["moments"], scale, torch.Generator().manual_seed(cfg.seed))
    deviation = {"held-out clips": float(own.std())}
    for count in steps:
        options = SamplerOptions.of(drawer.options.changed(steps=count, guidance=1.0))
        latents = drawer.latents(Condition.of(batch), list(range(len(own))), options)
        deviation[f"{count} steps"] = float(latents.std())
    return pd.Series(deviation, name="deviation")
