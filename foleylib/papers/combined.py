"""All parts in one model: tuning layer, latent CLAP loss, retrieval and sampling rate, and what each brings beside the others."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from foleylib import paths
from foleylib.datasets import features
from foleylib.datasets.features import read_rows
from foleylib.diffusion.condition import Condition
from foleylib.evaluation.frechet import cosine_similarities
from foleylib.networks import latent_clap, retrieval
from foleylib.networks.pipeline import load_parts
from foleylib.papers.src_gaudio import Bench, keep
from foleylib.params.settings import Params
from foleylib.params.systems import Loss, System
from foleylib.runtime import fingerprint, in_parallel, step_generator, write_csv
from foleylib.stages import neighbours
from foleylib.stages.retrieval_tuned import Tuned

# What is left out of the combined system; "none" is the plain LDM, trained on the same clips.
LEFT_OUT = {
    "full": {},
    "no_tuning": {"tuning": False},
    "no_lclap": {"loss": Loss()},
    "no_retrieval": {"retrieval": None},
    "no_rate": {"rates": False},
    "none": {"tuning": False, "loss": Loss(), "retrieval": None, "rates": False},
}


def given(model: Tuned, bench: Bench, rate: int) -> Condition:
    """What a model is told of each caption: the text of its class, its neighbours and the rate, as far as it has these."""
    told, corpus, reads = {}, model.system.corpus, model.system.retrieval
    told["embedding"] = bench.embedders.clap.embed_text(bench.asked).cpu()
    if reads is not None:
        rows = neighbours.find(corpus, model.cfg.retrieval.protocol)(list(bench.manifest.id), reads.k).rows
        told |= read_rows(neighbours.conditions(corpus, reads, rows), np.arange(len(rows)))
    if model.system.rates:
        told["rate"] = torch.full((len(bench.asked),), float(rate))
    return Condition(**told)


def system_of(name: str, cfg: Params) -> System:
    """The combined system without what `LEFT_OUT` leaves out of it."""
    return cfg.combined.system(cfg.re_audioldm.pretrained.retrieval).model_copy(update=LEFT_OUT[name])


def encoder_agreement(cfg: Params) -> pd.Series:
    """Cosine between E_latent and E_audio of test clips at each rate in Hz, means.

    The Latent CLAP encoder learned latents of the foundation's rate alone; its loss is used at every rate all the same.
    """
    _, arrays = features.load(paths.FEATURES / cfg.combined.corpus, "test")
    scale = load_parts(paths.FOUNDATION, "vae")["vae"].config.scaling_factor
    latents = features.sample_latents(
        torch.from_numpy(np.array(arrays["moments"])), scale, step_generator("cpu", cfg.seed)
    )
    with torch.no_grad():
        E = latent_clap.load(paths.LATENT_CLAP)(latents).numpy()
    cosine = pd.Series(cosine_similarities(E, arrays["audio"]), index=arrays["rate"].astype(int), name="cosine")
    return cosine.groupby(level=0).mean().rename_axis("rate")


def compare(cfg: Params) -> pd.DataFrame:
    """Train and score the combined system and each without one of its parts, with every seed and at each of `combined.rates`, beside the
    real clips and these through the codec.

    Writes results/combined.csv, and some clips of the first seed to data/examples/combined/MODEL_RATE; a run that was killed
    goes on with the training it was at.

    Returns
    -------
    DataFrame [model, rate, seed, metric, embedder, value]
    """
    settings, scratch, bench = cfg.combined, paths.SCRATCH / "combined", _bench(cfg)
    shutil.rmtree(paths.EXAMPLES / "combined", ignore_errors=True)
    real = {rate: {"real": bench.real[rate], "codec": bench.codec(rate)} for rate in settings.rates}
    tables = [
        bench.score(waves, rate).assign(model=name, rate=rate, seed=settings.seeds[0])
        for rate, clips in real.items()
        for name, waves in clips.items()
    ]
    calls, how = [(name, seed, scratch) for seed in settings.seeds for name in LEFT_OUT], {"desc": "combined"}
    tables += in_parallel(_scores, calls, partial(_bench, cfg), device=cfg.device, jobs=cfg.jobs, context=bench, **how)
    scores = pd.concat(tables, ignore_index=True)[["model", "rate", "seed", "metric", "embedder", "value"]]
    write_csv(scores, paths.RESULTS / "combined.csv")
    shutil.rmtree(scratch)
    return scores


def _bench(cfg: Params) -> Bench:
    return Bench(cfg, cfg.combined.clips, "combined.clips", asked="prompt")


def _scores(bench: Bench, name: str, seed: int, scratch: Path) -> pd.DataFrame:
    """The scores of one model at each of `combined.rates`, whose clips are kept in `scratch`."""
    cfg, tables = bench.whole, []
    model = Tuned(name, system_of(name, cfg), seed, cfg.combined, cfg, scratch)
    for rate in cfg.combined.rates:
        folder = scratch / fingerprint(model.key, rate, *bench.key)
        if not (folder / "scores.csv").is_file():
            nothing = retrieval.unconditional(bench.embedders.clap, model.unet)
            waves = bench.draw(model.unet, given(model, bench, rate), nothing, rate=rate, seed=seed)
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / "clips.npy", waves.astype(np.float32))
            write_csv(bench.score(waves, rate), folder / "scores.csv")
        if seed == cfg.combined.seeds[0]:
            keep(bench, np.load(folder / "clips.npy"), f"combined/{name}_{rate}", seed, rate)
        tables.append(pd.read_csv(folder / "scores.csv").assign(model=name, rate=rate, seed=seed))
    return pd.concat(tables, ignore_index=True)
