"""``torchrun --nproc-per-node 2 -m foleylib.stages finetune ldm`` trains a stage's models on several GPUs, without its notebook.

The weights lie where the stage puts them; ``dvc commit finetune@ldm`` then tells DVC that they are there.
"""

import sys
from collections.abc import Callable
from functools import partial

from foleylib.params import settings
from foleylib.params.settings import Params
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


def main(arguments: list[str]) -> None:
    """Train the models of a stage, "finetune ldm" say, as params.yaml has it."""
    cfg = settings.load()
    match arguments:
        case [stage] if stage in STAGES:
            STAGES[stage](cfg)
        case [stage, name] if stage in NAMED:
            NAMED[stage](name, cfg)
        case _:
            raise ValueError(
                f"give one of {', '.join(STAGES)}, or one of {', '.join(NAMED)} with a name of params.yaml"
            )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(str(error))
