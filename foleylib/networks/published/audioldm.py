"""A whole published AudioLDM file (U-Net, its average, VAE, vocoder, CLAP) as a folder of `AudioLDMPipeline`."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from foleylib.diffusion import process
from foleylib.networks import pipeline, unet, vae, vocoder
from foleylib.networks.clap import Clap
from foleylib.networks.published import reader, weights
from foleylib.networks.published.weights import State

# First match wins: the vocoder's keys are among those of the first stage.
PREFIXES = {
    "unet": "model.diffusion_model.",
    "ema": "model_ema.",
    "vocoder": "first_stage_model.vocoder.",
    "vae": "first_stage_model.",
    "clap": "cond_stage_model.model.",
}
# The latent scale and functions of the noise schedule, of which `alphas_cumprod` is compared with ours.
BUFFERS = {
    "scale_factor",
    "logvar",
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
}
EMA_STATE = {"decay", "num_updates"}
NOISE = {"num_train_timesteps": 1000, "beta_start": 0.0015, "beta_end": 0.0195}  # scaled linear


@dataclass(frozen=True)
class Sizes:
    """The parts of a file: arguments of `unet.build`, `clap_from_laion`, `vae.build`, `vocoder.generator_config`."""

    unet: dict
    clap: object  # "tiny", "base" or a ClapConfig
    vae: dict = field(default_factory=lambda: dict(vae.PUBLISHED))
    vocoder: dict = field(default_factory=lambda: dict(vocoder.PUBLISHED["audioldm_16k"]))


PUBLISHED = {
    "audioldm-s-full": Sizes(unet.PUBLISHED["audioldm-s-full"], "tiny"),
    "audioldm-m-full": Sizes(unet.PUBLISHED["audioldm-m-full"], "base"),
    "audioldm-l-full": Sizes(unet.PUBLISHED["audioldm-l-full"], "tiny"),
}


def split(state: State, *, ignore: tuple[str, ...] = ()) -> dict[str, State]:
    """The parts "unet", "ema" (empty where the file has none), "vae", "vocoder", "clap", "buffers", prefixes taken off.

    A key of none of them is an error, unless it starts with one of `ignore`.
    """
    parts: dict[str, State] = {name: {} for name in (*PREFIXES, "buffers")}
    unknown = []
    for key, value in state.items():
        part = next((name for name, prefix in PREFIXES.items() if key.startswith(prefix)), None)
        if part is not None and not key.startswith(ignore):
            parts[part][key.removeprefix(PREFIXES[part])] = value
        elif key in BUFFERS:
            parts["buffers"][key] = value
        elif not key.startswith(ignore):
            unknown.append(key)
    if unknown:
        raise ValueError(f"unexpected keys: {', '.join(unknown)}; name them in ignore if they are no part of it")
    missing = [PREFIXES[name] for name in PREFIXES if name != "ema" and not parts[name]]
    missing += sorted({"scale_factor", "alphas_cumprod"} - parts["buffers"].keys())
    if missing:
        raise ValueError(f"missing: {', '.join(missing)}; give a whole AudioLDM file, with vocoder and CLAP")
    return parts


def averaged(ema: State, unet: State) -> State:
    """The averaged U-Net under the names of `unet`; the file stores it under those with their dots taken out."""
    names = {f"diffusion_model{key.replace('.', '')}": key for key in unet}
    stored = ema.keys() - EMA_STATE
    if stored != names.keys():
        raise ValueError(
            f"model_ema does not fit model.diffusion_model: missing {sorted(names.keys() - stored)}, "
            f"unexpected {sorted(stored - names.keys())}; convert with ema=False, or repair the file"
        )
    return {names[key]: ema[key] for key in stored}


def models(parts: dict[str, State], sizes: Sizes, *, ema: bool | None = None) -> dict[str, nn.Module]:
    """The networks "unet", "vae", "vocoder" and "clap" of the parts from `split`.

    The U-Net is the average (`ema` True), the last one (False), or the average where the file has it (None).
    """
    if ema and not parts["ema"]:
        raise ValueError("ema=True, but the file has no keys model_ema.; convert with ema=False")
    average = averaged(parts["ema"], parts["unet"]) if parts["ema"] and ema is not False else None
    return {
        "unet": weights.unet_from_original(average or parts["unet"], sizes.unet),
        "vae": weights.vae_from_original(parts["vae"], sizes.vae),
        "vocoder": weights.vocoder_from_original(parts["vocoder"], sizes.vocoder),
        "clap": weights.clap_from_laion(parts["clap"], sizes.clap),
    }


def convert_audioldm(
    ckpt_path: str | Path,
    out_folder: str | Path,
    *,
    name: str | Sizes = "audioldm-m-full",
    tokenizer: str | Path = "roberta-base",
    ema: bool | None = None,
    ignore: tuple[str, ...] = (),
) -> Path:
    """Convert a published AudioLDM .ckpt into a folder that `AudioLDMPipeline.from_pretrained` reads; returns it.

    `name` is a key of `PUBLISHED` or the `Sizes` of another file, `tokenizer` a folder or hub id of RoBERTa's;
    for `ema` see `models`, for `ignore` see `split`. The sub-folder `clap` holds the whole CLAP, text and audio, for
    `clap.load`. Nothing is written before all keys fit.
    """
    sizes = PUBLISHED.get(name) if isinstance(name, str) else name
    if sizes is None:
        raise ValueError(f"name={name!r}: give one of {', '.join(PUBLISHED)}, or Sizes")
    file = reader.read(ckpt_path)
    parts = split(file.get("state_dict", file), ignore=ignore)
    _check_schedule(parts["buffers"]["alphas_cumprod"])
    nets = models(parts, sizes, ema=ema)
    nets["vae"].register_to_config(scaling_factor=float(parts["buffers"]["scale_factor"]))
    whole = Clap(nets["clap"], read_tokenizer(tokenizer, nets["clap"]), weights.clap_extractor())
    _save(nets, whole, Path(out_folder))
    return Path(out_folder)


def _check_schedule(alphas_cumprod: torch.Tensor) -> None:
    ours = process.schedule(*NOISE.values())
    if alphas_cumprod.shape != ours.shape or not torch.allclose(alphas_cumprod.float(), ours, rtol=0, atol=1e-5):
        raise ValueError("alphas_cumprod is not AudioLDM's schedule (1000 steps, betas .0015 to .0195, scaled linear)")


def read_tokenizer(source: str | Path, model: nn.Module):
    """RoBERTa's tokenizer from a folder or the hub, cutting texts at what the model has positions for."""
    from transformers import AutoTokenizer

    tokenizer, config = AutoTokenizer.from_pretrained(source), model.config.text_config
    if len(tokenizer) != config.vocab_size:  # offline, transformers may return an empty one
        raise ValueError(
            f"tokenizer={source}: {len(tokenizer)} tokens, the model has {config.vocab_size}; give its files"
        )
    positions = config.max_position_embeddings - 2  # RoBERTa counts positions from pad + 1
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    return tokenizer


def _save(nets: dict[str, nn.Module], whole: Clap, folder: Path) -> None:
    from diffusers import AudioLDMPipeline

    AudioLDMPipeline(
        vae=nets["vae"],
        text_encoder=pipeline.text_encoder(whole.model),
        tokenizer=whole.tokenizer,
        unet=nets["unet"],
        scheduler=pipeline.scheduler(NOISE, "ddim"),
        vocoder=nets["vocoder"],
    ).save_pretrained(folder)
    whole.save(folder / "clap")
