"""PANNs convolutional networks of Kong et al. (2020): Cnn10, Cnn14, Cnn14_16k, and any smaller member of the family.

The decibel log-mel front end, the network and the augmentations used in training it. Parameter names are those of
the published checkpoints, whose stored STFT and mel matrices are compared with ours instead of loaded.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from foleylib.mel import MelConfig, mel_basis

AMIN = 1e-10  # power under the logarithm: -100 dB
FIXED = ("spectrogram_extractor.", "logmel_extractor.")  # matrices the published checkpoints store


@dataclass(frozen=True)
class PannsConfig:
    """A network of the family: two 3x3 convolutions per width, average pooling 2x2 between the blocks."""

    mel: MelConfig
    widths: tuple[int, ...] = (64, 128, 256, 512)
    pool_last: bool = True  # Cnn10 pools after its last block, Cnn14 does not
    embedding_dim: int = 512
    classes: int = 527  # AudioSet
    dropout: float = 0.2  # after each block
    head_dropout: float = 0.5  # before and after fc1

    def __post_init__(self):
        if self.mel.padding != "center":
            raise ValueError(f"mel.padding={self.mel.padding!r}: PANNs front ends use 'center'")
        if self.mel.n_mels < self.stride:
            raise ValueError(f"mel.n_mels={self.mel.n_mels}: {len(self.widths)} widths pool {self.stride} bands to one")

    @property
    def stride(self):
        """Frames, and mel bands, behind one cell of the last feature map."""
        return 2 ** (len(self.widths) - (not self.pool_last))


MEL_32K = MelConfig(rate=32000, n_fft=1024, hop=320, n_mels=64, fmin=50, fmax=14000, padding="center")
MEL_16K = MelConfig(rate=16000, n_fft=512, hop=160, n_mels=64, fmin=50, fmax=8000, padding="center")
WIDTHS_14 = (64, 128, 256, 512, 1024, 2048)

# Kong et al. (2020), Table I and their released code.
CNN10 = PannsConfig(MEL_32K)
CNN14 = PannsConfig(MEL_32K, widths=WIDTHS_14, pool_last=False, embedding_dim=2048)
CNN14_16K = PannsConfig(MEL_16K, widths=WIDTHS_14, pool_last=False, embedding_dim=2048)


class DecibelMel(nn.Module):
    """Power mel spectrogram in decibels, 10 log10(max(mel, 1e-10)): (B, T) -> (B, 1, frames, n_mels)."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.register_buffer("basis", mel_basis(config), persistent=False)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)

    def forward(self, waves):
        n_fft, hop = self.config.n_fft, self.config.hop
        with torch.autocast(waves.device.type, enabled=False):
            spectrum = torch.stft(
                waves.to(self.basis.dtype), n_fft, hop_length=hop, window=self.window, return_complex=True
            )
            power = self.basis @ spectrum.abs().square()  # (B, n_mels, frames)
            return 10 * power.clamp(min=AMIN).log10().transpose(1, 2)[:, None]


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU, then average pooling: (B, C, T, F) -> (B, C', T/p, F/p)."""

    def __init__(self, width_in, width, pool):
        super().__init__()
        self.pool = pool
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.avg_pool2d(x, self.pool) if self.pool > 1 else x


class PannsCnn(nn.Module):
    """Audio tagging network: waves to an embedding and class logits.

    Parameters
    ----------
    config : PannsConfig
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.log_mel = DecibelMel(config.mel)
        self.bn0 = nn.BatchNorm2d(config.mel.n_mels)
        for i, (width_in, width) in enumerate(zip((1, *config.widths), config.widths), 1):
            pool = 2 if config.pool_last or i < len(config.widths) else 1
            self.add_module(f"conv_block{i}", ConvBlock(width_in, width, pool))
        self.fc1 = nn.Linear(config.widths[-1], config.embedding_dim)
        self.fc_audioset = nn.Linear(config.embedding_dim, config.classes)

    def features(self, waves):
        """Log-mel spectrogram normalised per band by bn0: (B, T) -> (B, 1, frames, n_mels).

        Raises
        ------
        ValueError
            if `waves` is not (B, T) or too short to leave one cell after pooling
        """
        least = self.config.mel.hop * self.config.stride
        if waves.ndim != 2 or waves.shape[1] < max(least, self.config.mel.n_fft):
            raise ValueError(f"waves has shape {tuple(waves.shape)}; give (B, T) with T >= {least} samples")
        return self.bn0(self.log_mel(waves).transpose(1, 3)).transpose(1, 3)

    def classify(self, features):
        """Normalised features (B, 1, frames, n_mels) to {"embedding": (B, D), "logits": (B, C)}."""
        config, x = self.config, features
        for i in range(1, len(config.widths) + 1):
            x = F.dropout(self.get_submodule(f"conv_block{i}")(x), config.dropout, self.training)
        x = x.mean(dim=3)  # (B, W, T')
        x = F.dropout(x.amax(dim=2) + x.mean(dim=2), config.head_dropout, self.training)  # (B, W)
        embedding = F.dropout(F.relu(self.fc1(x)), config.head_dropout, self.training)
        return {"embedding": embedding, "logits": self.fc_audioset(embedding)}

    def forward(self, waves):
        """Embedding after fc1 and its ReLU, and logits before sigmoid or softmax.

        Parameters
        ----------
        waves : torch.Tensor [shape=(B, T)]
            at `config.mel.rate`, in [-1, 1]

        Returns
        -------
        dict
            "embedding" (B, embedding_dim), >= 0; "logits" (B, classes)
        """
        return self.classify(self.features(waves))

    def load_published(self, weights):
        """Load a published state dict {name: tensor}; its stored mel filters must be those of `config.mel`."""
        basis = self.log_mel.basis.T.cpu()
        stored = weights.get("logmel_extractor.melW", basis)
        if stored.shape != basis.shape or not torch.allclose(stored.float(), basis, atol=1e-4):
            raise ValueError("the checkpoint's mel filters are not those of the configuration; check rate, fmin, fmax")
        self.load_state_dict({k: v for k, v in weights.items() if not k.startswith(FIXED)})


def draw(low, high, size, generator):
    """Uniform float draws in [low, high) on the CPU."""
    return low + (high - low) * torch.rand(size, generator=generator)


def gain_and_shift(waves, *, generator, gain_db=6.0):
    """Waves (B, T) with a gain of up to +-gain_db dB and a circular shift in time, each drawn per clip."""
    batch, samples = waves.shape
    gains = 10 ** (draw(-gain_db, gain_db, (batch, 1), generator) / 20)
    shifts = torch.randint(samples, (batch, 1), generator=generator)
    index = (torch.arange(samples) + shifts) % samples
    return waves.gather(1, index.to(waves.device)) * gains.to(waves)


def spec_augment(features, *, generator, stripes=2, time=0.1, frequency=0.125):
    """SpecAugment of Park et al. (2019) without warping: zero stripes in time and in frequency, drawn per clip.

    Parameters
    ----------
    features : torch.Tensor [shape=(B, 1, T, F)]
        of zero mean, as after bn0
    generator : torch.Generator
        on the CPU
    stripes : int
        on each axis
    time, frequency : float in [0, 1]
        widest stripe as a part of its axis; PANNs: 64 of 1001 frames and 8 of 64 bands

    Returns
    -------
    torch.Tensor [shape=(B, 1, T, F)]
    """
    batch, _, length, n_mels = features.shape
    keep = torch.ones(batch, 1, length, n_mels, dtype=torch.bool)
    for axis, size, part in ((2, length, time), (3, n_mels, frequency)):
        shape = [batch, 1, 1, 1]
        position = torch.arange(size).view([-1 if i == axis else 1 for i in range(4)])
        for _ in range(stripes):
            width = torch.randint(int(part * size) + 1, shape, generator=generator)
            start = (torch.rand(shape, generator=generator) * (size - width)).long()
            keep &= (position < start) | (position >= start + width)
    return features * keep.to(features)


def mixup(features, targets, *, generator, alpha):
    """Mixup of Zhang et al. (2018): each clip is mixed with another, weights from Beta(alpha, alpha).

    Parameters
    ----------
    features : torch.Tensor [shape=(B, ...)]
    targets : torch.Tensor [shape=(B, C)]
        probabilities
    generator : torch.Generator
        on the CPU
    alpha : float >= 0
        0 leaves both as they are; PANNs: 1

    Returns
    -------
    features, targets : torch.Tensor
    """
    if alpha == 0:
        return features, targets
    if alpha < 0:
        raise ValueError(f"alpha={alpha}: give 0 (no mixup) or more")
    seed = int(torch.randint(2**31, (), generator=generator))  # torch draws no beta from a generator
    weight = torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, len(features))).to(features)
    other = torch.randperm(len(features), generator=generator).to(features.device)

    def mix(x):
        w = weight.view(-1, *[1] * (x.ndim - 1))
        return w * x + (1 - w) * x[other]

    return mix(features), mix(targets)
