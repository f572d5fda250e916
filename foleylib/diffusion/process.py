"""The diffusion process of AudioLDM: noise schedule, forward process, the clean latent that an estimate implies."""

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


def log_snr_steps(alphas_bar: torch.Tensor, count: int, *, first: float = 0.9, last: float = 0.005) -> list[int]:
    """`count` diffusion steps, noisiest first, uniform in log-SNR; fewer where two would fall on one step.

    They go from `first` to `last`, shares of the process: so near its end hardly anything is left of a clip, and so near
    its start hardly any noise. (Lu et al. 2022 space the steps of few likewise, from the very end to the very start.)
    """
    log_snr = torch.logit(alphas_bar.double())  # ln abar / (1 - abar), falling
    ends = [min(len(alphas_bar) - 1, round(share * len(alphas_bar))) for share in (first, last)]
    wanted = torch.linspace(*log_snr[ends].tolist(), count, dtype=torch.float64)
    nearest = (log_snr[None, :] - wanted[:, None]).abs().argmin(dim=1)
    return nearest.unique(sorted=True).flip(0).tolist()


def add_noise(z_0: torch.Tensor, eps: torch.Tensor, n: torch.Tensor, alphas_bar: torch.Tensor) -> torch.Tensor:
    """z_n = sqrt(abar_n) z_0 + sqrt(1 - abar_n) eps, for latents [shape=(B, C, T, F)] and steps n [shape=(B,)]."""
    a = _at(alphas_bar, n, z_0)
    return a.sqrt() * z_0 + (1 - a).sqrt() * eps


def predict_clean(z_n: torch.Tensor, eps: torch.Tensor, n: torch.Tensor, alphas_bar: torch.Tensor) -> torch.Tensor:
    """The z_0 that a noise estimate implies: (z_n - sqrt(1 - abar_n) eps) / sqrt(abar_n)."""
    a = _at(alphas_bar, n, z_n)
    return (z_n - (1 - a).sqrt() * eps) / a.sqrt()


def _at(alphas_bar: torch.Tensor, n: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return alphas_bar.to(like.device)[n].view(-1, *[1] * (like.ndim - 1))


def min_snr_weight(n: torch.Tensor, alphas_bar: torch.Tensor, gamma: float) -> torch.Tensor:
    """min(SNR, gamma) / SNR for noise prediction, SNR = abar / (1 - abar) (Hang et al. 2023) [shape=(B,)]."""
    a = alphas_bar.to(n.device)[n]
    snr = a / (1 - a)
    return snr.clamp(max=gamma) / snr
