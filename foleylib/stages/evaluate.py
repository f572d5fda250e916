"""Stage evaluate: the scores of every run against real clips, and one table of all numbers."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from foleylib import paths
from foleylib.datasets import samples
from foleylib.datasets.manifest import digest
from foleylib.evaluation import clips as sounds
from foleylib.evaluation import remarks, scores
from foleylib.evaluation.comparable import read
from foleylib.evaluation.distribution import kad
from foleylib.evaluation.embeddings import Embeddings, described
from foleylib.evaluation.remarks import Heard
from foleylib.evaluation.texts import cut
from foleylib.networks.unet import load_tuning
from foleylib.params.runs import PUBLISHED
from foleylib.params.settings import Params
from foleylib.runtime import progress, weights_sha256, write_csv
from foleylib.stages import evaluators, licences
from foleylib.stages.candidates import targets_of
from foleylib.stages.embedders import Embedders
from foleylib.stages.reference import reference

PROTOCOLS = PUBLISHED.with_name(
    "published_protocols.csv"
)  # paper, table, metric, and what is known of how it was taken


def make(cfg: Params) -> pd.DataFrame:
    """Score all runs and selected runs; returns the summary.

    Writes results/evaluate/RUN.json (scores with protocol card), data/embeddings/RUN/SEED.npz, results/similarity.csv,
    results/validation.csv, results/summary.csv, results/headline.csv (means over classes and seeds) and
    results/headline.json (the few numbers that DVC compares).
    """
    embedders = Embedders(cfg, evaluators.load(cfg))
    evaluate(list(cfg.rows()), cfg, embedders)
    write_csv(similarities(cfg, embedders), paths.RESULTS / "similarity.csv")
    write_csv(on_validation(cfg, embedders), paths.RESULTS / "validation.csv")
    tables = {name: row.tables for name, row in cfg.rows().items()} | {"latent_clap": []}
    files = [paths.RESULTS / "evaluate" / f"{run}.json" for run in cfg.rows()]
    files.append(paths.RESULTS / "latent_clap.json")
    protocols = pd.read_csv(PROTOCOLS, dtype=str, keep_default_na=False)
    summary = scores.summarise(files, tables, pd.read_csv(PUBLISHED), protocols, paths.ROOT)
    write_csv(summary, paths.RESULTS / "summary.csv")
    table, models = scores.headlines(summary), [run for run in cfg.runs | cfg.filters if cfg.system_of(run)]
    write_csv(table, paths.RESULTS / "headline.csv")
    scores.save_headlines(table, cfg.evaluate.baseline, models, paths.RESULTS / "headline.json")
    return summary


def evaluate(names: list[str], cfg: Params, embedders: Embedders) -> None:
    """Score every seed of each run's clips against the real clips of `evaluate.split`: results/evaluate/RUN.json.

    The clips' embeddings are kept in data/embeddings/RUN/SEED.npz, for what else is asked of them.
    """
    manifest, waves = reference(cfg)
    real, clips, embedded = embedders.embed(manifest, waves), {run: {} for run in names}, {}
    rate = cfg.corpus_of("sampling").rate
    heard = {"": Heard.of(waves, [rate] * len(waves))}  # the reference, and each seed of each run
    jobs = [(run, seed) for run in names for seed in samples.seeds(paths.clips_of(run))]
    for run, seed in progress(jobs, desc="embed"):
        clips[run][seed], waves = _clips_of(run, seed, cfg)
        heard[run, seed] = Heard.of(waves, [rate] * len(waves))
        embedded[run, seed] = embedders.embed(clips[run][seed], waves)

    scored, used = _scored(real, embedded, cfg, embedders.judge.model.labels), _described(embedders)
    for run in names:
        rows = [{**row, "seed": seed} for seed in clips[run] for row in scored[run, seed]]
        card = scores.card(
            run,
            clips[run],
            _how(run, cfg),
            models=_model_hashes(run, cfg),
            reference=digest(manifest),
            evaluators=used,
            paired=any(row["metric"] == "kl_pairs" for row in rows),
            rate=rate,
            device=str(embedders.device),
            settings=cfg.evaluate,
        )
        card["licences"] = licences.on_card(run, cfg)
        card["remarks"] = _remarks(run, clips, heard, embedded, real, embedders)
        shutil.rmtree(paths.EMBEDDINGS / run, ignore_errors=True)
        for seed in clips[run]:
            embedded[run, seed].save(_embeddings_file(run, seed))
        scores.save(paths.RESULTS / "evaluate" / f"{run}.json", card, rows)


def _scored(real: Embeddings, embedded: dict[tuple[str, int], Embeddings], cfg: Params, labels) -> dict:
    """The scores of each seed of each run. They are bootstraps on small arrays: every core takes sets of clips."""
    score = delayed(scores.score)
    work = Parallel(n_jobs=-1, return_as="generator")(
        score(real, E, judge_labels=labels, settings=cfg.evaluate, paired=run in cfg.controls)
        for (run, _), E in embedded.items()
    )
    return dict(zip(embedded, progress(work, total=len(embedded), desc="score")))


def _described(embedders: Embedders) -> dict[str, dict[str, str]]:
    """What cards say of the evaluators."""
    clap = {"network": "clap", "convention": "clap"}
    clap["sha256"] = weights_sha256(paths.FOUNDATION / "clap" / "model.safetensors")
    return described({"judge": embedders.judge}) | {"clap": clap} | described(embedders.further)


def _remarks(
    run: str,
    clips: dict[str, dict[int, pd.DataFrame]],
    heard: dict,
    embedded: dict[tuple[str, int], Embeddings],
    real: Embeddings,
    embedders: Embedders,
) -> list[str]:
    """What a reader of a run's scores has to know of its clips, beside those of all runs (`evaluation.remarks`)."""
    cfg, told = embedders.cfg, {}
    for seed, manifest in clips[run].items():
        own = embedded[run, seed]
        told[seed] = remarks.of_clips(heard[run, seed], heard[""])
        told[seed] += remarks.of_window("clap", embedders.clap.window / embedders.clap.rate, heard[run, seed])
        told[seed] += remarks.of_classes(own.labels, real.labels, embedders.texts.index)
        told[seed] += remarks.of_sizes(own.sizes(real))
        told[seed] += cut(embedders.clap.tokenizer, list(manifest.prompt))
        told[seed] += remarks.of_counts(len(own), [len(table) for of in clips.values() for table in of.values()])
    trained = [] if run in cfg.controls else remarks.of_seeds(len(told))
    return remarks.merged(told) + trained + remarks.of_draws(cfg.evaluate.bootstrap, cfg.evaluate.level)


