"""Stage finetune: the systems of params.yaml, each a foundation LDM fine-tuned on a corpus, once per seed."""

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from foleylib import paths
from foleylib.datasets import manifest as manifests
from foleylib.datasets.features import read_key, training_splits
from foleylib.diffusion.latent_clap_loss import LatentClapLoss
from foleylib.diffusion.loss import DiffusionLoss
from foleylib.networks import latent_clap, rates, retrieval
from foleylib.networks import unet as unets
from foleylib.networks.pipeline import load_parts
from foleylib.params.settings import Params
from foleylib.params.systems import Finetune, System
from foleylib.runtime import fingerprint, in_parallel, pick_device, process, wait_for_all, weights_sha256, write_json
from foleylib.stages import cards, neighbours
from foleylib.stages.ldm import alphas_bar, fit_unet, new_unet, save_with_parts
from foleylib.train import Job

UNET_SIZES = {"channels", "layers", "head_channels", "groups"}  # of a section `params.foundation.Ldm`


@dataclass
class Tuned:
    """A fine-tuned U-Net with its tuning layer folded in, the layer, its prompts and the training history."""

    unet: torch.nn.Module
    tuning: unets.TuningLayer | None
    prompts: dict[str, str]  # label -> text; none where the corpus has no classes
    history: pd.DataFrame


def make(name: str, cfg: Params) -> pd.DataFrame:
    """Train models/systems/`name`/SEED for every seed: only LDM and tuning layer move, the rest is the foundation's.

    Each folder is a stock `AudioLDMPipeline` (the tuning layer is folded in), with prompts.json, history.csv and, of a
    tuned model, tuning.safetensors beside it. A run that was killed goes on with the seed it was at.

    Returns
    -------
    The history, one row a step and seed.
    """
    out, scratch, seeds = paths.SYSTEMS / name, paths.SCRATCH / f"finetune-{name}", cfg.trained_seeds(name)
    how = {"device": cfg.device, "jobs": cfg.jobs, "desc": f"finetune {name}"}
    folders = in_parallel(_finished, [(name, seed, scratch) for seed in seeds], partial(_context, cfg), **how)
    finished = dict(zip(seeds, folders))
    if process()[0] == 0:
        shutil.rmtree(out, ignore_errors=True)
        for seed, folder in finished.items():
            shutil.copytree(folder, out / str(seed))
        shutil.rmtree(scratch, ignore_errors=True)
    wait_for_all()
    return pd.concat([pd.read_csv(out / str(seed) / "history.csv").assign(seed=seed) for seed in finished])


def _context(cfg: Params) -> tuple[Params, dict]:
    """What all trainings read: the settings, and the frozen parts."""
    return cfg, load_parts(paths.FOUNDATION)


def _finished(context: tuple[Params, dict], name: str, seed: int, scratch: Path) -> Path:
    """The folder in `scratch` of the model of a seed, trained there unless it is."""
    cfg, parts = context
    system = cfg.entry("systems", name)
    key = training_key(system, cfg.finetune, seed, cfg)
    folder = scratch / f"{key}-model"
    if not folder.is_dir():
        part, tuned = folder.with_suffix(".part"), tune(system, seed, cfg, parts, scratch=scratch / key)
        if process()[0] == 0:
            _save(part, tuned, cfg, parts)
            cards.write(part, _told(system, seed, tuned.history, cfg), paths.SYSTEMS / name / str(seed))
            part.rename(folder)
        wait_for_all()
    return folder


def tune(
    system: System,
    seed: int,
    cfg: Params,
    parts: dict,
    *,
    scratch: Path,
    common: Finetune | None = None,
    prompts: dict[str, str] | None = None,
    start: torch.nn.Module | None = None,
    validate: Callable[[torch.nn.Module], dict] | None = None,
) -> Tuned:
    """Fine-tune one model of a system with one seed.

    Parameters
    ----------
    parts : of `pipeline.load_parts`.
    scratch : folder of the resumable state, forgotten at the end.
    common : in place of `finetune`; prompts : label -> text, in place of the system's; start : a U-Net in place of the
        foundation's, changed in place.
    validate : scalars of the U-Net for the history, in place of its error on validation clips.
    """
    common, clap, abar = common or cfg.finetune, parts["clap"], alphas_bar(cfg)
    prompts = prompts or class_prompts(system)
    scale = parts["vae"].config.scaling_factor
    texts = dict(zip(prompts, clap.embed_text(list(prompts.values())).cpu().numpy())) if prompts else None
    data = training_splits(paths.FEATURES / system.corpus, system.condition, scale, texts)

    # The model: a U-Net, which reads what is retrieved and stands behind a tuning layer where the system has these.
    unet = initial_unet(system, seed, cfg) if start is None else start
    if system.rates:
        unet = rates.add_to(unet, seed=seed)
    for split, latents in data.items():
        if system.retrieval is not None:
            latents.conditions |= neighbours.of_split(system.corpus, split, system.retrieval, cfg)
        if not system.rates:  # clips of a corpus of several rates, of which it is not told
            latents.conditions.pop("rate", None)
    tuning = unets.TuningLayer(clap.dim, noise=common.tuning_noise, seed=seed) if system.tuning else None
    model = unet if tuning is None else unets.TunedUnet(unet, tuning)

    lclap = _latent_clap_loss(common, abar, scale, cfg.device) if system.loss.lclap else None
    dropout = {"condition_dropout": common.condition_dropout, "retrieval_dropout": common.retrieval_dropout}
    nothing = retrieval.unconditional(clap, unet)
    loss = DiffusionLoss(abar, nothing, scale, snr_gamma=common.snr_gamma, latent_clap=lclap, **dropout)
    job = Job(seed, scratch, cfg.device, cfg.precision)
    check = None if validate is None else lambda: validate(unet)
    options = {"lambda_lclap": system.loss.lclap, "held_out": data.get("val"), "validate": check}
    history = fit_unet(model, data["train"], loss, common.train, job, **options)
    job.forget()
    unet = unet.cpu() if tuning is None else unets.fold(model.cpu())
    return Tuned(unet, tuning, prompts, history)


