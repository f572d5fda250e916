"""What belongs to audioldm-transfer-benchmark alone: fine-tuning from scratch or pre-trained, under audio or text."""

import shutil
from functools import partial
from itertools import product

import pandas as pd

from foleylib import paths
from foleylib.diffusion.condition import Condition
from foleylib.evaluation.paired import paired_scores
from foleylib.networks import pipeline as pipelines
from foleylib.networks.pipeline import load_parts
from foleylib.papers.transfer_pages import SETTINGS
from foleylib.params.settings import Params
from foleylib.params.systems import System
from foleylib.runtime import clip_seeds, fingerprint, in_parallel, weights_sha256, write_csv
from foleylib.sampling.sampler import SamplerOptions
from foleylib.stages import evaluators
from foleylib.stages.embedders import Embedders
from foleylib.stages.finetune import training_key, tune
from foleylib.stages.reference import evenly, reference
from foleylib.stages.sample import Drawer


class Scorer:
    """Samples U-Nets for clips of a corpus and scores them against it; what does not change is loaded once."""

    def __init__(self, corpus: str, cfg: Params):
        # A copy that is not checked: runs, which have a corpus of their own, are not looked at here.
        self.cfg = cfg.model_copy(update={"sampling": cfg.sampling.changed(corpus=corpus)})
        self.embedders = Embedders(self.cfg, evaluators.load(cfg))
        self.drawer = Drawer(paths.FOUNDATION / "ldm", self.cfg, clap=self.embedders.clap)
        self.real, self.partners = {}, {}
        for split, count in cfg.transfer.clips.items():
            manifest, waves = reference(self.cfg, split)
            rows = evenly(manifest, count, f"transfer.clips.{split}")
            self.real[split] = self.embedders.embed(manifest, waves)
            self.partners[split] = manifest.iloc[rows].reset_index(drop=True), self.real[split].at(rows)

    def scores(self, unet, split: str, seed: int, condition: str = "text") -> list[dict]:
        """The scores of a U-Net's clips, one for each partner of the split, under its text or its audio embedding."""
        self.drawer.pipeline.unet = unet.eval().to(self.embedders.device)
        manifest, partners = self.partners[split]
        embedding = self.embedders.clap.embed_text(list(manifest.prompt)).cpu()
        if condition == "audio":
            embedding = embedding.new_tensor(partners["clap"])
        seeds = clip_seeds(self.cfg.seed + seed, [(clip, 0) for clip in manifest.id])
        options = self.drawer.options
        latents = self.drawer.latents(Condition(embedding=embedding), seeds, SamplerOptions.of(options))
        hop = self.drawer.log_mel.config.hop
        waves = pipelines.decode(self.drawer.pipeline, latents, hop=hop, batch_size=options.batch_size)
        return self._score(split, self.embedders.embed(manifest, waves.numpy()))

    def untuned(self, condition: str) -> list[dict]:
        """The test scores of the foundation as it is."""
        unet = pipelines.load(paths.FOUNDATION / "ldm").unet
        return self.scores(unet, "test", 0, condition)

    def other_clips(self) -> list[dict]:
        """The test scores of as many real clips of the validation split, in place of generated ones."""
        manifest, _ = reference(self.cfg, "val")
        rows = evenly(
            manifest, self.cfg.transfer.clips["test"], "transfer.clips.test (as many validation clips stand beside)"
        )
        return self._score("test", self.real["val"].at(rows), paired=False)

    def _score(self, split: str, clips, *, paired: bool = True) -> list[dict]:
        partners = self.partners[split][1] if paired else clips
        labels = self.embedders.judge.model.labels
        rows = paired_scores(self.real[split], partners, clips, judge_labels=labels)
        return [row for row in rows if paired or row["metric"] != "kl_pairs"]  # these have no partners


def compare(cfg: Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of the untuned foundation under both conditions (Table I), and of four fine-tunings a corpus and seed at
    every checkpoint (Table II and Fig. 2), which are all sampled under text.

    Each generated clip has a partner among the real ones, whose text (or audio embedding) it was sampled under. Beside
    the untuned foundation stand other real clips, as they are. Writes results/transfer_untuned.csv and
    results/transfer.csv; a run that was killed goes on with the training it was at.

    Returns
    -------
    untuned [corpus, condition ("text", "audio" or "real clips"), metric, embedder, value], of test clips; tuned [corpus,
    setting (of `SETTINGS`), seed, step, split, metric, embedder, value]
    """
    settings = cfg.transfer
    untuned = []
    for corpus in settings.untuned:
        scorer = Scorer(corpus, cfg)
        kinds = {"text": scorer.untuned("text"), "audio": scorer.untuned("audio"), "real clips": scorer.other_clips()}
        untuned += [{"corpus": corpus, "condition": kind} | row for kind, rows in kinds.items() for row in rows]
    untuned = pd.DataFrame(untuned)
    write_csv(untuned, paths.RESULTS / "transfer_untuned.csv")

    calls, how = list(product(settings.corpora, SETTINGS, settings.seeds)), {"device": cfg.device, "jobs": cfg.jobs}
    curves = in_parallel(_curve, calls, partial(_scorers, cfg), desc="transfer", **how)
    tuned = pd.concat(curves, ignore_index=True)
    write_csv(tuned, paths.RESULTS / "transfer.csv")
    shutil.rmtree(paths.SCRATCH / "transfer")
    return untuned, tuned


def _scorers(cfg: Params) -> tuple[Params, dict[str, Scorer]]:
    """What all trainings are scored with: the settings, and a scorer for each corpus."""
    return cfg, {name: Scorer(name, cfg) for name in cfg.transfer.corpora}


def _curve(context: tuple[Params, dict[str, Scorer]], corpus: str, setting: str, seed: int) -> pd.DataFrame:
    """The scores of one training at its checkpoints."""
    cfg, scorer = context[0], context[1][corpus]
    start, condition = setting.split("_")
    system = System(corpus=corpus, init="ldm", pretrained=start == "pretrained", condition=condition)
    train = cfg.finetune.train.changed(steps=cfg.transfer.steps, validate_every=cfg.transfer.every)
    train = train if system.pretrained else train.changed(lr=cfg.transfer.scratch_lr)
    common = cfg.finetune.changed(train=train)
    models = [weights_sha256(path) for path in (paths.JUDGE, paths.FOUNDATION / "clap", paths.FOUNDATION / "vocoder")]
    further = [cfg.evaluators[name] for name in cfg.evaluate.further]
    scored = [cfg.seed, cfg.sampling, cfg.transfer.clips, cfg.evaluate, *models]
    key = fingerprint(training_key(system, common, seed, cfg), *scored, *further)
    file = paths.SCRATCH / "transfer" / f"{key}.csv"
    if not file.is_file():

        def validate(unet) -> dict[str, float]:
            rows = [row | {"split": split} for split in cfg.transfer.clips for row in scorer.scores(unet, split, seed)]
            return {f"{row['split']} {row['embedder']} {row['metric']}": row["value"] for row in rows}

        parts = load_parts(paths.FOUNDATION)
        tuned = tune(system, seed, cfg, parts, scratch=file.with_suffix(""), common=common, validate=validate)
        write_csv(tuned.history, file)
    history = pd.read_csv(file).filter(regex="^(step$|val_.* .* )")
    history = history.dropna(how="all", subset=history.columns[1:])
    table = history.melt("step", var_name="score")
    table[["split", "embedder", "metric"]] = table.score.str.removeprefix("val_").str.split(" ", expand=True)
    return table.drop(columns="score").assign(corpus=corpus, setting=setting, seed=seed)
