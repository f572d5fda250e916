"""Original checkpoints as diffusers and transformers models: AudioLDM's U-Net and VAE, HiFi-GAN, LAION's CLAP, AudioMAE.

A whole AudioLDM file is read by `foleylib.networks.published.audioldm`. Nothing is loaded loosely: a key that is
missing, unknown or of another shape is an error that names it.
"""

import re
import textwrap
from collections.abc import Callable

import torch
from torch import nn

from foleylib.networks import audiomae, clap, unet, vae, vocoder

State = dict[str, torch.Tensor]

# HTSAT of the LAION checkpoints: tiny 153.49 M parameters in all, base 193.91 M.
CLAP_SIZES = {"tiny": {"width": 96, "depths": [2, 2, 6, 2]}, "base": {"width": 128, "depths": [2, 2, 12, 2]}}

UNET_ENDS = {
    "time_embed.0.": "time_embedding.linear_1.",
    "time_embed.2.": "time_embedding.linear_2.",
    "film_emb.": "class_embedding.",
    "input_blocks.0.0.": "conv_in.",
    "middle_block.0.": "mid_block.resnets.0.",
    "middle_block.1.": "mid_block.attentions.0.",
    "middle_block.2.": "mid_block.resnets.1.",
    "out.0.": "conv_norm_out.",
    "out.2.": "conv_out.",
}
UNET_RESNET = {
    ".in_layers.0.": ".norm1.",
    ".in_layers.2.": ".conv1.",
    ".emb_layers.1.": ".time_emb_proj.",
    ".out_layers.0.": ".norm2.",
    ".out_layers.3.": ".conv2.",
    ".skip_connection.": ".conv_shortcut.",
}
VAE_NAMES = {
    ".mid.block_1.": ".mid_block.resnets.0.",
    ".mid.block_2.": ".mid_block.resnets.1.",
    ".mid.attn_1.norm.": ".mid_block.attentions.0.group_norm.",
    ".mid.attn_1.q.": ".mid_block.attentions.0.to_q.",
    ".mid.attn_1.k.": ".mid_block.attentions.0.to_k.",
    ".mid.attn_1.v.": ".mid_block.attentions.0.to_v.",
    ".mid.attn_1.proj_out.": ".mid_block.attentions.0.to_out.0.",
    ".norm_out.": ".conv_norm_out.",
    ".nin_shortcut.": ".conv_shortcut.",
}
CLAP_NAMES = {
    "text_branch.": "text_model.",
    "audio_branch.": "audio_model.audio_encoder.",
    ".bn0.": ".batch_norm.",
    ".norm1.": ".layernorm_before.",
    ".norm2.": ".layernorm_after.",
    ".attn.proj.": ".attention.output.dense.",
    ".attn.": ".attention.self.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
    "_projection.0.": "_projection.linear1.",
    "_projection.2.": "_projection.linear2.",
}
# What ClapModel has no use for: the front end and window masks (recomputed), AudioSet's head, the training-time heads.
CLAP_UNUSED = re.compile(
    r"audio_branch\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\..*|.*\.attn_mask"
    r"|(audio|text)_transform\..*|text_branch\.embeddings\.position_ids"
)
AUDIOMAE_NAMES = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.": "embeddings.patch_embeddings.projection.",
    "blocks.": "layers.",
    ".norm1.": ".layernorm_before.",
    ".norm2.": ".layernorm_after.",
    ".attn.proj.": ".attention.o_proj.",
    ".attn.": ".attention.",
}
# The decoder of the pre-training, and what fine-tuning on AudioSet has added.
AUDIOMAE_UNUSED = re.compile(r"(decoder_|fc_norm\.|head\.).*|mask_token")
CLAP_COMPUTED = ("text_model.embeddings.position_ids", "text_model.embeddings.token_type_ids")  # constants


def unet_from_original(state: State, config: dict) -> nn.Module:
    """AudioLDM's U-Net from its original names (those after `model.diffusion_model.`), in eval mode, float32.

    `config` are arguments of `unet.build`, such as a row of `unet.PUBLISHED`; head counts cannot be read from weights.
    """
    layers = config.get("layers", 2)
    model = _fill(lambda: unet.build(**config), _rename(state, lambda key: _unet_key(key, layers)), "U-Net")
    return model.to(memory_format=torch.channels_last)


