"""The Latent CLAP encoder of Karchkhadze et al.: PANNs' Cnn10 from latents to CLAP's space.

Trained once on clean latents and their clips' CLAP audio embeddings; then, frozen, it compares what the LDM predicts
with the real clip during fine-tuning, at a small part of the cost of VAE decoder, vocoder and CLAP.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from foleylib.networks.folder import FolderMixin
from foleylib.networks.panns import ConvBlock


@dataclass(frozen=True)
class LatentClapConfig:
    """Sizes of a Latent CLAP encoder; those of the paper (5.22 M parameters) unless given."""

    channels: int = 8
    bands: int = 16
    widths: tuple[int, ...] = (64, 128, 256, 512)
    dim: int = 512
    dropout: float = 0.2  # after each block, as in Cnn10
    normalise: bool = True  # E_latent divided by its norm, as its target E_audio is
    scaled: bool = True  # the network reads latents as the LDM does; if not, they are divided by `scale` first
    scale: float = 1.0  # latent scale of the VAE it was trained with

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))  # config.json has a list
        if not self.widths or self.bands < 2 ** len(self.widths):
            raise ValueError(f"bands={self.bands}: {len(self.widths)} widths pool {2 ** len(self.widths)} bands to one")


class LatentClap(nn.Module, FolderMixin):
    """PANNs' Cnn10 with latents in place of a spectrogram and an embedding in place of class logits."""

    def __init__(self, config: LatentClapConfig) -> None:
        super().__init__()
        self.config, last = config, config.widths[-1]
        self.bn0 = nn.BatchNorm2d(config.bands)
        self.blocks = nn.ModuleList(
            ConvBlock(i, o, 2) for i, o in zip((config.channels, *config.widths), config.widths)
        )
        self.fc1, self.out = nn.Linear(last, last), nn.Linear(last, config.dim)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """E_latent [shape=(B, dim)] of latents [shape=(B, channels, T, bands)] as the LDM sees them, times the VAE's
        scale."""
        config, least = self.config, 2 ** len(self.config.widths)
        if z.ndim != 4 or (z.shape[1], z.shape[3]) != (config.channels, config.bands) or z.shape[2] < least:
            wanted = f"(B, {config.channels}, T >= {least}, {config.bands})"
            raise ValueError(f"z is {tuple(z.shape)}: give latents {wanted}")
        x = z if config.scaled else z / config.scale
        x = self.bn0(x.transpose(1, 3)).transpose(1, 3)  # per latent band, as Cnn10's per mel band
        for block in self.blocks:
            x = F.dropout(block(x), config.dropout, self.training)
        x = x.mean(dim=3)  # (B, W, T')
        x = F.relu(self.fc1(x.amax(dim=2) + x.mean(dim=2)))  # (B, W)
        return F.normalize(self.out(x), dim=-1) if config.normalise else self.out(x)


def build(config: LatentClapConfig, *, seed: int) -> LatentClap:
    """Untrained encoder with weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LatentClap(config)


def load(folder: str | Path) -> LatentClap:
    """The encoder of a folder, frozen: in evaluation mode and without gradients of its own."""
    return LatentClap.from_folder(folder, stage="latent_clap").requires_grad_(False)
