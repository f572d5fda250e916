"""What belongs to src-gaudio alone: one model for all rates or one for each, sampled at every rate, and scored."""

import shutil
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from foleylib import paths
from foleylib.audio.io import at_rate
from foleylib.audio.mel import front_end
from foleylib.datasets import features, samples
from foleylib.diffusion.condition import Condition
from foleylib.evaluation import bandwidth
from foleylib.evaluation.frechet import cosine_similarities
from foleylib.evaluation.paired import paired_scores
from foleylib.networks import pipeline as pipelines
from foleylib.networks import rates
from foleylib.networks.pipeline import Pipeline, load_parts
from foleylib.params.settings import Params
from foleylib.runtime import clip_seeds, fingerprint, in_parallel, weights_sha256, write_csv
from foleylib.sampling.sampler import SamplerOptions, sample
from foleylib.stages import evaluators, neighbours
from foleylib.stages import rates as stage
from foleylib.stages.embedders import Embedders
from foleylib.stages.ldm import kept
from foleylib.stages.reference import evenly, reference
from foleylib.train import Job

# What the models start from, and whether one serves all rates.
REGIMES = {"joint": ("joint", True), "joint_low": ("low", True), "per_rate": ("low", False)}
CUTOFF = 12000.0  # Hz; what the two lower rates cannot carry
KEPT = 14  # clips of a row that are written, for players: two of each of the seven classes
KEYS = ["model", "rate", "seed"]


class Bench:
    """The captions that models are asked for, the real clips they are compared with at every rate, and all that scores.

    `clips` of a split have their captions sampled, the others are the reference; `where` names the setting of that number.
    What is `asked` for, and the CLAP score is of, is the "caption" of each or the "prompt" of its class.

    Each rate is scored against the same clips brought to that rate first. Judge and CLAP then hear both at 16 kHz, so that
    no score but those of `evaluation.bandwidth` knows what lies above 8 kHz.
    """

    def __init__(self, cfg: Params, clips: int, where: str, split: str = "test", asked: str = "caption"):
        name, self.whole = cfg.src_gaudio.corpus, cfg
        self.corpus, self.rates = cfg.corpora[name], cfg.corpora[name].rates
        # A copy that is not checked: runs, which have a corpus of their own, are not looked at here.
        self.cfg = cfg.model_copy(update={"sampling": cfg.sampling.changed(corpus=name)})
        self.options = SamplerOptions.of(self.cfg.sampling)
        self.embedders = Embedders(self.cfg, evaluators.load(cfg))
        parts, noise = load_parts(paths.FOUNDATION, "vae"), pipelines.load(paths.FOUNDATION / "ldm").noise
        self.pipeline = Pipeline(unet=None, vae=parts["vae"].to(self.embedders.device), vocoder=None, noise=noise)
        self.vocoders = {rate: stage.vocoder_at(rate, cfg) for rate in self.rates}
        manifest, waves = reference(self.cfg, split)
        rows = evenly(manifest, clips, where)
        others = np.setdiff1d(np.arange(len(manifest)), rows)
        if len(others) < 2:
            raise ValueError(f"{where} is {clips} of {len(manifest)} clips: leave some for the reference")
        self.manifest = manifest.iloc[rows].reset_index(drop=True)
        self.asked = list(self.manifest[asked])
        self.text = self.embedders.clap.embed_text(self.asked).cpu().numpy()
        self.real, self.others = {}, {}
        for rate in self.rates:
            self.real[rate] = at_rate(torch.from_numpy(waves[rows]), self.corpus.rate, rate).numpy()
            own = at_rate(torch.from_numpy(waves[others]), self.corpus.rate, rate).numpy()
            self.others[rate] = self.embedders.embed(manifest.iloc[others], own, rate)
        self.partners = {rate: self.embed(waves, rate) for rate, waves in self.real.items()}

    @cached_property
    def key(self) -> list:
        """What changes with all that scores and decodes."""
        cfg, name = self.cfg, self.cfg.src_gaudio.corpus
        used = [paths.JUDGE, paths.FOUNDATION / "clap", paths.FOUNDATION / "vae"]
        if cfg.sampling.vocoder == "hifigan":
            used += [paths.VOCODERS]
        further = [cfg.evaluators[name] for name in cfg.evaluate.further]
        read = [features.read_key(paths.FEATURES / name), neighbours.read_key(name)]
        asked = [list(self.manifest.id), self.asked, cfg.src_gaudio.guidance]
        return [*map(weights_sha256, used), *further, cfg.seed, cfg.sampling, *asked, *read]

    def embed(self, waves: np.ndarray, rate: int):
        """Embeddings of clips for the captions [shape=(N, T)] at a rate."""
        embedded = self.embedders.embed(self.manifest, waves, rate)
        embedded.arrays["text"] = self.text
        return embedded

    def draw(
        self, unet: nn.Module, condition: Condition, unconditional: Condition, *, rate: int, seed: int
    ) -> np.ndarray:
        """Waves [shape=(N, T)] at a rate, one for each caption. All models and rates of a seed have the same noise."""
        self.pipeline.unet = unet.eval().to(self.embedders.device)
        shape = pipelines.latent_shape(self.pipeline.vae, self._log_mel(rate), round(self.corpus.seconds * rate))
        seeds = clip_seeds(self.cfg.seed + seed, [(id, 0) for id in self.manifest.id])
        latents = sample(self.pipeline, condition, unconditional, shape, seeds=seeds, options=self.options)
        self.pipeline.vocoder = self.vocoders[rate]
        return pipelines.decode(self.pipeline, latents, hop=self._log_mel(rate).config.hop).numpy()

    def codec(self, rate: int) -> np.ndarray:
        """The real clips of the captions through the VAE and the vocoder of a rate."""
        self.pipeline.vocoder = self.vocoders[rate]
        log_mel = self._log_mel(rate).to(self.embedders.device)
        return pipelines.reconstruct(self.pipeline, torch.from_numpy(self.real[rate]), log_mel).numpy()

    def _log_mel(self, rate: int):
        return front_end(rate, self.corpus.padding)

    def score(self, waves: np.ndarray, rate: int) -> pd.DataFrame:
        """Scores of clips for the captions at a rate [metric, embedder, value]."""
        clips, labels = self.embed(waves, rate), self.embedders.judge.model.labels
        told = paired_scores(self.others[rate], self.partners[rate], clips, judge_labels=labels)
        own, real = (bandwidth.spectral_rolloff(x, rate) / 1000 for x in (waves, self.real[rate]))
        told += [_row("rolloff", "none", own.mean()), _row("rolloff_error", "none", np.abs(own - real).mean())]
        return pd.DataFrame(told)

    def bands(self, waves: np.ndarray, rate: int) -> pd.DataFrame:
        """How high the clips of each class reach: [label, rolloff (kHz), above (dB above `CUTOFF`)], means."""
        rolloff, above = bandwidth.spectral_rolloff(waves, rate) / 1000, bandwidth.level_above(waves, rate, CUTOFF)
        table = pd.DataFrame({"label": self.manifest.label, "rolloff": rolloff, "above": above})
        return table.groupby("label", sort=False).mean().reset_index()

    def same_event(self, clips: dict[int, np.ndarray]) -> pd.DataFrame:
        """How alike each clip is at each rate and at the lowest, where the noise is the same, and beside that the next clip of
        its class there, which has another caption and other noise [rate, kind ("same" or "other"), metric, value]."""
        low, rows = self.rates[0], []
        base, other = clips[low], _other_of_class(self.manifest.label.to_numpy())
        heard = {rate: self.embed(waves, rate)["clap"] for rate, waves in clips.items()}
        for rate in self.rates[1:]:
            for kind, order in (("same", np.arange(len(base))), ("other", other)):
                clap = cosine_similarities(heard[rate], heard[low][order]).mean()
                level = bandwidth.envelope_similarity(clips[rate], base[order], rate, low).mean()
                rows += [(rate, kind, "same_event_clap", clap), (rate, kind, "same_event_envelope", level)]
        return pd.DataFrame(rows, columns=["rate", "kind", "metric", "value"])


