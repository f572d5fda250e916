"""From log-mels (B, frames, n_mels) to waves: HiFi-GAN (Kong et al. 2020; `SpeechT5HifiGan`), and Griffin-Lim."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from foleylib.audio.mel import FRONT_ENDS, LogMel, MelConfig, mel_basis
from foleylib.audio.stft import StftDistance, griffin_lim
from foleylib.networks import vae as vaes
from foleylib.runtime import load_strictly

# Upsampling rates and kernels by sampling rate; the rates multiply to the hop of FRONT_ENDS. 16 kHz AudioLDM,
# 22.05 kHz HiFi-GAN LJ_V1, 48 kHz AudioLDM 2; 24 and 32 kHz are ours (SRC-gAudio gives only the products).
UPSAMPLING = {
    16000: ((5, 4, 2, 2, 2), (16, 16, 8, 4, 4)),
    22050: ((8, 8, 2, 2), (16, 16, 4, 4)),
    24000: ((5, 4, 3, 2, 2), (15, 16, 9, 4, 4)),
    32000: ((5, 4, 4, 2, 2), (15, 16, 8, 4, 4)),
    48000: ((6, 5, 4, 2, 2), (12, 10, 8, 4, 4)),
}

# Published generators (first, second and last row), and AudioLDM's size at the rates of SRC-gAudio.
PUBLISHED = {
    "audioldm_16k": {"rate": 16000, "channels": 1024},
    "hifigan_22k": {"rate": 22050, "channels": 512},
    "srcgaudio_24k": {"rate": 24000, "channels": 1024},
    "srcgaudio_32k": {"rate": 32000, "channels": 1024},
    "srcgaudio_48k": {"rate": 48000, "channels": 1024},
    "audioldm2_48k": {"rate": 48000, "n_mels": 256, "channels": 1536, "resblock_kernels": (3, 7, 11, 15)},
}


def generator_config(
    rate: int,
    *,
    n_mels: int | None = None,
    channels: int = 1024,
    upsample_rates: Sequence[int] | None = None,
    upsample_kernels: Sequence[int] | None = None,
    resblock_kernels: Sequence[int] = (3, 7, 11),
    dilations: Sequence[int] = (1, 3, 5),
):
    """`SpeechT5HifiGanConfig` of a generator at `rate` Hz; the defaults are AudioLDM's size.

    `channels` are those before upsampling, halved at each upsampling layer. Mel bands and upsampling are those of
    `FRONT_ENDS` and `UPSAMPLING` unless given; `resblock_kernels` are of the parallel residual blocks, `dilations`
    within each.
    """
    from transformers import SpeechT5HifiGanConfig

    if rate not in UPSAMPLING and None in (n_mels, upsample_rates, upsample_kernels):
        raise ValueError(f"rate={rate} has no defaults; give n_mels, upsample_rates, upsample_kernels")
    rates, kernels = upsample_rates or UPSAMPLING[rate][0], upsample_kernels or UPSAMPLING[rate][1]
    if len(rates) != len(kernels) or any(kernel < stride for stride, kernel in zip(rates, kernels)):
        raise ValueError(f"upsample_kernels={kernels}: give one kernel >= its stride for each of {rates}")
    if channels % 2 ** len(rates):
        raise ValueError(f"channels={channels}: give a multiple of {2 ** len(rates)}, it is halved {len(rates)} times")
    return SpeechT5HifiGanConfig(
        model_in_dim=n_mels or FRONT_ENDS[rate].n_mels,
        sampling_rate=rate,
        upsample_initial_channel=channels,
        upsample_rates=list(rates),
        upsample_kernel_sizes=list(kernels),
        resblock_kernel_sizes=list(resblock_kernels),
        resblock_dilation_sizes=[list(dilations)] * len(resblock_kernels),
        normalize_before=False,
    )


def generator(config, *, seed: int = 0) -> nn.Module:
    """Untrained generator without weight norm, drawn from `seed`; the global random state is left as it was.

    The layers start from PyTorch's own initialisation. HiFi-GAN's code means to draw N(0, 0.01), but draws it
    into tensors that weight norm recomputes, so this is also what the published models started from.
    """
    from transformers import SpeechT5HifiGan

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SpeechT5HifiGan(config)
        for layer in model.modules():
            if isinstance(layer, (nn.Conv1d, nn.ConvTranspose1d)):
                layer.reset_parameters()
    return model


def remove_weight_norm(model: nn.Module) -> nn.Module:
    """Copy of a generator with weight norm (`model.apply_weight_norm()`) folded into plain weights.

    PyTorch's removal in place would also break every deep copy, such as an EMA, because copies share the class that
    holds the parametrisation.
    """
    state = {key: value for key, value in model.state_dict().items() if ".parametrizations." not in key}
    for name, layer in model.named_modules():
        if parametrize.is_parametrized(layer, "weight"):
            state[f"{name}.weight"] = layer.weight.detach()
    plain = generator(model.config).to(model.device, model.dtype).train(model.training)
    plain.load_state_dict(state)
    return plain


def save(model: nn.Module, folder: str | Path) -> None:
    """Write a generator, with or without weight norm, as a `SpeechT5HifiGan` folder; `model` is not changed."""
    remove_weight_norm(model).save_pretrained(folder)


def load(folder: str | Path) -> nn.Module:
    """Read a generator written by `save` (or a published one), without weight norm, in evaluation mode."""
    from transformers import SpeechT5HifiGan

    return load_strictly(SpeechT5HifiGan, folder, stage="vocoder", needs=["sampling_rate", "normalize_before"])


class GriffinLim(nn.Module):
    """Waves without a network, called as a generator is: what every vocoder is to be measured by.

    Magnitudes by the pseudo-inverse of the mel filters, phases by `audio.stft.griffin_lim`.
    """

    def __init__(self, config: MelConfig, *, iterations: int = 20) -> None:
        super().__init__()
        self.config, self.iterations = config, iterations
        self.register_buffer("inverse", torch.linalg.pinv(mel_basis(config).double()).float(), persistent=False)

    @torch.no_grad()
    def forward(self, mels: torch.Tensor) -> torch.Tensor:
        """Waves [shape=(B, frames * hop)] of log-mels [shape=(B, frames, n_mels)]."""
        hop, half = self.config.hop, self.config.padding == "dataset"
        magnitudes = (self.inverse @ mels.to(self.inverse.dtype).exp().transpose(1, 2)).clamp(min=0)
        # Its frames stand at whole hops, those of "dataset" half a hop later: a frame more at the ends, then cut.
        magnitudes = nn.functional.pad(magnitudes, (int(half), 1), mode="replicate")
        few = 4 if magnitudes.device.type == "cpu" else len(magnitudes)  # what fits the cache of a core
        waves = torch.cat([griffin_lim(m, hop=hop, iterations=self.iterations) for m in magnitudes.split(few)])
        first = hop // 2 if half else 0
        return waves[:, first : first + mels.shape[1] * hop]


def trim(waves: torch.Tensor, frames: int, hop: int) -> torch.Tensor:
    """Cut generated waves [shape=(..., samples)] to frames * hop samples.

    The 16 kHz generator returns 160 frames + 32 samples, because its kernel of 16 over a stride of 5 cannot be
    padded evenly; that of 48 kHz 480 frames + 16.
    """
    extra = waves.shape[-1] - frames * hop
    if not 0 <= extra < hop:
        raise ValueError(f"{waves.shape[-1]} samples do not fit {frames} frames of {hop}; use the hop of the generator")
    return waves[..., : frames * hop]


@torch.no_grad()
def resynthesise(model, waves: torch.Tensor, log_mel: LogMel, *, vae=None, batch_size: int = 16) -> torch.Tensor:
    """Waves [shape=(N, frames * hop)] that a vocoder makes of the mels of waves [shape=(N, T)], on the CPU.

    With `vae` they are mels as it decodes them: the whole codec.
    """
    parts = []
    for part in waves.split(batch_size):
        mels = log_mel(part.to(log_mel.basis.device))
        mels = (mels if vae is None else vaes.reconstruct(vae, mels))[:, 0]
        parts.append(trim(model(mels), mels.shape[1], log_mel.config.hop).cpu())
    return torch.cat(parts)


@torch.no_grad()
def errors(vocoded: torch.Tensor, waves: torch.Tensor, log_mel: LogMel) -> dict[str, np.ndarray]:
    """How far each re-synthesised wave is from the original, both [shape=(N, T)].

    Returns
    -------
    "mel", mean absolute difference of log-mels in nepers, and "stft", `audio.stft.StftDistance` [shape=(N,)]
    """
    device, found = log_mel.basis.device, {"mel": [], "stft": []}
    stft = StftDistance().to(device)
    for a, b in zip(vocoded.to(device).split(16), waves[:, : vocoded.shape[1]].to(device).split(16)):
        found["mel"].append((log_mel(a) - log_mel(b)).abs().mean(dim=(1, 2, 3)))
        found["stft"].append(stft(a, b))
    return {name: torch.cat(values).cpu().numpy() for name, values in found.items()}
