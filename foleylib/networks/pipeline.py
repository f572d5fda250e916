"""The parts of a latent diffusion model together, on disk as a `diffusers.AudioLDMPipeline`, and what decodes latents."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from foleylib.audio.mel import LogMel
from foleylib.diffusion.process import log_snr_steps
from foleylib.networks import clap as claps
from foleylib.networks import rates
from foleylib.networks import vae as vaes
from foleylib.networks import vocoder as vocoders


@dataclass
class Pipeline:
    """What turns a CLAP embedding into sound: the parts of a saved `diffusers.AudioLDMPipeline`, in eval mode."""

    unet: torch.nn.Module
    vae: torch.nn.Module
    vocoder: torch.nn.Module
    noise: dict  # num_train_timesteps, beta_start, beta_end

    @property
    def scale(self) -> float:
        """Latent scale of the VAE."""
        return self.vae.config.scaling_factor

    def to(self, device) -> "Pipeline":
        for part in (self.unet, self.vae, self.vocoder):
            part.to(device)
        return self


def load(folder: Path) -> Pipeline:
    """Read a pipeline folder (models/foundation/ldm, models/systems/NAME/SEED)."""
    if not (folder / "model_index.json").is_file():
        raise ValueError(f"{folder} holds no pipeline (model_index.json is missing); run the stage that makes it")
    noise = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    return Pipeline(
        unet=rates.load(folder),
        vae=vaes.load(folder / "vae"),
        vocoder=vocoders.load(folder / "vocoder"),
        noise={k: noise[k] for k in ("num_train_timesteps", "beta_start", "beta_end")},
    )


def prompts_of(folder: Path) -> dict[str, str] | None:
    """The prompts that a model was fine-tuned with, label -> text; None where its folder has none."""
    file = folder / "prompts.json"
    return json.loads(file.read_text()) if file.is_file() else None


def load_parts(foundation: Path, *names: str) -> dict:
    """The named frozen parts of models/foundation ("clap", "vae", "vocoder"; all without a name), in eval mode."""
    loaders = {"clap": claps.load, "vae": vaes.load, "vocoder": vocoders.load}
    names = names or tuple(loaders)
    absent = [name for name in names if not (foundation / name / "config.json").is_file()]
    if absent:
        raise ValueError(f"{foundation} has no {', '.join(absent)}; run the stage that makes it")
    return {name: loaders[name](foundation / name) for name in names}


def save(folder: Path, unet, noise, *, frames: int, clap: claps.Clap, vae, vocoder) -> None:
    """Write a folder that `diffusers.AudioLDMPipeline.from_pretrained` reads.

    `noise` is a section `params.foundation.Noise`; `frames` are the mel frames of a clip, the pipeline's default length.
    """
    from diffusers import AudioLDMPipeline

    unet.register_to_config(sample_size=frames // vae_ratio(vae))
    schedule = {"num_train_timesteps": noise.steps, "beta_start": noise.beta_start, "beta_end": noise.beta_end}
    claps.forget_calls(clap.tokenizer)
    AudioLDMPipeline(
        vae=vae,
        text_encoder=text_encoder(clap.model),
        tokenizer=clap.tokenizer,
        unet=unet,
        scheduler=scheduler(schedule, "ddim"),
        vocoder=vocoder,
    ).save_pretrained(folder)


def text_encoder(model):
    """The text half of a `ClapModel` as `ClapTextModelWithProjection`; the weights are shared."""
    from transformers import ClapTextModelWithProjection

    text = {key: value for key, value in model.state_dict().items() if key.startswith("text_")}
    with torch.device("meta"):
        encoder = ClapTextModelWithProjection(model.config.text_config)
    encoder.load_state_dict(text, assign=True)
    return encoder.eval()


def scheduler(noise: dict, solver: str):
    """DDIM as AudioLDM samples (uniform stride, offset 1), or second-order DPM-Solver++ for few steps."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    common = {**noise, "beta_schedule": "scaled_linear", "timestep_spacing": "leading", "steps_offset": 1}
    if solver == "ddim":
        return DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **common)
    if solver == "dpm++":
        return DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2, **common)
    raise ValueError(f"solver is '{solver}', not one of ddim, dpm++")


def set_steps(solver, count: int, spacing: str, device="cpu") -> None:
    """Give a `scheduler` its steps: uniform in n, the cleanest left out ("leading"), or of DPM-Solver++ "log_snr".

    Of few leading steps the last lies far from the data: 91 of 1,000 in ten. `diffusion.process.log_snr_steps` end near it.
    """
    from diffusers import DPMSolverMultistepScheduler

    if spacing == "log_snr" and isinstance(solver, DPMSolverMultistepScheduler):
        solver.set_timesteps(timesteps=log_snr_steps(solver.alphas_cumprod, count), device=device)
    else:
        solver.set_timesteps(count, device=device)


def vae_ratio(vae) -> int:
    """Mel frames (and bands) behind one cell of a latent."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def latent_shape(vae, log_mel: LogMel, samples: int) -> tuple[int, int, int]:
    """(channels, frames, bands) of the latent of a clip of `samples` samples."""
    config, ratio = log_mel.config, vae_ratio(vae)
    return vae.config.latent_channels, samples // config.hop // ratio, config.n_mels // ratio


@torch.no_grad()
def decode(pipeline: Pipeline, latents: torch.Tensor, *, hop: int, batch_size: int = 32) -> torch.Tensor:
    """Scaled latents [shape=(N, C, T, F)] to waves [shape=(N, 4 T hop)] on the CPU, clipped to [-1, 1]."""
    return torch.cat([vocode(pipeline, decode_mels(pipeline, part), hop=hop) for part in latents.split(batch_size)])


@torch.no_grad()
def decode_mels(pipeline: Pipeline, latents: torch.Tensor) -> torch.Tensor:
    """Scaled latents [shape=(B, C, T, F)] to log-mels [shape=(B, 1, 4 T, 4 F)]."""
    return pipeline.vae.decode(latents.to(pipeline.vae.device) / pipeline.scale).sample


@torch.no_grad()
def vocode(pipeline: Pipeline, mels: torch.Tensor, *, hop: int) -> torch.Tensor:
    """Log-mels [shape=(B, 1, frames, n_mels)] to waves [shape=(B, frames * hop)] on the CPU, clipped to [-1, 1]."""
    waves = pipeline.vocoder(mels[:, 0])
    return vocoders.trim(waves.reshape(len(mels), -1), mels.shape[2], hop).clamp(-1, 1).cpu()


@torch.no_grad()
def reconstruct(pipeline: Pipeline, waves: torch.Tensor, log_mel: LogMel, *, batch_size: int = 32) -> torch.Tensor:
    """Real waves [shape=(N, T)] through the VAE (posterior means) and the vocoder: the codec's own floor."""
    parts = []
    for part in waves.split(batch_size):
        mels = vaes.reconstruct(pipeline.vae, log_mel(part.to(pipeline.vae.device)))
        parts.append(vocode(pipeline, mels, hop=log_mel.config.hop))
    return torch.cat(parts)
