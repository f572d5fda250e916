"""Models with random weights, in the sizes of params.yaml or of a published AudioLDM, and the report on them."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch.utils.benchmark import set_torch_threads

from benchmarks import timing
from foleylib import paths
from foleylib.audio.mel import FRONT_ENDS, LogMel, front_end
from foleylib.diffusion.condition import Condition
from foleylib.networks import clap as claps
from foleylib.networks import unet as unets
from foleylib.networks import vae as vaes
from foleylib.networks import vocoder as vocoders
from foleylib.networks.pipeline import Pipeline, latent_shape
from foleylib.networks.published import audioldm
from foleylib.networks.published import weights as published
from foleylib.params import settings
from foleylib.params.settings import Params
from foleylib.runtime import parameters, pick_device
from foleylib.stages.ldm import new_unet

PUBLISHED_SECONDS = 10.24
SCALE = 1.0  # latent scale in training; the models are not trained


@dataclass
class Parts(Pipeline):
    """A pipeline on its device with CLAP (None where it is not needed) and the front end of its clips."""

    clap: claps.Clap | None
    log_mel: LogMel
    samples: int  # of a clip, at the front end's rate
    device: torch.device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, frames, bands)."""
        return latent_shape(self.vae, self.log_mel, self.samples)

    @property
    def dim(self) -> int:
        """Size of the CLAP embedding."""
        return self.unet.config.projection_class_embeddings_input_dim


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that the benchmarks of models share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--params", type=Path, default=paths.PARAMS, help="settings file with the sizes")
    parser.add_argument("--published", choices=sorted(audioldm.PUBLISHED), help="published sizes instead")
    parser.add_argument("--seconds", type=float, help="length of a clip; the corpus', or 10.24 with --published")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], help="auto, or cuda with --published")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch, on the CPU")
    parser.add_argument("--repeats", type=int, default=7, help="rounds; the warm-up is not counted")
    parser.add_argument("--out", type=Path, default=timing.OUT, help="folder of the results")
    return parser


def run(
    name: str,
    arguments: argparse.Namespace,
    measure: Callable[[Parts, Params, argparse.Namespace], tuple[pd.DataFrame, dict]],
    *,
    with_clap: bool,
) -> Path:
    """Build the models, `measure` them in `--threads` threads and write the report.

    `measure(parts, cfg, arguments)` returns the rows and what else belongs to the settings in the JSON; "parameters" in
    it are those of further networks.
    """
    cfg = settings.load(arguments.params)
    with set_torch_threads(arguments.threads):
        parts = build(cfg, arguments, with_clap=with_clap)
        machine = timing.environment(parts.device)
        rows, more = measure(parts, cfg, arguments)
    networks = {"unet": parts.unet, "vae": parts.vae, "vocoder": parts.vocoder, "clap": parts.clap}
    counts = {part: parameters(network) for part, network in networks.items() if network is not None}
    counts |= more.pop("parameters", {})
    if parts.device.type == "cuda":
        more["peak_memory"] = torch.cuda.max_memory_allocated(parts.device)  # bytes, all of the models included
    more |= {"samples": parts.samples, "latent_shape": list(parts.latent_shape), "parameters": counts}
    name += f"_{arguments.published}" if arguments.published else ""
    return timing.report(name, rows, arguments=arguments, machine=machine, more=more)


def build(cfg: Params, arguments: argparse.Namespace, *, with_clap: bool) -> Parts:
    """The parts that the arguments of `parser` name, in eval mode on their device."""
    device = pick_device(arguments.device or ("cuda" if arguments.published else "auto"))
    corpus, noise = cfg.corpus_of("foundation"), cfg.foundation.ldm.noise
    if arguments.published:
        networks, log_mel = _published(arguments.published, with_clap), LogMel(FRONT_ENDS[16000])
        seconds = arguments.seconds or PUBLISHED_SECONDS
    else:
        networks, log_mel = _own(cfg, with_clap), front_end(corpus.rate, corpus.padding)
        seconds = arguments.seconds or corpus.seconds
    parts = Parts(
        **networks,
        noise={"num_train_timesteps": noise.steps, "beta_start": noise.beta_start, "beta_end": noise.beta_end},
        log_mel=log_mel,
        samples=round(seconds * log_mel.config.rate),
        device=device,
    )
    for part in filter(None, (parts.unet, parts.vae, parts.vocoder, parts.clap, parts.log_mel)):
        part.to(device).eval()
    return parts


def _own(cfg: Params, with_clap: bool) -> dict:
    f, rate, seed = cfg.foundation, cfg.corpus_of("foundation").rate, cfg.seed
    return {
        "unet": new_unet(cfg, "ldm", seed),
        "vae": vaes.build(f.vae.channels, f.vae.layers, f.vae.latent_channels, f.vae.groups, seed=seed),
        "vocoder": vocoders.generator(vocoders.generator_config(rate, channels=f.vocoder.channels), seed=seed),
        "clap": claps.build(f.clap, ["a sound"], seed=seed) if with_clap else None,
    }


def _published(name: str, with_clap: bool) -> dict:
    from transformers import ClapModel

    sizes, clap = audioldm.PUBLISHED[name], None
    if with_clap:
        clap = claps.Clap(ClapModel(published.clap_config(sizes.clap)), None, published.clap_extractor())
    return {
        "unet": unets.build(**sizes.unet),
        "vae": vaes.build(**sizes.vae, seed=0),
        "vocoder": vocoders.generator(vocoders.generator_config(**sizes.vocoder)),
        "clap": clap,
    }


def embeddings(n: int, dim: int) -> torch.Tensor:
    """Stand-ins for CLAP embeddings, of unit norm [shape=(n, dim)]."""
    return torch.nn.functional.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(0)), dim=-1)


def unconditional(dim: int) -> Condition:
    """A stand-in for the embedding of the empty text."""
    return Condition(embedding=embeddings(1, dim))
