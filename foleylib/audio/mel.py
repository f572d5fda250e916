"""Mel front ends with Slaney's filters: logarithm of magnitudes (AudioLDM) and decibels of power (PANNs, CLAP)."""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

FLOOR = 1e-5  # magnitude under the natural logarithm
AMIN = 1e-10  # power under the logarithm of decibels: -100 dB
PADDINGS = ("dataset", "center")


@dataclass(frozen=True)
class MelConfig:
    """Settings of a log-mel front end.

    The AudioLDM code pads waves in two ways, half a hop apart. "dataset" reflects (n_fft - hop) / 2 samples at
    each end, as its training data and HiFi-GAN do: T // hop frames, frame k centred at (k + 1/2) hop. "center"
    reflects n_fft / 2, as its inference front end (TacotronSTFT) does: T // hop + 1 frames, frame k at k hop.
    """

    rate: int  # Hz
    n_fft: int  # samples, also the length of the Hann window
    hop: int  # samples
    n_mels: int
    fmin: float  # Hz
    fmax: float  # Hz
    padding: str = "dataset"

    def __post_init__(self) -> None:
        if self.padding not in PADDINGS:
            raise ValueError(f"padding={self.padding!r}: give one of {PADDINGS}")
        if not 0 < self.hop <= self.n_fft or (self.n_fft - self.hop) % 2:
            raise ValueError(f"n_fft={self.n_fft}, hop={self.hop}: n_fft - hop must be even and >= 0, hop > 0")
        if not 0 <= self.fmin < self.fmax <= self.rate / 2:
            raise ValueError(f"fmin={self.fmin}, fmax={self.fmax}: give 0 <= fmin < fmax <= {self.rate / 2}")

    @property
    def pad(self) -> int:
        """Samples reflected at each end."""
        return self.n_fft // 2 if self.padding == "center" else (self.n_fft - self.hop) // 2

    def frames(self, samples: int) -> int:
        """Frames of a wave of `samples` samples."""
        return (samples + 2 * self.pad - self.n_fft) // self.hop + 1


# AudioLDM (16 kHz), HiFi-GAN LJ_V1 (22.05 kHz), SRC-gAudio (24, 32, 48 kHz, 10 ms hop at every rate).
FRONT_ENDS = {
    16000: MelConfig(rate=16000, n_fft=1024, hop=160, n_mels=64, fmin=0, fmax=8000),
    22050: MelConfig(rate=22050, n_fft=1024, hop=256, n_mels=80, fmin=0, fmax=8000),
    24000: MelConfig(rate=24000, n_fft=2048, hop=240, n_mels=64, fmin=0, fmax=12000),
    32000: MelConfig(rate=32000, n_fft=2048, hop=320, n_mels=64, fmin=0, fmax=16000),
    48000: MelConfig(rate=48000, n_fft=2048, hop=480, n_mels=64, fmin=0, fmax=24000),
}


def mel_basis(config: MelConfig) -> torch.Tensor:
    """Slaney mel filters of unit area, librosa's default [shape=(n_mels, n_fft // 2 + 1), float32]."""
    from librosa import filters

    basis = filters.mel(sr=config.rate, n_fft=config.n_fft, n_mels=config.n_mels, fmin=config.fmin, fmax=config.fmax)
    return torch.from_numpy(basis)


class _FrontEnd(nn.Module):
    """What both front ends share: filters and window as buffers, and the STFT.

    Computed in the precision of the buffers (float32 unless moved), outside autocast, on any device. TF32 matrix
    products, if the caller allows them on CUDA, cost about three digits.
    """

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("basis", mel_basis(config), persistent=False)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)

    def magnitudes(self, waves: torch.Tensor) -> torch.Tensor:
        """STFT magnitudes [shape=(B, n_fft // 2 + 1, frames)] of waves [shape=(B, T)], reflected at both ends."""
        pad, n_fft = self.config.pad, self.config.n_fft
        if waves.ndim != 2 or waves.shape[1] <= max(pad, n_fft - 2 * pad - 1):
            raise ValueError(f"waves has shape {tuple(waves.shape)}; give (B, T) with T > {pad} samples")
        padded = F.pad(waves.to(self.basis.dtype)[:, None], (pad, pad), mode="reflect")[:, 0]
        return torch.stft(
            padded,
            n_fft,
            hop_length=self.config.hop,
            window=self.window,
            center=False,
            return_complex=True,
        ).abs()


class LogMel(_FrontEnd):
    """Log-mel spectrogram of a batch of waves, differentiable also at silence.

    Parameters
    ----------
    config : MelConfig
    whole_hops : bool
        drop the frame that "center" has beyond T // hop, as AudioLDM does before the VAE
    """

    def __init__(self, config: MelConfig, *, whole_hops: bool = False) -> None:
        super().__init__(config)
        self.whole_hops = whole_hops

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        """Log-mel spectrogram.

        Parameters
        ----------
        waves : torch.Tensor [shape=(B, T)]
            at `config.rate`, in [-1, 1], with T > `config.pad`

        Returns
        -------
        torch.Tensor [shape=(B, 1, frames, n_mels)]
            natural logarithm of mel magnitudes, at least ln(1e-5) = -11.51
        """
        with torch.autocast(waves.device.type, enabled=False):
            mel = self.basis @ self.magnitudes(waves)  # (B, n_mels, frames)
            frames = waves.shape[1] // self.config.hop if self.whole_hops else mel.shape[2]
            return mel[:, :, :frames].clamp(min=FLOOR).log().transpose(1, 2)[:, None]


class DecibelMel(_FrontEnd):
    """Power mel spectrogram of a batch of waves in decibels, as PANNs and CLAP read it."""

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        """Decibels of mel power.

        Parameters
        ----------
        waves : torch.Tensor [shape=(B, T)]
            at `config.rate`, in [-1, 1], with T > `config.pad`

        Returns
        -------
        torch.Tensor [shape=(B, 1, frames, n_mels)]
            10 log10(max(mel, 1e-10)) with mel of squared magnitudes, at least -100 dB
        """
        with torch.autocast(waves.device.type, enabled=False):
            mel = self.basis @ self.magnitudes(waves).square()  # (B, n_mels, frames)
            return 10 * mel.clamp(min=AMIN).log10().transpose(1, 2)[:, None]


def front_end(rate: int, padding: str) -> LogMel:
    """The front end of this project's features: AudioLDM's at `rate` Hz, T // hop frames with either padding."""
    return LogMel(replace(FRONT_ENDS[rate], padding=padding), whole_hops=True)
