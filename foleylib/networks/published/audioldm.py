"""A whole published AudioLDM file (U-Net, its average, VAE, vocoder, CLAP) as a folder of `AudioLDMPipeline`.

    ./run python -m foleylib.networks.published.audioldm FILE.ckpt FOLDER --tokenizer FOLDER_OF_ROBERTAS

converts it and says what it made.
"""

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from foleylib.diffusion import process
from foleylib.networks import pipeline, unet, vae, vocoder
from foleylib.networks.clap import Clap, unbound
from foleylib.networks.published import hub, reader, weights
from foleylib.networks.published.original import averaged, split
from foleylib.networks.published.weights import State
from foleylib.runtime import finite, parameters

HTSAT_PATCHES = "audio_branch.patch_embed.proj.weight"
NOISE = {"num_train_timesteps": 1000, "beta_start": 0.0015, "beta_end": 0.0195}  # scaled linear


@dataclass(frozen=True)
class Sizes:
    """The parts of a file: arguments of `unet.build`, `clap_from_laion`, `vae.build`, `vocoder.generator_config`."""

    unet: dict
    clap: object  # "tiny", "base" or a ClapConfig
    vae: dict = field(default_factory=lambda: dict(vae.PUBLISHED))
    vocoder: dict = field(default_factory=lambda: dict(vocoder.PUBLISHED["audioldm_16k"]))


SMALL, MEDIUM, LARGE = (
    Sizes(unet.PUBLISHED[f"audioldm-{size}-full"], clap) for size, clap in (("s", "tiny"), ("m", "base"), ("l", "tiny"))
)
PUBLISHED = {
    "audioldm-s-full": SMALL,
    "audioldm-s-full-v2": SMALL,  # -s-full, trained for longer
    "audioldm-s-text-ft": SMALL,  # -s-full, fine-tuned on AudioCaps and MusicCaps with their texts
    "audioldm-m-full": MEDIUM,
    "audioldm-m-text-ft": MEDIUM,
    "audioldm-l-full": LARGE,
}
# The latent scales that the published VAE configs state.
SCALES = {
    "audioldm-s-full": 0.92279,
    "audioldm-s-full-v2": 0.93929,
    "audioldm-m-full": 0.91383,
    "audioldm-l-full": 0.96549,
}
TOKENIZER_FILES = ["*.json", "*.txt"]


@dataclass(frozen=True)
class Parts:
    """The networks of a published model, and what is told of them.

    `noise` are num_train_timesteps, beta_start and beta_end; the latent scale is in the VAE's config; `notes` are
    sentences on what was put right or stands out.
    """

    unet: nn.Module
    vae: nn.Module
    vocoder: nn.Module
    clap: Clap
    noise: dict
    notes: dict[str, list[str]] = field(default_factory=dict)  # by part

    @property
    def scale(self) -> float:
        return self.vae.config.scaling_factor


def models(parts: dict[str, State], sizes: Sizes, *, ema: bool | None = None) -> dict[str, nn.Module]:
    """The networks "unet", "vae", "vocoder" and "clap" of the parts from `split`.

    The U-Net is the average (`ema` True), the last one (False), or the average where the file has it (None).
    """
    if ema and not parts["ema"]:
        raise ValueError("ema=True, but the file has no keys model_ema.; convert with ema=False")
    average = averaged(parts["ema"], parts["unet"]) if parts["ema"] and ema is not False else None
    return {
        "unet": weights.unet_from_original(average or parts["unet"], sizes.unet),
        "vae": weights.vae_from_original(parts["vae"], sizes.vae),
        "vocoder": weights.vocoder_from_original(parts["vocoder"], sizes.vocoder),
        "clap": weights.clap_from_laion(parts["clap"], sizes.clap),
    }


def sizes_of(parts: dict[str, State]) -> Sizes:
    """Which of `PUBLISHED` the parts from `split` are, by the widths of U-Net and HTSAT."""
    width, patches = parts["unet"].get("input_blocks.0.0.weight"), parts["clap"].get(HTSAT_PATCHES)
    for sizes in (SMALL, MEDIUM, LARGE):
        own = (sizes.unet["channels"][0], weights.CLAP_SIZES[sizes.clap]["width"])
        if width is not None and patches is not None and own == (len(width), len(patches)):
            return sizes
    raise ValueError(f"the U-Net and CLAP have the widths of no published AudioLDM ({', '.join(PUBLISHED)}); name it")


def load(
    path: str | Path,
    sizes: Sizes | None,
    tokenizer: str | Path,
    *,
    ema: bool | None = None,
    ignore: tuple[str, ...] = (),
    extractor=None,
) -> Parts:
    """The parts of a .ckpt file; `sizes` None takes those of `sizes_of`.

    `tokenizer` is a folder of RoBERTa's; for `ema` see `models`, for `ignore` see `split`. `extractor` has the numbers of
    CLAP's front end, where it is not LAION's.
    """
    file = reader.read(path)
    try:
        parts = split(file.get("state_dict", file), ignore=ignore)
        _check_schedule(parts["buffers"]["alphas_cumprod"])
        nets = models(parts, sizes or sizes_of(parts), ema=ema)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for name, net in nets.items():
        finite(net, f"{path}, {name}")
    nets["vae"].register_to_config(scaling_factor=float(parts["buffers"]["scale_factor"]))
    model = nets.pop("clap")
    whole = Clap(model, read_tokenizer(tokenizer, model), extractor or weights.clap_extractor())
    kind = "the average of its training" if parts["ema"] and ema is not False else "the last weights, without average"
    return Parts(**nets, clap=whole, noise=NOISE, notes={"unet": [kind]})


