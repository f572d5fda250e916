"""Multi-resolution STFT distance: what embedders that read mels cannot see of a wave, its fine structure in time and
frequency."""

import torch
from torch import nn

FLOOR = 1e-5  # magnitude under the natural logarithm, as in `audio.mel`


class StftDistance(nn.Module):
    """Distance of a wave to the original it stands for (Yamamoto et al. 2020, Parallel WaveGAN), differentiable.

    Spectral convergence |S - S'| / |S| plus the mean absolute difference of log-magnitudes in nepers, averaged over
    resolutions of `sizes` samples with a quarter of that as hop. 0 for equal waves; it knows nothing of phase as such,
    but several resolutions agree only where the wave does.
    """

    def __init__(self, sizes: tuple[int, ...] = (512, 1024, 2048)) -> None:
        super().__init__()
        self.sizes = sizes
        for size in sizes:
            self.register_buffer(f"window{size}", torch.hann_window(size), persistent=False)

    def magnitudes(self, waves: torch.Tensor, size: int) -> torch.Tensor:
        """STFT magnitudes [shape=(B, size // 2 + 1, frames)] of waves [shape=(B, T)], at least 1e-5."""
        window = getattr(self, f"window{size}")
        spectrum = torch.stft(waves.to(window.dtype), size, size // 4, window=window, return_complex=True)
        return (spectrum.real.square() + spectrum.imag.square()).clamp(min=FLOOR**2).sqrt()

    def forward(self, waves: torch.Tensor, originals: torch.Tensor) -> torch.Tensor:
        """Distance of each wave [shape=(B, T), T > the half of the largest size] to its original [shape=(B,)]."""
        total = 0.0
        with torch.autocast(waves.device.type, enabled=False):
            for size in self.sizes:
                S, S_original = self.magnitudes(waves, size), self.magnitudes(originals, size)
                convergence = (S - S_original).flatten(1).norm(dim=1) / S_original.flatten(1).norm(dim=1)
                total = total + convergence + (S.log() - S_original.log()).abs().mean(dim=(1, 2))
        return total / len(self.sizes)
