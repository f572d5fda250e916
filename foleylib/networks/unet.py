"""AudioLDM's U-Net (diffusers' `UNet2DConditionModel`) and the tuning layer of text-driven-foley before it."""

from pathlib import Path

import torch
from torch import nn

from foleylib.diffusion.condition import Condition
from foleylib.runtime import load_strictly

# AudioLDM-S, M, L: 185.04, 415.95, 739.14 M parameters.
PUBLISHED = {
    "audioldm-s-full": {"channels": [128, 256, 384, 640], "head_channels": 32},
    "audioldm-m-full": {"channels": [192, 384, 576, 960], "head_channels": 32},
    "audioldm-l-full": {"channels": [256, 512, 768, 1280], "head_channels": 64},
}


def build(
    channels: list[int],
    head_channels: int,
    *,
    layers: int = 2,
    groups: int = 32,
    dim: int = 512,
    latent_channels: int = 8,
    tokens: int | None = None,
    seed: int = 0,
):
    """AudioLDM's U-Net: the class embedding (CLAP) is concatenated with the time embedding and reaches every block.

    Parameters
    ----------
    channels : width of each level; attention at all but the first.
    head_channels : channels of an attention head. diffusers calls the *number* of heads `attention_head_dim`.
    dim : size of the CLAP embedding.
    tokens : width of tokens that the second attention of each block reads; without, both are self-attention.
    """
    attended = len(channels) - 1
    conditioning = {
        "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * attended,
        "up_block_types": ["CrossAttnUpBlock2D"] * attended + ["UpBlock2D"],
        "cross_attention_dim": tokens or channels,
        "class_embed_type": "simple_projection",
        "projection_class_embeddings_input_dim": dim,
        "class_embeddings_concat": True,
    }
    return of_size(channels, head_channels, layers, groups, latent_channels, seed, **conditioning)


def of_size(
    channels: list[int], head_channels: int, layers: int, groups: int, latent_channels: int, seed: int, **conditioning
):
    """An untrained U-Net of diffusers; where it attends, and to what, is `conditioning`."""
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            in_channels=latent_channels,
            out_channels=latent_channels,
            block_out_channels=channels,
            layers_per_block=layers,
            norm_num_groups=groups,
            attention_head_dim=[max(1, c // head_channels) for c in channels],
            **conditioning,
        )
    return unet.to(memory_format=torch.channels_last)  # faster convolutions on CPU and GPU, same numbers


def new(section, *, dim: int, latent_channels: int, seed: int):
    """An untrained U-Net of the size in a section `params.foundation.Ldm`."""
    return build(
        section.channels,
        section.head_channels,
        layers=section.layers,
        groups=section.groups,
        dim=dim,
        latent_channels=latent_channels,
        seed=seed,
    )


def load(folder: Path):
    """The U-Net of a pipeline folder, in eval mode."""
    from diffusers import UNet2DConditionModel

    unet = load_strictly(UNet2DConditionModel, folder / "unet", stage="pretrain or finetune")
    return unet.to(memory_format=torch.channels_last)


def unconditional(clap) -> Condition:
    """AudioLDM's unconditional input, in training and in sampling: the embedding of the empty text by a
    `networks.clap.Clap`, one row. A field that is left out here is never dropped."""
    return Condition(embedding=clap.embed_text([""]).cpu())


class TuningLayer(nn.Linear):
    """L(E) = W E + b before the LDM, (B, D) -> (B, D): identity weight and Gaussian bias at first (text-driven-foley, 3.2).

    Every embedding passes through it, that of the empty text too: one affine map, which `fold` can take up exactly.

    Parameters
    ----------
    dim : size of the CLAP embedding (512 as published).
    noise : standard deviation of the bias at first; both papers leave it open.
    """

    def __init__(self, dim: int, *, noise: float, seed: int):
        super().__init__(dim, dim)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.weight.copy_(torch.eye(dim))
            self.bias.copy_(noise * torch.randn(dim, generator=generator))


class TunedUnet(nn.Module):
    """A U-Net whose class embedding passes through a tuning layer; called as the U-Net is, trained as one module."""

    def __init__(self, unet: nn.Module, tuning: TuningLayer):
        super().__init__()
        self.unet, self.tuning = unet, tuning

    @property
    def device(self) -> torch.device:
        return self.unet.device

    def forward(self, z_n, n, encoder_hidden_states=None, class_labels=None, **more):
        return self.unet(z_n, n, encoder_hidden_states, class_labels=self.tuning(class_labels), **more)


@torch.no_grad()
def fold(tuned: TunedUnet) -> nn.Module:
    """The U-Net alone with the layer in its class-embedding projection: C (W E + b) + c = (C W) E + (C b + c).

    The U-Net is changed in place and belongs in a stock `AudioLDMPipeline` afterwards.
    """
    projection, tuning = tuned.unet.class_embedding, tuned.tuning
    weight, w, b = (x.double() for x in (projection.weight, tuning.weight, tuning.bias))
    projection.bias.copy_(weight @ b + projection.bias.double())
    projection.weight.copy_(weight @ w)
    return tuned.unet


def save_tuning(tuning: TuningLayer, folder: Path) -> None:
    """Write tuning.safetensors: the folded pipeline does not need it, the target of the selection does."""
    from safetensors.torch import save_file

    save_file({k: v.detach().cpu().contiguous() for k, v in tuning.state_dict().items()}, folder / "tuning.safetensors")


def load_tuning(folder: Path) -> TuningLayer | None:
    """The tuning layer saved beside a pipeline, or None where it has none."""
    from safetensors.torch import load_file

    file = folder / "tuning.safetensors"
    if not file.is_file():
        return None
    state = load_file(file)
    tuning = TuningLayer(len(state["bias"]), noise=0.0, seed=0)
    tuning.load_state_dict(state)
    return tuning.requires_grad_(False)
