"""Fine-tuning a latent diffusion model on a Foley corpus: the variants of `foley` in params.yaml."""

import json
import shutil

from foleylib import ldm, params, paths, pipeline, train


def fine_tune(variant: str, settings: params.Params):
    """Train models/foley/`variant`: only the LDM moves; CLAP, VAE and vocoder are the foundation's.

    Returns
    -------
    history : DataFrame, one row a step, also written beside the weights.
    """
    if variant not in settings.foley.variants:
        known = ", ".join(settings.foley.variants)
        raise ValueError(f"foley.variants in params.yaml has no '{variant}'; it has: {known}")
    choice, common = settings.foley.variants[variant], settings.foley.common
    out, folder = paths.MODELS / "foley" / variant, paths.FEATURES / common.corpus
    parts = pipeline.load_parts()
    data = ldm.splits(folder, choice.condition, parts["vae"].config.scaling_factor)
    start = pipeline.load_unet(paths.FOUNDATION / "ldm") if choice.init == "foundation" else None
    unet = pipeline.new_unet(settings, settings.seed) if start is None else start
    key = json.loads((folder / "features.json").read_text())
    print_ = params.fingerprint(choice, common, settings.foundation.ldm, settings.seed, settings.precision, key,
                                ldm.digest(unet))  # fmt: skip
    scratch = paths.SCRATCH / f"foley-{variant}" / print_
    history = ldm.fit(unet, data["train"], pipeline.alphas_bar(settings), pipeline.unconditional(parts["clap"]),
                      common.train, condition_dropout=common.condition_dropout, snr_gamma=common.snr_gamma,
                      held_out=data.get("val"), seed=settings.seed, scratch=scratch, device=settings.device,
                      precision=settings.precision)  # fmt: skip
    shutil.rmtree(out, ignore_errors=True)
    pipeline.save_pipeline(out, unet.cpu(), settings, **parts)
    history.to_csv(out / "history.csv", index=False)
    train.forget(scratch)
    return history