def _unet_key(key: str, layers: int) -> str:
    match = re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d)(\..+)", key)
    if match is None or match[1] == "input" and match[2] == "0":
        return _swap(_swap(key, UNET_ENDS, start=True), UNET_RESNET)
    down = match[1] == "input"
    level, number = divmod(int(match[2]) - down, layers + 1)
    block, rest = f"{'down' if down else 'up'}_blocks.{level}.", _swap(match[4], UNET_RESNET)
    if rest.startswith(".op."):
        return f"{block}downsamplers.0.conv.{rest.removeprefix('.op.')}"
    if rest.startswith(".conv."):
        return f"{block}upsamplers.0{rest}"
    return f"{block}{'resnets' if match[3] == '0' else 'attentions'}.{number}{rest}"


def vae_from_original(state: State, config: dict) -> nn.Module:
    """AudioLDM's VAE from its original names (those after `first_stage_model.`), in eval mode, float32.

    `config` are arguments of `vae.build` but the seed, such as `vae.PUBLISHED`. The latent scale is in the whole file
    only. The middle attentions, 1x1 convolutions there, become linear layers here.
    """
    levels = len(config["channels"])
    renamed = _rename(state, lambda key: _vae_key(key, levels))
    for key, value in renamed.items():
        if ".attentions.0.to_" in key and value.shape[2:] == (1, 1):
            renamed[key] = value.flatten(1)  # (C, C)
    return _fill(lambda: vae.build(**config, seed=0), renamed, "VAE")


def _vae_key(key: str, levels: int) -> str:
    match = re.fullmatch(r"(encoder\.down|decoder\.up)\.(\d+)\.(?:block\.(\d+)|(down|up)sample)(\..+)", key)
    if match is None:
        return _swap(key, VAE_NAMES)
    side, level, block, sample, rest = match.groups()
    level = int(level) if side == "encoder.down" else levels - 1 - int(level)  # diffusers counts up from the latent
    return f"{side}_blocks.{level}.{f'{sample}samplers.0' if sample else f'resnets.{block}'}{_swap(rest, VAE_NAMES)}"


def vocoder_from_original(state: dict, config: dict) -> nn.Module:
    """Generator of jik876/hifi-gan (under "generator") or AudioLDM, with or without weight norm, in eval mode, float32.

    `config` are arguments of `vocoder.generator_config`, such as a row of `vocoder.PUBLISHED`.
    """
    folded = fold_weight_norm(state.get("generator", state))
    renamed = _rename(folded, lambda key: _swap(key, {"ups.": "upsampler."}, start=True))
    sizes = vocoder.generator_config(**config)
    return _fill(lambda: vocoder.generator(sizes), renamed, "vocoder", computed=("mean", "scale"))


def fold_weight_norm(state: State) -> State:
    """Plain weights of an original state dict: weight = g v / ||v||, norm over all dimensions but the first."""
    folded = {key: value for key, value in state.items() if not key.endswith(("weight_g", "weight_v"))}
    for key in [key for key in state if key.endswith("weight_v")]:
        v, g = state[key], state[key.removesuffix("_v") + "_g"]
        folded[key.removesuffix("_v")] = v * (g / v.norm(dim=tuple(range(1, v.ndim)), keepdim=True))
    return folded


def clap_config(size: str):
    """`ClapConfig` of a LAION checkpoint without fusion: "tiny" or "base" HTSAT, RoBERTa-base, 512 dimensions."""
    from transformers import ClapConfig

    if size not in CLAP_SIZES:
        raise ValueError(f"size={size!r}: give one of {', '.join(CLAP_SIZES)}, or a ClapConfig")
    width, depths = CLAP_SIZES[size]["width"], CLAP_SIZES[size]["depths"]
    audio = {"patch_embeds_hidden_size": width, "depths": depths, "hidden_size": 8 * width}
    return ClapConfig(text_config={"layer_norm_eps": clap.TEXT_EPS}, audio_config=audio, projection_dim=512)


