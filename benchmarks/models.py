"""Models with random weights, of the sizes in params.yaml or of a published AudioLDM, from the library's own builders."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import timing
from foleylib import clap, ldm, mel, params, paths, pipeline, published, published_audioldm, sampling, train, vae
from foleylib import vocoder as vocoders

PUBLISHED_SECONDS = 10.24


@dataclass
class Parts:
    """The models of one size on one device, and the clip they are made for: `samples` at the front end's rate."""

    unet: torch.nn.Module
    vae: torch.nn.Module
    vocoder: torch.nn.Module
    clap: clap.Clap | None
    log_mel: mel.LogMel
    samples: int
    device: torch.device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, frames, bands)."""
        ratio = 2 ** (len(self.vae.config.block_out_channels) - 1)
        frames, bands = self.samples // self.log_mel.config.hop, self.log_mel.config.n_mels
        return self.vae.config.latent_channels, frames // ratio, bands // ratio

    @property
    def dim(self) -> int:
        """Size of the CLAP embedding."""
        return self.unet.config.projection_class_embeddings_input_dim


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that the benchmarks of models share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--params", type=Path, default=paths.PARAMS, help="settings file with the sizes")
    parser.add_argument("--published", choices=sorted(published_audioldm.PUBLISHED), help="published sizes instead")
    parser.add_argument("--seconds", type=float, help="length of a clip; audio.seconds, or 10.24 with --published")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], help="auto, or cuda with --published")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch, on the CPU")
    parser.add_argument("--repeats", type=int, default=7, help="rounds; the warm-up is not counted")
    parser.add_argument("--out", type=Path, default=timing.OUT, help="folder of the results")
    return parser


def build(settings: params.Params, arguments: argparse.Namespace, *, ear: bool) -> Parts:
    """The parts that the arguments of `parser` name; CLAP only with `ear`."""
    device = train.pick_device(arguments.device or ("cuda" if arguments.published else "auto"))
    made = _published(arguments.published, ear) if arguments.published else _own(settings, ear)
    seconds = arguments.seconds or (PUBLISHED_SECONDS if arguments.published else settings.audio.seconds)
    front = mel.LogMel(mel.FRONT_ENDS[16000]) if arguments.published else mel.front_end(settings.audio)
    parts = Parts(**made, log_mel=front, samples=round(seconds * front.config.rate), device=device)
    for part in (parts.unet, parts.vae, parts.vocoder, parts.log_mel, *([parts.clap] if ear else [])):
        part.to(device).eval()
    return parts


def _own(settings: params.Params, ear: bool) -> dict:
    s, rate = settings.foundation, settings.audio.rate
    return {
        "unet": pipeline.new_unet(settings, settings.seed),
        "vae": vae.build(s.vae.channels, s.vae.layers, s.vae.latent_channels, s.vae.groups, seed=settings.seed),
        "vocoder": vocoders.generator(vocoders.generator_config(rate, channels=s.vocoder.channels), seed=settings.seed),
        "clap": clap.build(s.clap, ["a sound"], seed=settings.seed) if ear else None,
    }


def _published(name: str, ear: bool) -> dict:
    from transformers import ClapModel

    sizes = published_audioldm.PUBLISHED[name]
    return {
        "unet": ldm.build(**sizes.unet),
        "vae": vae.build(**sizes.vae, seed=0),
        "vocoder": vocoders.generator(vocoders.generator_config(**sizes.vocoder)),
        "clap": clap.Clap(ClapModel(published.clap_config(sizes.clap)), None, published.clap_extractor()) if ear else None,
    }  # fmt: skip


def system(parts: Parts, settings: params.Params) -> sampling.System:
    """What `sampling.sample` and `sampling.decode` take."""
    noise = settings.foundation.ldm.noise
    return sampling.System(parts.unet, parts.vae, parts.vocoder, {"num_train_timesteps": noise.steps, "beta_start": noise.beta_start,
                                                                  "beta_end": noise.beta_end})  # fmt: skip


def unit_rows(n: int, dim: int) -> torch.Tensor:
    """Stand-ins for CLAP embeddings, of unit norm [shape=(n, dim)]."""
    return torch.nn.functional.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(0)), dim=-1)