def _clips_of(run: str, seed: int, cfg: Params) -> tuple[pd.DataFrame, np.ndarray]:
    """Manifest and waves [shape=(N, T)] of a run's clips, refused with the list of all that are missing, broken or short."""
    folder, corpus = paths.clips_of(run) / str(seed), cfg.corpus_of("sampling")

    def fault(wave: np.ndarray, rate: int) -> str | None:
        if (len(wave), rate) == (corpus.samples, corpus.rate):
            return None
        return f"{len(wave)} samples at {rate} Hz instead of {corpus.samples} at {corpus.rate}; sample the run again"

    manifest = pd.read_parquet(folder / "manifest.parquet")
    read, problems = sounds.read_clips([folder / path for path in manifest.path], fault)
    sounds.refuse(problems)
    return manifest, np.stack([wave for wave, _ in read])


def _embeddings_file(run: str, seed: int) -> Path:
    return paths.EMBEDDINGS / run / f"{seed}.npz"


def _how(run: str, cfg: Params) -> dict:
    """How a run's clips came about, for its card."""
    if run in cfg.controls:
        control = cfg.controls[run]
        return {"source": control.source} | ({"vocoder": cfg.sampling.vocoder} if control.decoded else {})
    how = cfg.sampling_of(run).model_dump()
    how.pop("spacing" if how["solver"] == "ddim" else "eta")  # what this solver does not know
    if run in cfg.filters:
        how |= {"selection": cfg.filters[run].select.model_dump() | cfg.selection.model_dump()}
    return how


def _model_hashes(run: str, cfg: Params) -> dict[int, dict[str, str]]:
    """SHA-256 of the weights behind a run's clips, by training seed and part."""
    options = cfg.sampling if run in cfg.controls else cfg.sampling_of(run)
    parts = ["vae", "vocoder"] if options.vocoder == "hifigan" else ["vae"]
    if run not in cfg.controls:
        parts = ["unet", *parts]
    elif not cfg.controls[run].decoded:
        parts = []
    names = {"vocoder": "model.safetensors"}
    return {
        seed: {
            part: weights_sha256(paths.ROOT / folder / part / names.get(part, "diffusion_pytorch_model.safetensors"))
            for part in parts
        }
        for seed, folder in cfg.models_of(run).items()
    }


def similarities(cfg: Params, embedders: Embedders) -> pd.DataFrame:
    """Mean CLAP similarity of the clips of each system's run to the text and, of a tuned model, to the tuned embedding.

    Returns
    -------
    DataFrame [run, target, seed, value]
    """
    rows = []
    for run in filter(cfg.system_of, cfg.runs):
        for seed, folder in cfg.models_of(run).items():
            clips = Embeddings.load(_embeddings_file(run, seed))
            for kind in ("text", "tuned") if load_tuning(paths.ROOT / folder) is not None else ("text",):
                targets = targets_of(kind, paths.ROOT / folder, cfg, embedders.clap)
                names = clips.labels if clips.has_classes else list(targets)  # clips of the first captions, in order
                value = np.mean([np.sum(E * targets[name][0]) for name, E in zip(names, clips["clap"])])
                rows.append({"run": run, "target": kind, "seed": seed, "value": float(value)})
    return pd.DataFrame(rows, columns=["run", "target", "seed", "value"])


def on_validation(cfg: Params, embedders: Embedders) -> pd.DataFrame:
    """KAD on the judge of each class of every system's clips against *validation* clips: what may choose between systems.
    Without classes it is of the whole set, "all".

    Returns
    -------
    DataFrame [run, class, seed, kad]
    """
    rows, real = [], embedders.embed(*reference(cfg, "val"))
    for run in filter(cfg.system_of, cfg.rows()):
        for seed in cfg.models_of(run):
            clips = Embeddings.load(_embeddings_file(run, seed))
            for label in dict.fromkeys(clips.labels):
                value = kad(real.only(label)["judge"], clips.only(label)["judge"])
                rows.append({"run": run, "class": label or "all", "seed": seed, "kad": value})
    return pd.DataFrame(rows)


def scores_of(run: str) -> dict:
    """results/evaluate/`run`.json: {headline, card, scores}."""
    return read(paths.RESULTS / "evaluate" / f"{run}.json")
