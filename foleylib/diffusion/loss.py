"""The training loss of a latent diffusion model, and its error on held-out clips."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from foleylib.datasets.features import Latents, sample_latents, with_drawn_caption
from foleylib.diffusion.condition import Condition, denoise
from foleylib.diffusion.process import Prediction, add_noise, min_snr_weight
from foleylib.runtime import step_generator


@dataclass(frozen=True)
class DiffusionLoss:
    """E_n || eps - eps_theta(z_n, n, E) ||^2 (Eq. 1 of text-driven-foley) on cached latents, and further named terms.

    Called by the training loop as ``loss(unet, batch, generator)``, it returns {"ddpm": scalar} and, with
    `latent_clap`, {"lclap": scalar}: together, weighted, Eq. 4 of latent-clap-loss.

    A share `retrieval_dropout` (at most 1 / 3) of the clips trains without neighbours, as many others without their sound
    alone, and as many again without their captions alone.
    """

    alphas_bar: torch.Tensor
    unconditional: Condition  # one row
    scale: float  # latent scale of the VAE
    condition_dropout: float = 0.0  # share of clips that train without condition, text and retrieval together
    snr_gamma: float | None = None  # min-SNR weighting; None is the plain loss
    latent_clap: Callable[[Prediction, torch.Tensor], torch.Tensor] | None = None
    retrieval_dropout: float = 0.0

    def __call__(self, unet, batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        z_0 = sample_latents(batch["moments"], self.scale, generator)

        # Conditions are dropped once, per clip. (AudioLDM's code drops twice, 19 % in effect, and also at inference.)
        dropped = torch.rand(len(z_0), generator=generator, device=z_0.device) < self.condition_dropout
        condition = Condition.of(with_drawn_caption(batch, generator)).drop(self.unconditional, dropped)
        if self.retrieval_dropout:
            drawn, share = torch.rand(len(z_0), generator=generator, device=z_0.device), self.retrieval_dropout
            nothing = self.unconditional.retrieved()
            condition = condition.drop(nothing.only("tokens", "mask"), drawn < 2 * share)
            without_text = (drawn < share) | ((drawn >= 2 * share) & (drawn < 3 * share))
            condition = condition.drop(nothing.only("text_tokens", "text_mask"), without_text)

        eps = torch.randn(z_0.shape, generator=generator, device=z_0.device)
        n = torch.randint(len(self.alphas_bar), (len(z_0),), generator=generator, device=z_0.device)
        z_n = add_noise(z_0, eps, n, self.alphas_bar)
        estimate = denoise(unet, z_n, n, condition)

        error = (estimate - eps).square().mean(dim=(1, 2, 3))  # (B,)
        if self.snr_gamma is not None:
            error = error * min_snr_weight(n, self.alphas_bar, self.snr_gamma)
        terms = {"ddpm": error.mean()}
        if self.latent_clap is not None:
            terms["lclap"] = self.latent_clap(Prediction(z_n, n, eps, estimate), batch["audio"])
        return terms


@torch.no_grad()
def held_out_loss(
    unet, data: Latents, alphas_bar: torch.Tensor, *, levels: int = 8, seed: int = 0, batch_size: int = 64
) -> dict[str, float]:
    """The plain noise-prediction error on held-out clips, at `levels` evenly spaced steps with fixed noise."""
    total = 0.0
    for start in range(0, len(data), batch_size):
        batch = {k: v.to(unet.device) for k, v in data[np.arange(start, min(start + batch_size, len(data)))].items()}
        generator = step_generator(unet.device, seed, start)
        z_0 = sample_latents(batch["moments"], data.scale, generator)
        eps = torch.randn(z_0.shape, generator=generator, device=z_0.device)
        n = (torch.arange(len(z_0), device=z_0.device) % levels * len(alphas_bar) + len(alphas_bar) // 2) // levels
        estimate = denoise(unet, add_noise(z_0, eps, n, alphas_bar), n, Condition.of(batch))
        total += float((estimate - eps).square().mean()) * len(z_0)
    return {"ddpm": total / len(data)}


@torch.no_grad()
def errors_by_level(
    data: dict[str, Latents], unet, alphas_bar: torch.Tensor, *, levels: int = 10, seed: int = 0, limit: int = 64
) -> pd.DataFrame:
    """Noise-prediction error of `unet` at evenly spaced steps, for several sets of cached clips.

    Parameters
    ----------
    data : name -> clips; the same noise is drawn for the same clip of every set.
    limit : clips of each set that are used.

    Returns
    -------
    DataFrame [n, one column a name], mean squared error per latent element.
    """
    steps = torch.linspace(0, len(alphas_bar) - 1, levels).long()
    table = {"n": steps.tolist()}
    for name, latents in data.items():
        batch = latents[np.arange(min(limit, len(latents)))]
        z_0 = sample_latents(batch["moments"], latents.scale, step_generator("cpu", seed)).to(unet.device)
        condition, table[name] = Condition.of(batch).to(unet.device), []
        for n in steps:
            eps = torch.randn(z_0.shape, generator=step_generator("cpu", seed, int(n))).to(z_0)
            at = n.to(z_0.device).expand(len(z_0))
            estimate = denoise(unet, add_noise(z_0, eps, at, alphas_bar), at, condition)
            table[name].append(float((estimate - eps).square().mean()))
    return pd.DataFrame(table)
