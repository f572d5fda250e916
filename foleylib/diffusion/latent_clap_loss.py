"""The Latent CLAP loss of Karchkhadze et al. (latent-clap-loss, Section III.D): a distance in CLAP's audio space."""

from dataclasses import dataclass

import torch

from foleylib.diffusion.process import Prediction, add_noise, predict_clean


def weight(n, decay: float = 200.0):
    """w(n) = 10^(-n / decay) of diffusion steps n, Section IV.B."""
    return 10.0 ** (-n / decay)


def output_at(prediction: Prediction, alphas_bar: torch.Tensor, s_n: str) -> torch.Tensor:
    """s_n, what the LDM puts out at step n, with its gradient to the noise estimate [shape=(B, C, T, F)].

    The paper leaves s_n open. "clean" is the clean latent that the estimate implies; "previous" the step n - 1 that
    DDIM without noise of its own makes of it, whose gradient is a hundredth of that (signal and noise move against
    each other); "noisy" the clean latent with the noise of step n added again (z_n itself holds no gradient).
    """
    clean = predict_clean(prediction.z_n, prediction.estimate, prediction.n, alphas_bar)
    if s_n == "clean":
        return clean
    if s_n == "noisy":
        return add_noise(clean, prediction.eps, prediction.n, alphas_bar)
    if s_n == "previous":
        before = torch.cat([alphas_bar.new_ones(1), alphas_bar[:-1]])  # abar_(n - 1), 1 at the last step
        return add_noise(clean, prediction.estimate, prediction.n, before)
    raise ValueError(f"s_n={s_n!r}: give 'clean', 'previous' or 'noisy'")


@dataclass(frozen=True)
class LatentClapLoss:
    """E_n[w(n) ||E_audio - E_latent,n||^2], Eq. 3, in float32 under autocast too.

    Called as ``loss(prediction, E_audio)`` with the CLAP audio embeddings of the real clips [shape=(B, D), unit norm],
    it returns a scalar. Over the D dimensions the error is a "mean" or a "sum", over the batch it is the mean.
    """

    encoder: torch.nn.Module  # a frozen `networks.latent_clap.LatentClap`
    alphas_bar: torch.Tensor
    s_n: str = "clean"
    decay: float = 200.0  # steps over which w(n) falls to a tenth
    reduction: str = "mean"

    def __post_init__(self):
        if self.reduction not in ("mean", "sum"):
            raise ValueError(f"reduction={self.reduction!r}: give 'mean' or 'sum'")

    def __call__(self, prediction: Prediction, E_audio: torch.Tensor) -> torch.Tensor:
        if self.encoder.training:
            raise ValueError("encoder is in training mode, its batch statistics would move; call encoder.eval()")
        with torch.autocast(prediction.z_n.device.type, enabled=False):
            exact = Prediction(
                prediction.z_n.float(), prediction.n, prediction.eps.float(), prediction.estimate.float()
            )
            E_latent = self.encoder(output_at(exact, self.alphas_bar, self.s_n))
            error = (E_audio.float() - E_latent).square()  # (B, D)
            error = error.mean(dim=1) if self.reduction == "mean" else error.sum(dim=1)
            return (weight(prediction.n, self.decay) * error).mean()
