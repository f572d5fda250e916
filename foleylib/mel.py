"""Log-mel front ends: magnitude STFT, Slaney mel filters, ln(max(x, 1e-5))."""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

FLOOR = 1e-5  # clamp under the logarithm
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

    def __post_init__(self):
        if self.padding not in PADDINGS:
            raise ValueError(f"padding={self.padding!r}: give one of {PADDINGS}")
        if not 0 < self.hop <= self.n_fft or (self.n_fft - self.hop) % 2:
            raise ValueError(f"n_fft={self.n_fft}, hop={self.hop}: n_fft - hop must be even and >= 0, hop > 0")
        if not 0 <= self.fmin < self.fmax <= self.rate / 2:
            raise ValueError(f"fmin={self.fmin}, fmax={self.fmax}: give 0 <= fmin < fmax <= {self.rate / 2}")

    @property
    def pad(self):
        """Samples reflected at each end."""
        return self.n_fft // 2 if self.padding == "center" else (self.n_fft - self.hop) // 2

    def frames(self, samples):
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


def mel_basis(config):
    """Slaney mel filters of unit area, librosa's default [shape=(n_mels, n_fft // 2 + 1), float32]."""
    from librosa import filters

    basis = filters.mel(sr=config.rate, n_fft=config.n_fft, n_mels=config.n_mels, fmin=config.fmin, fmax=config.fmax)
    return torch.from_numpy(basis)


class LogMel(nn.Module):
    """Log-mel spectrogram of a batch of waves, on any device, differentiable also at silence.

    Computed in the precision of its buffers (float32 unless moved), outside autocast. TF32 matrix products, if
    the caller allows them on CUDA, cost about three digits.

    Parameters
    ----------
    config : MelConfig
    whole_hops : bool
        drop the frame that "center" has beyond T // hop, as AudioLDM does before the VAE
    """

    def __init__(self, config, *, whole_hops=False):
        super().__init__()
        self.config, self.whole_hops = config, whole_hops
        self.register_buffer("basis", mel_basis(config), persistent=False)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)

    def forward(self, waves):
        """Log-mel spectrogram.

        Parameters
        ----------
        waves : torch.Tensor [shape=(B, T)]
            at `config.rate`, in [-1, 1]

        Returns
        -------
        torch.Tensor [shape=(B, 1, frames, n_mels)]
            natural logarithm of mel magnitudes, at least ln(1e-5) = -11.51

        Raises
        ------
        ValueError
            if `waves` is not (B, T) or is too short for reflect padding
        """
        pad = self.config.pad
        if waves.ndim != 2 or waves.shape[1] <= max(pad, self.config.n_fft - 2 * pad - 1):
            raise ValueError(f"waves has shape {tuple(waves.shape)}; give (B, T) with T > {pad} samples")
        with torch.autocast(waves.device.type, enabled=False):
            padded = F.pad(waves.to(self.basis.dtype)[:, None], (pad, pad), mode="reflect")[:, 0]
            spectrum = torch.stft(
                padded,
                self.config.n_fft,
                hop_length=self.config.hop,
                window=self.window,
                center=False,
                return_complex=True,
            )
            mel = self.basis @ spectrum.abs()  # (B, n_mels, frames)
            frames = waves.shape[1] // self.config.hop if self.whole_hops else mel.shape[2]
            return mel[:, :, :frames].clamp(min=FLOOR).log().transpose(1, 2)[:, None]


def front_end(settings):
    """The `LogMel` of an experiment's rate and padding (`params.Audio`)."""
    return LogMel(replace(FRONT_ENDS[settings.rate], padding=settings.padding), whole_hops=True)
