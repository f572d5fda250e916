"""The encoder of AudioMAE (Xu et al. 2022): clips at 16 kHz to a grid of features over time and frequency."""

import warnings

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

# What AudioLDM 2's code reads it with: 10.24 s, as 1024 frames of 10 ms and 128 mel bands in patches of 16 by 16.
RATE, SAMPLES, FRAMES, N_MELS, PATCH = 16000, 163840, 1024, 128, 16
WINDOW, HOP, N_FFT, FMIN, FMAX = 400, 160, 512, 20.0, 8000.0  # samples, Hz
PREEMPHASIS, FLOOR = 0.97, torch.finfo(torch.float32).eps  # Kaldi's
MEAN, STD = -4.2677393, 4.5689974  # of the log-mels of AudioSet
PUBLISHED = {"dim": 768, "depth": 12, "heads": 12}  # ViT-B
CONTEXTUAL = 3  # the last blocks, whose mean is taken


def mel_filters() -> torch.Tensor:
    """Kaldi's triangles of unit height [shape=(N_FFT // 2 + 1, N_MELS), float32]."""
    from transformers.audio_utils import mel_filter_bank

    options = {"norm": None, "mel_scale": "kaldi", "triangularize_in_mel_space": True}
    with warnings.catch_warnings():  # of the lowest bands some lie between two bins, in AudioMAE's training too
        warnings.filterwarnings("ignore", "At least one mel filter")
        filters = mel_filter_bank(N_FFT // 2 + 1, N_MELS, FMIN, FMAX, RATE, **options)
    return torch.from_numpy(filters.astype(np.float32))


class Fbank(nn.Module):
    """Kaldi's log-mel filter bank as AudioMAE reads it: (B, T) -> (B, 1, 1024, 128).

    The wave is cut or filled with zeros to 10.24 s and its mean taken off. Each frame of 25 ms loses its own mean and is
    pre-emphasised before the Hann window; frames that are lacking at the end are zeros in the logarithm.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", mel_filters(), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW, periodic=False), persistent=False)

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        if waves.ndim != 2 or not waves.shape[1]:
            raise ValueError(f"waves has shape {tuple(waves.shape)}; give (B, T) with T >= 1")
        with torch.autocast(waves.device.type, enabled=False):
            waves = waves.to(self.window.dtype)[:, :SAMPLES]
            waves = F.pad(waves, (0, SAMPLES - waves.shape[1]))
            frames = (waves - waves.mean(dim=1, keepdim=True)).unfold(1, WINDOW, HOP)  # (B, frames, 400)
            frames = frames - frames.mean(dim=2, keepdim=True)
            before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
            power = torch.fft.rfft((frames - PREEMPHASIS * before) * self.window, N_FFT).abs().square()
            log_mel = (power @ self.filters).clamp(min=FLOOR).log()  # (B, frames, 128)
            log_mel = F.pad(log_mel, (0, 0, 0, FRAMES - log_mel.shape[1]))
            return ((log_mel - MEAN) / (2 * STD))[:, None]


def vit(dim: int, depth: int, heads: int):
    """The encoder as a `transformers.ViTModel`; its table of positions is a weight, as in the checkpoint."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=dim,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * dim,
        image_size=(FRAMES, N_MELS),
        patch_size=PATCH,
        num_channels=1,
        layer_norm_eps=1e-6,
    )
    return ViTModel(config, add_pooling_layer=False)


class AudioMae(nn.Module):
    """Front end and encoder together; reads clips at `rate` Hz, of which the first 10.24 s count."""

    rate = RATE

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.front_end, self.encoder = Fbank(), encoder

    @property
    def dim(self) -> int:
        return self.encoder.config.hidden_size

    def sequence(self, fbank: torch.Tensor) -> torch.Tensor:
        """Mean of the last three blocks' outputs after the final LayerNorm [shape=(B, 1 + 512, C)], the class token
        first, of log-mels [shape=(B, 1, 1024, 128)]."""
        states = self.encoder(fbank, output_hidden_states=True).hidden_states[-CONTEXTUAL:]
        return torch.stack([self.encoder.layernorm(state) for state in states]).mean(dim=0)

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        """Features [shape=(B, 64, 8, C)] over time and mel of waves [shape=(B, T)] at 16 kHz, in [-1, 1]."""
        patches = self.sequence(self.front_end(waves))[:, 1:]  # time by time, the lowest bands first
        return patches.unflatten(1, (FRAMES // PATCH, N_MELS // PATCH))
