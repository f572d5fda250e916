"""AudioLDM in diffusers' format: each part read whole, checked against the settings, and put right where a known fault is.

A check that fails is a ValueError of one sentence; what was put right is told in the notes of `Parts`.
"""

from math import prod
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from foleylib.audio.mel import FRONT_ENDS
from foleylib.networks import unet, vocoder
from foleylib.networks.clap import Clap
from foleylib.networks.published.audioldm import Parts
from foleylib.networks.published.part import compare, config_of, load_part, plain, with_text_eps
from foleylib.runtime import read_object

DEFAULT_HEADS = 8  # diffusers' own, which its conversion of AudioLDM leaves at every level
DEFAULT_SCALE = 0.18215  # diffusers' own, Stable Diffusion's
NOISE = {"num_train_timesteps": "steps", "beta_start": "beta_start", "beta_end": "beta_end"}
TEXTS = ["", "a dog barks", "steady rain on a tin roof", "a man speaks while an engine runs in the distance"]
SAME_SPACE = 0.9  # least cosine of a text's embeddings by two text halves of one space
ARCHITECTURE = (
    "down_block_types",
    "up_block_types",
    "cross_attention_dim",
    "class_embed_type",
    "class_embeddings_concat",
)


def load(folder: Path, name: str, ldm, settings, *, rate: int, clap: Clap) -> Parts:
    """The parts of an AudioLDM pipeline folder with the whole `clap`, whose text half must be the folder's.

    `ldm` is a section `params.foundation.Ldm` named `name`, `settings` the section `foundation`, `rate` the corpus' in Hz.
    """
    own, head_notes = load_unet(folder / "unet", name, ldm, settings)
    return Parts(
        unet=own,
        vae=load_vae(folder / "vae", settings.vae),
        vocoder=load_vocoder(folder / "vocoder", settings.vocoder, rate),
        clap=clap,
        noise=load_noise(folder / "scheduler" / "scheduler_config.json", ldm.noise),
        notes={"unet": head_notes, "clap": text_notes(folder / "text_encoder", clap)},
    )


def load_unet(folder: Path, name: str, ldm, settings) -> tuple[nn.Module, list[str]]:
    """The U-Net, of the sizes in the settings and with their head counts, and notes."""
    from diffusers import UNet2DConditionModel

    model = load_part(UNet2DConditionModel, folder)
    with torch.device("meta"):
        right = unet.new(ldm, dim=settings.clap.dim, latent_channels=settings.vae.latent_channels, seed=0)
    sizes = {"block_out_channels": "channels", "layers_per_block": "layers", "norm_num_groups": "groups"}
    told = {key: f"{name}.{setting}" for key, setting in sizes.items()}
    told |= {"projection_class_embeddings_input_dim": "foundation.clap.dim"}
    told |= dict.fromkeys(("in_channels", "out_channels"), "foundation.vae.latent_channels")
    compare(folder, model.config, {key: (setting, right.config[key]) for key, setting in told.items()})
    others = [key for key in ARCHITECTURE if plain(model.config[key]) != plain(right.config[key])]
    if others:
        raise ValueError(f"{folder}: no U-Net of AudioLDM: {others[0]} is {plain(model.config[others[0]])}")
    notes = _heads(folder, model.config, right.config.attention_head_dim, name)
    try:
        right.load_state_dict(model.state_dict(), assign=True)
    except RuntimeError as error:
        raise ValueError(f"{folder}: no U-Net of AudioLDM, its weights have other names or shapes") from error
    return right.eval().to(memory_format=torch.channels_last), notes


def _heads(folder: Path, config, wanted: list[int], name: str) -> list[str]:
    """Notes on head counts that were put right; the first level, which has no attention, counts for nothing."""
    heads = config.get("num_attention_heads") or config["attention_head_dim"]
    heads = [heads] * len(wanted) if isinstance(heads, int) else list(heads)
    if heads[1:] == wanted[1:]:
        return []
    if set(heads[1:]) != {DEFAULT_HEADS}:
        raise ValueError(
            f"{folder}: {heads} attention heads by level, {wanted} by {name}.head_channels; set that to this model's"
        )
    return [f"its config had {DEFAULT_HEADS} attention heads at every level, diffusers' default: put right to {wanted}"]


