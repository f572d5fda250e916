"""Seconds per clip of sampling: DDIM against DPM-Solver++ with few steps, by batch size, with random weights.

./run python -m benchmarks.sampling [--published audioldm-s-full]
"""

import argparse
from pathlib import Path

import torch

from benchmarks import models, timing
from foleylib import ldm, params, sampling


def one(
    parts: models.Parts, settings: params.Params, arguments: argparse.Namespace, *, solver: str, steps: int, n: int
):
    """A case: `n` clips in one batch, the latents by `solver`, then VAE and vocoder."""
    system, condition = models.system(parts, settings), models.unit_rows(n, parts.dim)
    unconditional = models.unit_rows(n + 1, parts.dim)[n]

    def run(clock: timing.Clock) -> None:
        with clock.part("latents"):
            z = sampling.sample(system, condition, unconditional, parts.latent_shape, seeds=list(range(n)), solver=solver,
                                steps=steps, eta=settings.sampling.eta, guidance=arguments.guidance, batch_size=n,
                                show=False)  # fmt: skip
        with clock.part("decode"):
            sampling.decode(system, z, hop=parts.log_mel.config.hop, batch_size=n)

    return run


def measure(parts: models.Parts, settings: params.Params, arguments: argparse.Namespace) -> list[dict]:
    """Rows of both solvers for each batch size; ratios are to DDIM at the same batch size."""
    solvers = {"ddim": arguments.ddim_steps, "dpm++": arguments.dpm_steps}
    made = []
    for n in arguments.batch_sizes:
        cases = {
            f"{solver} {steps} steps": one(parts, settings, arguments, solver=solver, steps=steps, n=n)
            for solver, steps in solvers.items()
        }
        rounds = timing.interleaved(cases, arguments.repeats, parts.device)
        rows = timing.rows(rounds, baseline=next(iter(cases)), items=n, unit="clip")
        made += [{**row, "case": f"{row['case']}, batch {n}", "seconds_per_clip": row["seconds"] / n} for row in rows]
    return made


def main(argv: list[str] | None = None) -> Path:
    parser = models.parser(__doc__)
    parser.add_argument("--ddim-steps", type=int, default=50)
    parser.add_argument("--dpm-steps", type=int, default=12)
    parser.add_argument("--guidance", type=float, default=2.0, help="1 needs no unconditional pass")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.set_defaults(repeats=3)
    arguments, before = parser.parse_args(argv), torch.get_num_threads()
    settings = params.load(arguments.params)
    torch.set_num_threads(arguments.threads)
    try:
        parts = models.build(settings, arguments, ear=False)
        machine = timing.environment(parts.device)
        rows = measure(parts, settings, arguments)
    finally:
        torch.set_num_threads(before)
    sizes = {"samples": parts.samples, "latent_shape": list(parts.latent_shape), "eta": settings.sampling.eta,
             "parameters": {k: ldm.parameters(getattr(parts, k)) for k in ("unet", "vae", "vocoder")}}  # fmt: skip
    name = "sampling" + (f"_{arguments.published}" if arguments.published else "")
    return timing.report(name, rows, settings=timing.plain(arguments) | sizes, machine=machine, out=arguments.out)


if __name__ == "__main__":
    main()
