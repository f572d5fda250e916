"""What belongs to re-audioldm alone: models that read what was retrieved, sampled for captions of test clips, and scored."""

import shutil
from collections import Counter
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from foleylib import paths
from foleylib.datasets import manifest as manifests
from foleylib.datasets import samples
from foleylib.datasets.features import read_rows
from foleylib.datasets.retrieval import PROTOCOLS
from foleylib.diffusion.condition import Condition
from foleylib.evaluation import copying, events
from foleylib.evaluation.frechet import cosine_similarities
from foleylib.evaluation.paired import paired_scores
from foleylib.networks import detector, retrieval
from foleylib.networks import pipeline as pipelines
from foleylib.params.retrieval import Read
from foleylib.params.settings import Params
from foleylib.params.systems import System
from foleylib.runtime import clip_seeds, fingerprint, in_parallel, weights_sha256, write_csv
from foleylib.sampling.sampler import SamplerOptions
from foleylib.stages import evaluators, neighbours
from foleylib.stages.embedders import Embedders
from foleylib.stages.reference import evenly, reference
from foleylib.stages.retrieval_tuned import Tuned
from foleylib.stages.sample import Drawer, corpus_front_end

OWN = "own"  # the neighbours that a model was trained with
CHANGED = ("off", "swapped")  # what is done to them: taken away, or those of another clip
KEPT = 12  # clips of a row that are written, for players
KEYS = ["model", "variant", "caption", "seed"]
CLASSES = ["label", "trained", "clips", "clap_score", "event_recall"]


