"""The variational autoencoder between log-mel spectrograms and latents, as in AudioLDM."""

from pathlib import Path

import torch
from torch import nn

from foleylib.runtime import load_strictly

# AudioLDM's VAE, 55.38 M parameters (ch 128, mult 1 2 4, 8 latent channels, ratio 4).
PUBLISHED = {"channels": [128, 256, 512], "layers": 2, "latent_channels": 8, "groups": 32}


def build(channels: list[int], layers: int, latent_channels: int, groups: int, *, seed: int) -> nn.Module:
    """`AutoencoderKL`: (B, 1, T, n_mels) -> (B, latent_channels, T / r, n_mels / r), r = 2 ** (len(channels) - 1)."""
    from diffusers import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderKL(
            in_channels=1,
            out_channels=1,
            down_block_types=["DownEncoderBlock2D"] * len(channels),
            up_block_types=["UpDecoderBlock2D"] * len(channels),
            block_out_channels=channels,
            layers_per_block=layers,
            latent_channels=latent_channels,
            norm_num_groups=groups,
        )


@torch.no_grad()
def reconstruct(vae, mels: torch.Tensor) -> torch.Tensor:
    """Log-mels [shape=(B, 1, T, n_mels)] as decoded from the mean of their posterior."""
    return vae.decode(vae.encode(mels).latent_dist.mean).sample


def load(folder: Path) -> nn.Module:
    """The `AutoencoderKL` of a folder, in eval mode; its config has the latent scale."""
    from diffusers import AutoencoderKL

    return load_strictly(AutoencoderKL, folder, stage="vae", needs=["scaling_factor"])
