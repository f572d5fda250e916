"""Seconds and memory per fine-tuning step of the LDM: plain, with the Latent CLAP loss, with a CLAP loss end to end.

./run python -m benchmarks.latent_clap_loss [--published audioldm-m-full]

End to end, the predicted clean latent goes through VAE decoder, vocoder and CLAP, and its gradient back through all
three; the Latent CLAP encoder replaces them (latent-clap-loss, Section III.D). Both compare with the same E_audio.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from benchmarks import models, timing
from benchmarks.training_step import Step, cached, loss_of
from foleylib.diffusion.latent_clap_loss import LatentClapLoss, output_at, weight
from foleylib.diffusion.process import Prediction, add_noise
from foleylib.networks.latent_clap import LatentClap, LatentClapConfig
from foleylib.networks.latent_clap import build as build_encoder
from foleylib.params.settings import Params
from foleylib.runtime import parameters
from foleylib.stages.ldm import alphas_bar

PLAIN, LATENT, END_TO_END = "plain", "latent CLAP loss", "end-to-end CLAP loss"
ALONE = ", alone"  # the term and its gradient in the noise estimate, without the U-Net


def end_to_end(parts: models.Parts, abar: torch.Tensor, s_n: str):
    """Eq. 3 with CLAP's own audio branch in place of the Latent CLAP encoder, called as `LatentClapLoss` is."""

    def term(prediction: Prediction, E_audio: torch.Tensor) -> torch.Tensor:
        z = output_at(prediction, abar, s_n)
        mels = parts.vae.decode(z / models.SCALE).sample[:, 0]  # (B, frames, n_mels)
        waves = parts.vocoder(mels).reshape(len(mels), 1, -1)
        factor = parts.clap.rate / parts.log_mel.config.rate
        if factor != 1:  # linear, for a cheap resampling that has a gradient
            waves = F.interpolate(waves, scale_factor=factor, mode="linear")
        error = (E_audio - parts.clap.audio(waves[:, 0])).square().mean(dim=1)
        return (weight(prediction.n) * error).mean()

    return term


def small_encoder(parts: models.Parts, widths) -> LatentClap:
    """A frozen Latent CLAP encoder of random weights that fits the parts."""
    channels, _, bands = parts.latent_shape
    config = LatentClapConfig(channels, bands, tuple(widths), parts.dim, scale=models.SCALE)
    return build_encoder(config, seed=0).to(parts.device).eval().requires_grad_(False)


def compared(seconds: pd.DataFrame, memory: dict[str, int | None]) -> pd.DataFrame:
    """Rows, of which totals have the peak memory, times the plain step, and extra seconds beside those of LATENT."""
    table = timing.rows(seconds, baseline=PLAIN, items=1, unit="step")
    totals = seconds.iloc[:, 1:].xs("total", level="part")
    extra, is_total = (totals - totals.loc[PLAIN]).median(axis=1), table.part == "total"
    table["memory"] = table.case.map(memory).where(is_total)
    table["times_plain"] = 1 / table.ratio
    table["extra_seconds"] = table.case.map(extra).where(is_total)
    table["extra_ratio"] = table.extra_seconds / extra[LATENT] if extra[LATENT] > 0 else np.nan
    return table


def one_batch(parts: models.Parts, batch_size: int) -> dict[str, torch.Tensor]:
    """A batch as `DiffusionLoss` takes it, on the device."""
    with tempfile.TemporaryDirectory() as folder:
        batch = cached(parts, Path(folder), batch_size)[np.arange(batch_size)]
    return {name: value.to(parts.device) for name, value in batch.items()}


def step_case(step: Step, loss, batch: dict):
    """A whole step."""

    def run(clock: timing.Clock) -> None:
        with clock.part("forward"):
            total = step.forward(loss, batch)
        with clock.part("backward"):
            total.backward()
        with clock.part("optimiser"):
            step.update()

    return run


def term_case(term, batch: dict, abar: torch.Tensor):
    """A term of a given prediction, and its gradient in the estimate."""
    z_0, E_audio = batch["moments"].chunk(2, dim=1)[0], batch["audio"]
    eps, n = torch.randn_like(z_0), torch.arange(len(z_0), device=z_0.device) * len(abar) // len(z_0)

    def run(clock: timing.Clock) -> None:
        estimate = eps.clone().requires_grad_()
        prediction = Prediction(add_noise(z_0, eps, n, abar), n, eps, estimate)
        with clock.part("forward"):
            value = term(prediction, E_audio)
        with clock.part("backward"):
            torch.autograd.grad(value, estimate)

    return run


def measure(parts: models.Parts, cfg: Params, arguments: argparse.Namespace) -> tuple[pd.DataFrame, dict]:
    """Rows of the three cases and of both terms alone; after their rounds the cases run twice for their memory."""
    section, abar = cfg.finetune, alphas_bar(cfg)
    batch_size = arguments.batch_size or (2 if arguments.published else section.train.batch_size)
    encoder = small_encoder(parts, LatentClapConfig.widths if arguments.published else cfg.latent_clap.widths)
    for part in (parts.vae, parts.vocoder, parts.clap):
        part.requires_grad_(False)
    terms = {LATENT: LatentClapLoss(encoder, abar, **section.lclap.model_dump())}
    terms[END_TO_END] = end_to_end(parts, abar, section.lclap.s_n)

    step, batch = Step(parts, section.train, arguments.precision), one_batch(parts, batch_size)
    losses = {case: loss_of(parts, cfg, section, term) for case, term in ({PLAIN: None} | terms).items()}
    cases = {case: step_case(step, loss, batch) for case, loss in losses.items()}
    seconds = timing.interleaved(cases, arguments.repeats)
    peaks = {
        c: [timing.peak_memory(lambda c=c: cases[c](timing.Clock()), parts.device) for _ in range(2)] for c in cases
    }
    table = compared(seconds, {case: None if None in peak else max(peak) for case, peak in peaks.items()})

    cases = {case + ALONE: term_case(term, batch, abar) for case, term in terms.items()}
    seconds = timing.interleaved(cases, arguments.repeats)
    alone = timing.rows(seconds, baseline=END_TO_END + ALONE, items=1, unit="term")
    more = {"batch_size": batch_size, "parameters": {"latent_clap": parameters(encoder)}}
    return pd.concat([table, alone], ignore_index=True), more


def main(argv: list[str] | None = None) -> Path:
    parser = models.parser(__doc__)
    parser.add_argument("--batch-size", type=int, help="finetune.train.batch_size, or 2 with --published")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.set_defaults(repeats=5)
    return models.run("latent_clap_loss", parser.parse_args(argv), measure, with_clap=True)


if __name__ == "__main__":
    main()
