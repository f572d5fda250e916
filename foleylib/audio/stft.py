"""Short-time spectra: waves from magnitudes alone (Griffin-Lim), and a distance that sees what mels do not."""

import numpy as np
import torch
from torch import nn

FLOOR = 1e-5  # magnitude under the natural logarithm, as in `audio.mel`

EPSILON = 1e-16  # under the magnitudes whose phase is taken


@torch.no_grad()
def griffin_lim(
    magnitudes: torch.Tensor, *, hop: int, iterations: int = 20, momentum: float = 0.99, seed: int = 0
) -> torch.Tensor:
    """Waves [shape=(B, (frames - 1) * hop)] whose STFT magnitudes come near to those given, each from the same start.

    The fast algorithm of Perraudin et al. (2013) from random phases, equal to `librosa.griffinlim` of one clip with
    `random_state=numpy.random.default_rng(seed)`, but for a batch at once and on any device.

    Parameters
    ----------
    magnitudes : of a centred STFT with a Hann window [shape=(B, n_fft // 2 + 1, frames)].
    iterations : 20 are as good as 60 by `StftDistance` on the Foley corpus.
    momentum : 0 is the algorithm of Griffin and Lim (1984).
    """
    n_fft, (_, bins, frames) = 2 * (magnitudes.shape[1] - 1), magnitudes.shape
    window = torch.hann_window(n_fft, device=magnitudes.device)
    inside = slice(n_fft // 2, n_fft // 2 + hop * (frames - 1))  # the first and last half window are padding
    weight = _overlap_add(window.square().expand(1, frames, n_fft), hop)[:, inside]
    # Frames before bins in memory, and squares in place of complex absolutes: faster than torch's istft and stft
    # (benchmarks/griffin_lim.py).
    magnitudes = magnitudes.transpose(1, 2).contiguous()
    phases = torch.from_numpy(2 * np.pi * np.random.default_rng(seed).random((bins, frames))).to(magnitudes)
    spectra, previous = magnitudes * torch.polar(torch.ones_like(phases), phases).T, torch.zeros(())
    for _ in range(iterations):
        waves = _overlap_add(torch.fft.irfft(spectra) * window, hop)[:, inside] / weight
        padded = nn.functional.pad(waves, (n_fft // 2, n_fft // 2))
        rebuilt = torch.fft.rfft(padded.unfold(1, n_fft, hop) * window)
        spectra = torch.sub(rebuilt, previous, alpha=momentum / (1 + momentum))
        previous = rebuilt
        squares = torch.view_as_real(spectra).square()
        spectra *= magnitudes / (squares[..., 0] + squares[..., 1]).sqrt_().add_(EPSILON)
    return _overlap_add(torch.fft.irfft(spectra) * window, hop)[:, inside] / weight


def _overlap_add(frames: torch.Tensor, hop: int) -> torch.Tensor:
    """Sum of frames [shape=(B, frames, size)] a hop apart [shape=(B, at least size + (frames - 1) * hop)]."""
    apart = -(-frames.shape[2] // hop)  # frames of that distance do not overlap: they are added in one step
    length = apart * hop
    total = frames.new_zeros(len(frames), length * (-(-frames.shape[1] // apart) + 1))
    for first in range(apart):
        part = frames[:, first::apart]
        places = total[:, first * hop : first * hop + length * part.shape[1]].view(len(part), -1, length)
        places[:, :, : frames.shape[2]].add_(part)
    return total


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
