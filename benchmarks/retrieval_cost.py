"""Seconds of a training step and of a sampled clip of the LDM without retrieval, and with the sounds and captions of K clips.

./run python -m benchmarks.retrieval_cost [--published audioldm-s-full]

Two constructions read the tokens (`networks.retrieval`): "second", the paper's, with the second attentions of the U-Net,
and "added", with further ones. Tokens are random numbers that lie in memory, and of a sampled clip its U-Net passes alone
are timed: finding the neighbours and reading their tokens is not counted (`benchmarks.retrieval` times the search).
"""

import argparse
import copy
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from benchmarks import models, timing
from benchmarks.training_step import Step
from foleylib.diffusion.condition import Condition
from foleylib.diffusion.loss import DiffusionLoss
from foleylib.networks import retrieval, tokens
from foleylib.params.retrieval import Pretrained
from foleylib.params.settings import Params
from foleylib.runtime import parameters
from foleylib.sampling.sampler import SamplerOptions, sample
from foleylib.stages.ldm import alphas_bar

PLAIN, KINDS = "without retrieval", ("second", "added")
PUBLISHED_TOKENS = {"audio": (32, 768), "text": (50, 1024)}  # of AudioMAE after pooling, of FLAN-T5-large


def token_sizes(parts: models.Parts, cfg: Params, published: str | None) -> dict[str, tuple[int, int]]:
    """Tokens of a retrieved clip and of its caption, and their channels."""
    if published:
        return PUBLISHED_TOKENS
    settings, rate = cfg.retrieval.tokens, parts.log_mel.config.rate
    made = {
        "audio": tokens.of_audio(settings, parts.clap)(torch.zeros(1, parts.samples, device=parts.device), rate),
        "text": tokens.of_text(settings, parts.clap)(["a sound"]),
    }
    return {kind: tuple(values.shape[1:]) for kind, (values, _) in made.items()}


def with_retrieval(parts: models.Parts, kind: str, section: Pretrained, sizes: dict, width: int) -> models.Parts:
    """The parts with a U-Net that reads tokens; the one they have stays as it is."""
    reads = section.retrieval.changed(attention=kind, width=width)
    channels = {name: size for name, (_, size) in sizes.items()}
    unet = retrieval.of_settings(reads, copy.deepcopy(parts.unet), **channels, seed=0)
    return replace(parts, unet=unet.to(parts.device).eval())


def nothing(unet: nn.Module, dim: int) -> Condition:
    """The unconditional input, one row; `dim` numbers are a CLAP embedding."""
    reads = isinstance(unet, retrieval.RetrievalUnet)
    more = unet.retrieval.nothing().given() if reads else {}
    return Condition(**models.unconditional(dim).given(), **more)


def condition(n: int, dim: int, sizes: dict, k: int) -> Condition:
    """Random conditions of `n` clips, with the tokens of `k` neighbours where there are any."""
    given, generator = {"embedding": models.embeddings(n, dim)}, torch.Generator().manual_seed(0)
    for prefix, kind in (("", "audio"), ("text_", "text")) if k else ():
        count, channels = sizes[kind]
        given[f"{prefix}tokens"] = torch.randn(n, k * count, channels, generator=generator)
        given[f"{prefix}mask"] = torch.ones(n, k * count, dtype=torch.bool)
    return Condition(**given)


def clip_case(parts: models.Parts, told: Condition, unconditional: Condition, options: SamplerOptions):
    """Latents of a batch of clips, with guidance."""
    seeds = list(range(len(told)))

    def run(clock: timing.Clock) -> None:
        with clock.part("latents"):
            sample(parts, told, unconditional, parts.latent_shape, seeds=seeds, options=options, show=False)

    return run


def step_case(parts: models.Parts, step: Step, told: Condition, loss: DiffusionLoss):
    """A training step on one batch."""
    channels, frames, bands = parts.latent_shape
    batch = {"moments": torch.randn(len(told), 2 * channels, frames, bands, generator=torch.Generator().manual_seed(0))}
    batch = {name: value.to(parts.device) for name, value in (batch | told.given()).items()}

    def run(clock: timing.Clock) -> None:
        with clock.part("step"):
            step.forward(loss, batch).backward()
            step.update()

    return run


def compared(timed: dict, unit: str, items: int, repeats: int, facts: pd.DataFrame) -> pd.DataFrame:
    """Rows of cases "UNIT, CASE", with the time that each takes in relation to that without retrieval, and its `facts`."""
    table = timing.rows(timing.interleaved(timed, repeats), baseline=PLAIN, items=items, unit=unit)
    table = table.join(facts, on="case").assign(times_plain=1 / table.ratio)
    return table.assign(case=f"{unit}, " + table.case, baseline=f"{unit}, {PLAIN}")


def measure(parts: models.Parts, cfg: Params, arguments: argparse.Namespace) -> tuple[pd.DataFrame, dict]:
    """Rows of sampled clips, then of training steps."""
    section, published, dim, clips = cfg.re_audioldm.pretrained, arguments.published, parts.dim, arguments.clips
    batch_size = arguments.batch_size or (4 if published else section.train.batch_size)
    width = retrieval.PUBLISHED["re-audioldm-s"]["width"] if published else section.retrieval.width
    sizes = token_sizes(parts, cfg, published)
    readers = {kind: with_retrieval(parts, kind, section, sizes, width) for kind in KINDS}
    cases = {PLAIN: (parts, 0)} | {f"{kind}, K={k}": (readers[kind], k) for kind in KINDS for k in arguments.k}
    count = sum(number for number, _ in sizes.values())
    facts = {c: {"tokens": k * count, "parameters": parameters(own.unet)} for c, (own, k) in cases.items()}
    facts, repeats = pd.DataFrame.from_dict(facts, orient="index"), arguments.repeats

    options = SamplerOptions.of(cfg.sampling.changed(batch_size=clips))
    timed = {
        case: clip_case(own, condition(clips, dim, sizes, k), nothing(own.unet, dim), options)
        for case, (own, k) in cases.items()
    }
    tables = [compared(timed, "clip", clips, repeats, facts)]

    abar, loss = alphas_bar(cfg), (models.SCALE, section.condition_dropout, section.snr_gamma)
    steps = {id(own): Step(own, section.train, arguments.precision) for own in (parts, *readers.values())}
    timed = {
        case: step_case(
            own,
            steps[id(own)],
            condition(batch_size, dim, sizes, k),
            DiffusionLoss(abar, nothing(own.unet, dim), *loss),
        )
        for case, (own, k) in cases.items()
    }
    tables.append(compared(timed, "step", 1, repeats, facts))
    more = {"batch_size": batch_size, "sampling": cfg.sampling.model_dump(mode="json"), "token_sizes": sizes}
    more["parameters"] = {f"unet, {kind}": parameters(own.unet) for kind, own in readers.items()}
    return pd.concat(tables, ignore_index=True), more


def main(argv: list[str] | None = None) -> Path:
    parser = models.parser(__doc__)
    parser.add_argument("--k", type=int, nargs="+", default=[1, 3, 5, 10], help="neighbours")
    parser.add_argument(
        "--batch-size", type=int, help="of a step: re_audioldm.pretrained.train.batch_size, or 4 with --published"
    )
    parser.add_argument("--clips", type=int, default=8, help="sampled at once")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    return models.run("retrieval_cost", parser.parse_args(argv), measure, with_clap=True)


if __name__ == "__main__":
    main()
