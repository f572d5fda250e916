"""Seconds of a training step and of a sampled clip by the number of neighbours that the U-Net reads.

./run python -m benchmarks.retrieval_cost --threads 1

Beside them stands the U-Net of `re_audioldm.pretrained` as AudioLDM has it, with self-attention in place of the tokens'.
Tokens and weights are random; sampling is the U-Net's passes with guidance, without decoder and vocoder.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch
from torch.nn import functional as F

from benchmarks import timing
from foleylib.diffusion.condition import Condition, denoise
from foleylib.networks import retrieval
from foleylib.networks import unet as unets
from foleylib.params import settings
from foleylib.runtime import parameters, pick_device

PLAIN = "AudioLDM"
CHANNELS = {"audio": 128, "text": 96}  # of a token of our CLAP's towers
CELLS = 8  # audio tokens of a clip


def networks(cfg, device) -> dict:
    """The U-Net as AudioLDM has it, and the one that reads tokens."""
    section = cfg.re_audioldm.pretrained
    sizes = {"layers": section.layers, "groups": section.groups, "dim": cfg.foundation.clap.dim}
    width = section.retrieval.width
    plain = unets.build(section.channels, section.head_channels, **sizes)
    reads = retrieval.build(section.channels, section.head_channels, **CHANNELS, width=width, **sizes)
    return {PLAIN: plain.to(device), "retrieval": reads.to(device)}


def condition(model, k: int, batch: int, cfg, device) -> Condition:
    """The conditions of a batch of clips with k neighbours each, or for the plain U-Net their embedding alone."""
    embedding = F.normalize(torch.randn(batch, cfg.foundation.clap.dim), dim=-1)
    if not isinstance(model, retrieval.RetrievalUnet):
        return Condition(embedding=embedding).to(device)
    read = {}
    for prefix, kind, count in (("", "audio", CELLS), ("text_", "text", cfg.retrieval.tokens.length)):
        if k:
            read[f"{prefix}tokens"] = torch.randn(batch, k * count, CHANNELS[kind])
            read[f"{prefix}mask"] = torch.ones(batch, k * count, dtype=torch.bool)
    return Condition(embedding=embedding, **read).to(device)


def measure(cfg, arguments: argparse.Namespace, device) -> tuple[pd.DataFrame, dict]:
    """Rows of training steps and of sampling, each beside the plain U-Net."""
    models, noise = networks(cfg, device), cfg.foundation.ldm.noise.steps
    cases = {PLAIN: (models[PLAIN], 0)} | {f"K = {k}": (models["retrieval"], k) for k in arguments.k}
    shape = (8, arguments.frames, 16)
    optimisers = {name: torch.optim.AdamW(model.parameters(), fused=True) for name, model in models.items()}
    nothing = {"embedding": torch.zeros(1, cfg.foundation.clap.dim)} | models["retrieval"].retrieval.nothing().given()

    def training(name: str):
        (model, k), batch = cases[name], arguments.batch_size
        given, z = condition(model, k, batch, cfg, device), torch.randn(batch, *shape, device=device)
        n, optimiser = torch.arange(batch, device=device) * noise // batch, optimisers["retrieval" if k else PLAIN]

        def run(clock: timing.Clock) -> None:
            with clock.part("training step"):
                optimiser.zero_grad(set_to_none=True)
                (denoise(model, z, n, given) - z).square().mean().backward()
                optimiser.step()

        return run

    def sampling(name: str):
        (model, k), batch = cases[name], arguments.clips
        given, z = condition(model, k, batch, cfg, device), torch.randn(batch, *shape, device=device)
        empty = Condition(**nothing).to(device)

        @torch.no_grad()
        def run(clock: timing.Clock) -> None:
            with clock.part("sampling"):
                for step in torch.linspace(noise - 1, 0, cfg.sampling.steps).long():
                    guided = {"guidance": cfg.sampling.guidance, "unconditional": empty}
                    denoise(model, z, step.to(device), given, **guided)

        return run

    tables = []
    for make, items, unit in ((training, 1, "step"), (sampling, arguments.clips, "clip")):
        seconds = timing.interleaved({name: make(name) for name in cases}, arguments.repeats)
        tables.append(timing.rows(seconds, baseline=PLAIN, items=items, unit=unit))
    table = pd.concat(tables, ignore_index=True).assign(times_plain=lambda frame: 1 / frame.ratio)
    more = {"parameters": {name: parameters(model) for name, model in models.items()}}
    return table, more | {"tokens": {"audio": CELLS, "text": cfg.retrieval.tokens.length}}


def main(argv: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--k", type=int, nargs="+", default=[1, 3, 5, 10], help="neighbours")
    parser.add_argument("--batch-size", type=int, default=16, help="of a training step")
    parser.add_argument("--clips", type=int, default=35, help="sampled together")
    parser.add_argument("--frames", type=int, default=32, help="of a latent")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=timing.OUT)
    arguments = parser.parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = pick_device(arguments.device)
    machine = timing.environment(device)
    table, more = measure(settings.load(), arguments, device)
    return timing.report("retrieval_cost", table, arguments=arguments, machine=machine, more=more)


if __name__ == "__main__":
    main()