def convert_audioldm(
    ckpt_path: str | Path,
    out_folder: str | Path,
    *,
    name: str | Sizes | None = None,
    tokenizer: str | Path = "roberta-base",
    tokenizer_revision: str | None = None,
    ema: bool | None = None,
    ignore: tuple[str, ...] = (),
) -> Parts:
    """Convert a published AudioLDM .ckpt into a folder that `AudioLDMPipeline.from_pretrained` reads; returns its parts.

    `name` is a key of `PUBLISHED` or the `Sizes` of another file; without it, the widths of the file tell. `tokenizer` is a
    folder of RoBERTa's, or its id on the Hub with a commit; for the others see `load`. The sub-folder `clap` holds the
    whole CLAP, text and audio, for `clap.load`. Nothing is written before all keys fit, and nothing where there are files.
    """
    out = Path(out_folder)
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise ValueError(f"{out}: there is something already; remove it, or name another folder")
    if isinstance(name, str) and name not in PUBLISHED:
        raise ValueError(f"name={name!r}: give one of {', '.join(PUBLISHED)}, or Sizes")
    if not Path(tokenizer).is_dir():
        setting = {"setting": "tokenizer_revision", "instead": "tokenizer to it"}
        tokenizer = hub.fetch(str(tokenizer), tokenizer_revision, TOKENIZER_FILES, weights=False, **setting)
    parts = load(ckpt_path, PUBLISHED[name] if isinstance(name, str) else name, tokenizer, ema=ema, ignore=ignore)
    _save(parts, out)
    return parts


def _check_schedule(alphas_cumprod: torch.Tensor) -> None:
    ours = process.schedule(*NOISE.values())
    if alphas_cumprod.shape != ours.shape or not torch.allclose(alphas_cumprod.float(), ours, rtol=0, atol=1e-5):
        raise ValueError("alphas_cumprod is not AudioLDM's schedule (1000 steps, betas .0015 to .0195, scaled linear)")


def read_tokenizer(folder: str | Path, model: nn.Module):
    """RoBERTa's tokenizer from a folder, cutting texts at what the model has positions for."""
    from transformers import AutoTokenizer

    config = model.config.text_config
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # damaged files fail in many ways
        raise ValueError(f"tokenizer={folder}: no tokenizer can be read there; give RoBERTa's files") from error
    if len(tokenizer) != config.vocab_size:  # without its files, transformers may return an empty one
        raise ValueError(
            f"tokenizer={folder}: {len(tokenizer)} tokens, the model has {config.vocab_size}; give its files"
        )
    positions = config.max_position_embeddings - 2  # RoBERTa counts positions from pad + 1
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    return tokenizer


def _save(parts: Parts, folder: Path) -> None:
    from diffusers import AudioLDMPipeline

    AudioLDMPipeline(
        vae=parts.vae,
        text_encoder=pipeline.text_encoder(parts.clap.model),
        tokenizer=unbound(parts.clap.tokenizer),
        unet=parts.unet,
        scheduler=pipeline.scheduler(parts.noise, "ddim"),
        vocoder=parts.vocoder,
    ).save_pretrained(folder)
    parts.clap.save(folder / "clap")


def made(parts: Parts) -> str:
    """What was converted, a line a part."""
    nets = {"unet": parts.unet, "vae": parts.vae, "vocoder": parts.vocoder, "clap": parts.clap.model}
    own = {"vae": [f"latent scale {parts.scale:.5f}"], "vocoder": [f"{parts.vocoder.config.sampling_rate} Hz"]}
    own["clap"] = [f"{len(parts.clap.tokenizer)} tokens, {parts.clap.rate} Hz"]
    told = {name: [*own.get(name, []), *parts.notes.get(name, [])] for name in nets}
    return "\n".join(
        f"{n:8} {parameters(net) / 1e6:8.2f} M parameters; {'; '.join(told[n])}" for n, net in nets.items()
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="the .ckpt file")
    parser.add_argument("out", type=Path, help="the new folder")
    parser.add_argument("--name", choices=PUBLISHED, help="which model it is; else its widths tell")
    parser.add_argument(
        "--tokenizer", default="roberta-base", help="folder of RoBERTa's tokenizer, or its id on the Hub"
    )
    parser.add_argument("--tokenizer-revision", help="commit of the tokenizer on the Hub")
    parser.add_argument("--last", action="store_true", help="the last weights of the U-Net, not their average")
    given = parser.parse_args(arguments)
    own = {"tokenizer": given.tokenizer, "tokenizer_revision": given.tokenizer_revision}
    try:
        parts = convert_audioldm(given.file, given.out, name=given.name, ema=False if given.last else None, **own)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{made(parts)}\nwritten to {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
