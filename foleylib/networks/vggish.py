"""VGGish (Hershey et al. 2017), the embedding behind FAD, with the two conventions that papers use.

Parameter names are those of the torchvggish checkpoint. No PCA and no quantisation follow the network.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

RATE, WINDOW, HOP, N_FFT = 16000, 400, 160, 512  # Hz, samples
N_MELS, FMIN, FMAX, LOG_OFFSET = 64, 125.0, 7500.0, 0.01
FRAMES = 96  # per example, 0.96 s
PEAK_FLOOR = 0.1 / 32768  # the challenge's floor of 0.1 is on the integers of a 16-bit file, which it does not scale
LAYERS = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool")


@dataclass(frozen=True)
class VggishConvention:
    """How a clip becomes examples of 0.96 s.

    VGGish always reads samples as if at 16 kHz; `rate` says at which rate the clip must be handed in.
    """

    rate: int = RATE  # Hz
    window: int | None = None  # samples of an analysis window, one example each; None: the whole clip at once
    window_hop: int | None = None  # samples between windows
    relu: bool = False  # end with the last ReLU, as torchvggish does
    remove_mean: bool = False
    divide_by_peak: bool = False  # by the largest positive sample, or PEAK_FLOOR
    min_samples: int = 0  # shorter clips are padded with zeros

    @property
    def least(self) -> int:
        """Samples that a clip must have."""
        example = WINDOW + (FRAMES - 1) * HOP
        return self.window or (1 if self.min_samples >= example else example)


# audioldm_eval: 16 kHz, consecutive windows of 0.96 s, pre-activation.
FAD_16K = VggishConvention(remove_mean=True, min_samples=32000)
# DCASE 2023 Task 7: 22.05 kHz samples read as 16 kHz, windows of 16000 samples every 8000, pre-activation.
FAD_DCASE = VggishConvention(rate=22050, window=16000, window_hop=8000, divide_by_peak=True)


def mel_filters() -> torch.Tensor:
    """Triangles of unit height, linear in mel = 1127 ln(1 + f / 700) [shape=(N_FFT // 2 + 1, N_MELS), float32]."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        num_frequency_bins=N_FFT // 2 + 1,
        num_mel_filters=N_MELS,
        min_frequency=FMIN,
        max_frequency=FMAX,
        sampling_rate=RATE,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    return torch.from_numpy(filters.astype(np.float32))


class Examples(nn.Module):
    """Waves at 16 kHz to log-mel examples: (B, T) -> (B, E, 96, 64), what is left at the end dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", mel_filters(), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        with torch.autocast(waves.device.type, enabled=False):
            frames = waves.to(self.window.dtype).unfold(1, WINDOW, HOP) * self.window  # (B, frames, 400)
            log_mel = (torch.fft.rfft(frames, N_FFT).abs() @ self.filters + LOG_OFFSET).log()
        examples = log_mel.shape[1] // FRAMES
        return log_mel[:, : examples * FRAMES].reshape(len(waves), examples, FRAMES, N_MELS)


def convolutions() -> nn.Sequential:
    """VGG layers (B, 1, 96, 64) -> (B, 512, 6, 4), numbered as in the checkpoint."""
    layers, width = [], 1
    for layer in LAYERS:
        if layer == "pool":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(width, layer, 3, padding=1), nn.ReLU()]
            width = layer
    return nn.Sequential(*layers)


class Vggish(nn.Module):
    """Waves to 128-d embeddings of their windows."""

    def __init__(self, convention: VggishConvention = FAD_16K) -> None:
        super().__init__()
        self.convention = convention
        self.examples = Examples()
        self.features = convolutions()
        self.embeddings = nn.Sequential(
            nn.Linear(512 * 6 * 4, 4096),
            nn.ReLU(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, 128),
            nn.ReLU(),
        )

    def prepare(self, waves: torch.Tensor) -> torch.Tensor:
        """Level, offset, length and windows of the convention: (B, T) -> (B * windows, samples)."""
        c = self.convention
        if waves.ndim != 2 or waves.shape[1] < c.least:
            raise ValueError(f"waves has shape {tuple(waves.shape)}; give (B, T) with T >= {c.least} at {c.rate} Hz")
        if c.remove_mean:
            waves = waves - waves.mean(dim=1, keepdim=True)
        if c.divide_by_peak:
            waves = waves / waves.amax(dim=1, keepdim=True).clamp(min=PEAK_FLOOR)
        waves = nn.functional.pad(waves, (0, max(0, c.min_samples - waves.shape[1])))
        if c.window is None:
            return waves
        return waves.unfold(1, c.window, c.window_hop).flatten(0, 1)  # (B * windows, window)

    def embed_examples(self, examples: torch.Tensor) -> torch.Tensor:
        """Log-mel examples (N, 96, 64) to embeddings (N, 128)."""
        maps = self.features(examples[:, None])  # (N, 512, 6, 4)
        rows = maps.permute(0, 2, 3, 1).flatten(1)  # TensorFlow's order: time, band, channel
        return self.embeddings(rows) if self.convention.relu else self.embeddings[:-1](rows)

    def forward(self, waves: torch.Tensor) -> dict[str, torch.Tensor]:
        """Waves [shape=(B, T)] at `convention.rate`, in [-1, 1], to "embedding" [shape=(B, W, 128)] of W windows.

        FAD_16K has W = floor((T - 240) / 15360) windows of a clip of at least 2 s, FAD_DCASE
        W = floor((T - 16000) / 8000) + 1, which is 10 for the 4 s of DCASE 2023 Task 7.
        """
        examples = self.examples(self.prepare(waves))
        return {"embedding": self.embed_examples(examples.flatten(0, 1)).unflatten(0, (len(waves), -1))}
