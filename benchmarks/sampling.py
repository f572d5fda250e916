"""Seconds per clip of sampling: DDIM against DPM-Solver++ with few steps, by batch size, with random weights.

./run python -m benchmarks.sampling [--published audioldm-s-full]
"""

import argparse
from pathlib import Path

import pandas as pd

from benchmarks import models, timing
from foleylib.diffusion.condition import Condition
from foleylib.networks.pipeline import decode
from foleylib.params.settings import Params
from foleylib.sampling.sampler import SamplerOptions, sample


def case(parts: models.Parts, options: SamplerOptions):
    """A batch of clips: their latents, then VAE and vocoder."""
    n = options.batch_size
    condition, nothing = Condition(embedding=models.embeddings(n, parts.dim)), models.unconditional(parts.dim)

    def run(clock: timing.Clock) -> None:
        with clock.part("latents"):
            seeds = list(range(n))
            z = sample(parts, condition, nothing, parts.latent_shape, seeds=seeds, options=options, show=False)
        with clock.part("decode"):
            decode(parts, z, hop=parts.log_mel.config.hop, batch_size=n)

    return run


def measure(parts: models.Parts, cfg: Params, arguments: argparse.Namespace) -> tuple[pd.DataFrame, dict]:
    """Rows of both solvers for each batch size; ratios are to DDIM at the same batch size."""
    tables, eta = [], cfg.sampling.eta
    for n in arguments.batch_sizes:
        cases = {
            f"{solver} {steps} steps": case(parts, SamplerOptions(solver, steps, eta, arguments.guidance, n))
            for solver, steps in (("ddim", arguments.ddim_steps), ("dpm++", arguments.dpm_steps))
        }
        seconds = timing.interleaved(cases, arguments.repeats)
        table = timing.rows(seconds, baseline=next(iter(cases)), items=n, unit="clip")
        tables.append(table.assign(case=table.case + f", batch {n}", seconds_per_clip=table.seconds / n))
    return pd.concat(tables, ignore_index=True), {"eta": eta}


def main(argv: list[str] | None = None) -> Path:
    parser = models.parser(__doc__)
    parser.add_argument("--ddim-steps", type=int, default=50)
    parser.add_argument("--dpm-steps", type=int, default=12)
    parser.add_argument("--guidance", type=float, default=2.0, help="1 needs no unconditional pass")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.set_defaults(repeats=3)
    return models.run("sampling", parser.parse_args(argv), measure, with_clap=False)


if __name__ == "__main__":
    main()
