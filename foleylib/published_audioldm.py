"""A whole published AudioLDM file (U-Net, its average, VAE, vocoder, CLAP) as a folder of `AudioLDMPipeline`."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from foleylib import clap, diffusion, ldm, published, sampling, vae, vocoder
from foleylib.published import State

# First match wins: the vocoder's keys are among those of the first stage.
PREFIXES = {
    "unet": "model.diffusion_model.",
    "ema": "model_ema.",
    "vocoder": "first_stage_model.vocoder.",
    "vae": "first_stage_model.",
    "clap": "cond_stage_model.model.",
}
# Functions of the schedule, of which `alphas_cumprod` is compared with ours.
BUFFERS = {
    "scale_factor", "logvar", "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1",
    "posterior_mean_coef2",
}  # fmt: skip
EMA_STATE = {"decay", "num_updates"}
NOISE = {"num_train_timesteps": 1000, "beta_start": 0.0015, "beta_end": 0.0195}  # scaled linear


@dataclass(frozen=True)
class Sizes:
    """The parts of a file: arguments of `ldm.build`, `vae.build`, `vocoder.generator_config`, `clap_from_laion`."""

    unet: dict
    clap: object  # "tiny", "base" or a ClapConfig
    vae: dict = field(default_factory=lambda: dict(vae.PUBLISHED))
    vocoder: dict = field(default_factory=lambda: dict(vocoder.PUBLISHED["audioldm_16k"]))


PUBLISHED = {
    "audioldm-s-full": Sizes(ldm.PUBLISHED["audioldm-s-full"], "tiny"),
    "audioldm-m-full": Sizes(ldm.PUBLISHED["audioldm-m-full"], "base"),
    "audioldm-l-full": Sizes(ldm.PUBLISHED["audioldm-l-full"], "tiny"),
}


def split(state: State, *, ignore: tuple[str, ...] = ()) -> dict[str, State]:
    """The parts "unet", "ema" (empty where the file has none), "vae", "vocoder", "clap", "buffers", prefixes taken off.

    Parameters
    ----------
    ignore : prefixes of keys to leave out, for files with parts that generation does not need.

    Raises
    ------
    ValueError
        if a key belongs to none of them, or a part has no keys
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
    """The averaged U-Net under the names of `unet`; the file stores it under those with their dots taken out.

    Raises
    ------
    ValueError
        if the two differ in their keys
    """
    names = {f"diffusion_model{key.replace('.', '')}": key for key in unet}
    stored = ema.keys() - EMA_STATE
    if stored != names.keys():
        raise ValueError(
            f"model_ema does not fit model.diffusion_model: missing {sorted(names.keys() - stored)}, "
            f"unexpected {sorted(stored - names.keys())}; convert with ema=False, or repair the file"
        )
    return {names[key]: ema[key] for key in stored}


def models(parts: dict[str, State], sizes: Sizes, *, ema: bool | None = None) -> dict[str, torch.nn.Module]:
    """The networks "unet", "vae", "vocoder" and "clap" of the parts from `split`.

    Parameters
    ----------
    ema : use the averaged U-Net (True), the last one (False), or the averaged where the file has it (None).

    Raises
    ------
    ValueError
        if a key is missing, unexpected or of another shape, or `ema` is True and the file has no average
    """
    if ema and not parts["ema"]:
        raise ValueError("ema=True, but the file has no keys model_ema.; convert with ema=False")
    average = averaged(parts["ema"], parts["unet"]) if parts["ema"] and ema is not False else None
    return {
        "unet": published.unet_from_original(average or parts["unet"], sizes.unet),
        "vae": published.vae_from_original(parts["vae"], sizes.vae),
        "vocoder": vocoder.from_original_state_dict(parts["vocoder"], vocoder.generator_config(**sizes.vocoder)),
        "clap": published.clap_from_laion(parts["clap"], sizes.clap),
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
    """Convert a published AudioLDM .ckpt into a folder that `AudioLDMPipeline.from_pretrained` reads.

    Its sub-folder `clap` holds the whole CLAP, text and audio, for `clap.load`. Nothing is written before all keys fit.

    Parameters
    ----------
    ckpt_path : the file, with its weights under "state_dict".
    name : a key of `PUBLISHED`, or the `Sizes` of another file.
    tokenizer : folder or hub id of RoBERTa's tokenizer.
    ema : see `models`.
    ignore : see `split`.

    Returns
    -------
    `out_folder`

    Raises
    ------
    ValueError
        if keys, shapes, the noise schedule or the tokenizer do not fit
    """
    sizes = PUBLISHED.get(name) if isinstance(name, str) else name
    if sizes is None:
        raise ValueError(f"name={name!r}: give one of {', '.join(PUBLISHED)}, or Sizes")
    file = published.read(ckpt_path)
    parts = split(file.get("state_dict", file), ignore=ignore)
    _check_schedule(parts["buffers"]["alphas_cumprod"])
    nets = models(parts, sizes, ema=ema)
    nets["vae"].register_to_config(scaling_factor=float(parts["buffers"]["scale_factor"]))
    whole = clap.Clap(nets["clap"], read_tokenizer(tokenizer, nets["clap"]), published.clap_extractor())
    _save(nets, whole, Path(out_folder))
    return Path(out_folder)


def _check_schedule(alphas_cumprod: torch.Tensor) -> None:
    ours = diffusion.schedule(*NOISE.values())
    if alphas_cumprod.shape != ours.shape or not torch.allclose(alphas_cumprod.float(), ours, rtol=0, atol=1e-5):
        raise ValueError("alphas_cumprod is not AudioLDM's schedule (1000 steps, betas .0015 to .0195, scaled linear)")


def read_tokenizer(source: str | Path, model):
    """RoBERTa's tokenizer from a folder or the hub, cutting texts at what the model has positions for.

    Raises
    ------
    ValueError
        if it does not have the size of the model's vocabulary (offline, transformers may return an empty one)
    """
    from transformers import AutoTokenizer

    tokenizer, config = AutoTokenizer.from_pretrained(source), model.config.text_config
    if len(tokenizer) != config.vocab_size:
        raise ValueError(
            f"tokenizer={source}: {len(tokenizer)} tokens, the model has {config.vocab_size}; give its files"
        )
    positions = config.max_position_embeddings - 2  # RoBERTa counts positions from pad + 1
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    return tokenizer


def text_encoder(model):
    """The text half of a `ClapModel`, as `ClapTextModelWithProjection`; the weights are shared."""
    from transformers import ClapTextModelWithProjection

    text = {key: value for key, value in model.state_dict().items() if key.startswith("text_")}
    with torch.device("meta"):
        encoder = ClapTextModelWithProjection(model.config.text_config)
    encoder.load_state_dict(text, assign=True)
    return encoder.eval()


def _save(nets: dict, whole: clap.Clap, folder: Path) -> None:
    from diffusers import AudioLDMPipeline

    AudioLDMPipeline(
        vae=nets["vae"],
        text_encoder=text_encoder(whole.model),
        tokenizer=whole.tokenizer,
        unet=nets["unet"],
        scheduler=sampling.scheduler(NOISE, "ddim"),
        vocoder=nets["vocoder"],
    ).save_pretrained(folder)
    whole.save(folder / "clap")
