"""From a condition to a latent: solvers, classifier-free guidance, a seed for each clip."""

from dataclasses import dataclass, fields

import torch

from foleylib.diffusion.condition import Condition, denoise
from foleylib.networks.pipeline import Pipeline, scheduler, set_steps
from foleylib.runtime import progress, step_generator


@dataclass(frozen=True)
class SamplerOptions:
    """How latents are drawn; the defaults are the published ones."""

    solver: str = "ddim"  # or "dpm++"
    steps: int = 200
    eta: float = 1.0  # of ddim: 1 adds noise at every step, 0 none
    guidance: float = 2.0  # w of u + w (c - u); 1 needs no unconditional pass
    batch_size: int = 32
    spacing: str = "leading"  # of dpm++: or "log_snr" (`networks.pipeline.set_steps`)

    @classmethod
    def of(cls, section) -> "SamplerOptions":
        """The options of a section `params.runs.Sampling`."""
        return cls(**{field.name: getattr(section, field.name) for field in fields(cls)})


@torch.no_grad()
def sample(
    pipeline: Pipeline,
    condition: Condition,
    unconditional: Condition,
    shape: tuple[int, int, int],
    *,
    seeds: list[int],
    options: SamplerOptions,
    show: bool = True,
) -> torch.Tensor:
    """Draw one latent for each row of `condition`.

    Parameters
    ----------
    condition : of N clips; unconditional : one row, that of the empty text.
    shape : (channels, frames, bands) of a latent.
    seeds : one a clip; clip i depends on seeds[i] and its condition alone, whatever the batch.
    show : whether there is a progress bar.

    Returns
    -------
    Scaled latents on the CPU [shape=(N, *shape)].
    """
    if len(seeds) != len(condition):
        raise ValueError(f"{len(condition)} conditions but {len(seeds)} seeds: give each clip its own")
    parts = [slice(i, i + options.batch_size) for i in range(0, len(condition), options.batch_size)]
    bar = progress(total=len(parts) * options.steps, desc=f"{options.solver} {len(condition)} clips", disable=not show)
    latents = [_sample_batch(pipeline, condition[p], unconditional, shape, seeds[p], options, bar) for p in parts]
    bar.close()
    return torch.cat(latents)


def _sample_batch(pipeline, condition, unconditional, shape, seeds, options, bar) -> torch.Tensor:
    from diffusers import DDIMScheduler

    # Start from noise that is drawn on the CPU, so that a clip is the same on any device.
    device = pipeline.unet.device
    solver = scheduler(pipeline.noise, options.solver)
    streams = [step_generator("cpu", seed) for seed in seeds]
    z = _noise(streams, shape, device) * solver.init_noise_sigma
    condition, unconditional = condition.to(device), unconditional.to(device)

    set_steps(solver, options.steps, options.spacing, device)
    for n in solver.timesteps:
        # Estimate the noise, with guidance towards the condition.
        eps = denoise(pipeline.unet, z, n, condition, guidance=options.guidance, unconditional=unconditional)

        # One step of the solver. Only DDIM has noise of its own, drawn from each clip's stream.
        extra = {}
        if isinstance(solver, DDIMScheduler):
            noise = _noise(streams, shape, device) if options.eta > 0 else None
            extra = {"eta": options.eta, "variance_noise": noise}
        z = solver.step(eps, n, z, **extra).prev_sample
        bar.update()
    return z.cpu()


def _noise(streams: list[torch.Generator], shape: tuple, device) -> torch.Tensor:
    return torch.stack([torch.randn(shape, generator=stream) for stream in streams]).to(device)
