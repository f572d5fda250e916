"""What stands between an embedding and the LDM: the tuning layer of text-driven-foley, and its folding into the U-Net."""

from pathlib import Path

import torch
from torch import nn


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

    def forward(self, z_n, n, encoder_hidden_states=None, class_labels=None):
        return self.unet(z_n, n, encoder_hidden_states, class_labels=self.tuning(class_labels))


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


def save(tuning: TuningLayer, folder: Path) -> None:
    """Write tuning.safetensors: the folded pipeline does not need it, the target of the selection does."""
    from safetensors.torch import save_file

    save_file({k: v.detach().cpu().contiguous() for k, v in tuning.state_dict().items()}, folder / "tuning.safetensors")


def load(folder: Path) -> TuningLayer | None:
    """The tuning layer saved beside a pipeline, or None where it has none."""
    from safetensors.torch import load_file

    file = folder / "tuning.safetensors"
    if not file.is_file():
        return None
    state = load_file(file)
    tuning = TuningLayer(len(state["bias"]), noise=0.0, seed=0)
    tuning.load_state_dict(state)
    return tuning.requires_grad_(False)