def _other_of_class(labels: np.ndarray) -> np.ndarray:
    """For each clip the next one of its class, the first after the last [shape=(N,)]."""
    order = np.arange(len(labels))
    for label in dict.fromkeys(labels):
        rows = np.flatnonzero(labels == label)
        order[rows] = np.roll(rows, -1)
    return order


def _row(metric: str, embedder: str, value: float) -> dict:
    return {"metric": metric, "embedder": embedder, "value": float(value)}


class Model:
    """A regime with one of the seeds: the U-Net of each rate, trained when it is first asked for and kept in `scratch`."""

    def __init__(self, name: str, seed: int, cfg: Params, scratch: Path):
        settings = cfg.src_gaudio
        self.name, self.seed, self.cfg, self.scratch = name, seed, cfg, scratch
        self.start, self.shared = REGIMES[name]
        known = cfg.corpora[settings.corpus].rates
        # A model of one rate has its share of the steps: all of them together see as many clips as the one of all rates.
        shares = 1 if self.shared else len(known)
        how = {name: -(-getattr(settings.train, name) // shares) for name in ("steps", "warmup", "validate_every")}
        self.train = settings.train.changed(**how)

    def key(self, rate: int) -> str:
        """Changes with all that changes the weights that serve a rate."""
        cfg, corpus = self.cfg, self.cfg.src_gaudio.corpus
        inputs = [features.read_key(paths.FEATURES / corpus), neighbours.read_key(corpus)]
        common = [cfg.finetune.condition_dropout, cfg.finetune.snr_gamma, cfg.precision, cfg.foundation.ldm.noise]
        start = weights_sha256(paths.SRC_GAUDIO / self.start)
        return fingerprint(self.start, self._rates(rate), self.train, self.seed, start, *common, *inputs)

    def _rates(self, rate: int) -> list[int]:
        return self.cfg.corpora[self.cfg.src_gaudio.corpus].rates if self.shared else [rate]

    def unet_at(self, rate: int) -> nn.Module:
        """The U-Net that serves a rate."""
        key = self.key(rate)
        return kept(self.scratch / f"{key}-model", lambda: self._train(rate, self.scratch / key))

    def _train(self, rate: int, scratch: Path) -> nn.Module:
        unet, job = (
            rates.load(paths.SRC_GAUDIO / self.start, needed=True),
            Job(self.seed, scratch, self.cfg.device, self.cfg.precision),
        )
        stage.fit(unet, stage.splits(self.cfg, self._rates(rate)), self.cfg.finetune, self.train, self.cfg, job)
        job.forget()
        return unet


def compare(cfg: Params) -> dict[str, pd.DataFrame]:
    """Train and score the regimes, each with every seed and at every rate, beside the real clips and these through the codec.

    Nothing is chosen by these scores: the weights of a training are those of its least validation loss, as published. Writes
    results/src_gaudio.csv, _bands.csv and _swap.csv, and some clips of the first seed to data/examples/src_gaudio/MODEL_RATE;
    a run that was killed goes on with the training it was at.

    Returns
    -------
    "scores" [model, rate, seed, metric, embedder, value], "bands" [model, rate, seed, label, rolloff, above] and "swap"
    [model, rate, seed, kind, metric, value]
    """
    settings, scratch = cfg.src_gaudio, paths.SCRATCH / "src_gaudio"
    shutil.rmtree(paths.EXAMPLES / "src_gaudio", ignore_errors=True)
    bench, first = _bench(cfg), settings.seeds[0]
    told = [_report(bench, "real", first, bench.real)]
    told += [_report(bench, "codec", first, {rate: bench.codec(rate) for rate in bench.rates})]
    calls, how = [(name, seed, scratch) for seed in settings.seeds for name in REGIMES], {"desc": "src-gaudio"}
    told += in_parallel(_answers, calls, partial(_bench, cfg), device=cfg.device, jobs=cfg.jobs, context=bench, **how)
    told = {name: [table for parts in told for table in parts[name]] for name in told[0]}
    tables = {name: pd.concat(parts, ignore_index=True) for name, parts in told.items()}
    for name, suffix in (("scores", ""), ("bands", "_bands"), ("swap", "_swap")):
        write_csv(tables[name], paths.RESULTS / f"src_gaudio{suffix}.csv")
    shutil.rmtree(scratch)
    return tables


def _bench(cfg: Params) -> Bench:
    bench = Bench(cfg, cfg.src_gaudio.clips, "src_gaudio.clips")
    bench.options = SamplerOptions.of(cfg.sampling.changed(guidance=cfg.src_gaudio.guidance))
    return bench


def _answers(bench: Bench, name: str, seed: int, scratch: Path) -> dict[str, list[pd.DataFrame]]:
    """All tables of a regime and seed, whose clips are kept in `scratch`."""
    cfg, model, clips = bench.whole, Model(name, seed, bench.whole, scratch), {}
    text = stage.text_condition(bench.asked, cfg, bench.embedders.clap)
    nothing = stage.text_condition([""], cfg, bench.embedders.clap)
    for rate in bench.rates:
        file = scratch / fingerprint(model.key(rate), rate, *bench.key) / "clips.npy"
        if not file.is_file():
            condition = Condition(tokens=text.tokens, mask=text.mask, rate=torch.full((len(text),), float(rate)))
            waves = bench.draw(model.unet_at(rate), condition, nothing, rate=rate, seed=seed)
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file.with_suffix(".part.npy"), waves.astype(np.float32))
            file.with_suffix(".part.npy").rename(file)
        clips[rate] = np.load(file)
        if seed == cfg.src_gaudio.seeds[0]:
            keep(bench, clips[rate], f"src_gaudio/{name}_{rate}", seed, rate)
    return _report(bench, name, seed, clips)


def _report(bench: Bench, name: str, seed: int, clips: dict[int, np.ndarray]) -> dict[str, list[pd.DataFrame]]:
    """The tables "scores", "bands" and "swap" of clips at every rate."""
    return {
        "scores": [_told(bench.score(waves, rate), name, seed, rate) for rate, waves in clips.items()],
        "bands": [_told(bench.bands(waves, rate), name, seed, rate) for rate, waves in clips.items()],
        "swap": [bench.same_event(clips).assign(model=name, seed=seed)],
    }


def _told(table: pd.DataFrame, model: str, seed: int, rate: int) -> pd.DataFrame:
    """Scores with what they are of."""
    table = table.assign(model=model, rate=rate, seed=seed)
    return table[[*KEYS, *(name for name in table if name not in KEYS)]]


def keep(bench: Bench, waves: np.ndarray, name: str, seed: int, rate: int) -> None:
    """Write the first clips of a row to data/examples/`name`, for players: some of each class."""
    rows = evenly(bench.manifest, min(KEPT, len(waves)), "clips")
    shown = bench.manifest.iloc[rows][["id", "label", "target", "prompt", "caption"]].assign(seed=seed)
    samples.write(paths.EXAMPLES / name / str(seed), shown, waves[rows], rate)
