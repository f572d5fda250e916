"""Fine-tuning a latent diffusion model on a Foley corpus: the variants of `foley` in params.yaml, and the sweep of lambda."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from foleylib import conditioning, latent_clap, ldm, params, paths, pipeline, train


@dataclass
class Tuned:
    """A fine-tuned U-Net with its tuning layer folded in, the layer, its prompts and the training history."""

    unet: torch.nn.Module
    tuning: conditioning.TuningLayer | None
    prompts: dict[str, str]  # label -> text
    history: "pandas.DataFrame"  # noqa: F821


def fine_tune(variant: str, settings: params.Params):
    """Train models/foley/`variant`/SEED for every seed: only LDM and tuning layer move, the rest is the foundation's.

    Each folder is a stock `AudioLDMPipeline` (the tuning layer is folded in), with prompts.json, history.csv and, of a
    tuned model, tuning.safetensors beside it. A run that was killed goes on with the seed it was at.

    Returns
    -------
    history : DataFrame, one row a step and seed.
    """
    import pandas as pd

    if variant not in settings.foley.variants:
        known = ", ".join(settings.foley.variants)
        raise ValueError(f"foley.variants in params.yaml has no '{variant}'; it has: {known}")
    choice, parts = settings.foley.variants[variant], pipeline.load_parts()
    out, kept = paths.MODELS / "foley" / variant, paths.SCRATCH / f"foley-{variant}"
    made = []
    for seed in settings.seeds_of(variant):
        print_ = fingerprint(choice, settings.foley.common, seed, settings)
        finished = kept / f"{print_}-model"
        if not finished.is_dir():
            tuned = tune(choice, seed, settings, parts, scratch=kept / print_)
            _save(tuned, finished.with_suffix(".part"), settings, parts)
            finished.with_suffix(".part").rename(finished)
        made.append((seed, finished))
    shutil.rmtree(out, ignore_errors=True)
    for seed, finished in made:
        shutil.copytree(finished, out / str(seed))
    train.forget(kept)
    return pd.concat([pd.read_csv(out / str(seed) / "history.csv").assign(seed=seed) for seed, _ in made])


def tune(choice: params.FoleyVariant, seed: int, settings: params.Params, parts: dict, *, scratch: Path,
         common: params.FoleyCommon | None = None, prompts: dict[str, str] | None = None) -> Tuned:  # fmt: skip
    """Fine-tune one model of a variant with one seed.

    Parameters
    ----------
    parts : of `pipeline.load_parts`.
    scratch : folder of the resumable state, forgotten at the end.
    common : in place of `foley.common`.
    prompts : label -> text, in place of the variant's.
    """
    common = common or settings.foley.common
    prompts = prompts or class_prompts(choice, common.corpus)
    scale, clap = parts["vae"].config.scaling_factor, parts["clap"]
    texts = dict(zip(prompts, clap.embed_text(list(prompts.values())).cpu().numpy()))
    data = ldm.splits(paths.FEATURES / common.corpus, choice.condition, scale, texts)
    unet = new_model(choice, seed, settings)
    tuning = conditioning.TuningLayer(clap.dim, noise=common.tuning_noise, seed=seed) if choice.tuning else None
    model = unet if tuning is None else conditioning.TunedUnet(unet, tuning)
    history = ldm.fit(model, data["train"], pipeline.alphas_bar(settings), pipeline.unconditional(clap), common.train,
                      condition_dropout=common.condition_dropout, snr_gamma=common.snr_gamma, held_out=data.get("val"),
                      seed=seed, scratch=scratch, device=settings.device, precision=settings.precision,
                      lclap=_lclap(choice, common, scale, settings), lambda_lclap=choice.lambda_lclap)  # fmt: skip
    train.forget(scratch)
    unet = unet.cpu() if tuning is None else conditioning.fold(model.cpu())
    return Tuned(unet, tuning, prompts, history)


def new_model(choice: params.FoleyVariant, seed: int, settings: params.Params):
    """The U-Net that a variant starts from."""
    if not choice.pretrained:
        return pipeline.new_unet(settings, seed, choice.init)
    return pipeline.load_unet(paths.FOUNDATION / choice.init).to(memory_format=torch.channels_last)


def class_prompts(choice: params.FoleyVariant, corpus: str) -> dict[str, str]:
    """label -> the text of that class: the corpus' prompt, or the label as it is spelt."""
    from foleylib import corpora

    manifest = corpora.load(paths.CLIPS / corpus).drop_duplicates("target").sort_values("target")
    texts = manifest.label if choice.prompts == "label" else manifest.prompt
    return dict(zip(manifest.label, texts))


def _lclap(choice: params.FoleyVariant, common: params.FoleyCommon, scale: float, settings: params.Params):
    """The Latent CLAP loss of a variant as `ldm.loss` takes it; None where its weight is 0."""
    if not choice.lambda_lclap:
        return None
    encoder = latent_clap.load(paths.MODELS / "latent_clap").to(train.pick_device(settings.device))
    return latent_clap.loss(encoder, pipeline.alphas_bar(settings), scale, common.lclap)


