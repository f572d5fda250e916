"""The diffusion process of AudioLDM: noise schedule, forward process, training losses, loss weights over steps."""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass
class Prediction:
    """One noise prediction of a training step: latents z_n [shape=(B, C, T, F)] at steps n [shape=(B,)]."""

    z_n: torch.Tensor
    n: torch.Tensor
    eps: torch.Tensor  # the noise that was added
    estimate: torch.Tensor  # eps_theta(z_n, n, E)


def schedule(steps: int = 1000, beta_start: float = 0.0015, beta_end: float = 0.0195) -> torch.Tensor:
    """alpha-bar_n [shape=(steps,)] of the scaled-linear schedule: beta_n = linspace(sqrt beta_0, sqrt beta_N) ** 2."""
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def _at(alphas_bar: torch.Tensor, n: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return alphas_bar.to(like.device)[n].view(-1, *[1] * (like.ndim - 1))


def add_noise(z_0: torch.Tensor, eps: torch.Tensor, n: torch.Tensor, alphas_bar: torch.Tensor) -> torch.Tensor:
    """z_n = sqrt(abar_n) z_0 + sqrt(1 - abar_n) eps, for latents [shape=(B, C, T, F)] and steps n [shape=(B,)]."""
    a = _at(alphas_bar, n, z_0)
    return a.sqrt() * z_0 + (1 - a).sqrt() * eps


def predict_clean(z_n: torch.Tensor, eps: torch.Tensor, n: torch.Tensor, alphas_bar: torch.Tensor) -> torch.Tensor:
    """The z_0 that a noise estimate implies: (z_n - sqrt(1 - abar_n) eps) / sqrt(abar_n)."""
    a = _at(alphas_bar, n, z_n)
    return (z_n - (1 - a).sqrt() * eps) / a.sqrt()


def min_snr_weight(n: torch.Tensor, alphas_bar: torch.Tensor, gamma: float) -> torch.Tensor:
    """min(SNR, gamma) / SNR for noise prediction, SNR = abar / (1 - abar) (Hang et al. 2023) [shape=(B,)]."""
    a = alphas_bar.to(n.device)[n]
    snr = a / (1 - a)
    return snr.clamp(max=gamma) / snr


def drop_condition(condition: torch.Tensor, unconditional: torch.Tensor, share: float, generator: torch.Generator):
    """Replace each row of `condition` [shape=(B, D)] by `unconditional` [shape=(D,)] with probability `share`.

    Applied once, per clip: AudioLDM's code drops twice, 19 % in effect, and also at inference.
    """
    drop = torch.rand(len(condition), generator=generator, device=condition.device) < share
    return torch.where(drop[:, None], unconditional.to(condition), condition)


def denoising_terms(unet, z_0: torch.Tensor, condition: torch.Tensor, alphas_bar: torch.Tensor, *,
                    generator: torch.Generator, snr_gamma: float | None = None,
                    extra: Callable[[Prediction], dict[str, torch.Tensor]] | None = None) -> dict[str, torch.Tensor]:  # fmt: skip
    """E_n || eps - eps_theta(z_n, n, E) ||^2 (Eq. 1 of text-driven-foley), each step weighted by min-SNR if given.

    Parameters
    ----------
    z_0 : scaled latents [shape=(B, C, T, F)].
    condition : CLAP embeddings of unit norm [shape=(B, D)].
    extra : further terms of the same prediction, the Latent CLAP loss, say.
    """
    eps = torch.randn(z_0.shape, generator=generator, device=z_0.device)
    n = torch.randint(len(alphas_bar), (len(z_0),), generator=generator, device=z_0.device)
    z_n = add_noise(z_0, eps, n, alphas_bar)
    estimate = unet(z_n, n, None, class_labels=condition).sample
    error = (estimate - eps).square().mean(dim=(1, 2, 3))
    if snr_gamma is not None:
        error = error * min_snr_weight(n, alphas_bar, snr_gamma)
    return {"ddpm": error.mean()} | (extra(Prediction(z_n, n, eps, estimate)) if extra else {})


@torch.no_grad()
def errors_by_level(data: dict, unet, alphas_bar: torch.Tensor, *, levels: int = 10, seed: int = 0, limit: int = 64):
    """Noise-prediction error of `unet` at evenly spaced steps, for several sets of cached clips.

    Parameters
    ----------
    data : name -> `ldm.Latents`; the same noise is drawn for the same clip of every set.
    limit : clips of each set that are used.

    Returns
    -------
    DataFrame [n, one column a name], mean squared error per latent element.
    """
    import numpy as np
    import pandas as pd

    from foleylib import train, vae

    steps = torch.linspace(0, len(alphas_bar) - 1, levels).long()
    table = {"n": steps.tolist()}
    for name, latents in data.items():
        batch = latents[np.arange(min(limit, len(latents)))]
        z_0 = vae.sample(batch["moments"], latents.scale, train.step_generator("cpu", seed)).to(unet.device)
        condition, table[name] = batch["condition"].to(unet.device), []
        for n in steps:
            eps = torch.randn(z_0.shape, generator=train.step_generator("cpu", seed, int(n))).to(z_0)
            at = n.to(z_0.device).expand(len(z_0))
            estimate = unet(add_noise(z_0, eps, at, alphas_bar), at, None, class_labels=condition).sample
            table[name].append(float((estimate - eps).square().mean()))
    return pd.DataFrame(table)