def clap_extractor():
    """`ClapFeatureExtractor` with the numbers of the LAION checkpoints: 48 kHz, 10 s, 64 mel bands of 50-14000 Hz."""
    from transformers import ClapFeatureExtractor

    return ClapFeatureExtractor(frequency_min=50, frequency_max=14000, truncation="rand_trunc", padding="repeatpad")


def clap_from_laion(state: dict, size) -> nn.Module:
    """CLAP (Wu et al. 2023) from a state dict of LAION's code, or a file with it under "state_dict", as `ClapModel`.

    `size` is "tiny", "base" or a `ClapConfig`, whose text `layer_norm_eps` must be 1e-5. In eval mode, float32.
    """
    from transformers import ClapModel

    config = clap_config(size) if isinstance(size, str) else size
    if config.text_config.layer_norm_eps != clap.TEXT_EPS:
        raise ValueError(f"layer_norm_eps={config.text_config.layer_norm_eps}: the text branch uses {clap.TEXT_EPS}")
    state = {key.removeprefix("module."): value for key, value in state.get("state_dict", state).items()}
    used = {key: value for key, value in state.items() if not CLAP_UNUSED.fullmatch(key)}
    renamed = _split_qkv(_rename(used, lambda key: _swap(key, CLAP_NAMES)), ("query", "key", "value"))
    return _fill(lambda: ClapModel(config), renamed, "CLAP", computed=CLAP_COMPUTED)


def audiomae_from_original(state: dict, config: dict = audiomae.PUBLISHED) -> audiomae.AudioMae:
    """AudioMAE's encoder from the state dict of the authors' code, or a file with it under "model", in eval mode.

    `config` are arguments of `audiomae.vit`. The table of positions is the checkpoint's: its code makes it for a grid of
    8 by 64 while the patches run 64 by 8, so that one made anew for that grid would be another.
    """
    used = {key: value for key, value in state.get("model", state).items() if not AUDIOMAE_UNUSED.fullmatch(key)}
    renamed = _split_qkv(_rename(used, _audiomae_key), ("q_proj", "k_proj", "v_proj"))
    return audiomae.AudioMae(_fill(lambda: audiomae.vit(**config), renamed, "AudioMAE")).eval()


def _audiomae_key(key: str) -> str:
    return f"layernorm.{key.removeprefix('norm.')}" if key.startswith("norm.") else _swap(key, AUDIOMAE_NAMES)


def _split_qkv(state: State, names: tuple[str, str, str]) -> State:
    split = {key: value for key, value in state.items() if ".qkv." not in key}
    for key in state.keys() - split.keys():
        parts = zip(names, state[key].chunk(3))
        split |= {key.replace(".qkv.", f".{name}."): part for name, part in parts}
    return split


def _swap(key: str, names: dict[str, str], *, start: bool = False) -> str:
    for old, new in names.items():
        if not start or key.startswith(old):
            key = key.replace(old, new, 1)
    return key


def _rename(state: State, rule: Callable[[str], str]) -> State:
    renamed = {rule(key): value for key, value in state.items()}
    if len(renamed) < len(state):
        raise ValueError("two keys stand for one weight: the state dict mixes original and converted names")
    return renamed


def _fill(build: Callable[[], nn.Module], state: State, what: str, *, computed: tuple[str, ...] = ()) -> nn.Module:
    """The model of `build` with exactly the weights of `state`, copied as float32; `computed` buffers stay its own."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        model = build()
    own = model.state_dict()
    copies = {key: value.detach().to(own.get(key, value).dtype, copy=True) for key, value in state.items()}
    try:
        model.load_state_dict({**{key: own[key] for key in computed}, **copies}, assign=True)
    except RuntimeError as error:
        told = "; ".join(textwrap.shorten(line, 130) for line in str(error).splitlines()[1:4])
        raise ValueError(f"the {what} does not fit its config: {told}; give the config of this checkpoint") from error
    return model.eval()