class Bench:
    """The captions that models are asked for, the real clips they are compared with, and all that scores; loaded once.

    The first `re_audioldm.clips` test clips have their captions sampled, the others are the reference. The protocols "full"
    and "published" retrieve from these too, so that a copy of a neighbour is then a copy of the reference.
    """

    def __init__(self, cfg: Params):
        self.settings, self.whole = (settings := cfg.re_audioldm), cfg
        # A copy that is not checked: runs, which have a corpus of their own, are not looked at here.
        self.cfg = cfg.model_copy(update={"sampling": cfg.sampling.changed(corpus=settings.corpus)})
        self.embedders = Embedders(self.cfg, evaluators.load(cfg))
        self.drawer = Drawer(paths.FOUNDATION / "ldm", self.cfg, clap=self.embedders.clap)  # its VAE and vocoder
        corpus = manifests.load(paths.CLIPS / settings.corpus)
        self.clips, self.known = manifests.Waves(paths.CLIPS / settings.corpus, corpus), {}  # caption -> `near`
        trained = corpus.events[corpus.split == "train"].map(manifests.sounds)
        self.trained = Counter(sound["label"] for told in trained for sound in told)
        manifest, waves = reference(self.cfg, "test")
        if manifests.has_classes(manifest):
            raise ValueError(
                f"re_audioldm.corpus: '{settings.corpus}' has classes; give one whose clips have captions alone"
            )
        rows = evenly(manifest, settings.clips, "re_audioldm.clips")
        others = np.setdiff1d(np.arange(len(manifest)), rows)
        if len(others) < 2:
            raise ValueError(f"re_audioldm.clips is {settings.clips} of {len(manifest)}: leave some for the reference")
        self.real = self.embedders.embed(manifest.iloc[others], waves[others])
        self.manifest, self.waves = manifest.iloc[rows].reset_index(drop=True), waves[rows]
        self.partners = self.embedders.embed(self.manifest, self.waves)
        self.said = manifests.captions(paths.CLIPS / settings.corpus, self.manifest)
        if settings.captions > (most := max(map(len, self.said))):
            raise ValueError(
                f"re_audioldm.captions is {settings.captions}, but no test clip has more than {most}: lower it"
            )
        self.scenes = [[sound["label"] for sound in manifests.sounds(told)] for told in self.manifest.events]
        self.neighbours = {protocol: neighbours.find(settings.corpus, protocol) for protocol in PROTOCOLS}

    @cached_property
    def key(self) -> list:
        """What changes with all that scores, and with the neighbours that clips are held against."""
        cfg, settings = self.cfg, self.settings
        used = [paths.JUDGE, paths.FOUNDATION / "clap", paths.FOUNDATION / "vocoder"]
        hashes = [weights_sha256(path) for path in (*used, *([] if self.detector is None else [paths.DETECTOR]))]
        further = [cfg.evaluators[name] for name in cfg.evaluate.further]
        asked = [cfg.seed, cfg.sampling, settings.clips, settings.models[settings.probed].k]
        return [*hashes, *further, *asked, *neighbours.keys(settings.corpus, cfg)]

    @cached_property
    def detector(self):
        """What tells the sounds of a scene; None where the corpus has no scenes."""
        return detector.load(paths.DETECTOR, device=self.embedders.device) if any(self.scenes) else None

    def near(self, caption: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The neighbours that the probed model reads for a caption: which there are (N, K), and their CLAP embeddings and
        centred log-mels [each (N, K, D)]. They are the same for all models and variants, so they are read once."""
        if caption not in self.known:
            rows = self.rows(self.settings.models[self.settings.probed].k, OWN, caption)
            waves = self.clips[np.maximum(rows, 0).ravel()]
            audio = self.embedders.clap.embed_audio(waves, self.drawer.log_mel.config.rate).cpu().numpy()
            points = {"clap": audio, "mel": self._mels(waves)}
            self.known[caption] = rows >= 0, {n: values.reshape(*rows.shape, -1) for n, values in points.items()}
        return self.known[caption]

    def nearest(self, waves: torch.Tensor, embeddings: np.ndarray, caption: int) -> list[dict]:
        """How near clips come to the neighbours of a caption, by CLAP and by log-mels; clips that have none do not count."""
        (there, near), told = self.near(caption), []
        for name, own in (("clap", embeddings), ("mel", self._mels(waves))):
            similar = copying.nearest(own, near[name], there)
            told.append(_row(f"nearest_{name}", name, np.nanmean(similar)))
        return told

    def _mels(self, waves: torch.Tensor) -> np.ndarray:
        return copying.centred(self.drawer.log_mel(waves).numpy())

    def rows(self, k: int, variant: str, caption: int) -> np.ndarray:
        """The neighbours [shape=(N, K)] of the clips under a variant: `OWN`, one of `CHANGED`, or another protocol.

        They are found for the caption of that number; a clip of fewer captions has its last.
        """
        find = self.neighbours[variant if variant in PROTOCOLS else self.cfg.retrieval.protocol]
        numbers = np.array([min(caption, len(own) - 1) for own in self.said])
        rows = find(list(self.manifest.id), k, caption=numbers).rows
        if variant == "off":
            return np.full_like(rows, -1)
        return rows[copying.strangers(rows)] if variant == "swapped" else rows

    def draw(self, unet: nn.Module, reads: Read | None, seed: int, variant: str, caption: int) -> torch.Tensor:
        """Waves [shape=(N, T)] for a caption of each clip. Models, variants and captions of a seed have the same noise."""
        clap, drawer = self.embedders.clap, self.drawer
        given = {"embedding": clap.embed_text(self._texts(caption)).cpu()}
        if reads is not None:
            stored = neighbours.conditions(self.settings.corpus, reads, self.rows(reads.k, variant, caption))
            given |= read_rows(stored, np.arange(len(self.manifest)))
        drawer.pipeline.unet = unet.eval().to(self.embedders.device)
        drawer.unconditional = retrieval.unconditional(clap, unet)
        seeds = clip_seeds(self.cfg.seed + seed, [(id, 0) for id in self.manifest.id])
        latents = drawer.latents(Condition(**given), seeds, SamplerOptions.of(drawer.options))
        hop = drawer.log_mel.config.hop
        return pipelines.decode(drawer.pipeline, latents, hop=hop, batch_size=drawer.options.batch_size)

    def _texts(self, caption: int) -> list[str]:
        return [own[min(caption, len(own) - 1)] for own in self.said]

    def codec(self) -> torch.Tensor:
        """The real clips of the captions through VAE and vocoder."""
        log_mel = corpus_front_end(self.cfg).to(self.embedders.device)
        return pipelines.reconstruct(self.drawer.pipeline, torch.from_numpy(self.waves), log_mel)

    def score(self, waves: torch.Tensor, caption: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Scores of clips for the captions: of the set [metric, embedder, value], and of the clips that have a class
        [label, trained, clips, clap_score, event_recall], where `trained` counts the class in training scenes."""
        clips = self.embedders.embed(self.manifest.assign(prompt=self._texts(caption)), waves.numpy())
        whole = paired_scores(self.real, self.partners, clips)
        said = cosine_similarities(clips["clap"], clips["text"])
        whole += self.nearest(waves, clips["clap"], caption)
        if self.detector is None:
            return pd.DataFrame(whole), pd.DataFrame(columns=CLASSES)
        labels, thresholds = self.detector.model.labels, self.detector.model.thresholds.cpu().numpy()
        probabilities = detector.probabilities(self.detector, waves.numpy())
        told = events.score(probabilities, thresholds, events.indices(self.scenes, labels))
        whole += [_row(f"event_{name}", "detector", told[name].mean()) for name in ("recall", "precision", "order")]
        whole.append(_row("event_ordered", "detector", told.order.notna().sum()))
        return pd.DataFrame(whole), self._by_class(said, events.detected(probabilities, thresholds))

    def _by_class(self, said: np.ndarray, heard: np.ndarray) -> pd.DataFrame:
        rows = []
        for number, label in enumerate(self.detector.model.labels):
            there = np.array([label in scene for scene in self.scenes])
            if there.any():
                found = said[there].mean(), heard[there, number].mean()
                rows.append((label, self.trained[label], int(there.sum()), *found))
        return pd.DataFrame(rows, columns=CLASSES)


def _row(metric: str, embedder: str, value: float) -> dict:
    return {"metric": metric, "embedder": embedder, "value": float(value)}


def compare(cfg: Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train and score the models of `re_audioldm`, each with every seed, beside the real clips and these through the codec.

    The probed model is also sampled without neighbours ("off"), with those of another clip ("swapped") and under the other
    protocols; with the first seed, it and the baseline are sampled for every caption of a clip (Fig. 3). Nothing is chosen
    by these scores: the steps of training are fixed. Writes results/re_audioldm.csv,
    results/re_audioldm_classes.csv and some clips of the first seed to data/examples/re_audioldm/MODEL_VARIANT; a run that
    was killed goes on with the training it was at.

    Returns
    -------
    scores [model, variant, caption, seed, metric, embedder, value], and of the clips of each class [model, variant,
    caption, seed, label, trained, clips, clap_score, event_recall]
    """
    settings, bench, scratch = cfg.re_audioldm, Bench(cfg), paths.SCRATCH / "re_audioldm"
    shutil.rmtree(paths.EXAMPLES / "re_audioldm", ignore_errors=True)
    first = settings.seeds[0]
    tables = []
    for name, waves in (("real", torch.from_numpy(bench.waves)), ("codec", bench.codec())):
        tables.append(_told(bench.score(waves), name, OWN, 0, first))
    calls = [(name, seed, scratch) for seed in settings.seeds for name in settings.models]
    how = {"device": cfg.device, "jobs": cfg.jobs, "desc": "re-audioldm", "context": bench}
    tables += [told for part in in_parallel(_answers, calls, partial(Bench, cfg), **how) for told in part]
    scores, classes = (pd.concat(parts, ignore_index=True) for parts in zip(*tables))
    write_csv(scores, paths.RESULTS / "re_audioldm.csv")
    write_csv(classes, paths.RESULTS / "re_audioldm_classes.csv")
    shutil.rmtree(scratch)
    return scores, classes


def _answers(bench: Bench, name: str, seed: int, scratch: Path) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """The scores of one model under all that it is asked."""
    model = model_of(name, seed, bench.whole, scratch)
    return [_scored(model, *question, bench) for question in _questions(name, seed, bench.whole)]


def _questions(name: str, seed: int, cfg: Params) -> list[tuple[str, int]]:
    """The variants and captions under which a model is sampled."""
    settings, asked = cfg.re_audioldm, [(OWN, 0)]
    if name == settings.probed:
        asked += [(variant, 0) for variant in (*CHANGED, *PROTOCOLS) if variant != cfg.retrieval.protocol]
    if name in (settings.baseline, settings.probed) and seed == settings.seeds[0]:
        asked += [(OWN, caption) for caption in range(1, settings.captions)]
    return asked


def model_of(name: str, seed: int, cfg: Params, scratch: Path) -> Tuned:
    """One of the models with one of the seeds: what was pre-trained with every kind of retrieval, fine-tuned with its own."""
    settings = cfg.re_audioldm
    reads = settings.models[name]
    read = None if reads is None else settings.pretrained.retrieval.changed(**reads.model_dump())
    system = System(corpus=settings.corpus, init="ldm", retrieval=read)
    return Tuned(name, system, seed, settings, cfg, scratch)


def _scored(model: Tuned, variant: str, caption: int, bench: Bench) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The scores of a model under a variant, kept in its scratch folder; the first clips are written."""
    folder = model.scratch / fingerprint(model.key, variant, caption, *bench.key)
    keeps = caption == 0 and model.seed == bench.settings.seeds[0]
    clips = paths.EXAMPLES / "re_audioldm" / f"{model.name}_{variant}"
    if not (folder / "classes.csv").is_file():
        waves = bench.draw(model.unet, bench.settings.models[model.name], model.seed, variant, caption)
        if keeps:
            shown = bench.manifest.head(KEPT)[["id", "label", "target", "prompt"]].assign(seed=model.seed)
            samples.write(
                folder / "clips" / str(model.seed), shown, waves[:KEPT].numpy(), bench.drawer.log_mel.config.rate
            )
        whole, classes = bench.score(waves, caption)
        write_csv(whole, folder / "scores.csv")
        write_csv(classes, folder / "classes.csv")
    if keeps:
        shutil.copytree(folder / "clips", clips)
    read = pd.read_csv(folder / "scores.csv"), pd.read_csv(folder / "classes.csv")
    return _told(read, model.name, variant, caption, model.seed)


def _told(tables, model: str, variant: str, caption: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores with what they are of."""
    what = dict(zip(KEYS, (model, variant, caption, seed)))
    whole, classes = (table.assign(**what) for table in tables)
    return tuple(table[[*KEYS, *(name for name in table if name not in KEYS)]] for table in (whole, classes))
