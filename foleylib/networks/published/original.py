"""What stands in an original AudioLDM file: the keys of its parts."""

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