def load_vae(folder: Path, settings) -> nn.Module:
    """The VAE of the sizes in a section `params.foundation.Vae`, whose latent scale must be stated."""
    from diffusers import AutoencoderKL

    model = load_part(AutoencoderKL, folder)
    names = {"block_out_channels": "channels", "layers_per_block": "layers", "norm_num_groups": "groups"}
    names |= {"latent_channels": "latent_channels"}
    compare(
        folder, model.config, {key: (f"foundation.vae.{own}", getattr(settings, own)) for key, own in names.items()}
    )
    stated = config_of(folder).get("scaling_factor")
    if stated is None or abs(stated - DEFAULT_SCALE) < 1e-6:
        is_default = "missing" if stated is None else f"{stated}, diffusers' default"
        raise ValueError(
            f"{folder}/config.json: scaling_factor is {is_default}, no AudioLDM's; write the model's own there (published: "
            "0.91 to 0.97), or give the original .ckpt file, which holds it"
        )
    return model


def load_vocoder(folder: Path, settings, rate: int) -> nn.Module:
    """The HiFi-GAN, for the rate and mels of the corpus and of the sizes in a section `params.foundation.Vocoder`."""
    from transformers import SpeechT5HifiGan

    return checked_vocoder(load_part(SpeechT5HifiGan, folder), str(folder), settings, rate)


def checked_vocoder(model: nn.Module, where: str, settings, rate: int) -> nn.Module:
    """The vocoder, if it is for clips at `rate` Hz and of the sizes in the settings."""
    config, front_end = model.config, FRONT_ENDS[rate]
    if config.sampling_rate != rate:
        raise ValueError(
            f"{where}: a vocoder of {config.sampling_rate} Hz; the foundation's corpus has {rate}: set its rate"
        )
    hop = prod(config.upsample_rates)
    if hop != front_end.hop or config.model_in_dim != front_end.n_mels:
        raise ValueError(
            f"{where}: made for a hop of {hop} samples and {config.model_in_dim} mel bands, the front end of {rate} Hz has "
            f"{front_end.hop} and {front_end.n_mels}; give another vocoder"
        )
    rates, kernels = vocoder.UPSAMPLING[rate]
    if settings.upsampling is not None:
        rates, kernels = settings.upsampling.rates, settings.upsampling.kernels
    wanted = {"upsample_initial_channel": ("channels", settings.channels)}
    wanted |= {"upsample_rates": ("upsampling", rates), "upsample_kernel_sizes": ("upsampling", kernels)}
    compare(
        where, config.to_dict(), {key: (f"foundation.vocoder.{own}", value) for key, (own, value) in wanted.items()}
    )
    return model


def load_noise(file: Path, settings) -> dict:
    """The noise schedule of a scheduler's config: it must be that of a section `params.foundation.Noise`."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file, but the noise schedule stands there; fetch the folder again")
    config = read_object(file, remedy="fetch the folder again")
    kinds = {"beta_schedule": "scaled_linear", "prediction_type": "epsilon"}
    odd = [key for key, value in kinds.items() if config.get(key, value if key == "prediction_type" else None) != value]
    if odd:
        raise ValueError(f"{file}: {odd[0]} is {config.get(odd[0])}, AudioLDM's {kinds[odd[0]]}; give an AudioLDM")
    return checked_noise({key: config.get(key) for key in NOISE}, str(file), settings)


def checked_noise(noise: dict, where: str, settings) -> dict:
    """The schedule, if it is that of a section `params.foundation.Noise`."""
    compare(where, noise, {key: (f"foundation.ldm.noise.{own}", getattr(settings, own)) for key, own in NOISE.items()})
    return noise


@torch.no_grad()
def text_notes(folder: Path, clap: Clap) -> list[str]:
    """Notes on how far the text half in a folder is that of a whole CLAP; one of another space is refused.

    The LDM was trained on audio embeddings of the CLAP whose text half the folder holds.
    """
    from transformers import ClapTextModelWithProjection

    alone = with_text_eps(load_part(ClapTextModelWithProjection, folder))
    shape = ("vocab_size", "projection_dim", "max_position_embeddings")
    if any(getattr(alone.config, key) != getattr(clap.model.config.text_config, key) for key in shape):
        raise ValueError(f"{folder}: of another vocabulary or dimension than the CLAP; give the CLAP of this model")
    longest = clap.tokenizer.model_max_length
    tokens = clap.tokenizer(TEXTS, padding=True, truncation=True, max_length=longest, return_tensors="pt")
    own = alone(tokens["input_ids"], attention_mask=tokens["attention_mask"]).text_embeds
    least = float(cosine_similarity(own, clap.embed_text(TEXTS)).min())
    if least < SAME_SPACE:
        raise ValueError(
            f"{folder}: the text half there and that of the CLAP embed a text with a cosine of {least:.2f}, so that their "
            "spaces differ; set foundation.clap_checkpoint to the CLAP of this model, or give the original .ckpt file"
        )
    return [] if least > 0.9999 else [f"least cosine of a text by its text half and by the pipeline's: {least:.4f}"]
