"""Seconds of a training step of the U-Net that is told a sampling rate, and of a sampled clip at each rate, in parts.

./run python -m benchmarks.rate_cost [--published audioldm-s-full]   # its VAE; SRC-gAudio's U-Net, AudioLDM's size of vocoder

The U-Net's work is the same at all rates; a HiFi-GAN and Griffin-Lim have more to do at a higher one.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from benchmarks import models, timing
from benchmarks.training_step import Step
from foleylib.audio.mel import FRONT_ENDS
from foleylib.diffusion.condition import Condition
from foleylib.diffusion.loss import DiffusionLoss
from foleylib.networks import rates
from foleylib.networks import vocoder as vocoders
from foleylib.networks.pipeline import decode_mels, vocode
from foleylib.params.settings import Params
from foleylib.sampling.sampler import SamplerOptions, sample
from foleylib.stages import rate_vocoder
from foleylib.stages.ldm import alphas_bar
from foleylib.stages.vocoder import new_generator

BASELINE, TOKENS = "16 kHz, HiFi-GAN", 50  # text tokens of a caption


def new_unet(cfg: Params, published: str | None) -> rates.RateUnet:
    """The U-Net of SRC-gAudio's size, or of `src_gaudio.pretrained` on the text states of `foundation.clap`."""
    own = cfg.src_gaudio.pretrained
    if published:
        return rates.build(**rates.PUBLISHED, place=own.place)
    text, sizes = cfg.foundation.clap.text.hidden, {"layers": own.layers, "groups": own.groups}
    return rates.build(own.channels, own.head_channels, text=text, place=own.place, **sizes)


def generator(name: str, cfg: Params, published: str | None):
    """An untrained HiFi-GAN of an entry of `src_gaudio.vocoders`, or of AudioLDM's size at its rate."""
    settings = rate_vocoder.section(name, cfg)
    if published:
        return vocoders.generator(vocoders.generator_config(settings.rate))
    return vocoders.remove_weight_norm(new_generator(settings, FRONT_ENDS[settings.rate], 0))


def told(n: int, channels: int, rate: int) -> Condition:
    """The condition of `n` clips: random text tokens and the rate."""
    tokens = torch.randn(n, TOKENS, channels, generator=torch.Generator().manual_seed(0))
    return Condition(tokens=tokens, mask=torch.ones(n, TOKENS, dtype=torch.bool), rate=torch.full((n,), float(rate)))


def clip_cases(parts: models.Parts, cfg: Params, published: str | None, options: SamplerOptions) -> dict:
    """A batch of clips at each rate with each vocoder; the latents are timed in the baseline alone."""
    n, channels = options.batch_size, parts.unet.unet.config.cross_attention_dim
    nothing = Condition(tokens=torch.zeros(1, 1, channels), mask=torch.ones(1, 1, dtype=torch.bool))
    latents = torch.randn(n, *parts.latent_shape, generator=torch.Generator().manual_seed(0))

    def case(network, rate: int):
        own = replace(parts, vocoder=network.to(parts.device).eval())

        def run(clock: timing.Clock) -> None:
            with clock.part("vae"):
                mels = decode_mels(own, latents)
            with clock.part("vocoder"):
                vocode(own, mels, hop=FRONT_ENDS[rate].hop)

        return run

    def unet(clock: timing.Clock) -> None:
        with clock.part("latents"):
            given = told(n, channels, 16000)
            sample(parts, given, nothing, parts.latent_shape, seeds=list(range(n)), options=options, show=False)

    cases = {}
    for name, own in cfg.src_gaudio.vocoders.items():
        networks = {
            "HiFi-GAN": generator(name, cfg, published),
            "Griffin-Lim": vocoders.GriffinLim(FRONT_ENDS[own.rate]),
        }
        cases |= {f"{own.rate // 1000} kHz, {kind}": case(network, own.rate) for kind, network in networks.items()}
    return cases | {f"U-Net, {options.solver} {options.steps} steps": unet}


def step_case(parts: models.Parts, cfg: Params, batch_size: int, precision: str) -> dict:
    """A training step on clips of all rates."""
    section, channels = cfg.src_gaudio.pretrained, parts.unet.unet.config.cross_attention_dim
    nothing = Condition(tokens=torch.zeros(1, 1, channels), mask=torch.ones(1, 1, dtype=torch.bool))
    loss = DiffusionLoss(alphas_bar(cfg), nothing, models.SCALE, section.condition_dropout, section.snr_gamma)
    step, (count, frames, bands) = Step(parts, section.train, precision), parts.latent_shape
    moments = torch.randn(batch_size, 2 * count, frames, bands, generator=torch.Generator().manual_seed(0))
    given = told(batch_size, channels, 16000).given()
    known = torch.tensor([own.rate for own in cfg.src_gaudio.vocoders.values()])
    given["rate"] = known[torch.arange(batch_size) % len(known)].float()
    batch = {name: value.to(parts.device) for name, value in ({"moments": moments} | given).items()}

    def run(clock: timing.Clock) -> None:
        with clock.part("step"):
            step.forward(loss, batch).backward()
            step.update()

    return {"training": run}


def measure(parts: models.Parts, cfg: Params, arguments: argparse.Namespace) -> tuple[pd.DataFrame, dict]:
    """Rows of a batch of clips by rate and vocoder, with that of its latents, then of a training step."""
    parts = replace(parts, unet=new_unet(cfg, arguments.published).to(parts.device).eval())
    options = SamplerOptions("ddim", arguments.steps, 0.0, 3.0, arguments.clips)
    cases = clip_cases(parts, cfg, arguments.published, options)
    seconds = timing.interleaved(cases, arguments.repeats)
    tables = [timing.rows(seconds, baseline=BASELINE, items=arguments.clips, unit="clip")]
    step = step_case(parts, cfg, arguments.batch_size, arguments.precision)
    seconds = timing.interleaved(step, arguments.repeats)
    tables.append(timing.rows(seconds, baseline="training", items=arguments.batch_size, unit="clip"))
    return pd.concat(tables, ignore_index=True), {"parameters": {"rate unet": models.parameters(parts.unet)}}


def main(argv: list[str] | None = None) -> Path:
    parser = models.parser(__doc__)
    parser.add_argument("--steps", type=int, default=200, help="of DDIM, with guidance 3")
    parser.add_argument("--clips", type=int, default=4, help="sampled at once")
    parser.add_argument("--batch-size", type=int, default=8, help="of a training step")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.set_defaults(repeats=3)
    return models.run("rate_cost", parser.parse_args(argv), measure, with_clap=False)


if __name__ == "__main__":
    main()