def initial_unet(system: System, seed: int, cfg: Params):
    """The U-Net that a system starts from, with what reads tokens where it does."""
    unet = unets.load(paths.FOUNDATION / system.init) if system.pretrained else new_unet(cfg, system.init, seed)
    if system.retrieval is None:
        return unet
    return retrieval.of_settings(
        system.retrieval, unet, **neighbours.channels(system.corpus, system.retrieval), seed=seed
    )


def class_prompts(system: System) -> dict[str, str]:
    """label -> the text of that class: the corpus' prompt, or the label as it is spelt.

    Empty where the corpus has no classes: each clip is then conditioned by its own captions, as is a clip without a class
    in a corpus that has some.
    """
    manifest = manifests.load(paths.CLIPS / system.corpus)
    if system.prompts == "label" and not manifests.has_classes(manifest):
        raise ValueError(
            f"prompts: label, but corpus '{system.corpus}' has no classes; give the system prompts: corpus"
        )
    classes = manifests.classes(manifest)
    return dict(zip(classes.label, classes.label if system.prompts == "label" else classes.prompt))


def _latent_clap_loss(common: Finetune, abar: torch.Tensor, scale: float, device: str) -> LatentClapLoss:
    encoder = latent_clap.load(paths.LATENT_CLAP).to(pick_device(device))
    if not math.isclose(encoder.config.scale, scale, rel_tol=1e-4):
        raise ValueError(f"scale={scale}: the encoder was trained with {encoder.config.scale}; run its stage again")
    return LatentClapLoss(encoder, abar, **common.lclap.model_dump())


def training_key(system: System, common: Finetune, seed: int, cfg: Params) -> str:
    """Changes with all that changes the fine-tuned weights.

    Of system and common settings it knows what is not the default, so that a new kind of setting leaves it as it is.
    """
    own, shared = (part.model_dump(mode="json", exclude_defaults=True, exclude={"seeds"}) for part in (system, common))
    used = [paths.FOUNDATION / system.init / "unet"] if system.pretrained else []
    used += [paths.LATENT_CLAP] if system.loss.lclap else []
    weights = [weights_sha256(folder) for folder in used]
    size = None if system.pretrained else cfg.foundation.section(system.init).model_dump(include=UNET_SIZES)
    model = [cfg.foundation.ldm.noise, size, *weights]
    if system.retrieval is not None:
        model += neighbours.keys(system.corpus, cfg)
    return fingerprint(own, shared, seed, cfg.precision, read_key(paths.FEATURES / system.corpus), *model)


def _told(system: System, seed: int, history: pd.DataFrame, cfg: Params) -> dict:
    """What the card of a fine-tuned model tells of its origin: its own clips, and the weights that it started from."""
    scored = [name for name in history if name.startswith("val_")]
    last = history[scored].dropna().tail(1).round(5).to_dict("records")
    return {
        "settings": {"system": system.model_dump(mode="json"), "finetune": cfg.finetune.model_dump(mode="json")},
        "corpus": cfg.corpora[system.corpus].model_dump(mode="json"),
        "licences": dict.fromkeys(cards.of_system(system)),
        "seed": seed,
        "held_out": last[0] if last else {},
    }


def _save(out: Path, tuned: Tuned, cfg: Params, parts: dict) -> None:
    shutil.rmtree(out, ignore_errors=True)
    save_with_parts(out, rates.bare(tuned.unet), cfg, parts)
    rates.save_beside(tuned.unet, out)
    if tuned.tuning is not None:
        unets.save_tuning(tuned.tuning, out)
    write_json(out / "prompts.json", tuned.prompts)
    tuned.history.to_csv(out / "history.csv", index=False)
