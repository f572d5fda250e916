"""SRC-gAudio (Li et al. 2024): a U-Net that is told which sampling rate it makes, and the published size of it.

The rate goes one of two ways: "time", an embedding that is added to that of the diffusion step; "token", one more token
beside those of the text. The second is what the paper writes, the first what its 561 M parameters fit.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from foleylib.networks import retrieval
from foleylib.networks import unet as unets
from foleylib.networks.folder import FolderMixin

# Cross-attention to FLAN-T5-large in the first three levels down and the last three up, as Stable Diffusion and Tango have it.
PUBLISHED = {"channels": [320, 640, 640, 1280], "head_channels": 64, "text": 1024}  # with "time": 561.10 M parameters
UNIT = 100.0  # Hz: a rate is embedded as its hop of 10 ms in samples, 160 to 480


@dataclass(frozen=True)
class RateConfig:
    """Sizes of what embeds the rate."""

    place: Literal["time", "token"]
    channels: int  # of the sinusoids, those of the U-Net's first level
    width: int  # of the embedding: of the time embedding, or of a token


class Rate(nn.Module, FolderMixin):
    """The weights beside a U-Net's: sinusoids of the rate through a multilayer perceptron.

    At first the embedding is zero ("time"), so that a pre-trained U-Net is what it was.
    """

    def __init__(self, config: RateConfig) -> None:
        from diffusers.models.embeddings import TimestepEmbedding, Timesteps

        super().__init__()
        self.config = config
        self.sinusoids = Timesteps(config.channels, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.embedding = TimestepEmbedding(config.channels, config.width)
        if config.place == "time":
            nn.init.zeros_(self.embedding.linear_2.weight)
            nn.init.zeros_(self.embedding.linear_2.bias)

    def forward(self, rate: torch.Tensor) -> torch.Tensor:
        """Embeddings [shape=(B, width)] of rates in Hz [shape=(B,)]."""
        weight = self.embedding.linear_1.weight
        return self.embedding(self.sinusoids(rate.to(weight.device) / UNIT).to(weight))


class RateUnet(nn.Module):
    """A U-Net and what embeds the rate; called as the U-Net is, with `rate` beside, trained as one module."""

    def __init__(self, unet: nn.Module, rate: Rate) -> None:
        super().__init__()
        self.unet, self.rate, self._now = unet, rate, None
        if rate.config.place == "time":
            time_embedding = next(m for name, m in unet.named_modules() if name.split(".")[-1] == "time_embedding")
            time_embedding.register_forward_hook(lambda module, inputs, output: output + self._now)

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def class_embedding(self) -> nn.Module:
        """The projection of the CLAP embedding, which `unet.fold` changes."""
        return self.unet.class_embedding

    def forward(
        self, z_n, n, encoder_hidden_states=None, class_labels=None, *, rate, encoder_attention_mask=None, **more
    ):
        embedded = self.rate(rate.expand(len(z_n)))
        if self.rate.config.place == "time":
            self._now = embedded
        else:
            token = embedded[:, None]
            given = encoder_hidden_states
            if encoder_attention_mask is not None:
                ones = encoder_attention_mask.new_ones(len(z_n), 1)
                encoder_attention_mask = torch.cat([encoder_attention_mask, ones], dim=1)
            encoder_hidden_states = token if given is None else torch.cat([given, token], dim=1)
        more |= {} if encoder_attention_mask is None else {"encoder_attention_mask": encoder_attention_mask}
        return self.unet(z_n, n, encoder_hidden_states, class_labels=class_labels, **more)


def build(
    channels: list[int],
    head_channels: int,
    *,
    text: int,
    place: str,
    layers: int = 2,
    groups: int = 32,
    latent_channels: int = 8,
    seed: int = 0,
) -> RateUnet:
    """SRC-gAudio's U-Net from scratch: text by cross-attention at all levels but the deepest, and the sampling rate.

    Parameters
    ----------
    channels : width of each level; head_channels : channels of an attention head.
    text : channels of a text token. place : "time" or "token", where the rate enters.
    """
    attended = len(channels) - 1
    conditioning = {
        "down_block_types": ["CrossAttnDownBlock2D"] * attended + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * attended,
        "cross_attention_dim": text,
    }
    unet = unets.of_size(channels, head_channels, layers, groups, latent_channels, seed, **conditioning)
    return _with_rate(unet, RateConfig(place, channels[0], 4 * channels[0] if place == "time" else text), seed)


def _with_rate(unet: nn.Module, config: RateConfig, seed: int) -> RateUnet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RateUnet(unet, Rate(config))


def add_to(unet: nn.Module, *, seed: int = 0) -> RateUnet:
    """A U-Net (a `retrieval.RetrievalUnet` too) with a rate that changes nothing yet, added to its time embedding; it is
    changed in place."""
    channels = bare(unet).config.block_out_channels[0]
    return _with_rate(unet, RateConfig("time", channels, 4 * channels), seed)


def bare(model: nn.Module) -> nn.Module:
    """The `diffusers.UNet2DConditionModel` within a `RateUnet` or `retrieval.RetrievalUnet`, or that itself."""
    while isinstance(model, (RateUnet, retrieval.RetrievalUnet)):
        model = model.unet
    return model


def save_beside(model: nn.Module, folder: Path) -> None:
    """Write what belongs to a model beside `folder`/unet: what embeds the rate and what reads tokens, as far as it has these."""
    if isinstance(model, RateUnet):
        model.rate.save_pretrained(folder / "rate")
        model = model.unet
    if isinstance(model, retrieval.RetrievalUnet):
        retrieval.save(model, folder)


def save_unet(model: nn.Module, folder: Path) -> None:
    """Write a U-Net alone, as `load` reads it: `folder`/unet and what belongs beside it."""
    save_beside(model, folder)
    bare(model).save_pretrained(folder / "unet")


def load(folder: Path, *, needed: bool = False) -> nn.Module:
    """The U-Net of a pipeline folder, with what reads retrieved tokens and what embeds the rate where these were saved beside
    it, in eval mode; where the latter is `needed`, a folder without it is refused."""
    unet = retrieval.load(folder)
    if not (folder / "rate").is_dir():
        if needed:
            raise ValueError(f"{folder / 'rate'} is missing; copy the whole folder again, or run the rates stage")
        return unet
    return RateUnet(unet, Rate.from_folder(folder / "rate", stage="rates")).eval()
