"""``torchrun --nproc-per-node 2 -m foleylib.stages finetune ldm`` trains a stage's models on several GPUs, without its notebook.

The weights lie where the stage puts them; ``dvc commit finetune@ldm`` then tells DVC that they are there.
"""

import sys
from collections.abc import Callable
from functools import partial

from foleylib.params import settings
from foleylib.params.settings import Params
from foleylib.runtime import pick_device, process
from foleylib.stages import (
    clap,
    detector,
    finetune,
    judge,
    latent_clap,
    pretrain,
    rate_vocoder,
    rates,
    retrieval,
    vae,
    vocoder,
)

STAGES: dict[str, Callable[[Params], object]] = {
    "clap": clap.make,
    "vae": vae.make,
    "vocoder": vocoder.make,
    "pretrain": partial(pretrain.make, "ldm"),
    "judge": judge.make,
    "detector": detector.make,
    "latent_clap": latent_clap.make,
    "retrieval": retrieval.make,
    "rates": rates.make,
}
NAMED: dict[str, Callable[[str, Params], object]] = {  # stages of several models, of which one is named
    "pretrain_size": pretrain.make,
    "finetune": finetune.make,
    "rate_vocoder": rate_vocoder.make,
}


SOURCES = {  # the section that says whether a stage trains; of most it is the foundation
    "judge": lambda cfg: cfg.judge,
    "detector": lambda cfg: cfg.detector,
    "latent_clap": lambda cfg: cfg.latent_clap,
    "retrieval": lambda cfg: cfg.re_audioldm.pretrained,
    "rates": lambda cfg: cfg.src_gaudio.pretrained,
}


def main(arguments: list[str]) -> None:
    """Train the models of a stage, "finetune ldm" say, as params.yaml has it."""
    cfg = settings.load()
    match arguments:
        case [stage] if stage in STAGES:
            _begin(stage, SOURCES.get(stage, lambda own: own.foundation)(cfg).source, cfg)
            STAGES[stage](cfg)
        case ["finetune", name]:
            _begin("finetune", "scratch", cfg)
            finetune.make(name, cfg)
        case [stage, name] if stage in NAMED:
            own = rate_vocoder.section(name, cfg) if stage == "rate_vocoder" else cfg.foundation
            _begin(stage, own.source, cfg)
            NAMED[stage](name, cfg)
        case _:
            raise ValueError(
                f"give one of {', '.join(STAGES)}, or one of {', '.join(NAMED)} with a name of params.yaml"
            )


def _begin(stage: str, source: str, cfg: Params) -> None:
    """Refuse a stage that trains nothing; make the group of torchrun's processes, before one looks at what another writes."""
    if source not in ("scratch", "finetuned"):
        raise ValueError(f"{stage}: its source is '{source}', so nothing is trained; run it by ./run dvc repro {stage}")
    if process()[1] > 1:
        from accelerate import PartialState

        PartialState(cpu=pick_device(cfg.device).type == "cpu")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(str(error))