def fingerprint(choice: params.FoleyVariant, common: params.FoleyCommon, seed: int, settings: params.Params) -> str:
    """Changes with all that changes the fine-tuned weights."""
    from foleylib.embedders import weights_sha256

    features = json.loads((paths.FEATURES / common.corpus / "features.json").read_text())
    own = choice.model_copy(update={"seeds": None})
    shared = common.model_copy(update={"seeds": [0]})
    used = [paths.FOUNDATION / choice.init / "unet"] if choice.pretrained else []
    used += [paths.MODELS / "latent_clap"] if choice.lambda_lclap else []
    weights = [weights_sha256(folder) for folder in used]
    size = settings.foundation.section(choice.init)
    return params.fingerprint(own, shared, size, seed, settings.precision, features, *weights)


def _save(tuned: Tuned, out: Path, settings: params.Params, parts: dict) -> None:
    shutil.rmtree(out, ignore_errors=True)
    pipeline.save_pipeline(out, tuned.unet, settings, **parts)
    if tuned.tuning is not None:
        conditioning.save(tuned.tuning, out)
    (out / "prompts.json").write_text(json.dumps(tuned.prompts, indent=1) + "\n")
    tuned.history.to_csv(out / "history.csv", index=False)


def sweep(tuned: bool, settings: params.Params):
    """Fig. 3 of latent-clap-loss: average FAD over lambda, each model trained shorter than those of Table I.

    Scored on *validation* clips, so that lambda may be chosen by it.

    Returns
    -------
    DataFrame [training, sampling, s_n, steps, tuning, lambda_lclap, seed, fad, judge_accuracy, clap_score]; see `protocol`
    for what the first two say.
    """
    import pandas as pd

    from foleylib import runs
    from foleylib.progress import progress

    chosen, common = settings.foley.sweep, settings.foley.common
    common = common.model_copy(update={"train": common.train.model_copy(update={"steps": chosen.steps})})
    parts, validation, rows = pipeline.load_parts(), runs.Validation(settings), []
    jobs = [(value, seed) for value in chosen.lambdas for seed in chosen.seeds]
    for value, seed in progress(jobs, desc="lambda"):
        variant = params.FoleyVariant(init="ldm", tuning=tuned, lambda_lclap=value)
        key = fingerprint(variant, common, seed, settings)
        model = tune(variant, seed, settings, parts, scratch=paths.SCRATCH / "sweep" / key, common=common)
        scores = validation.scores(model.unet, model.prompts, seed=seed, clips_per_class=chosen.clips_per_class)
        setting = {"s_n": common.lclap.s_n, "steps": chosen.steps, "tuning": tuned, "lambda_lclap": value, "seed": seed}
        rows.append(protocol(settings) | setting | scores)
    return pd.DataFrame(rows)


def protocol(settings: params.Params) -> dict[str, str]:
    """What sweeps must share to be compared: a fingerprint of data, U-Net, encoder and training, and the sampling in words.

    Vocoder, judge and validation clips are not in it: compare sweeps of one foundation and one corpus.
    """
    common, chosen = settings.foley.common, settings.foley.sweep
    lclap, optimiser = common.lclap.model_copy(update={"s_n": "clean"}), common.train.model_copy(update={"steps": 1})
    same = common.model_copy(update={"lclap": lclap, "train": optimiser})
    anything = params.FoleyVariant(init="ldm", lambda_lclap=1.0)
    how = settings.sampling
    eta = f", eta {how.eta:g}" if how.solver == "ddim" else ""
    words = f"{how.solver} {how.steps} steps{eta}, guidance {how.guidance:g}, {chosen.clips_per_class} clips a class"
    return {"training": fingerprint(anything, same, 0, settings)[:8], "sampling": f"{words}, seed {settings.seed}"}


def gains(sweeps, metric: str = "fad"):
    """What a weight of the Latent CLAP loss changes, from the model of weight 0 of the same `protocol`, length and seed.

    Parameters
    ----------
    sweeps : DataFrame, one or more of `sweep`, stacked; a row that is there twice counts once.

    Returns
    -------
    DataFrame [training, sampling, steps, tuning, s_n, lambda_lclap, mean, low, high, seeds]: Student's 95 % interval over
    seeds, NaN for a single one.
    """
    import pandas as pd

    from foleylib import statistics

    shared = ["training", "sampling", "steps", "tuning"]
    same, keys = [*shared, "seed"], [*shared, "s_n", "lambda_lclap"]
    base = sweeps[sweeps.lambda_lclap == 0].drop_duplicates(same).set_index(same)[metric]
    rows = sweeps[sweeps.lambda_lclap > 0].drop_duplicates([*keys, "seed"])
    change = rows[metric] - base.reindex(pd.MultiIndex.from_frame(rows[same])).to_numpy()
    groups = rows.assign(change=change).dropna(subset="change").groupby(keys, sort=True).change
    return pd.DataFrame([(*key, *statistics.over_seeds(part), len(part)) for key, part in groups],
                        columns=[*keys, "mean", "low", "high", "seeds"])  # fmt: skip
