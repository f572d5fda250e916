"""What belongs to latent-clap-loss alone: the sweep of lambda (Fig. 3)."""

from functools import partial

import pandas as pd

from foleylib import paths
from foleylib.networks.pipeline import load_parts
from foleylib.params.settings import Params
from foleylib.params.systems import Finetune, Loss, System
from foleylib.runtime import in_parallel, write_csv
from foleylib.stages.embedders import Validation
from foleylib.stages.finetune import training_key, tune


def sweep(cfg: Params) -> pd.DataFrame:
    """Fig. 3: scores over lambda, with and without tuning layer, of models trained shorter than those of Table I.

    Scored on *validation* clips, so that lambda may be chosen by it. Writes results/lambda_sweep.csv.

    Returns
    -------
    DataFrame [training, sampling, weighting, s_n, steps, tuning, lambda_lclap, seed] and the scores of
    `evaluation.quick.quick`; see `protocol` for what the first two say. `weighting` is that of the diffusion loss.
    """
    settings = cfg.lambda_sweep
    common = shortened(cfg.finetune, settings.steps)
    what = {"weighting": "none" if common.snr_gamma is None else f"min-SNR {common.snr_gamma:g}"}
    what |= {"s_n": common.lclap.s_n, "steps": settings.steps}
    calls = [(tuned, value, seed) for tuned in settings.tuning for value in settings.lambdas for seed in settings.seeds]
    how = {"device": cfg.device, "jobs": cfg.jobs, "desc": "lambda"}
    scores = in_parallel(_scores, calls, partial(Validation, cfg), **how)
    asked = [dict(zip(("tuning", "lambda_lclap", "seed"), call)) for call in calls]
    table = pd.DataFrame([protocol(cfg) | what | call | own for call, own in zip(asked, scores)])
    write_csv(table, paths.RESULTS / "lambda_sweep.csv")
    return table


def _scores(validation: Validation, tuned: bool, value: float, seed: int) -> dict[str, float]:
    """Train one model of the sweep and score it on validation clips."""
    cfg = validation.cfg
    settings = cfg.lambda_sweep
    system = System(corpus=settings.corpus, init="ldm", tuning=tuned, loss=Loss(lclap=value))
    common = shortened(cfg.finetune, settings.steps)
    scratch = paths.SCRATCH / "lambda" / training_key(system, common, seed, cfg)
    model = tune(system, seed, cfg, load_parts(paths.FOUNDATION), scratch=scratch, common=common)
    return validation.scores(model.unet, model.prompts, seed=seed, clips_per_class=settings.clips_per_class)


def shortened(common: Finetune, steps: int) -> Finetune:
    """Common settings with trainings of `steps` steps."""
    return common.changed(train=common.train.changed(steps=steps))


def protocol(cfg: Params) -> dict[str, str]:
    """What sweeps must share to be compared: a fingerprint of data, U-Net, encoder and training, and the sampling in
    words.

    What a sweep names in a column of its own is not in it, nor are vocoder, judge and validation clips: compare sweeps of
    one foundation and one corpus.
    """
    same = shortened(cfg.finetune, 1)
    same = same.changed(snr_gamma=None, lclap=same.lclap.changed(s_n="clean"))
    system = System(corpus=cfg.lambda_sweep.corpus, init="ldm", loss=Loss(lclap=1.0))
    how = cfg.sampling
    own = f"eta {how.eta:g}" if how.solver == "ddim" else how.spacing
    clips = f"{cfg.lambda_sweep.clips_per_class} clips a class"
    words = f"{how.solver} {how.steps} steps, {own}, guidance {how.guidance:g}, {clips}, seed {cfg.seed}"
    return {"training": training_key(system, same, 0, cfg)[:8], "sampling": words}
