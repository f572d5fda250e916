"""From text to sound: solvers, classifier-free guidance, per-clip seeds, decoding."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from foleylib import train, vocoder
from foleylib.progress import progress


@dataclass
class System:
    """What turns a CLAP embedding into sound: the parts of a saved `diffusers.AudioLDMPipeline`, in eval mode."""

    unet: torch.nn.Module
    vae: torch.nn.Module
    vocoder: torch.nn.Module
    noise: dict  # num_train_timesteps, beta_start, beta_end

    @property
    def scale(self) -> float:
        return self.vae.config.scaling_factor

    def to(self, device) -> "System":
        for part in (self.unet, self.vae, self.vocoder):
            part.to(device)
        return self


def load(folder: Path) -> System:
    """Read a pipeline folder (models/foundation/ldm, models/foley/V)."""
    import json

    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import SpeechT5HifiGan

    if not (folder / "model_index.json").is_file():
        raise ValueError(f"{folder} holds no pipeline (model_index.json is missing); run the stage that makes it")
    noise = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    return System(
        unet=UNet2DConditionModel.from_pretrained(folder / "unet").eval().to(memory_format=torch.channels_last),
        vae=AutoencoderKL.from_pretrained(folder / "vae").eval(),
        vocoder=SpeechT5HifiGan.from_pretrained(folder / "vocoder", dtype=torch.float32).eval(),
        noise={k: noise[k] for k in ("num_train_timesteps", "beta_start", "beta_end")},
    )


def scheduler(noise: dict, solver: str):
    """DDIM as AudioLDM samples (uniform stride, offset 1), or second-order DPM-Solver++ for few steps."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    common = {**noise, "beta_schedule": "scaled_linear", "steps_offset": 1, "timestep_spacing": "leading"}
    if solver == "ddim":
        return DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **common)
    if solver == "dpm++":
        return DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2, **common)
    raise ValueError(f"solver is '{solver}', not one of ddim, dpm++")


@torch.no_grad()
def sample(system: System, condition: torch.Tensor, unconditional: torch.Tensor, shape: tuple[int, int, int], *,
           seeds: list[int], solver: str = "ddim", steps: int = 200, eta: float = 1.0, guidance: float = 2.0,
           batch_size: int = 32, show: bool = True) -> torch.Tensor:  # fmt: skip
    """Draw one latent for each row of `condition`.

    Parameters
    ----------
    condition : CLAP embeddings of unit norm [shape=(N, D)]; `unconditional` that of the empty text [shape=(D,)].
    shape : (channels, frames, bands) of a latent.
    seeds : one a clip; clip i depends on seeds[i] and its condition alone, whatever the batch.
    guidance : w of u + w (c - u); 1 needs no unconditional pass.

    Returns
    -------
    Scaled latents [shape=(N, *shape)].
    """
    if len(seeds) != len(condition):
        raise ValueError(f"{len(condition)} conditions but {len(seeds)} seeds: give each clip its own")
    parts = [slice(i, i + batch_size) for i in range(0, len(condition), batch_size)]
    bar = progress(total=len(parts) * steps, desc=f"{solver} {len(condition)} clips", disable=not show)
    latents = [
        _sample_batch(system, condition[p], unconditional, shape, seeds[p], scheduler(system.noise, solver), steps, eta,
                      guidance, bar) for p in parts
    ]  # fmt: skip
    bar.close()
    return torch.cat(latents)


def _sample_batch(system, condition, unconditional, shape, seeds, solver, steps, eta, guidance, bar) -> torch.Tensor:
    from diffusers import DDIMScheduler

    device = system.unet.device
    streams = [train.step_generator("cpu", s) for s in seeds]  # on the CPU: the same clip on any device
    z = _noise(streams, shape, device) * solver.init_noise_sigma
    condition = condition.to(device)
    both = torch.cat([unconditional.to(device).expand_as(condition), condition])  # (2B, D)
    solver.set_timesteps(steps, device=device)
    for n in solver.timesteps:
        if guidance == 1:
            eps = system.unet(z, n, None, class_labels=condition).sample
        else:
            u, c = system.unet(torch.cat([z, z]), n, None, class_labels=both).sample.chunk(2)
            eps = u + guidance * (c - u)
        extra = {}
        if isinstance(solver, DDIMScheduler):  # the only solver with noise of its own
            extra = {"eta": eta, "variance_noise": _noise(streams, shape, device) if eta > 0 else None}
        z = solver.step(eps, n, z, **extra).prev_sample
        bar.update()
    return z.cpu()


def _noise(streams: list[torch.Generator], shape: tuple, device) -> torch.Tensor:
    return torch.stack([torch.randn(shape, generator=g) for g in streams]).to(device)


@torch.no_grad()
def decode(system: System, latents: torch.Tensor, *, hop: int, batch_size: int = 32) -> torch.Tensor:
    """Scaled latents [shape=(N, C, T, F)] to waves [shape=(N, 4 T hop)], clipped to [-1, 1]."""
    return torch.cat([vocode(system, mels_of(system, part), hop=hop) for part in latents.split(batch_size)])


@torch.no_grad()
def mels_of(system: System, latents: torch.Tensor) -> torch.Tensor:
    """Scaled latents [shape=(B, C, T, F)] to log-mels [shape=(B, 1, 4 T, 4 F)]."""
    return system.vae.decode(latents.to(system.vae.device) / system.scale).sample


@torch.no_grad()
def vocode(system: System, mels: torch.Tensor, *, hop: int) -> torch.Tensor:
    """Log-mels [shape=(B, 1, frames, n_mels)] to waves [shape=(B, frames * hop)] on the CPU, clipped to [-1, 1]."""
    waves = system.vocoder(mels[:, 0])
    return vocoder.trim(waves.reshape(len(mels), -1), mels.shape[2], hop).clamp(-1, 1).cpu()


@torch.no_grad()
def reconstruct(system: System, waves: torch.Tensor, log_mel, *, batch_size: int = 32) -> torch.Tensor:
    """Real waves [shape=(N, T)] through the VAE (posterior means) and the vocoder: the codec's own floor."""
    made = []
    for part in waves.split(batch_size):
        posterior = system.vae.encode(log_mel(part.to(system.vae.device))).latent_dist
        made.append(vocode(system, system.vae.decode(posterior.mean).sample, hop=log_mel.config.hop))
    return torch.cat(made)


def clip_seeds(seed: int, clips: list[tuple[str, int]]) -> list[int]:
    """A seed for each clip (class, number within the class): more clips a class leave the first ones alone."""
    import zlib

    keys = [[seed, zlib.crc32(label.encode()), number] for label, number in clips]
    return [int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) >> 1 for key in keys]
