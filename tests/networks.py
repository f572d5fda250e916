"""Small networks and what tests compare of them."""

import hashlib

import torch

from foleylib.networks import latent_clap

TINY = latent_clap.LatentClapConfig(channels=2, bands=4, widths=(8, 12), dim=6, dropout=0.5, scale=0.5)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def module_sha256(module):
    """SHA-256 of a module's weights, by name."""
    sha = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        sha.update(name.encode())
        sha.update(value.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def frozen(config=TINY, seed=0):
    """A Latent CLAP encoder as `load` gives it, but with no biases and with batch norms that have seen latents."""
    model = latent_clap.build(config, seed=seed).requires_grad_(False)
    for layer in (model.fc1, model.out):
        layer.bias.zero_()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of the dropout, which is on while the batch norms see their batch
        model.train()(noise(16, config.channels, 8, config.bands, seed=9))
    return model.eval()


class Levels(torch.nn.Module):
    """Embeds a wave by the level of its quarters; its logits are their logarithms. With `window`, an embedding a window."""

    def __init__(self, window=None):
        super().__init__()
        self.scale, self.window = torch.nn.Parameter(torch.ones(())), window

    def forward(self, waves):
        waves = waves if self.window is None else waves.unfold(1, self.window, self.window)
        level = self.scale * torch.stack([part.abs().mean(-1) for part in waves.chunk(4, dim=-1)], dim=-1)
        return {"embedding": level} if self.window else {"embedding": level, "logits": (level + 1e-3).log()}
