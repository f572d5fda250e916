"""HiFi-GAN (Kong et al. 2020): generator as `SpeechT5HifiGan`, segments, published checkpoints.

The generator takes log-mel (B, frames, n_mels) and returns waves (B, samples). Discriminators
and losses are in `foleylib.adversarial`.
"""

import torch
from torch import nn
from torch.nn.utils import parametrize

from foleylib.mel import FRONT_ENDS

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
    rate,
    *,
    n_mels=None,
    channels=1024,
    upsample_rates=None,
    upsample_kernels=None,
    resblock_kernels=(3, 7, 11),
    dilations=(1, 3, 5),
):
    """Configuration of a generator; the defaults are AudioLDM's size.

    Parameters
    ----------
    rate : int
        sampling rate (in Hz)
    n_mels : int, optional
        mel bands; that of `FRONT_ENDS[rate]` if None
    channels : int
        channels before upsampling, halved at each upsampling layer
    upsample_rates, upsample_kernels : tuple of int, optional
        strides and kernels of the upsampling layers; those of `UPSAMPLING[rate]` if None
    resblock_kernels, dilations : tuple of int
        kernels of the parallel residual blocks, and the dilations within each

    Returns
    -------
    transformers.SpeechT5HifiGanConfig

    Raises
    ------
    ValueError
        if the rate has no defaults and none are given, or the sizes do not fit together
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


def generator(config, *, seed=0):
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


def apply_weight_norm(model):
    """Put weight norm on all layers of a generator, in place, for training; returns it."""
    model.apply_weight_norm()
    return model


def remove_weight_norm(model):
    """Copy of a generator with weight norm folded into plain weights; its outputs are those of `model`.

    `model` is not changed. (PyTorch's removal in place would also break every deep copy, such as an EMA, because
    copies share the class that holds the parametrisation.)
    """
    state = {key: value for key, value in model.state_dict().items() if ".parametrizations." not in key}
    for name, layer in model.named_modules():
        if parametrize.is_parametrized(layer, "weight"):
            state[f"{name}.weight"] = layer.weight.detach()
    plain = generator(model.config).to(model.device, model.dtype).train(model.training)
    plain.load_state_dict(state)
    return plain


def save(model, folder):
    """Write a generator, with or without weight norm, as a `SpeechT5HifiGan` folder; `model` is not changed."""
    remove_weight_norm(model).save_pretrained(folder)


def load(folder):
    """Read a generator written by `save` (or a published one), without weight norm, in evaluation mode.

    Raises
    ------
    ValueError
        if a weight is missing, unknown or of another shape
    """
    from transformers import SpeechT5HifiGan

    model, report = SpeechT5HifiGan.from_pretrained(folder, output_loading_info=True)
    faults = {name: keys for name, keys in report.items() if keys}
    if faults:
        raise ValueError(f"{folder}: weights do not fit SpeechT5HifiGan: {faults}; write it again with vocoder.save")
    return model


def fold_weight_norm(state):
    """Plain weights of an original state dict: weight = g v / ||v||, norm over all dimensions but the first."""
    folded = {key: value for key, value in state.items() if not key.endswith(("weight_g", "weight_v"))}
    for key in [key for key in state if key.endswith("weight_v")]:
        v, g = state[key], state[key.removesuffix("_v") + "_g"]
        folded[key.removesuffix("_v")] = v * (g / v.norm(dim=tuple(range(1, v.ndim)), keepdim=True))
    return folded


def from_original_state_dict(state, config):
    """Generator from a checkpoint of jik876/hifi-gan or AudioLDM, with or without weight norm.

    Parameters
    ----------
    state : dict of str to torch.Tensor
        keys `conv_pre`, `ups.I`, `resblocks.I.convs1.J`, `conv_post`; or a dict with that under "generator"
    config : transformers.SpeechT5HifiGanConfig
        from `generator_config`

    Returns
    -------
    transformers.SpeechT5HifiGan
        without weight norm, in evaluation mode

    Raises
    ------
    ValueError
        if keys or shapes differ from those of `config`
    """
    model = generator(config)
    folded = fold_weight_norm(state.get("generator", state))
    renamed = {"upsampler" + key.removeprefix("ups") if key.startswith("ups.") else key: folded[key] for key in folded}
    try:
        model.load_state_dict({"mean": model.mean, "scale": model.scale, **renamed})
    except RuntimeError as error:
        raise ValueError(f"state does not fit config: {error}; give the config of this checkpoint") from error
    return model.eval()


def trim(waves, frames, hop):
    """Cut generated waves (..., samples) to frames * hop samples.

    The 16 kHz generator returns 160 frames + 32 samples, because its kernel of 16 over a stride of 5 cannot be
    padded evenly; that of 48 kHz 480 frames + 16.

    Raises
    ------
    ValueError
        if the waves are not between 0 and `hop` samples longer than that
    """
    extra = waves.shape[-1] - frames * hop
    if not 0 <= extra < hop:
        raise ValueError(f"{waves.shape[-1]} samples do not fit {frames} frames of {hop}; use the hop of the generator")
    return waves[..., : frames * hop]


def random_segments(waves, mels, segment, hop, generator):
    """Draw one aligned segment of each wave and of its log-mel.

    Parameters
    ----------
    waves : torch.Tensor [shape=(B, T)]
    mels : torch.Tensor [shape=(B, frames, n_mels)]
        with "dataset" padding: frame k covers samples k hop to (k + 1) hop
    segment : int
        samples, a multiple of `hop`
    hop : int
        samples
    generator : torch.Generator
        on the CPU

    Returns
    -------
    waves : torch.Tensor [shape=(B, segment)]
    mels : torch.Tensor [shape=(B, segment // hop, n_mels)]

    Raises
    ------
    ValueError
        if `segment` is no multiple of `hop`, or the waves are shorter than it
    """
    count, places = segment // hop, min(mels.shape[1], waves.shape[1] // hop) - segment // hop + 1
    if segment % hop or segment <= 0:
        raise ValueError(f"segment={segment}: give a positive multiple of hop={hop}")
    if places < 1:
        raise ValueError(f"segment={segment} is longer than {waves.shape[1]} samples or {mels.shape[1]} frames")
    starts = torch.randint(places, (len(waves),), generator=generator).tolist()
    return (
        torch.stack([wave[start * hop : start * hop + segment] for wave, start in zip(waves, starts)]),
        torch.stack([mel[start : start + count] for mel, start in zip(mels, starts)]),
    )
