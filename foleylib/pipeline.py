"""The frozen parts around the latent diffusion model: loading them, computing features with them, saving a pipeline."""

from pathlib import Path

import torch

from foleylib import clap, features, ldm, mel, params, paths, sampling, vocoder
from foleylib.embedders import weights_sha256


def unconditional(clap_model) -> torch.Tensor:
    """The unconditional embedding of AudioLDM: CLAP's of the empty text [shape=(D,)], in training and in sampling."""
    return clap_model.embed_text([""])[0].cpu()


def make_features(corpus: str, settings: params.Params) -> Path:
    """Compute data/features/`corpus` with the foundation's VAE and CLAP."""
    parts, out = load_parts("clap", "vae"), paths.FEATURES / corpus
    models = params.fingerprint(*(weights_sha256(paths.FOUNDATION / part) for part in ("clap", "vae")))
    features.compute(paths.CLIPS / corpus, out, autoencoder=parts["vae"], clap=parts["clap"], log_mel=mel.front_end(settings.audio),
                     models=models, batch_size=settings.features.batch_size, device=settings.device)  # fmt: skip
    return out


def alphas_bar(settings: params.Params) -> torch.Tensor:
    from foleylib import diffusion

    return diffusion.schedule(**settings.foundation.ldm.noise.model_dump())


def new_unet(settings: params.Params, seed: int, size: str = "ldm"):
    """An untrained U-Net of the settings' size, or of another of `foundation.sizes`."""
    s = settings.foundation.section(size)
    return ldm.build(s.channels, s.head_channels, layers=s.layers, groups=s.groups, dim=settings.foundation.clap.dim,
                     latent_channels=settings.foundation.vae.latent_channels, seed=seed)  # fmt: skip


def load_parts(*names: str) -> dict:
    """The named parts of models/foundation ("clap", "vae", "vocoder"; all without a name), in eval mode."""
    from diffusers import AutoencoderKL

    loaders = {"clap": clap.load, "vae": lambda f: AutoencoderKL.from_pretrained(f).eval(), "vocoder": vocoder.load}
    names = names or tuple(loaders)
    absent = [name for name in names if not (paths.FOUNDATION / name / "config.json").is_file()]
    if absent:
        raise ValueError(f"models/foundation has no {', '.join(absent)}; run the stage that makes it")
    return {name: loaders[name](paths.FOUNDATION / name) for name in names}


def save_pipeline(out: Path, unet, settings: params.Params, *, clap, vae, vocoder) -> None:
    """Save a folder that `diffusers.AudioLDMPipeline.from_pretrained` loads."""
    from diffusers import AudioLDMPipeline
    from transformers import ClapTextModelWithProjection

    text = ClapTextModelWithProjection(clap.model.config.text_config)
    text.text_model.load_state_dict(clap.model.text_model.state_dict())
    text.text_projection.load_state_dict(clap.model.text_projection.state_dict())
    frames = settings.audio.samples // mel.FRONT_ENDS[settings.audio.rate].hop
    unet.register_to_config(sample_size=frames // 2 ** (len(vae.config.block_out_channels) - 1))  # the default length
    for part in (unet, vae):
        part.register_to_config(_name_or_path="")  # else the folder it was read from: the same model in any place
    noise = settings.foundation.ldm.noise
    schedule = {"num_train_timesteps": noise.steps, "beta_start": noise.beta_start, "beta_end": noise.beta_end}
    solver = sampling.scheduler(schedule, "ddim")
    AudioLDMPipeline(vae=vae, text_encoder=text.eval(), tokenizer=clap.tokenizer, unet=unet, scheduler=solver,
                     vocoder=vocoder).save_pretrained(out)  # fmt: skip


def load_unet(folder: Path):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(folder / "unet").eval()
