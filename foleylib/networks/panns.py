"""PANNs convolutional networks (Kong et al. 2020): Cnn10, Cnn14 and any smaller member of the family.

Parameter names are those of the published checkpoints, which `foleylib.networks.published.evaluators` reads.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from foleylib.audio.mel import DecibelMel, MelConfig


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

    def __post_init__(self) -> None:
        if self.mel.padding != "center":
            raise ValueError(f"mel.padding={self.mel.padding!r}: PANNs front ends use 'center'")
        if self.mel.n_mels < self.stride:
            raise ValueError(f"mel.n_mels={self.mel.n_mels}: {len(self.widths)} widths pool {self.stride} bands to one")

    @property
    def stride(self) -> int:
        """Frames, and mel bands, behind one cell of the last feature map."""
        return 2 ** (len(self.widths) - (not self.pool_last))


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU, then average pooling: (B, C, T, F) -> (B, C', T/p, F/p)."""

    def __init__(self, width_in: int, width: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.avg_pool2d(x, self.pool) if self.pool > 1 else x


class PannsCnn(nn.Module):
    """Audio tagging network: waves to an embedding and class logits."""

    def __init__(self, config: PannsConfig) -> None:
        super().__init__()
        self.config = config
        self.log_mel = DecibelMel(config.mel)
        self.bn0 = nn.BatchNorm2d(config.mel.n_mels)
        for i, (width_in, width) in enumerate(zip((1, *config.widths), config.widths), 1):
            pool = 2 if config.pool_last or i < len(config.widths) else 1
            self.add_module(f"conv_block{i}", ConvBlock(width_in, width, pool))
        self.fc1 = nn.Linear(config.widths[-1], config.embedding_dim)
        self.fc_audioset = nn.Linear(config.embedding_dim, config.classes)

    def features(self, waves: torch.Tensor) -> torch.Tensor:
        """Log-mel spectrogram normalised per band by bn0 [shape=(B, 1, frames, n_mels)] of waves [shape=(B, T)]."""
        least = self.config.mel.hop * self.config.stride
        if waves.ndim != 2 or waves.shape[1] < max(least, self.config.mel.n_fft):
            raise ValueError(f"waves has shape {tuple(waves.shape)}; give (B, T) with T >= {least} samples")
        return self.bn0(self.log_mel(waves).transpose(1, 3)).transpose(1, 3)

    def classify(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """Normalised features [shape=(B, 1, frames, n_mels)] to "embedding" and "logits"."""
        config, x = self.config, features
        for i in range(1, len(config.widths) + 1):
            x = F.dropout(self.get_submodule(f"conv_block{i}")(x), config.dropout, self.training)
        x = x.mean(dim=3)  # (B, W, T')
        x = F.dropout(x.amax(dim=2) + x.mean(dim=2), config.head_dropout, self.training)  # (B, W)
        embedding = F.dropout(F.relu(self.fc1(x)), config.head_dropout, self.training)
        return {"embedding": embedding, "logits": self.fc_audioset(embedding)}

    def forward(self, waves: torch.Tensor) -> dict[str, torch.Tensor]:
        """Waves [shape=(B, T)] at `config.mel.rate`, in [-1, 1], to "embedding" [shape=(B, embedding_dim)], which is
        that after fc1 and its ReLU, and "logits" [shape=(B, classes)] before sigmoid or softmax."""
        return self.classify(self.features(waves))
